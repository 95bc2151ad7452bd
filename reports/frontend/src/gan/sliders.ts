// The sliders of an edit's units, and the one that moves them all.

import { byId, el } from "../dom";
import { described, type Edit, LEAST, MOST, placed, position, rounded, type UnitEdit } from "./edits";

export interface SliderHost {
  edit: () => Edit;
  number: () => number; // of the edit, from 0
  top: (unit: number) => number; // high value of a unit
  label: (unit: number) => string;
  moved: (at: number, unit: UnitEdit) => void; // one was moved
  movedAll: (position: number, gesture: string) => void;
  ended: () => void; // the gesture has ended
  remove: (unit: number) => void;
}

export class Sliders {
  private readonly all = byId<HTMLInputElement>("all");

  constructor(private readonly host: SliderHost) {
    this.all.addEventListener("input", () => host.movedAll(rounded(Number(this.all.value)), `all ${host.number()}`));
    this.all.addEventListener("change", host.ended);
    for (const [id, stand] of [["ablate", -1], ["untouched", 0], ["insert", 1]] as const) byId(id).addEventListener("click", () => host.movedAll(stand, ""));
  }

  show(): void {
    const { units, layer } = this.host.edit();
    byId("chosen").replaceChildren(...units.map((one, at) => this.slider(one, at)));
    for (const id of ["ablate", "untouched", "insert", "drop"]) byId<HTMLButtonElement>(id).disabled = !units.length;
    byId("whole").hidden = units.length < 2;
    byId("scale").hidden = byId("meaning").hidden = !units.length;
    byId("chosen-title").textContent = `Units of edit ${this.host.number() + 1}, in ${layer}`;
    this.showAll();
  }

  // Where the slider that moves all stands; `stand` puts it there.
  showAll(stand?: number): void {
    const { units } = this.host.edit(), [first] = units;
    const stands = units.map((one) => position(one, this.host.top(one.unit)));
    const alike = stands.every((one) => Math.abs(one - (stands[0] ?? 0)) < 1e-6);
    if (stand !== undefined) this.all.value = String(stand);
    else if (first && document.activeElement !== this.all) this.all.value = String(alike ? stands[0] : 0);
    const words = alike && first ? described(first, this.host.top(first.unit)) : "differ";
    byId("all-words").textContent = words;
    this.all.setAttribute("aria-valuetext", words);
  }

  private slider(one: UnitEdit, at: number): HTMLLIElement {
    const { unit } = one, { host } = this, id = `slider-${at}`, label = host.label(unit), words = el("output", { for: id });
    const slider = el("input", { type: "range", id, min: LEAST, max: MOST, step: 0.01, list: "marks", "data-unit": unit });
    const tell = (now: UnitEdit): void => {
      words.textContent = described(now, host.top(unit));
      slider.setAttribute("aria-valuetext", words.textContent);
    };
    slider.addEventListener("input", () => {
      const now = placed(unit, rounded(Number(slider.value)), host.top(unit));
      tell(now);
      host.moved(at, now);
    });
    slider.addEventListener("change", host.ended);
    slider.value = String(position(one, host.top(unit)));
    tell(one);
    const drop = el("button", { type: "button", "aria-label": `remove unit ${unit}`, click: () => host.remove(unit) }, "×");
    return el("li", {}, el("label", { for: id, title: label }, label), slider, words, drop);
  }
}
