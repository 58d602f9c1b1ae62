// Theme switch: follows the system until someone chooses, then remembers. Loaded in <head> and not deferred, so nothing flashes.
(() => {
  const root = document.documentElement;
  const show = (theme) => {
    theme === "system" ? root.removeAttribute("data-theme") : root.setAttribute("data-theme", theme);
    document.querySelectorAll("[data-set-theme]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.setTheme === theme));
  };
  const remembered = () => {
    try {
      return localStorage.getItem("theme") ?? "system";
    } catch {
      return "system"; // storage is off: the system decides
    }
  };
  show(remembered());
  document.addEventListener("DOMContentLoaded", () => show(remembered()));
  document.addEventListener("click", (event) => {
    const theme = event.target.closest("[data-set-theme]")?.dataset.setTheme;
    if (!theme) return;
    try {
      localStorage.setItem("theme", theme);
    } catch { /* chosen for this page only */ }
    show(theme);
  });
})();
