// WCAG 2.2: the contrast of each visible text with what is behind it, and of each box's border with what is around it.
const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour[3] > 0.9) return colour;
  }
  return [255, 255, 255, 1];
};
const light = (colour) => {
  const [r, g, b] = colour.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
};
const shown = (element) => element.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})
  && element.getBoundingClientRect().width > 2;
const found = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement, text = texts.currentNode.textContent.trim();
  if (!text || !shown(element) || ["SCRIPT", "STYLE"].includes(element.tagName) || element.closest("[disabled]")) continue;
  const style = getComputedStyle(element), size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  found.push(["text", text.slice(0, 40), contrast(parse(style.color), behind(element)), large ? 3 : 4.5]);
}
for (const box of document.querySelectorAll("textarea, input[type=text]")) {
  if (!shown(box)) continue;
  const borders = [box, box.parentElement].map((one) => getComputedStyle(one)).filter((s) => parseFloat(s.borderTopWidth) > 0);
  const best = Math.max(...borders.map((s) => contrast(parse(s.borderTopColor), behind(box.parentElement.parentElement))), 0);
  found.push(["box", box.id || box.placeholder || box.closest("[id]").id, best, 3]);
}
return found.filter(([, , ratio, least]) => ratio < least);
