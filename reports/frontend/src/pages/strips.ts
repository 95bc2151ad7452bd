// The first thumbnails of a unit out of its strip: one picture in which they stand side by side, each in a square cell
// of which it uses a part from the top left.

import { el } from "../dom";

const SIDE = 96; // as reports/thumbnails.py draws them

// One thumbnail in a box of any size; across, down: the shares of its cell that it uses.
export function thumbnail(strip: string, rank: number, count: number, across: number, down: number, title: string): HTMLElement {
  const place = count > across ? (100 * rank) / (count - across) : 0;
  const inner = el("span", title ? { class: "patch", role: "img", "aria-label": title, title } : { class: "patch" });
  inner.style.cssText =
    `width:${100 * across}%;height:${100 * down}%;background-image:url(${strip});` +
    `background-size:${(100 * count) / across}% ${100 / down}%;background-position:${place}% 0`;
  return el("span", { class: "cell" }, inner);
}

// shape: as reports/strip_shapes.py writes it, two hexadecimal digits a number.
export function firstThumbnails(strip: string, shape: string): HTMLElement[] {
  const numbers = (shape.match(/../g) ?? []).map((digits) => parseInt(digits, 16));
  const count = numbers[0] ?? 0;
  const found: HTMLElement[] = [];
  for (let rank = 0; 2 + 2 * rank < numbers.length; rank++) {
    found.push(thumbnail(strip, rank, count, (numbers[1 + 2 * rank] ?? SIDE) / SIDE, (numbers[2 + 2 * rank] ?? SIDE) / SIDE, ""));
  }
  return found;
}
