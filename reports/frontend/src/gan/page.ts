// The page that edits what a generator makes: the edits as they stand, and everything that shows them.

import { byId, el } from "../dom";
import { words } from "../pages/live/asking";
import { type About, shareText } from "./asking";
import { AreaTable } from "./areas";
import { Brush } from "./brush";
import { Chooser } from "./chooser";
import { type Edit, emptyEdit, fromRecipe, History, placed, shareOf, toRecipe } from "./edits";
import { openRecipe, savePicture, saveRecipe } from "./files";
import { Sliders } from "./sliders";
import { Strip } from "./strip";
import { Views } from "./views";

const MOST_RANDOM = 1_000_000;

export function showTrouble(error: unknown): void {
  const text = error === null ? "" : words(error);
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

export function say(text: string): void {
  byId("said").textContent = text;
}

export class GeneratorPage {
  private edits: Edit[];
  private current = 0;
  private seed = 0;
  private readonly lastSeed: number;
  private readonly history = new History();
  private readonly chooser: Chooser;
  private readonly brush: Brush;
  private readonly sliders: Sliders;
  private readonly views: Views;
  private readonly strip: Strip;
  private readonly areas: AreaTable;

  constructor(private readonly about: About) {
    this.lastSeed = about.last_seed ?? Number.MAX_SAFE_INTEGER;
    this.edits = [emptyEdit(about.layers[0]?.name ?? "")];
    this.chooser = new Chooser(about.layers, {
      layer: (name) => this.anotherLayer(name),
      units: (units, on) => this.choose(units, on),
      has: (unit) => this.edit.units.some((one) => one.unit === unit),
      trouble: showTrouble,
    });
    const canvases = [byId<HTMLCanvasElement>("over-before"), byId<HTMLCanvasElement>("over-after")];
    this.brush = new Brush(canvases, about.size[0], about.size[1], () => ({
      region: this.edit.region,
      erase: document.querySelector<HTMLInputElement>("input[name=brush]:checked")?.value === "erase",
      size: Number(byId<HTMLInputElement>("size").value) / 100,
    }), (region, ended) => {
      this.remember("stroke");
      if (ended) this.history.ended();
      this.edit.region = region;
      this.brush.show();
      this.changed();
    });
    this.sliders = new Sliders({
      edit: () => this.edit,
      number: () => this.current,
      top: (unit) => this.top(unit),
      label: (unit) => this.label(unit),
      moved: (at, unit) => {
        this.remember(`slide ${this.current} ${unit.unit}`);
        this.edit.units[at] = unit;
        this.changed();
      },
      movedAll: (position, gesture) => this.moveAll(position, gesture),
      ended: () => this.history.ended(),
      remove: (unit) => this.choose([unit], false),
    });
    this.views = new Views({
      seed: () => this.seed,
      wanted: () => toRecipe(this.edits),
      shown: () => { if (this.strip.isEmpty) say(""); },
      settled: () => this.look(),
      idle: () => this.strip.sketch(),
      trouble: showTrouble,
    });
    this.strip = new Strip(this.lastSeed, (seed) => this.go(seed), () => this.views.busy, showTrouble);
    this.areas = new AreaTable(() => this.seed, (regions) => this.brush.mark(regions), showTrouble);
    this.listen();
  }

  begin(): void {
    this.showAll();
    this.go(Math.min(this.about.first_seed, this.lastSeed));
  }

  private get edit(): Edit {
    const edit = this.edits[this.current];
    if (!edit) throw new Error(`there is no edit ${this.current + 1}`);
    return edit;
  }

  private top(unit: number): number {
    return this.chooser.now(this.edit.layer)?.top[unit] ?? 0;
  }

  private label(unit: number): string {
    const label = this.chooser.now(this.edit.layer)?.labels[unit];
    return label ? `${unit} · ${label}` : String(unit);
  }

  // Pictures

  // Ask for the picture as the edits stand.
  private generate(): void {
    const count = toRecipe(this.edits).length;
    this.areas.leave();
    if (count > this.about.most_edits) showTrouble(new Error(`These are ${count} edits; at most ${this.about.most_edits} are applied at once.`));
    else this.views.ask();
  }

  private go(number: number): void {
    if (!(number >= 0 && number <= this.lastSeed)) {
      showTrouble(new Error(`A seed is a whole number from 0 to ${this.lastSeed}.`));
      return;
    }
    this.seed = Math.floor(number);
    byId<HTMLInputElement>("seed").value = String(this.seed);
    this.views.begin();
    this.generate();
    this.strip.show(this.seed);
  }

  private look(): void {
    if (this.about.segmenter && this.views.before) this.areas.ask({ seed: this.seed, edits: toRecipe(this.edits) });
  }

  // Edits

  private remember(gesture = ""): void {
    this.history.remember({ edits: this.edits, current: this.current }, gesture);
  }

  private undo(): void {
    const before = this.history.back();
    if (!before) return;
    ({ edits: this.edits, current: this.current } = before);
    this.showAll();
    this.generate();
  }

  // After any change of what is applied.
  private changed(stand?: number): void {
    this.showEdits();
    this.sliders.showAll(stand);
    this.generate();
  }

  private showAll(): void {
    this.showEdits();
    const mine = this.edit.layer;
    this.chooser.show(mine).then(() => {
      if (this.edit.layer !== mine) return;
      this.sliders.show();
      this.chooser.refresh();
    }).catch(showTrouble);
    this.sliders.show();
    this.brush.show();
  }

  private showEdits(): void {
    byId("edits").replaceChildren(...this.edits.map((one, number) => {
      const on = el("input", { type: "checkbox", "aria-label": `apply edit ${number + 1}` });
      on.checked = one.on;
      on.addEventListener("change", () => {
        this.remember();
        one.on = on.checked;
        this.changed();
      });
      const pick = el("button", { type: "button", class: "pick", "aria-pressed": String(number === this.current), click: () => {
        this.current = number;
        this.showAll();
      } }, `${number + 1} · ${summary(one)}`);
      return el("li", {}, on, pick, el("button", { type: "button", "aria-label": `remove edit ${number + 1}`, click: () => this.drop(number) }, "×"));
    }));
    const { units, region } = this.edit, area = shareOf(region);
    byId<HTMLButtonElement>("undo").disabled = !this.history.any;
    byId<HTMLButtonElement>("reset").disabled = this.edits.length === 1 && !units.length && !region;
    byId("where").textContent = `This edit applies ${area ? `in ${shareText(area)} of the picture` : "everywhere: nothing is painted"}.`;
  }

  private drop(number: number): void {
    this.remember();
    const [gone] = this.edits.splice(number, 1);
    if (!this.edits.length) this.edits.push(emptyEdit(gone?.layer ?? ""));
    this.current = Math.min(this.current > number ? this.current - 1 : this.current, this.edits.length - 1);
    this.showAll();
    this.generate();
  }

  private add(layer: string): void {
    this.edits.push(emptyEdit(layer));
    this.current = this.edits.length - 1;
  }

  private anotherLayer(layer: string): void {
    this.remember();
    if (this.edit.units.length) this.add(layer);
    else this.edit.layer = layer;
    this.showAll();
    this.generate();
  }

  private choose(units: number[], on: boolean): void {
    this.remember();
    const { edit } = this, having = new Set(edit.units.map(({ unit }) => unit));
    if (on) edit.units.push(...units.filter((unit) => !having.has(unit)).map((unit) => ({ unit, value: 0, strength: 0 })));
    else edit.units = edit.units.filter(({ unit }) => !units.includes(unit));
    this.sliders.show();
    this.chooser.refresh();
    this.changed();
  }

  private moveAll(position: number, gesture: string): void {
    this.remember(gesture);
    this.edit.units = this.edit.units.map(({ unit }) => placed(unit, position, this.top(unit)));
    this.sliders.show();
    this.changed(position);
  }

  // Files

  private async save(): Promise<void> {
    say(`Apply it elsewhere: ${await saveRecipe(this.about.spec, toRecipe(this.edits), this.seed)}`);
    showTrouble(null);
  }

  private async open(file: File): Promise<void> {
    const { edits, seeds } = await openRecipe(file);
    this.remember();
    this.edits = edits.length ? fromRecipe(edits) : [emptyEdit(this.about.layers[0]?.name ?? "")];
    this.current = 0;
    showTrouble(null);
    say(`${file.name}: ${edits.length} ${edits.length === 1 ? "edit" : "edits"}.`);
    await Promise.allSettled(this.edits.map(({ layer }) => this.chooser.about(layer)));
    this.showAll();
    const [seed] = seeds;
    if (seed !== undefined && seed <= this.lastSeed) this.go(seed);
    else this.generate();
  }

  private listen(): void {
    const clicks: Record<string, () => void> = {
      next: () => this.go(Math.min(this.seed + 1, this.lastSeed)),
      random: () => this.go(Math.floor(Math.random() * Math.min(this.lastSeed + 1, MOST_RANDOM))),
      drop: () => this.choose(this.edit.units.map(({ unit }) => unit), false),
      everywhere: () => {
        this.remember();
        this.edit.region = null;
        this.brush.show();
        this.changed();
      },
      add: () => {
        this.remember();
        this.add(this.edit.layer);
        this.showAll();
      },
      undo: () => this.undo(),
      reset: () => {
        this.remember();
        this.edits = [emptyEdit(this.edit.layer)];
        this.current = 0;
        this.showAll();
        this.generate();
      },
      "save-picture": () => { if (this.views.after) savePicture(this.views.after, this.seed, toRecipe(this.edits).length > 0); },
      "save-recipe": () => void this.save().catch(showTrouble),
    };
    for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
    byId("seeds").addEventListener("submit", (event) => {
      event.preventDefault();
      this.go(Number(byId<HTMLInputElement>("seed").value));
    });
    const files = byId<HTMLInputElement>("open-recipe");
    files.addEventListener("change", () => {
      const file = files.files?.[0];
      if (file) this.open(file).catch(showTrouble);
      files.value = "";
    });
    document.addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.shiftKey || event.key !== "z" || isWriting(event.target)) return;
      event.preventDefault();
      this.undo();
    });
  }
}

function isWriting(target: EventTarget | null): boolean {
  return target instanceof Element && target.matches("input:not([type=range], [type=checkbox]), select, textarea");
}

function summary({ layer, units, region }: Edit): string {
  const area = shareOf(region), [first] = units;
  const chosen = units.length === 1 && first ? `unit ${first.unit}` : units.length ? `${units.length} units` : "no units yet";
  return `${layer} · ${chosen} · ${area ? `in ${shareText(area)} of the picture` : "everywhere"}`;
}
