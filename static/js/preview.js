// Texts as people will see them, while they are written: <section data-preview-of="en" data-url> beside the fields name_en, summary_en and
// card_en. And <div data-template-of="field" hidden> with a button that puts those sections of
// its data-text whose headings are missing at the field's end. Without this script the
// form's own button shows the same.
const WAIT_MS = 300;

for (const panel of document.querySelectorAll("[data-preview-of]")) follow(panel);
for (const row of document.querySelectorAll("[data-template-of]")) offer(row);

function follow(panel) {
  const fields = ["name", "summary", "card"].map((name) => [name, document.querySelector(`#id_${name}_${panel.dataset.previewOf}`)]);
  const form = panel.closest("form");
  let timer = 0;
  let asked = null; // what cancels the request under way

  const show = async () => {
    asked?.abort();
    asked = new AbortController();
    const body = new FormData();
    for (const [name, field] of fields) body.append(name, field.value);
    const headers = { "x-csrftoken": form.elements.csrfmiddlewaretoken.value };
    try {
      const answer = await fetch(panel.dataset.url, { method: "POST", body, headers, signal: asked.signal });
      if (answer.ok && !answer.redirected) panel.innerHTML = await answer.text(); // cleaned by the store
    } catch (error) {
      if (error.name !== "AbortError") console.warn(error); // the form's own button still shows it
    }
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(show, WAIT_MS);
  };
  for (const [, field] of fields) field.addEventListener("input", later);
}

function offer(row) {
  const field = document.getElementById(row.dataset.templateOf);
  const button = row.querySelector("button");
  row.hidden = false;
  button.addEventListener("click", () => {
    const there = new Set(field.value.split("\n").map((line) => line.trim()));
    const missing = button.dataset.text.trim().split(/\n\n(?=## )/).filter((section) => !there.has(section.split("\n")[0]));
    field.value = [field.value.trimEnd(), ...missing].filter(Boolean).join("\n\n");
    field.dispatchEvent(new Event("input", { bubbles: true }));
    field.focus();
  });
}
