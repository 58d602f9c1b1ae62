// Keys of the review page: A, C, X choose the decision, digits the reasons, U claims or releases, J opens the next, Ctrl+Enter sends.
const form = document.querySelector("[data-decide]");
const actions = { a: "approve", c: "request_changes", x: "reject" };

function isTyping(target) {
  return target.closest("textarea, select, [contenteditable], input:not([type=radio], [type=checkbox])") !== null;
}

document.addEventListener("keydown", (event) => {
  if (form && event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.contains(event.target)) {
    event.preventDefault();
    form.requestSubmit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const key = event.key.toLowerCase();
  if (form && actions[key]) {
    const choice = form.querySelector(`input[name="action"][value="${actions[key]}"]`);
    choice.checked = true;
    choice.focus();
  } else if (form && /^[1-9]$/.test(key)) {
    form.querySelectorAll('input[name="canned"]')[Number(key) - 1]?.click();
  } else {
    document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.click();
  }
});
