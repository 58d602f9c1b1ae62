// Several GPTs side by side: one text, an answer streamed from each at the same time.
import { dress, keepDraft, sendOnEnter, show, takeDraft, trouble, words } from "./answer.js";
import { pressOnce, sendOrStop } from "./stoppable.js";
import { post } from "./stream.js";

const page = document.querySelector("[data-compare]");
const form = page.querySelector("form");
const part = (side, name) => side.querySelector(`[data-${name}]`);
if (form) begin();

function begin() {
  const [send, stop] = ["send", "stop"].map((name) => form.querySelector(`[data-${name}]`));
  const sides = [...page.querySelectorAll("[data-side]")];
  const text = form.elements.text;
  const ask = (url, fields) => post(url, fields, { csrfUrl: page.dataset.csrf, offline: words().offline });
  let running = []; // where each answer under way is stopped

  const busy = sendOrStop(send, stop);

  // Asks one of them; null when it could not be asked, which it says in its place.
  async function admit(side) {
    trouble(part(side, "trouble"), null);
    const fields = new FormData(form);
    fields.set("model", side.dataset.model);
    try {
      const asked = await ask(side.dataset.ask, fields);
      running.push(asked.stop);
      return asked;
    } catch (error) {
      part(side, "answer").replaceChildren();
      part(side, "meter").hidden = true;
      if (error.error?.way_out) keepDraft(text.value);
      trouble(part(side, "trouble"), error.error ?? { message: error.message });
      return null;
    }
  }

  async function answer(side, asked) {
    if (!asked) return;
    const meter = part(side, "meter");
    meter.hidden = false;
    await show(asked.events, { body: part(side, "answer"), numbers: meter.querySelector(".numbers") });
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!stop.hidden) return;
    busy(true);
    running = [];
    const [first, ...others] = sides;
    const asked = await admit(first); // alone: a visitor's first act brings the cookie that the others send
    await Promise.all([answer(first, asked), ...others.map(async (side) => answer(side, await admit(side)))]);
    busy(false);
  });

  stop.addEventListener("click", async () => {
    if (!running.length || !pressOnce(stop)) return;
    await Promise.all(running.map((url) => ask(url, {}).catch(() => null))); // one that has ended needs no stopping
  });
  page.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !stop.hidden) stop.click();
  });
  for (const chip of form.querySelectorAll("[data-starter]")) {
    chip.addEventListener("click", () => {
      for (const other of form.querySelectorAll("[data-starter]")) other.setAttribute("aria-pressed", String(other === chip));
      text.value = chip.dataset.starter;
      text.focus();
    });
  }
  takeDraft(text);
  sendOnEnter(text);
  for (const side of sides) dress(part(side, "answer"));
}
