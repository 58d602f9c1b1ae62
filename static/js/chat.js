// The chat: asks, shows answers as they are written, stops them, asks again in other words, and keeps the drawer's numbers shown.
import { dress, keepDraft, sendOnEnter, show, takeDraft, trouble, words } from "./answer.js";
import { pressOnce, sendOrStop } from "./stoppable.js";
import { post } from "./stream.js";

const chat = document.querySelector("[data-chat]");
const part = (name) => chat.querySelector(`[data-${name}]`);
const thread = part("thread");
const composer = document.getElementById("composer");
const send = (url, fields) => post(url, fields, { csrfUrl: chat.dataset.csrf, offline: words().offline });
const say = (error) => trouble(part("trouble"), error && (error.error ?? { message: error.message }));
let stopUrl = null; // of the answer under way
let isBusy = false; // from the press on Send to the end of the answer
let editUrl = null; // of the question being edited
const swap = composer && sendOrStop(part("send"), part("stopper"));

function busy(is) {
  isBusy = is;
  swap?.(is);
}

function editing(url) {
  editUrl = url;
  part("editing").hidden = url === null;
}

// Shows an answer that is under way to its end.
async function watch(article) {
  stopUrl = article.dataset.stop;
  busy(true);
  const finished = await show(article.dataset.events, {
    body: article.querySelector(".body"),
    numbers: article.querySelector(".numbers"),
  });
  stopUrl = null;
  busy(false);
  const acts = article.querySelector(".acts");
  acts.hidden = false;
  if (!finished) return;
  acts.querySelector("[data-copy]").dataset.copy = finished.text;
  const used = part("used");
  const number = (n) => new Intl.NumberFormat(document.documentElement.lang).format(n);
  if (used && finished.used_tokens) {
    used.textContent = used.dataset.used.replace("{used}", number(finished.used_tokens)).replace("{context}", number(chat.dataset.context));
  }
  if (finished.spent.trim()) part("spent").textContent = finished.spent.trim();
}

// Puts a question and the place of its answer at the end; `again` replaces the last of both.
function place(result, { again }) {
  thread.querySelector(".opening")?.remove();
  for (const last of thread.querySelectorAll("[data-last]")) {
    if (again) last.remove();
    else {
      last.removeAttribute("data-last");
      for (const button of last.querySelectorAll("[data-edit], [data-regenerate]")) button.remove();
    }
  }
  thread.insertAdjacentHTML("beforeend", result.question + result.answer);
  chat.querySelector(".thread").scrollTop = 0; // the thread is laid out from its end
  return thread.lastElementChild;
}

async function ask(url, { again = false, clears = false } = {}) {
  if (isBusy) return;
  say(null);
  busy(true);
  const fields = new FormData(composer);
  const field = composer.elements.text;
  const asked = field.value;
  if (clears) field.value = "";
  try {
    const result = await send(url, fields);
    if (url === composer.dataset.ask && composer.elements.model) return location.replace(result.url); // a conversation has begun
    editing(null);
    const article = place(result, { again });
    if (document.activeElement === document.body) composer.elements.text.focus(); // the button that asked again is gone
    await watch(article);
  } catch (error) {
    if (clears && !field.value) field.value = asked;
    if (error.error?.way_out) keepDraft(field.value);
    busy(false);
    say(error);
  }
}

// Keeps what the person thinks of an answer; a second press takes it back.
async function judge(button) {
  const group = button.closest("[data-judge]");
  const liked = button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.liked;
  const show = (value) => group.querySelectorAll("[data-liked]").forEach((its) => its.setAttribute("aria-pressed", String(its.dataset.liked === value)));
  const before = group.querySelector('[aria-pressed="true"]')?.dataset.liked ?? "";
  show(liked);
  try {
    const { shared } = await send(group.dataset.judge, { liked });
    const note = part("judged");
    if (note) note.hidden = shared || !liked;
  } catch (error) {
    show(before);
    say(error);
  }
}

async function stop() {
  if (!stopUrl || !pressOnce(part("stopper"))) return;
  await send(stopUrl, {}).catch(say);
}

if (composer) {
  composer.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(editUrl ?? composer.dataset.ask, { again: editUrl !== null, clears: true });
  });
  takeDraft(composer.elements.text);
  sendOnEnter(composer.elements.text);
  part("stopper").addEventListener("click", stop);
  part("edit-cancel").addEventListener("click", () => {
    editing(null);
    composer.elements.text.value = "";
    composer.elements.text.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open], :popover-open, details.menu[open]")) return;
    if (stopUrl) stop();
    else if (editUrl) part("edit-cancel").click();
  });
  thread.addEventListener("click", (event) => {
    const verdict = event.target.closest("[data-liked]");
    if (verdict) judge(verdict);
    const button = event.target.closest("[data-edit], [data-regenerate], [data-starter]");
    if (!button || isBusy) return;
    if (button.dataset.regenerate) ask(button.dataset.regenerate, { again: true });
    else {
      composer.elements.text.value = button.dataset.starter ?? button.closest(".message").querySelector(".body").textContent;
      if (button.dataset.edit) editing(button.dataset.edit);
      composer.elements.text.focus();
    }
  });
}

// The drawer
for (const input of document.querySelectorAll("#parameters input")) {
  const output = document.querySelector(`output[for="${input.id}"]`);
  if (output) input.addEventListener("input", () => (output.textContent = input.value));
}
document.querySelector("#parameters [data-reset]")?.addEventListener("click", () => {
  for (const input of document.querySelectorAll("#parameters input")) {
    input.value = input.dataset.default;
    input.dispatchEvent(new Event("input"));
  }
});

// Rename and delete
for (const form of document.querySelectorAll("form[data-act]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      location.assign((await send(form.action, new FormData(form))).url);
    } catch (error) {
      trouble(form.querySelector("[data-trouble]"), error.error);
    }
  });
}

dress(thread);
for (const article of thread.querySelectorAll("[data-events]")) watch(article);
