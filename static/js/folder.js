// Brings the files of a model one after the other, each in pieces, and puts each into the folder when it has arrived.
import { Changed, PREFIX, Refusal, memory, send } from "./upload.js";

const form = document.querySelector("form[data-folder]");

if (form) {
  const { folder: endpoint, person, publisher, pieceBytes } = form.dataset;
  const [input, list, row] = [form.querySelector("input[type=file]"), form.querySelector("[data-folder-arriving]"), form.querySelector("template")];
  const token = form.elements.csrfmiddlewaretoken.value;
  const standing = document.getElementById("folder-files");
  const waiting = [];
  let isBusy = false;

  async function put(url) {
    const body = new FormData();
    body.set("csrfmiddlewaretoken", token);
    body.set("upload", url.split("/").filter(Boolean).at(-1));
    const response = await fetch(form.action, { method: "POST", body, headers: { "X-Requested-With": "fetch" } });
    if (!response.ok && response.status !== 422) throw new Refusal(response.status, "");
    standing.innerHTML = await response.text(); // the server's own, escaped there
  }

  async function bring({ file, line }) {
    const [said, bar] = [line.querySelector("[data-said]"), line.querySelector("progress")];
    const key = `${PREFIX}${person} model ${publisher} ${file.name} ${file.size} ${file.lastModified}`;
    try {
      const url = await send(file, {
        endpoint,
        purpose: "model",
        publisher,
        pieceBytes: Number(pieceBytes),
        token,
        key,
        begun: null,
        signal: new AbortController().signal,
        progress: (offset) => {
          bar.value = (100 * offset) / Math.max(1, file.size);
          said.textContent = `${Math.floor(bar.value)}%`;
        },
        waiting: () => (said.textContent = form.dataset.waiting),
      });
      memory.forget(key); // what becomes of it is the folder's
      await put(url);
      line.remove();
    } catch (error) {
      if (error instanceof Refusal) memory.forget(key); // chosen again, it is sent anew
      line.querySelector(".progress").classList.add("failed");
      said.textContent = error instanceof Changed ? form.dataset.changed : error.message && error instanceof Refusal ? error.message : form.dataset.failed;
    }
  }

  async function work() {
    if (isBusy) return;
    isBusy = true;
    while (waiting.length) await bring(waiting.shift());
    isBusy = false;
  }

  input.addEventListener("change", () => {
    for (const file of input.files) {
      const line = row.content.cloneNode(true).querySelector("li");
      line.querySelector("[data-name]").textContent = file.name;
      line.querySelector("progress").setAttribute("aria-label", file.name);
      list.append(line);
      waiting.push({ file, line });
    }
    input.value = "";
    work();
  });
}
