// The pages of `lrc report` and `lrc compare`: remembers the language, and filters the wrong answers. Without it both are still readable.
"use strict";

const languages = document.querySelectorAll("input[name=language]");

function speak(language) {
  document.documentElement.lang = language;
  for (const choice of languages) choice.checked = choice.value === language;
}

function remembered() {
  try {
    return localStorage.getItem("lrc-report-language");
  } catch {
    return null; // a browser may keep nothing for a local file
  }
}

for (const choice of languages) {
  choice.addEventListener("change", () => {
    speak(choice.value);
    try {
      localStorage.setItem("lrc-report-language", choice.value);
    } catch {
      // the choice then holds for this visit
    }
  });
}
speak(remembered() ?? (navigator.language.startsWith("zh") ? "zh-Hant" : "en"));

// A table is a stop for the keyboard only where there is something to scroll.
const scrollers = document.querySelectorAll(".scroll");

function reach() {
  for (const part of scrollers) {
    part.tabIndex = part.scrollWidth > part.clientWidth || part.scrollHeight > part.clientHeight ? 0 : -1;
  }
}

addEventListener("resize", reach);
document.addEventListener("toggle", reach, true); // of the details that a table is in
reach();

const filters = document.querySelector(".filters");
if (filters) {
  const mistakes = [...document.querySelectorAll(".mistake")].map((element) => ({
    element,
    // Only what the question itself says: the words of the page around it stand in every one.
    text: [...element.querySelectorAll("[lang=zh-Hant]:not(.zh), .id")]
      .map((part) => part.textContent)
      .join("\n")
      .toLowerCase(),
  }));

  const filter = () => {
    const wanted = new FormData(filters);
    const search = document.getElementById("search").value.trim().toLowerCase();
    let shown = 0;
    const more = document.querySelector(".more");
    if (more && (search || wanted.get("answer") || wanted.get("prediction"))) more.open = true; // what fits may be in it
    for (const { element, text } of mistakes) {
      const fits =
        text.includes(search) &&
        ["answer", "prediction"].every((name) => !wanted.get(name) || element.dataset[name] === wanted.get(name));
      element.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent = shown;
    document.getElementById("none").hidden = shown > 0;
    document.querySelector(".count").classList.toggle("hidden", shown === mistakes.length);
  };
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filter(); // a reload keeps what was typed
}
