// A layer's page: which units are shown, in which order, and where. The state is in the address after #.

import { byId, el } from "../dom";
import { fillCard, unitAddress } from "./cards";
import { copyButtons, type Table } from "./copying";
import type { Labels, LayerData } from "./data";
import { thousands } from "./format";
import { listenTo } from "./keys";
import { offerUnit } from "./live/explain";
import { fields, fragment, go, setFragment, written } from "../place";
import { load } from "./registry";

const DEFAULTS = { q: "", sort: "iou", min: "0", max: "1", state: "", split: "", tau: "0" };
const COLUMNS = 120; // concepts that are drawn above the cards, at most
type Field = keyof typeof DEFAULTS;
const NAMES = Object.keys(DEFAULTS) as Field[];

export async function startLayer(signal: AbortSignal): Promise<void> {
  const data = await load<LayerData>(document.body.dataset.layer ?? "");
  if (!signal.aborted) new LayerPage(data, signal).start();
}

class LayerPage {
  private readonly form = byId<HTMLFormElement>("controls");
  private readonly room = byId("cards");
  private readonly nodes: HTMLElement[] = [];
  private shown: number[] = [];
  private target: number | null = null;
  private readonly known = new Set<string>();
  private readonly watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) this.draw(Number((entry.target as HTMLElement).dataset.unit));
  }, { rootMargin: "900px 0px" });

  constructor(private readonly data: LayerData, private readonly signal: AbortSignal) {
    window.MICROTOME_LAYER = data;
  }

  start(): void {
    const labelled = new Set<string>();
    for (const at of this.data.taus) for (const concept of at.label) if (concept >= 0) labelled.add(this.data.concepts[concept]?.[0] ?? "");
    for (const name of [...labelled].sort()) {
      this.known.add(name.toLowerCase());
      byId("concepts").append(el("option", { value: name }));
    }
    history.scrollRestoration = "manual";
    this.build();
    this.listen();
    byId("copy").append(copyButtons(() => this.table()));
    this.readAddress();
    this.apply();
    this.reveal();
  }

  private value(name: Field): string {
    return (this.form.elements.namedItem(name) as HTMLInputElement | HTMLSelectElement).value;
  }

  private set(name: Field, value: string): void {
    const control = this.form.elements.namedItem(name) as HTMLInputElement | HTMLSelectElement;
    control.value = value;
    if (control.value === "" && value !== "") control.value = DEFAULTS[name];
  }

  private get detectors(): HTMLInputElement {
    return this.form.elements.namedItem("detectors") as HTMLInputElement;
  }

  private boxes(): HTMLInputElement[] {
    return [...this.form.querySelectorAll<HTMLInputElement>("[name=category]")];
  }

  private labels(): Labels {
    return (this.data.taus[Number(this.value("tau"))] ?? this.data.taus[0]) as Labels;
  }

  private nameOf(at: Labels, unit: number): string {
    return this.data.concepts[at.label[unit] ?? -1]?.[0] ?? "";
  }

  private categoryOf(at: Labels, unit: number): number {
    return this.data.concepts[at.label[unit] ?? -1]?.[1] ?? this.data.categories.length;
  }

  // The address: #unit-12&q=car&sort=unit&min=0.1&category=0,2&detectors=1

  private writeAddress(): void {
    const parts: [string, string][] = NAMES.filter((name) => this.value(name) !== DEFAULTS[name]).map((name) => [name, this.value(name)]);
    const chosen = this.boxes().filter((box) => box.checked).map((box) => box.value);
    if (chosen.length) parts.push(["category", chosen.join(",")]);
    if (this.detectors.checked) parts.push(["detectors", "1"]);
    const rest = written(parts);
    setFragment([this.target === null ? "" : `unit-${this.target}`, rest].filter(Boolean).join("&"));
  }

  private readAddress(): void {
    const found = fields(fragment());
    this.target = null;
    for (const name of found.keys()) {
      const match = /^unit-(\d{1,9})$/.exec(name);
      if (match && Number(match[1]) < this.data.state.length) this.target = Number(match[1]);
    }
    for (const name of NAMES) this.set(name, found.get(name) ?? DEFAULTS[name]);
    const chosen = (found.get("category") ?? "").split(",");
    for (const box of this.boxes()) box.checked = chosen.includes(box.value);
    this.detectors.checked = found.get("detectors") === "1";
  }

  // A text that is a concept's whole name means that concept, any other is looked for inside names: "tree" leaves
  // "street" out.
  private select(): number[] {
    const at = this.labels(), data = this.data;
    const query = this.value("q").trim().toLowerCase(), whole = this.known.has(query);
    const least = Number(this.value("min")) || 0, most = Number(this.value("max"));
    const state = this.value("state"), split = this.value("split");
    const chosen = new Set(this.boxes().filter((box) => box.checked).map((box) => Number(box.value)));
    const only = this.detectors.checked;
    const found: number[] = [];
    for (let unit = 0; unit < data.state.length; unit++) {
      const score = at.iou[unit] ?? null;
      if (only && !at.detector[unit]) continue;
      if (state && data.states[data.state[unit] ?? 0] !== state) continue;
      if (least > 0 && !((score ?? -1) >= least)) continue;
      if (most < 1 && !((score ?? 0) <= most)) continue;
      if (split && !this.agrees(at, unit, split)) continue;
      if (chosen.size && !chosen.has(this.categoryOf(at, unit))) continue;
      if (query) {
        const name = this.nameOf(at, unit).toLowerCase();
        if (whole ? name !== query : !name.includes(query)) continue;
      }
      found.push(unit);
    }
    return found.sort(this.comparison(at));
  }

  // Whether a detector is one by the IoU on val, too, where its label was chosen on train.
  private agrees(at: Labels, unit: number, split: string): boolean {
    const val = at.val?.[unit] ?? null;
    return at.detector[unit] === 1 && (split === "holds") === (val !== null && val > this.data.bar);
  }

  private comparison(at: Labels): (a: number, b: number) => number {
    const score = (unit: number): number => ((at.label[unit] ?? -1) >= 0 ? at.iou[unit] ?? -1 : -1);
    const relative = (unit: number): number => {
      const ceiling = at.ceiling[unit];
      return (at.label[unit] ?? -1) >= 0 && ceiling ? (at.iou[unit] ?? 0) / ceiling : -1;
    };
    const byScore = (a: number, b: number): number => score(b) - score(a) || a - b;
    const byName = (a: number, b: number): number => {
      const one = this.nameOf(at, a), two = this.nameOf(at, b);
      if (!one !== !two) return one ? -1 : 1;
      return one < two ? -1 : one > two ? 1 : 0;
    };
    const orders: Record<string, (a: number, b: number) => number> = {
      iou: byScore,
      unit: (a, b) => a - b,
      relative: (a, b) => relative(b) - relative(a) || a - b,
      concept: (a, b) => byName(a, b) || byScore(a, b),
      category: (a, b) => this.categoryOf(at, a) - this.categoryOf(at, b) || byScore(a, b),
      maximum: (a, b) => (this.data.maximum[b] ?? -Infinity) - (this.data.maximum[a] ?? -Infinity) || a - b,
    };
    return orders[this.value("sort")] ?? byScore;
  }

  // Every unit has its element from the start, so that every address exists; its content comes when it nears the view.

  private draw(unit: number): void {
    const node = this.nodes[unit], tau = this.value("tau");
    if (!node || node.dataset.tau === tau) return;
    node.dataset.tau = tau;
    fillCard(node, this.data, unit, this.labels());
    offerUnit(node, this.data, unit);
  }

  private build(): void {
    for (let unit = 0; unit < this.data.state.length; unit++) {
      const node = el("article", { class: "card", id: `unit-${unit}`, "data-unit": unit });
      this.nodes.push(node);
      this.watcher.observe(node);
    }
  }

  private apply(): void {
    this.shown = this.select();
    const visible = new Set(this.shown), tau = this.value("tau");
    this.nodes.forEach((node, unit) => {
      node.hidden = !visible.has(unit);
      if (node.childNodes.length && node.dataset.tau !== tau) {
        node.replaceChildren();
        this.watcher.unobserve(node);
        this.watcher.observe(node);
      }
    });
    this.room.replaceChildren(...this.shown.map((unit) => this.nodes[unit] as HTMLElement));
    byId("nothing").hidden = this.shown.length > 0;
    byId<HTMLOutputElement>("shown").value = `${thousands(this.shown.length)} of ${thousands(this.nodes.length)} units`;
    for (const name of ["min", "max"] as const) {
      (this.form.elements.namedItem(`${name}Shown`) as HTMLOutputElement).value = Number(this.value(name)).toFixed(2);
    }
    this.overview();
  }

  private reveal(): void {
    this.nodes.forEach((node, unit) => node.classList.toggle("target", unit === this.target));
    const target = this.target;
    if (target === null) return;
    if (!this.shown.includes(target)) {
      this.clearFilters();
      this.apply();
    }
    const place = this.shown.indexOf(target);
    for (const unit of this.shown.slice(Math.max(0, place - 8), place + 8)) this.draw(unit);
    const stuck = getComputedStyle(this.form).position === "sticky" ? this.form.offsetHeight : 0;
    this.room.style.setProperty("--stuck", `${stuck}px`);
    const show = (): void => this.nodes[target]?.scrollIntoView({ block: "start" });
    show();
    requestAnimationFrame(show);
  }

  private clearFilters(): void {
    for (const name of ["q", "state", "split", "min", "max"] as const) this.set(name, DEFAULTS[name]);
    this.detectors.checked = false;
    for (const box of this.boxes()) box.checked = false;
  }

  // The concepts of this layer: one column each, as high as it has detectors

  private overview(): void {
    const at = this.labels(), counts = new Map<number, number>();
    let detectors = 0;
    at.detector.forEach((is, unit) => {
      const label = at.label[unit] ?? -1;
      if (!is || label < 0) return;
      detectors += 1;
      counts.set(label, (counts.get(label) ?? 0) + 1);
    });
    const category = (concept: number): number => this.data.concepts[concept]?.[1] ?? 0;
    const count = (concept: number): number => counts.get(concept) ?? 0;
    const order = [...counts.keys()].sort((a, b) => category(a) - category(b) || count(b) - count(a) || a - b);
    byId("tally").textContent =
      `${thousands(detectors)} of ${thousands(this.nodes.length)} units are detectors (IoU above ${this.data.bar}), of ` +
      `${counts.size}${counts.size === 1 ? " concept." : " different concepts."}`;
    const query = this.value("q").trim().toLowerCase();
    const room = byId("columns"), tau = this.value("tau");
    if (room.dataset.tau !== tau) {
      room.dataset.tau = tau;
      const most = order.reduce((highest, concept) => Math.max(highest, count(concept)), 1);
      const shown = order.length > COLUMNS ? [...order].sort((a, b) => count(b) - count(a)).slice(0, COLUMNS) : order;
      const kept = new Set(shown);
      const drawn = order.filter((concept) => kept.has(concept));
      room.replaceChildren(...drawn.map((concept) => this.column(concept, count(concept), most)));
      byId("more-columns").hidden = drawn.length === order.length;
      byId("more-columns").textContent = `The ${COLUMNS} concepts with most detectors; ${thousands(order.length - drawn.length)} more are found by name.`;
    }
    for (const column of room.children) column.setAttribute("aria-pressed", String((column as HTMLElement).dataset.name === query));
  }

  private column(concept: number, count: number, most: number): HTMLElement {
    const [name, category] = this.data.concepts[concept] ?? ["", 0];
    const title = `${name} (${this.data.categories[category] ?? ""}): ${count}${count === 1 ? " unit" : " units"}`;
    return el(
      "button", {
        type: "button", title, "data-name": name.toLowerCase(), class: this.data.categoryStyles[category] ?? "",
        click: () => {
          this.set("q", this.value("q").trim().toLowerCase() === name.toLowerCase() ? "" : name);
          this.target = null;
          this.changed();
        },
      },
      el("span", { class: "count" }, String(count)), el("i", { style: `height:${4 + (56 * count) / most}px` }), el("span", { class: "name" }, name),
    );
  }

  private table(): Table {
    const at = this.labels(), data = this.data;
    return {
      name: `${data.layer}-units`,
      columns: ["layer", "unit", "concept", "category", "iou", "ceiling", "val_iou", "is_detector", "state", "threshold", "tau"],
      rows: this.shown.map((unit) => {
        const concept = data.concepts[at.label[unit] ?? -1];
        return [
          data.layer, unit, concept?.[0] ?? null, concept ? data.categories[concept[1]] ?? null : null, at.iou[unit] ?? null, at.ceiling[unit] ?? null,
          at.val?.[unit] ?? null, at.detector[unit] ?? 0, data.states[data.state[unit] ?? 0] ?? "", at.threshold[unit] ?? null, at.tau,
        ];
      }),
    };
  }

  private changed(): void {
    this.apply();
    this.writeAddress();
  }

  private step(by: number): void {
    const place = this.target === null ? -1 : this.shown.indexOf(this.target);
    const next = this.shown[Math.min(Math.max(place + by, 0), this.shown.length - 1)];
    if (next === undefined) return;
    this.target = next;
    this.writeAddress();
    this.reveal();
  }

  private neighbour(by: number): void {
    const links = [...document.querySelectorAll<HTMLAnchorElement>("nav[aria-label=Layers] a")];
    const here = links.findIndex((link) => link.getAttribute("aria-current") === "page");
    const next = links[here + by];
    if (here >= 0 && next) location.assign(next.href);
  }

  private listen(): void {
    const signal = this.signal;
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => {
      this.target = null;
      this.changed();
    });
    const clear = (event: Event): void => {
      event.preventDefault();
      this.target = null;
      this.clearFilters();
      this.changed();
    };
    this.form.addEventListener("reset", clear);
    byId("clear").addEventListener("click", clear);
    window.addEventListener("hashchange", () => {
      this.readAddress();
      this.apply();
      this.reveal();
    }, { signal });
    window.addEventListener("beforeprint", () => this.shown.forEach((unit) => this.draw(unit)), { signal });
    signal.addEventListener("abort", () => this.watcher.disconnect());
    listenTo([
      { key: "j", does: "next unit", act: () => this.step(1) },
      { key: "k", does: "previous unit", act: () => this.step(-1) },
      { key: "Enter", does: "the page of the unit", act: () => { if (this.target !== null) go(unitAddress(this.data.layer, this.target)); } },
      { key: "]", does: "next layer", act: () => this.neighbour(1) },
      { key: "[", does: "previous layer", act: () => this.neighbour(-1) },
    ], signal);
  }
}
