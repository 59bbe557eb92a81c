() => {
  // What gradio's page lacks for people who use the keyboard or a screen reader.

  // The place for a file is named by the text that it shows: gradio's own name for it is in English only.
  const unname = () => document.querySelector("#file button[aria-label^='Click']")?.removeAttribute("aria-label");
  new MutationObserver(unname).observe(document.body, { childList: true, subtree: true });

  // As in the ARIA pattern for tabs, arrows choose the next tab and the one before.
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !event.target.matches("[role=tab]")) return;
    const tabs = [...event.target.closest("[role=tablist]").querySelectorAll("[role=tab]")];
    const next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
    next.click();
    next.focus();
  });
}
