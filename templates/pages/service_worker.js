{% autoescape off %}// Answers a page that cannot be fetched by the one that says so. It keeps that page and the files it needs, and nothing else:
// no page of anybody's ever gets into its cache.
const KEPT = "offline-{{ kept }}";
const PAGES = {{ pages }};
const FILES = {{ files }};

self.addEventListener("install", (event) => {
  const load = async () => (await caches.open(KEPT)).addAll([...Object.values(PAGES), ...FILES].map((url) => new Request(url, { credentials: "omit" })));
  event.waitUntil(load().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const tidy = async () => {
    const names = (await caches.keys()).filter((name) => name.startsWith("offline-") && name !== KEPT);
    await Promise.all(names.map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(tidy());
});

const language = (url) => Object.keys(PAGES).find((code) => new URL(url).pathname.startsWith(`/${code}/`)) ?? "{{ otherwise }}";

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  if (request.mode === "navigate") {
    event.respondWith(fetch(request).catch(() => caches.match(PAGES[language(request.url)]).then((page) => page ?? Response.error())));
  } else if (FILES.includes(new URL(request.url).pathname)) {
    event.respondWith(fetch(request).catch(() => caches.match(request, { ignoreSearch: true }).then((file) => file ?? Response.error())));
  }
});
{% endautoescape %}
