// Sends a form's file in pieces, by tus 1.0.0, as soon as it is chosen. What has arrived is not sent again: not after a lost connection,
// and not after a reload, when the same file is chosen once more. The form itself then sends the upload's id in place of the file.
const VERSION = "1.0.0";
const PATIENCE = 10; // failures in a row before a person is asked
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30000;
const REMEMBERED_MS = 24 * 3600 * 1000; // as long as the store keeps what it has of an upload
export const PREFIX = "upload ";
const AGAIN = [408, 423, 429, 460]; // the store's answers that another try may change
const ELSEWHERE = "wrong_offset"; // its code for a piece that another tab, or a lost answer's own, was quicker with

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

class Elsewhere extends Error {}

export class Changed extends Error {}

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

async function ask(url, method, token, { headers = {}, body, signal } = {}) {
  const sent = { "Tus-Resumable": VERSION, "X-CSRFToken": token, ...headers };
  const response = await fetch(url, { method, headers: sent, body, signal, redirect: "error" });
  if (response.ok) return response;
  const speaks = method !== "HEAD" && response.headers.get("Content-Type")?.startsWith("application/json");
  const { code = "", message = "" } = speaks ? (await response.json()).error : {};
  if (code === ELSEWHERE) throw new Elsewhere(message);
  if (response.status >= 500 || AGAIN.includes(response.status)) throw new Error(message || `${response.status}`);
  throw new Refusal(response.status, message);
}

// Waits, but no longer than until the browser is back on line. Rejects when the signal aborts.
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    addEventListener("online", resolve, { once: true, signal });
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

// ---------------------------------------------------------------- what the browser remembers of uploads: where they are, by file

export const memory = {
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch {
      return null; // none, or not allowed
    }
  },
  write(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // full or not allowed: then an upload does not outlive the page
    }
  },
  forget(key) {
    try {
      localStorage.removeItem(key);
    } catch {
      // as above
    }
  },
  keys() {
    try {
      return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
    } catch {
      return [];
    }
  },
};

for (const key of memory.keys()) if (!(memory.read(key)?.until > Date.now())) memory.forget(key);

// ---------------------------------------------------------------- sending

// Whether the file is the one of which an upload was begun, as far as what has arrived of that can tell.
async function isBegunWith(file, { name, bytes, offset, sha256 }) {
  if (file.name !== name || file.size !== Number(bytes)) return false;
  if (Number(offset) === 0) return true;
  if (!globalThis.crypto?.subtle) return false; // a page that came by plain HTTP may not ask
  const digest = await crypto.subtle.digest("SHA-256", await file.slice(0, Number(offset)).arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

// Whether the file is on the disk as it was chosen: a browser reads no other.
const isAsChosen = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

// Sends what is missing of the file and resolves to the upload's address. `begun`: that of one that goes on, of which this browser need not know.
export async function send(file, { endpoint, purpose, publisher, pieceBytes, token, key, begun, signal, progress, waiting }) {
  const about = { filename: file.name, purpose, ...(publisher ? { publisher } : {}) };
  const metadata = Object.entries(about).map(([name, value]) => `${name} ${base64(value)}`).join(",");
  const remember = (done) => memory.write(key, { url, name: file.name, done, until: Date.now() + REMEMBERED_MS });
  let url = memory.read(key)?.url ?? begun;
  let offset = null; // how much the store has; null: not known
  let furthest = 0; // how much it was seen to have
  let failures = 0;
  for (;;) {
    try {
      if (!url) {
        const headers = { "Upload-Length": `${file.size}`, "Upload-Metadata": metadata };
        url = (await ask(endpoint, "POST", token, { headers, signal })).headers.get("Location");
        offset = 0;
        remember(false);
      }
      if (offset === null) {
        const standing = (await ask(url, "HEAD", token, { signal })).headers;
        if (Number(standing.get("Upload-Length")) !== file.size) throw new Refusal(404, "");
        offset = Number(standing.get("Upload-Offset"));
      }
      if (offset > furthest) failures = 0; // whoever brought it: another tab may have
      furthest = offset;
      progress(offset);
      if (offset === file.size) {
        remember(true);
        return url;
      }
      const headers = { "Upload-Offset": `${offset}`, "Content-Type": "application/offset+octet-stream" };
      const body = file.slice(offset, offset + pieceBytes);
      offset = Number((await ask(url, "PATCH", token, { headers, body, signal })).headers.get("Upload-Offset"));
      remember(false);
    } catch (error) {
      const isThere = await isAsChosen(file);
      if (signal.aborted) throw error;
      if (!isThere) throw new Changed();
      failures += 1;
      const gone = url && [404, 410].includes(error.status);
      if ((error instanceof Refusal && !gone) || failures > PATIENCE) throw error;
      offset = null;
      if (gone) {
        url = null; // it expired, or was another person's: begin again
        memory.forget(key);
      } else {
        if (!(error instanceof Elsewhere)) waiting();
        await pause(Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), LONGEST_WAIT_MS), signal);
      }
    }
  }
}

// ---------------------------------------------------------------- the form's part

const begunBy = ({ begunUrl: url, begunName: name, begunBytes: bytes, begunOffset: offset, begunSha256: sha256 }) => ({ url, name, bytes, offset, sha256 });

