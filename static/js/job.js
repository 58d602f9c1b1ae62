// A job's page while it runs: its parts are fetched anew when something happened, at most every two seconds. A batch, whose
// work is spread over many jobs, is looked at every few seconds instead.
const EVERY_MS = 2000;
const page = document.querySelector("[data-job][data-events]");
const polled = document.querySelector("[data-job][data-every]");

let due = null;
let fetched = 0;

async function refresh() {
  due = null;
  fetched = Date.now();
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok || response.redirected) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    for (const opened of part.querySelectorAll("details[open][id]")) {
      const again = fresh.getElementById(opened.id);
      if (again) again.open = true;
    }
    const held = part.contains(document.activeElement) ? document.activeElement : null;
    const summaryOf = held?.matches("details[id] > summary") ? held.parentElement.id : "";
    if (!next || (held && !summaryOf) || part.innerHTML === next.innerHTML) continue;
    part.replaceChildren(...next.childNodes);
    if (summaryOf) document.querySelector(`#${summaryOf} > summary`)?.focus();
  }
  document.title = fresh.title;
  if (polled && !fresh.querySelector("[data-job][data-every]")) location.reload();
}

function soon() {
  due ??= setTimeout(refresh, Math.max(0, fetched + EVERY_MS - Date.now()));
}

if (page) {
  const source = new EventSource(page.dataset.events);
  for (const name of ["state", "segment"]) source.addEventListener(name, soon);
  source.addEventListener("progress", (event) => {
    const said = JSON.parse(event.data);
    const bar = page.querySelector("progress[value]");
    if (bar && typeof said.done === "number") bar.value = Math.max(bar.value, Math.floor(said.done * 100));
    soon();
  });
  source.addEventListener("ended", () => {
    source.close();
    location.reload();
  });
}

if (polled) {
  setInterval(() => {
    if (document.visibilityState === "visible") refresh();
  }, 1000 * Number(polled.dataset.every));
}
