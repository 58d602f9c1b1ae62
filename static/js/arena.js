// The arena: begins a battle, shows both answers as they are written, and lets vote when both are there.
import { dress, keepDraft, sendOnEnter, show, takeDraft, trouble, words } from "./answer.js";
import { post } from "./stream.js";

const form = document.querySelector("form[data-arena]");
const battle = document.querySelector("[data-battle]");
if (form) asking();
if (battle) watching();

function asking() {
  const send = form.querySelector("[data-send]");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.disabled) return;
    send.disabled = true;
    trouble(form.querySelector("[data-trouble]"), null);
    try {
      const begun = await post(form.action, new FormData(form), { csrfUrl: form.dataset.csrf, offline: words().offline });
      location.assign(begun.url);
    } catch (error) {
      if (error.error?.way_out) keepDraft(form.elements.text.value);
      trouble(form.querySelector("[data-trouble]"), error.error ?? { message: error.message });
    } finally {
      send.disabled = false;
    }
  });
  takeDraft(form.elements.text);
  sendOnEnter(form.elements.text);
}

async function watching() {
  for (const answer of battle.querySelectorAll("[data-answer]")) dress(answer);
  const streams = [...battle.querySelectorAll("[data-events]")];
  if (!streams.length) return;
  const unseen = () => document.createElement("span"); // how fast one is would say something of who it is
  const ends = await Promise.all(streams.map((answer) => show(answer.dataset.events, { body: answer, numbers: unseen() })));
  const whole = ends.every((end) => end?.text && ["stop", "length"].includes(end.reason));
  battle.querySelector("[data-voting]").disabled = !whole;
  battle.querySelector(".voting").hidden = !whole;
  battle.querySelector("[data-void]").hidden = whole;
  battle.querySelector("[data-hint]").textContent = battle.querySelector("[data-ready]").textContent;
}
