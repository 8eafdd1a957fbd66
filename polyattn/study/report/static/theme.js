"use strict";
// The choice of a light or a dark page, remembered where a page may remember something.
(() => {
  const buttons = document.querySelectorAll("[data-theme-choice]");
  const choose = (choice) => {
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.themeChoice === choice)));
  };
  let kept = null;
  try { kept = localStorage.getItem("polyattn-theme"); } catch { /* a page from a file may have no storage */ }
  choose(kept === "light" || kept === "dark" ? kept : "auto");
  buttons.forEach((b) => b.addEventListener("click", () => {
    choose(b.dataset.themeChoice);
    try { localStorage.setItem("polyattn-theme", b.dataset.themeChoice); } catch { /* as above */ }
  }));
})();
