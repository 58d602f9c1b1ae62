// A chat beside the form of a prompt GPT: each question goes with what the form holds at that moment.
import { show, trouble, words } from "./answer.js";
import { pressOnce, sendOrStop } from "./stoppable.js";
import { post } from "./stream.js";

const SENT = ["base", "instructions", "temperature", "top_p", "max_tokens"];

for (const box of document.querySelectorAll("[data-draft]")) begin(box);

function begin(box) {
  const part = (name) => box.querySelector(`[data-${name}]`);
  const [send, stop, text, turns, chips, changed] = ["send", "stop", "text", "turns", "starters", "changed"].map(part);
  const form = box.closest("form");
  const send_ = (url, fields) => post(url, fields, { csrfUrl: box.dataset.csrf, offline: words().offline });
  const draft = () => Object.fromEntries(SENT.map((name) => [name, form.elements[name]?.value ?? (name === "base" ? box.dataset.base : "")]));
  let conversation = []; // [{role, content}, …]
  let asked = null;
  let tried = ""; // the draft of the last answer
  let talk = 0; // its number: an answer that comes after a new beginning is not for it
  box.hidden = false;

  const busy = sendOrStop(send, stop);

  function offer() {
    const lines = (form.elements.starters?.value ?? "").split("\n").map((line) => line.trim()).filter(Boolean).slice(0, 6);
    const made = lines.map((line) => {
      const chip = Object.assign(document.createElement("button"), { className: "chip", type: "button", title: line });
      chip.textContent = line.length > 48 ? `${line.slice(0, 47)}…` : line;
      chip.addEventListener("click", () => {
        text.value = line;
        text.focus();
      });
      return chip;
    });
    chips.replaceChildren(...made);
    chips.hidden = !made.length;
    changed.hidden = !tried || JSON.stringify(draft()) === tried;
  }

  async function ask() {
    const question = text.value.trim();
    if (!stop.hidden || !question) return text.focus();
    busy(true);
    asked = null; // there is nothing of it to stop before it is admitted
    trouble(part("trouble"), null);
    const now = draft();
    const mine = talk;
    const turn = part("turn").content.firstElementChild.cloneNode(true);
    turn.querySelector(".given").textContent = question;
    try {
      const said = [...conversation, { role: "user", content: question }];
      asked = await send_(box.dataset.draft, { ...now, conversation: JSON.stringify(said) });
      if (mine !== talk) return await send_(asked.stop, {});
      tried = JSON.stringify(now);
      changed.hidden = true;
      turns.append(turn);
      text.value = "";
      const finished = await show(asked.events, { body: turn.querySelector(".answer"), numbers: turn.querySelector(".numbers") });
      if (mine === talk && finished?.text) conversation = [...said, { role: "assistant", content: finished.text }];
    } catch (error) {
      trouble(part("trouble"), error.error ?? { message: error.message });
    } finally {
      if (mine === talk) busy(false);
    }
  }

  function halt() {
    if (!asked || !pressOnce(stop)) return;
    send_(asked.stop, {}).catch((error) => trouble(part("trouble"), error.error));
  }

  send.addEventListener("click", ask);
  stop.addEventListener("click", halt);
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    ask();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !stop.hidden) halt();
  });
  part("anew").addEventListener("click", () => {
    if (!stop.hidden) halt();
    talk += 1;
    [conversation, asked, tried] = [[], null, ""];
    turns.replaceChildren();
    trouble(part("trouble"), null);
    busy(false);
    offer();
    text.focus();
  });
  form.addEventListener("input", (event) => {
    if (!box.contains(event.target)) offer();
  });
  offer();
}
