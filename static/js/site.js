// What every page offers beside its links: menus, the search key, copying, dialogs, notices, and forms that change with their fields.
const closest = (event, selector) => (event.target instanceof Element ? event.target.closest(selector) : null);

// Menus are <details>: a click elsewhere or Escape closes them.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    const menu = document.querySelector("details.menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  }
  const typing = closest(event, "input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const search = [...document.querySelectorAll("form[role=search] input[type=search]")].find((input) => input.offsetParent);
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  }
});

// Copy: <button data-copy="text"> or <button data-copy-from="#id">; data-copied is what the label says afterwards.
document.addEventListener("click", async (event) => {
  const button = closest(event, "[data-copy], [data-copy-from]");
  if (!button) return;
  const source = button.dataset.copyFrom ? document.querySelector(button.dataset.copyFrom) : null;
  const text = button.dataset.copy ?? source?.value ?? source?.textContent ?? "";
  await navigator.clipboard.writeText(text);
  const label = button.querySelector("[data-label]");
  const use = button.querySelector("use");
  const before = { label: label?.textContent, icon: use?.getAttribute("href") };
  if (label && button.dataset.copied) label.textContent = button.dataset.copied;
  if (use) use.setAttribute("href", before.icon.replace(/#.*/, "#i-check"));
  setTimeout(() => {
    if (label) label.textContent = before.label;
    if (use) use.setAttribute("href", before.icon);
  }, 1600);
});

// Dialogs: <button data-dialog="id"> opens, <button data-close> inside it closes it, or takes away the notice it stands in.
document.addEventListener("click", (event) => {
  const opener = closest(event, "[data-dialog]");
  if (opener) {
    event.preventDefault();
    document.getElementById(opener.dataset.dialog)?.showModal();
  }
  const closer = closest(event, "[data-close]");
  closer?.closest("dialog")?.close();
  closer?.closest(".notice")?.remove();
  if (event.target instanceof HTMLDialogElement) event.target.close(); // a click on the backdrop
});

// Tabs that do not fit scroll: the one that is open is always seen.
const showOpenTabs = () => {
  for (const tab of document.querySelectorAll(".tabs > [aria-current]")) {
    const tabs = tab.parentElement;
    tabs.scrollLeft = tab.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - tab.offsetWidth) / 2;
  }
};
showOpenTabs();
window.addEventListener("resize", showOpenTabs);

// <form data-submit-on-change> sends itself when a choice changes; its submit button is for those without a script.
document.addEventListener("change", (event) => closest(event, "form[data-submit-on-change]")?.requestSubmit());
document.documentElement.classList.add("scripted");

// A form is sent once: a second press while the first is under way does nothing.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post") return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "1";
  (event.submitter ?? form.querySelector("button:not([type=button])"))?.setAttribute("aria-busy", "true");
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    form.querySelector("[aria-busy]")?.removeAttribute("aria-busy");
  }
});

// Empty fields do not belong in an address.
document.addEventListener("formdata", (event) => {
  if (event.target.method !== "get") return;
  for (const [name, value] of [...event.formData.entries()]) if (value === "") event.formData.delete(name);
});

// Without a network a page says so: the worker keeps that page and its files, and nothing of anybody's.
navigator.serviceWorker?.register("/sw.js").catch(() => {}); // storage is off, or the address is not secure: it works as before
