// Suggestions under a search field: a combobox with a list (WAI-ARIA APG). <form data-suggest="address"> with one input[type=search].
// Without this script the form searches all the same.
const WAIT_MS = 120;
let lists = 0;

for (const form of document.querySelectorAll("form[data-suggest]")) {
  const input = form.querySelector("input[type=search]");
  if (input) offer(form, input);
}

function offer(form, input) {
  const list = document.createElement("ul");
  list.id = `suggestions-${++lists}`;
  list.className = "suggestions";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", input.getAttribute("aria-label") ?? "");
  list.hidden = true;
  input.closest(".search").append(list);
  const says = { role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id, "aria-expanded": "false", autocomplete: "off" };
  for (const [name, value] of Object.entries(says)) input.setAttribute(name, value);

  let timer = 0;
  let asked = null; // what cancels the request under way
  let at = -1;

  const close = () => {
    clearTimeout(timer);
    asked?.abort();
    list.hidden = true;
    at = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const point = (index) => {
    const options = [...list.children];
    at = index < options.length ? index : -1; // behind the last one is the field itself again
    options.forEach((option, place) => option.setAttribute("aria-selected", String(place === at)));
    if (at < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", options[at].id);
    options[at].scrollIntoView({ block: "nearest" });
  };
  const show = (suggestions) => {
    list.replaceChildren(
      ...suggestions.map(({ label, note, url }, place) => {
        const option = document.createElement("li");
        option.id = `${list.id}-${place}`;
        option.setAttribute("role", "option");
        option.setAttribute("aria-selected", "false");
        option.dataset.url = url;
        const name = document.createElement("b");
        const kind = document.createElement("small");
        name.textContent = label;
        kind.textContent = note;
        option.append(name, kind);
        return option;
      }),
    );
    at = -1;
    input.removeAttribute("aria-activedescendant");
    list.hidden = !suggestions.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
  };
  const ask = async () => {
    asked?.abort();
    asked = new AbortController();
    try {
      const answer = await fetch(`${form.dataset.suggest}?q=${encodeURIComponent(input.value)}`, { signal: asked.signal });
      if (answer.ok) show((await answer.json()).suggestions);
    } catch (error) {
      if (error.name !== "AbortError") close(); // the field still searches
    }
  };

  input.addEventListener("input", (event) => {
    clearTimeout(timer);
    if (event.isComposing) return; // an input method is still at work: asked when it has ended
    if (!input.value.trim()) return close();
    timer = setTimeout(ask, WAIT_MS);
  });
  input.addEventListener("compositionend", () => {
    clearTimeout(timer);
    if (input.value.trim()) timer = setTimeout(ask, WAIT_MS);
  });
  input.addEventListener("keydown", (event) => {
    if (list.hidden || event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const up = at < 0 ? list.children.length - 1 : at - 1;
      point(event.key === "ArrowDown" ? at + 1 : up);
    } else if (event.key === "Enter" && at >= 0) {
      event.preventDefault();
      location.assign(list.children[at].dataset.url);
    } else if (event.key === "Escape") {
      event.preventDefault();
      close();
    }
  });
  input.addEventListener("change", (event) => event.stopPropagation()); // leaving the field is no choice of a filter
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[data-url]");
    if (option) location.assign(option.dataset.url);
  });
  input.addEventListener("blur", close);
  form.addEventListener("submit", close);
}
