// The chat in a frame of another site. It has no cookies and no storage: what was said is in this page alone, and is sent along.
import { sendOrStop } from "./stoppable.js";
import { follow } from "./stream.js";

const box = document.querySelector("[data-embed]");
const [form, thread, trouble] = ["form", "[data-thread]", "[data-trouble]"].map((part) => box.querySelector(part));
const [send, stop] = ["[data-send]", "[data-stop]"].map((part) => form.querySelector(part));
const said = [];
let halt = null;

const add = (name) => {
  const made = box.querySelector(`template[data-frame="${name}"]`).content.firstElementChild.cloneNode(true);
  thread.append(made);
  return made.querySelector(".body");
};
const busy = sendOrStop(send, stop);
const tell = (message) => {
  trouble.textContent = message;
  trouble.className = message ? "notice bad" : "";
};

async function ask(text) {
  const fields = { token: box.dataset.token, messages: JSON.stringify([...said, { role: "user", content: text }]) };
  let response;
  try {
    response = await fetch(form.action, { method: "POST", body: new URLSearchParams(fields), credentials: "omit" });
  } catch {
    throw new Error(box.dataset.offline);
  }
  const value = await response.json().catch(() => ({ error: { message: box.dataset.offline } }));
  if (!response.ok) throw new Error(value.error.message);
  return value.events;
}

function read(events, body) {
  const written = body.querySelector(".streaming");
  return new Promise((resolve, reject) => {
    const close = follow(events, {
      started: () => {},
      delta: ({ text }) => {
        written.textContent += text;
        thread.scrollTop = thread.scrollHeight;
      },
      finished: (event) => {
        body.innerHTML = event.html; // the store's own, cleaned there
        resolve(event.text);
      },
      lost: () => reject(new Error(box.dataset.lost)),
    });
    halt = () => {
      close(); // nobody reads: the engine stops
      const text = written.textContent;
      written.append(` (${box.dataset.stopped})`);
      resolve(text);
    };
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = form.elements.text.value.trim();
  if (!text || !stop.hidden) return;
  busy(true);
  tell("");
  try {
    const events = await ask(text);
    add("mine").textContent = text;
    form.elements.text.value = "";
    const body = add("answer");
    const answer = await read(events, body);
    body.removeAttribute("aria-busy");
    said.push({ role: "user", content: text });
    if (answer.trim()) said.push({ role: "assistant", content: answer });
    else said.pop();
    thread.scrollTop = thread.scrollHeight;
  } catch (error) {
    tell(error.message);
  } finally {
    halt = null;
    busy(false);
    form.elements.text.focus();
  }
});
stop.addEventListener("click", () => halt?.());
box.addEventListener("keydown", (event) => {
  if (event.key === "Escape") halt?.();
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target === form.elements.text) {
    event.preventDefault();
    form.requestSubmit();
  }
});
