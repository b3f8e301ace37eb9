'use strict';

// What test.py puts into the page before the page's own scripts run.

// Keeps the page's long timers, so that a test need not wait for them.
{
  const [set, clear] = [setTimeout, clearTimeout];
  const kept = new Map();

  window.setTimeout = (work, delay, ...rest) => {
    if (delay < 60000 && !(delay >= 15000 && rest[0] instanceof Error)) {
      return set(work, delay, ...rest);
    }
    const id = -1 - kept.size;
    kept.set(id, { work, delay, rest });
    return id;
  };
  window.clearTimeout = (id) => kept.delete(id) || clear(id);
  window.keptDelays = () => [...kept.values()].map(({ delay }) => delay);
  window.fire = () => {
    const due = [...kept.values()];
    kept.clear();
    for (const { work, rest } of due) { work(...rest); }
  };
}

// The least contrast between any visible text and what is behind it.
window.leastContrast = () => {
  const rgb = (text) => text.match(/[\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = rgb(color).map((value) => {
      value /= 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return rgb(color)[3] === 0 ? behind(element.parentElement) : color;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let least = 21;

  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() && element.checkVisibility()) {
      const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
      least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    }
  }
  return least;
};
