// The page: a state, which the address holds, and everything that follows from it.

import { EMPTY, type Source, type State, read, write } from "./address";
import { Colouring } from "./colouring";
import { Controls } from "./controls";
import { Crowd } from "./crowd";
import { MapData } from "./data";
import type { View } from "./decode";
import { byId } from "../dom";
import type { Encoding } from "./encoding";
import { extents } from "./extents";
import { inside, nearestWithin, polygonOf, where } from "./geometry";
import type { Layer, Manifest } from "./manifest";
import { Overlay } from "./overlay";
import { type Theme, theme } from "./palette";
import { fragment, picture, setFragment } from "../place";
import { Panels } from "./panels";
import { listenTo, zoom } from "./pointer";
import { Scatter } from "./scatter";
import { SelectionPanel } from "./selection";
import { Thumbs } from "./thumbs";
import { Tip } from "./tip";

const HOVER_REACH = 9;
const ADDRESS_DELAY = 250;

export class App {
  state: State = EMPTY;
  view: View | null = null;
  encoding: Encoding | null = null;
  selected: Uint32Array | null = null;
  near: number[] = [];
  drawnAt = 0; // milliseconds from the page's start to its first drawing
  idle = false; // nothing is on its way
  scatter: Scatter | null = null;
  readonly data: MapData;
  private readonly defaults: State;
  private readonly controls: Controls;
  private readonly thumbs: Thumbs;
  private readonly panels: Panels;
  private readonly selection: SelectionPanel;
  private readonly colouring: Colouring;
  private readonly overlay: Overlay;
  private readonly tip: Tip;
  private colours: Theme;
  private turn = 0;
  private lassoOn = false;
  private later = 0;

  constructor(private readonly manifest: Manifest) {
    this.data = new MapData(manifest);
    this.colours = theme(manifest.palette);
    this.thumbs = new Thumbs(manifest);
    this.tip = new Tip(this.thumbs);
    this.controls = new Controls(manifest, (wish) => void this.go(wish));
    const pick = (point: number): void => void this.go({ point });
    const cluster = (id: number): void => this.choose({ kind: "cluster", layer: this.state.layer, id });
    const ofClass = (id: number): void => this.choose({ kind: "class", id });
    this.panels = new Panels(this.data, this.thumbs, (point) => this.pickAndShow(point), cluster);
    this.selection = new SelectionPanel(this.data, this.thumbs, {
      pick, zoomTo: () => this.zoomToSelection(), clear: () => void this.go({ source: null }),
      colourByConcept: (concept) => void this.go({ colour: "concept", concept }), chooseClass: ofClass,
    });
    this.colouring = new Colouring(this.data, { chooseClass: ofClass, chooseCluster: cluster });
    this.overlay = new Overlay(byId("map-over"));
    this.defaults = this.complete({ ...EMPTY });
  }

