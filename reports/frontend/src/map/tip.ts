// The thumbnail beside the pointer.

import { byId, el } from "../dom";
import type { Thumbs } from "./thumbs";

const SIDE = 96;
const APART = 14;

export class Tip {
  point = -1;
  private readonly node = byId("map-tip");

  constructor(private readonly thumbs: Thumbs) {}

  show(point: number, across: number, down: number, room: { width: number; height: number }): void {
    if (point < 0) return this.hide();
    if (point !== this.point) this.fill(point);
    const right = across > room.width / 2;
    const low = down > room.height / 2;
    Object.assign(this.node.style, {
      left: right ? "auto" : `${across + APART}px`, right: right ? `${room.width - across + APART}px` : "auto",
      top: low ? "auto" : `${down + APART}px`, bottom: low ? `${room.height - down + APART}px` : "auto",
    });
    this.node.hidden = false;
  }

  hide(): void {
    this.point = -1;
    this.node.hidden = true;
  }

  private fill(point: number): void {
    this.point = point;
    const text = el("span", {}, "…");
    this.node.replaceChildren(...[this.thumbs.picture(point, SIDE), text].filter((node) => node !== null));
    void this.thumbs.about(point).then(({ key, label }) => {
      text.replaceChildren(key, label ? el("b", {}, label) : "");
    }, () => {
      text.textContent = `point ${point}`;
    });
  }
}