function attend(part) {
  const { upload: endpoint, person, purpose, publisher, pieceBytes } = part.dataset;
  const find = (selector) => part.querySelector(selector);
  const [input, id, shown] = [find("input[type=file]"), find("input[name=upload]"), find("[data-upload-shown]")];
  const [said, told, share] = [find("[data-upload-said]"), find("[data-upload-told]"), find("[data-upload-share]")];
  const [bar, again] = [find("progress"), find("[data-upload-again]")];
  const form = input.form;
  const fieldName = input.name;
  const place = `${PREFIX}${person} ${purpose} ${publisher} `; // people who share a browser do not see each other's
  let key = null; // by which the browser remembers the upload that is shown
  let isChosen = false; // and whether it was begun or gone on with here
  let sending = null; // the controller of what is under way
  let held = null; // the button of a form that waits for the end
  let waitsToBeSent = false;
  let begun = part.dataset.begunUrl ? begunBy(part.dataset) : null; // the upload that the page was opened to go on with

  const keyOf = (file) => `${place}${file.name} ${file.size} ${file.lastModified}`;
  const words = (text, name) => text.replace("{name}", () => name);

  function show(text, { percent = null, kind = "" } = {}) {
    shown.hidden = false;
    for (const element of [said, told]) if (element.textContent !== text) element.textContent = text;
    bar.hidden = percent === null;
    if (percent !== null) bar.value = percent;
    share.textContent = percent === null || kind === "done" ? "" : `${percent}%`;
    bar.parentElement.className = `progress ${kind}`.trim();
    again.hidden = kind !== "failed";
  }

  function reset() {
    sending?.abort();
    sending = null;
    waitsToBeSent = false;
    held?.removeAttribute("aria-busy");
    id.value = "";
    input.name = fieldName;
    input.setCustomValidity("");
    shown.hidden = true;
    told.textContent = "";
  }

  // The store forgets what it has of the upload that is shown; if it does not hear of it, a day later.
  function giveUp() {
    const url = id.value ? `${endpoint}${id.value}/` : key ? memory.read(key)?.url : begun?.url;
    if (key) memory.forget(key);
    else if (!id.value) begun = null;
    [key, isChosen] = [null, false];
    if (url) ask(url, "DELETE", form.elements.csrfmiddlewaretoken.value).catch(() => {});
  }

  async function start() {
    const file = input.files[0];
    if (file && isChosen && key !== keyOf(file)) giveUp(); // this one comes in its place
    reset();
    if (!file) return;
    const controller = (sending = new AbortController());
    [key, isChosen] = [keyOf(file), true];
    const sayWhere = (offset) =>
      show(words(part.dataset.sending, file.name), { percent: Math.floor((100 * offset) / Math.max(1, file.size)) });
    sayWhere(0);
    try {
      const goesOn = begun && (await isBegunWith(file, begun).catch(() => false));
      if (controller.signal.aborted) return;
      const url = await send(file, {
        endpoint,
        purpose,
        publisher,
        pieceBytes: Number(pieceBytes),
        token: form.elements.csrfmiddlewaretoken.value,
        key,
        begun: goesOn ? begun.url : null,
        signal: controller.signal,
        progress: sayWhere,
        waiting: () => show(part.dataset.waiting, { percent: bar.value }),
      });
      sending = null;
      id.value = url.split("/").filter(Boolean).at(-1);
      input.removeAttribute("name"); // the form sends the id in its place
      show(words(part.dataset.ready, file.name), { percent: 100, kind: "done" });
      if (waitsToBeSent) {
        held?.removeAttribute("aria-busy");
        form.requestSubmit(held);
      }
    } catch (error) {
      if (controller.signal.aborted) return;
      sending = null;
      waitsToBeSent = false;
      held?.removeAttribute("aria-busy");
      if (error instanceof Changed) {
        input.value = ""; // else a browser that is given the same path once more says nothing of it
        show(part.dataset.changed);
        return;
      }
      const refused = error instanceof Refusal && error.message;
      show(refused ? error.message : part.dataset.failed, { percent: bar.value, kind: "failed" });
      if (refused) input.setCustomValidity(error.message);
    }
  }

  function cancel() {
    giveUp();
    reset();
    input.value = "";
    input.focus(); // the button that had it is gone
  }

  input.addEventListener("change", start);
  again.addEventListener("click", () => {
    input.focus(); // as above
    start();
  });
  find("[data-upload-cancel]").addEventListener("click", cancel);
  form.addEventListener("submit", (event) => {
    if (!sending) return;
    event.preventDefault();
    waitsToBeSent = true;
    held = event.submitter;
    held?.setAttribute("aria-busy", "true");
  });

  if (input.files.length) start(); // a browser that restores its forms
  else if (begun) show(words(part.dataset.unfinished, begun.name));
  else if (!id.value) {
    key = memory.keys().find((known) => known.startsWith(place) && !memory.read(known).done) ?? null;
    if (key) show(words(part.dataset.unfinished, memory.read(key).name));
  }
}

for (const part of document.querySelectorAll("[data-upload]")) attend(part);