  async start(): Promise<void> {
    const canvas = byId<HTMLCanvasElement>("map-canvas");
    this.scatter = await Scatter.on(canvas, this.data.n, {
      moved: () => this.moved(), lassoed: (corners) => this.lassoed(corners),
    });
    if (this.scatter) this.listen(canvas, this.scatter);
    window.addEventListener("hashchange", () => {
      const wanted = read(fragment());
      this.scatter?.look(wanted.camera ?? undefined);
      void this.go(wanted);
    });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.colours = theme(this.manifest.palette);
      void this.update({ ...this.state, colour: "" });
    });
    const wanted = read(fragment());
    this.state = this.complete(wanted);
    if (this.state.camera) this.scatter?.look(this.state.camera);
    await this.update(EMPTY);
  }

  private listen(canvas: HTMLCanvasElement, scatter: Scatter): void {
    const under = (across: number, down: number): number => {
      const [x, y] = scatter.toMap(across, down);
      return this.view ? nearestWithin(this.view, x, y, HOVER_REACH * scatter.pixel()) : -1;
    };
    listenTo(canvas, scatter, () => this.lassoOn, {
      hover: (across, down) => this.tip.show(under(across, down), across, down, scatter.size()),
      leave: () => this.tip.hide(),
      click: (across, down) => void this.go({ point: under(across, down) }),
      middle: () => {
        const [x, y] = scatter.camera();
        if (this.view) void this.go({ point: nearestWithin(this.view, x, y, 10) });
      },
      seen: () => this.selectSeen(),
      escape: () => void this.go({ source: null, point: -1 }),
    });
    const acts: Record<string, () => void> = {
      lasso: () => this.setLasso(!this.lassoOn), seen: () => this.selectSeen(),
      in: () => zoom(scatter, 1.6), out: () => zoom(scatter, 1 / 1.6), fit: () => scatter.look(undefined, true),
    };
    byId("map-tools").addEventListener("click", (event) => {
      const act = (event.target as HTMLElement).dataset["do"];
      if (act) acts[act]?.();
    });
  }

  private setLasso(on: boolean): void {
    this.lassoOn = on;
    this.scatter?.lasso(on);
    byId("map-tools").querySelector("[data-do=lasso]")?.setAttribute("aria-pressed", String(on));
  }

  // Change the state; what follows is drawn.
  async go(change: Partial<State>): Promise<void> {
    const before = this.state;
    this.state = this.complete({ ...before, ...change });
    await this.update(before);
  }

  // A state that this manifest can show, with defaults where something is missing or unknown.
  private complete(state: State): State {
    const { layers, concepts, samples } = this.manifest;
    const layer = this.data.layer(state.layer) ?? (layers.at(-1) as Layer);
    const view = layer.views.includes(state.view) ? state.view : (layer.views[0] as string);
    const there = this.controls.there(layer);
    const usual = there.class ? "class" : there.cluster ? "cluster" : "none";
    const colour = state.colour === "none" || (state.colour && there[state.colour]) ? state.colour : usual;
    const known = concepts.some(({ id }) => id === state.concept);
    const concept = known ? state.concept : (this.data.compared()[0]?.id ?? -1);
    const unit = Math.min(Math.max(0, state.unit), (layer.units?.count ?? 1) - 1);
    const point = state.point < samples ? state.point : -1;
    const source = this.completeSource(state.source, layer, view);
    return { ...state, layer: layer.name, view, colour, concept, unit: colour === "unit" ? unit : state.unit, point, source };
  }

  // Without a layer or view of its own, a selection was made in those that are shown.
  private completeSource(source: Source | null, layer: Layer, view: string): Source | null {
    if (!source || source.kind === "class") return source;
    const own = this.data.layer(source.layer) ?? layer;
    if (source.kind === "cluster") return own.name === source.layer ? source : { ...source, layer: own.name };
    if (own.name === source.layer && own.views.includes(source.view)) return source;
    const ownView = own.views.includes(source.view) ? source.view : own.views.includes(view) ? view : (own.views[0] as string);
    return { ...source, layer: own.name, view: ownView };
  }

  private async update(before: State): Promise<void> {
    this.turn += 1;
    const turn = this.turn;
    this.idle = false;
    const { state } = this;
    const layer = this.data.layer(state.layer) as Layer;
    this.controls.show(state, layer);
    this.writeAddress();
    try {
      const moved = state.layer !== before.layer || state.view !== before.view;
      const ofLayer = state.layer !== before.layer && (state.colour === "unit" || state.colour === "cluster");
      const recoloured = ofLayer || (["colour", "concept", "unit"] as const).some((key) => state[key] !== before[key]);
      const [view, colouring] = await Promise.all([
        this.data.positions(layer, state.view),
        recoloured || !this.encoding ? this.colouring.of(state, layer, this.colours, this.controls.conceptName(state.concept)) : null,
      ]);
      if (turn !== this.turn) return;
      this.view = view;
      if (colouring) {
        this.encoding = colouring.encoding;
        byId("map-legend").replaceChildren(...colouring.legend);
        this.panels.unit(layer, state.unit, colouring.levels);
      }
      if (state.layer !== before.layer) this.panels.layer(layer);
      await this.follow(before, layer, view, moved, colouring !== null);
      if (turn !== this.turn) return;
      this.idle = true;
    } catch (error) {
      this.say(error instanceof Error ? error.message : String(error));
    }
  }

  // Draw, then what lies over the drawing and what depends on it.
  private async follow(before: State, layer: Layer, view: View, moved: boolean, recoloured: boolean): Promise<void> {
    const { state, scatter } = this;
    if (moved) this.overlay.setNames([], null);
    if (scatter && this.encoding && (moved || recoloured)) {
      await scatter.draw(view, this.encoding, this.colours, moved);
      scatter.select(this.selected);
    }
    this.say(scatter ? "" : null);
    if (!this.drawnAt) this.drawnAt = performance.now();
    if (moved || state.names !== before.names) await this.nameClusters(layer, view);
    if (state.source !== before.source) await this.chosen(state.source);
    if (moved || state.point !== before.point) {
      this.near = this.panels.point(layer, view, state.point, () => void this.go({ point: -1 }));
      const at = (point: number): [number, number] => [view.x[point] as number, view.y[point] as number];
      this.overlay.setRings(state.point < 0 ? null : at(state.point), this.near.map(at));
    }
    if (scatter) this.overlay.place(scatter);
  }

  private async nameClusters(layer: Layer, view: View): Promise<void> {
    const groups = this.state.names && layer.clusters.length ? await this.data.clusters(layer) : null;
    if (this.view !== view) return;
    if (!groups) return this.overlay.setNames([], null);
    const found = extents(view, groups);
    this.overlay.setNames(layer.clusters.flatMap(({ id, name, samples }) => {
      const extent = found.get(id);
      return extent && name ? [{ id, text: name, samples, extent }] : [];
    }), new Crowd(view));
  }

  private choose(source: Source): void {
    void this.go({ source });
  }

  private lassoed(corners: [number, number][]): void {
    this.setLasso(false);
    const polygon = polygonOf(corners);
    if (polygon.length >= 6) this.choose({ kind: "lasso", layer: this.state.layer, view: this.state.view, polygon });
  }

  private selectSeen(): void {
    if (!this.scatter) return;
    const { width, height } = this.scatter.size();
    const corners = ([[0, 0], [width, 0], [width, height], [0, height]] as const).map(([x, y]) => this.scatter?.toMap(x, y) ?? [0, 0]);
    this.lassoed(corners as [number, number][]);
  }

  private async chosen(source: Source | null): Promise<void> {
    const found = source ? await this.pointsOf(source) : null;
    this.selected = found?.points ?? null;
    this.scatter?.select(this.selected);
    if (found) this.selection.show(found.points, found.title);
    else this.selection.hide();
  }

  private async pointsOf(source: Source): Promise<{ points: Uint32Array; title: string } | null> {
    if (source.kind === "class") {
      const classes = await this.data.classes();
      const name = this.manifest.classes[source.id];
      return classes && name !== undefined ? { points: where(classes, source.id), title: /^class \d+$/.test(name) ? name.replace("c", "C") : `Class ${name}` } : null;
    }
    const layer = this.data.layer(source.layer);
    if (!layer) return null;
    if (source.kind === "cluster") {
      const clusters = await this.data.clusters(layer);
      const name = layer.clusters.find(({ id }) => id === source.id)?.name;
      return clusters ? { points: where(clusters, source.id), title: `Cluster ${name || source.id}` } : null;
    }
    return { points: inside(await this.data.positions(layer, source.view), source.polygon), title: "Selection" };
  }

  private zoomToSelection(): void {
    const { selected, view, scatter } = this;
    if (!selected?.length || !view || !scatter) return;
    const box = [Infinity, Infinity, -Infinity, -Infinity] as [number, number, number, number];
    for (const point of selected) {
      box[0] = Math.min(box[0], view.x[point] as number);
      box[1] = Math.min(box[1], view.y[point] as number);
      box[2] = Math.max(box[2], view.x[point] as number);
      box[3] = Math.max(box[3], view.y[point] as number);
    }
    const reach = Math.max(box[2] - box[0], box[3] - box[1]) / 2;
    scatter.look([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, Math.max(0.005, 1.15 * reach)], true);
  }

  private pickAndShow(point: number): void {
    const { view, scatter } = this;
    if (view && scatter) scatter.look([view.x[point] as number, view.y[point] as number, Math.min(0.3, scatter.camera()[2])], true);
    void this.go({ point });
  }

  private moved(): void {
    if (this.scatter) this.overlay.place(this.scatter);
    window.clearTimeout(this.later);
    this.later = window.setTimeout(() => this.writeAddress(), ADDRESS_DELAY);
  }

  private writeAddress(): void {
    const camera = this.scatter && !this.scatter.isHome() ? this.scatter.camera() : null;
    const hash = write({ ...this.state, camera: this.scatter ? camera : this.state.camera }, this.defaults);
    if (hash !== `#${fragment()}`) setFragment(hash.slice(1));
  }

  // Tell what keeps the map from being seen; "" when nothing does, null where it cannot be drawn at all.
  private say(text: string | null): void {
    const message = byId("map-message");
    if (text !== null) {
      message.textContent = text;
      message.hidden = text === "";
      return;
    }
    const { picture: address } = this.data.layer(this.state.layer) ?? {};
    message.hidden = false;
    message.textContent = "This browser has no WebGL, which the map is drawn with."
      + `${address ? " Below is its picture; lists and address work." : " Lists and address work."}`;
    const image = document.createElement("img");
    if (address) {
      image.src = picture(address);
      image.alt = `Map of ${this.state.layer}`;
      message.append(image);
    }
  }
}
