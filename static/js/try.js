// The try-it box: one question, one streamed answer, and the way on into a chat.
import { dress, keepDraft, sendOnEnter, show, takeDraft, trouble, words } from "./answer.js";
import { pressOnce, sendOrStop } from "./stoppable.js";
import { post } from "./stream.js";

for (const box of document.querySelectorAll("[data-try]")) {
  const form = box.querySelector("form");
  if (form) begin(box, form);
}

function begin(box, form) {
  const part = (name) => box.querySelector(`[data-${name}]`);
  const [send, stop, answer, meter, keep, left] = ["send", "stop", "answer", "meter", "keep", "left"].map(part);
  const send_ = (url, fields) => post(url, fields, { csrfUrl: form.dataset.csrf, offline: words().offline });
  let asked = null; // {events, stop, keep, text}

  const busy = sendOrStop(send, stop);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!stop.hidden) return;
    busy(true);
    asked = null; // there is nothing of it to stop before it is admitted
    trouble(part("trouble"), null);
    keep.hidden = true;
    try {
      const text = form.elements.text.value;
      asked = { ...(await send_(form.dataset.ask, new FormData(form))), text };
      if (asked.left) left.textContent = asked.left;
      answer.hidden = meter.hidden = false;
      const finished = await show(asked.events, { body: answer, numbers: meter.querySelector(".numbers") });
      keep.hidden = !finished?.text;
    } catch (error) {
      answer.hidden = meter.hidden = true;
      if (error.error?.way_out) keepDraft(form.elements.text.value);
      trouble(part("trouble"), error.error ?? { message: error.message });
    } finally {
      busy(false);
    }
  });

  stop.addEventListener("click", async () => {
    if (!asked || !pressOnce(stop)) return;
    await send_(asked.stop, {}).catch((error) => trouble(part("trouble"), error.error));
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !stop.hidden) stop.click();
  });

  keep.addEventListener("click", async () => {
    try {
      location.assign((await send_(asked.keep, { text: asked.text })).url);
    } catch (error) {
      trouble(part("trouble"), error.error);
    }
  });

  for (const chip of box.querySelectorAll("[data-starter]")) {
    chip.addEventListener("click", () => {
      for (const other of box.querySelectorAll("[data-starter]")) other.setAttribute("aria-pressed", String(other === chip));
      form.elements.text.value = chip.dataset.starter;
      form.elements.text.focus();
    });
  }
  takeDraft(form.elements.text);
  sendOnEnter(form.elements.text);
  dress(answer);
}
