"""Measurements of an open page, as JavaScript that returns a list of problems."""

from playwright.sync_api import Frame, Page

# WCAG 2.2, 1.4.3. Text over nothing lies on the canvas, whose colour only a system colour tells.
CONTRAST = """
() => {
  const channels = color => {
    const numbers = color.match(/[\\d.]+/g).map(Number);
    return [...numbers.slice(0, 3), numbers[3] ?? 1];
  };
  const over = (front, back) => [0, 1, 2].map(i => front[i] * front[3] + back[i] * (1 - front[3]));
  const light = rgb => rgb
    .map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = "canvas";
  const canvas = channels(getComputedStyle(probe).color);
  probe.remove();

  const problems = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const text = texts.currentNode.textContent.trim();
    const box = element.getBoundingClientRect();
    if (!text || box.width < 2 || !element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    const chain = [];
    for (let node = element; node; node = node.parentElement) chain.unshift(getComputedStyle(node));
    let back = canvas.slice(0, 3);
    let opacity = 1;
    for (const style of chain) {
      back = over(channels(style.backgroundColor), back);
      opacity *= Number(style.opacity);
    }
    const color = channels(chain.at(-1).color);
    const front = over([...color.slice(0, 3), color[3] * opacity], back);
    const ratio = (Math.max(light(front), light(back)) + 0.05) / (Math.min(light(front), light(back)) + 0.05);
    if (ratio < 4.5) problems.push(`${ratio.toFixed(2)}:1 ${text.slice(0, 40)}`);
  }
  return problems;
}
"""

# WCAG 2.2, 1.4.10 and 2.5.8: links in a sentence are excepted.
SIZES = """
() => {
  const problems = [];
  const { scrollWidth } = document.documentElement;
  if (scrollWidth > innerWidth) problems.push(`${scrollWidth} px wide in ${innerWidth}`);
  for (const element of document.querySelectorAll("button, .button, input, summary, header a")) {
    const target = element.type === "checkbox" ? element.closest("label") : element;
    const box = target.getBoundingClientRect();
    const shown = element.type !== "hidden" && !element.ariaHidden && element.checkVisibility();
    if (shown && (box.height < 24 || box.width < 24)) {
      problems.push(`${box.width} x ${box.height}: ${element.textContent.trim() || element.name}`);
    }
  }
  return problems;
}
"""

STRUCTURE = """
() => {
  const problems = [];
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  for (const input of all("input:not([type=hidden]):not([aria-hidden=true])")) {
    if (![...input.labels].some(label => label.textContent.trim())) problems.push(`no label: ${input.name}`);
  }
  for (const name of ["aria-describedby", "aria-controls", "aria-labelledby", "for"]) {
    for (const element of all(`[${name}]`)) {
      for (const id of element.getAttribute(name).split(" ")) {
        if (!document.getElementById(id)) problems.push(`${name}: no #${id}`);
      }
    }
  }
  for (const input of all("[aria-invalid=true]")) {
    const ids = (input.getAttribute("aria-describedby") ?? "").split(" ");
    if (!ids.some(id => id.endsWith("_error"))) problems.push(`complaint not tied to ${input.name}`);
  }
  const ids = all("[id]").map(element => element.id);
  if (new Set(ids).size < ids.length) problems.push(`repeated id among ${ids}`);
  const levels = all("h1, h2, h3, h4").map(heading => Number(heading.tagName[1]));
  if (levels[0] !== 1 || levels.lastIndexOf(1) !== 0 || levels.some((level, i) => level > (levels[i - 1] ?? 0) + 1)) {
    problems.push(`headings ${levels}`);
  }
  if (all("main").length !== 1) problems.push("not one main part");
  if (document.documentElement.lang !== "en") problems.push("no language");
  if (!document.title.trim()) problems.push("no title");
  if (all("[style], style, script:not([src])").length) problems.push("inline style or script");
  return problems;
}
"""


def problems_of(page: Page | Frame, measure: str) -> list[str]:
    """Return what a measure finds wrong on the page as it is now."""
    return page.evaluate(measure)
