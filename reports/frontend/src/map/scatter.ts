// The points on the canvas: regl-scatterplot draws them, moves the camera and the lasso; finding points is ours.

import createScatterplot, { createRenderer, createSpatialIndex } from "regl-scatterplot";
import type { View } from "./decode";
import { type Encoding, drawingOrder } from "./encoding";
import type { Theme } from "./palette";

export type Camera = [x: number, y: number, distance: number];
type Plot = ReturnType<typeof createScatterplot>;

export interface Events {
  moved: () => void; // after every frame
  lassoed: (corners: [number, number][]) => void;
}

const MOVE_TIME = 900;
const SLOW = 1000;
const MANY = 200_000; // from here on points are so small that squares will do, which are drawn faster
const MARGIN = 1.08;

// A point size in CSS pixels and an opacity that suit so many points.
function looks(n: number): { size: number; opacity: number } {
  const size = Math.min(7, Math.max(1.6, 9 - 1.25 * Math.log10(Math.max(n, 1))));
  return { size, opacity: Math.min(0.85, Math.max(0.3, 2.2 - 0.32 * Math.log10(Math.max(n, 1)))) };
}

export class Scatter {
  frames = 0;
  private reach: [number, number] = [1, 1];
  private wasHome = true;
  private still = false; // drawing takes so long here that nothing flies
  private points: number[][] = [];
  private order: Uint32Array = new Uint32Array();
  private place: Uint32Array = new Uint32Array();
  private drawn: Encoding | null = null;
  private busy: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly canvas: HTMLCanvasElement, private readonly plot: Plot, private readonly index: ArrayBuffer,
  ) {}

  // Null where the browser has no WebGL that will do.
  static async on(canvas: HTMLCanvasElement, n: number, events: Events): Promise<Scatter | null> {
    if (!hasWebGL()) return null;
    // The library's own index would be built anew for a million points; one point far away keeps it quiet.
    const index = await createSpatialIndex([[1e6, 1e6]], false);
    try {
      const renderer = createRenderer();
      let scatter: Scatter | null = null;
      const room = canvas.parentElement as HTMLElement;
      const fit = (): void => {
        fitInto(room, canvas);
        renderer.resize(canvas.clientWidth, canvas.clientHeight);
        if (scatter?.wasHome) scatter.look();
      };
      fit();
      new ResizeObserver(fit).observe(room);
      window.addEventListener("resize", fit);
      const plot = createScatterplot({
        canvas, renderer, renderPointsAsSquares: n > MANY, deselectOnDblClick: false, deselectOnEscape: false, pointScaleMode: "asinh", opacityInactiveScale: 0.2,
        actionKeyMap: { lasso: "shift" },
        pointOutlineWidth: 0.1, pointSizeSelected: 0.5,
      } as Parameters<typeof createScatterplot>[0]);
      const made = new Scatter(canvas, plot, index);
      scatter = made;
      made.look();
      plot.subscribe("drawing", () => {
        made.frames += 1;
        events.moved();
      });
      plot.subscribe("view", () => {
        made.wasHome = made.isHome();
      });
      plot.subscribe("lassoEnd", ({ coordinates }) => events.lassoed(coordinates as unknown as [number, number][]));
      return made;
    } catch {
      return null;
    }
  }

  // Draw the points. Moved: fly from where they are. Calls queue up, since the library takes one at a time.
  draw(view: View, encoding: Encoding, theme: Theme, moved: boolean): Promise<void> {
    const drawing = this.busy.then(() => this.drawNow(view, encoding, theme, moved));
    this.busy = drawing.catch(() => undefined);
    return drawing;
  }

  private async drawNow(view: View, encoding: Encoding, theme: Theme, moved: boolean): Promise<void> {
    const first = this.points.length === 0;
    const fly = moved && !first && !this.still && !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (first || (!fly && this.drawn?.slots !== encoding.slots)) this.reorder(encoding);
    if (moved) this.reachOf(view);
    await this.dress(encoding, theme); // not waited for, it would have all points drawn twice
    this.fill(view, encoding.slots);
    const began = performance.now();
    await this.plot.draw(this.points, {
      zDataType: "categorical", wDataType: "categorical", spatialIndex: this.index,
      preventFilterReset: !first, transition: fly, transitionDuration: MOVE_TIME,
    });
    if (!fly && performance.now() - began > SLOW) this.still = true;
    const before = this.drawn?.slots;
    this.drawn = encoding;
    // In flight, points keep their places in the drawing order: the new one follows on arrival.
    if (fly && before !== encoding.slots) await this.drawNow(view, encoding, theme, false);
  }

  private reorder(encoding: Encoding): void {
    const n = encoding.slots.length;
    this.order = drawingOrder(encoding);
    this.place = new Uint32Array(n);
    this.order.forEach((point, place) => {
      this.place[point] = place;
    });
    if (this.points.length !== n) this.points = Array.from({ length: n }, () => [0.5, 0.5, 0, 0]);
  }

  private reachOf(view: View): void {
    const far = (values: Float32Array): number => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0.05);
    const { wasHome } = this;
    this.reach = [far(view.x), far(view.y)];
    if (wasHome) this.look();
  }

  private fill(view: View, slots: Uint8Array): void {
    for (let place = 0; place < this.points.length; place += 1) {
      const point = this.order[place] as number;
      const row = this.points[place] as number[];
      row[0] = view.x[point] as number;
      row[1] = view.y[point] as number;
      row[2] = slots[point] as number;
    }
  }

  private dress(encoding: Encoding, theme: Theme): Promise<void> {
    const { size, opacity } = looks(encoding.slots.length);
    return this.plot.set({
      backgroundColor: theme.paper, lassoColor: theme.accent,
      colorBy: "valueA", opacityBy: "valueA", sizeBy: "valueA",
      pointColor: encoding.colours, pointColorActive: encoding.colours as never, pointColorHover: theme.accent,
      opacity: encoding.opacities.map((share) => Math.min(1, share * opacity)),
      pointSize: encoding.sizes.map((share) => share * size),
    });
  }

  // Leave these points as they are and let all others fade.
  select(points: Uint32Array | null): void {
    if (!points || points.length === 0) this.plot.deselect({ preventEvent: true });
    else this.plot.select(Array.from(points, (point) => this.place[point] as number), { preventEvent: true });
  }

  lasso(on: boolean): void {
    this.plot.set({ mouseMode: on ? "lasso" : "panZoom" });
  }

  camera(): Camera {
    const [x, y] = this.plot.get("cameraTarget");
    return [x, y, this.plot.get("cameraDistance")];
  }

  // Where all points are seen.
  home(): Camera {
    const { width, height } = this.size();
    const [across, up] = this.reach;
    return [0, 0, MARGIN * Math.max(up, (across * height) / Math.max(1, width))];
  }

  isHome(): boolean {
    const home = this.home();
    return this.camera().every((value, at) => Math.abs(value - (home[at] as number)) < 1e-4);
  }

  look(camera?: Camera, moving = false): void {
    this.wasHome = camera === undefined;
    const [x, y, distance] = camera ?? this.home();
    const transition = moving && !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (transition) void this.plot.zoomToLocation([x, y], distance, { transition, transitionDuration: 350 });
    else {
      this.plot.set({ cameraTarget: [x, y], cameraDistance: distance });
      this.plot.redraw();
    }
  }

  // The camera looks at the mouse once a frame. Where frames are slow, a press would drag the map by all that the mouse
  // had moved since the last one: so have it look just before.
  settle(): void {
    if (this.plot.get("camera").tick()) this.plot.redraw();
    this.wasHome = this.isHome();
  }

  size(): { width: number; height: number } {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  // Pixels of the canvas, for a position of the map; and back.
  toScreen(x: number, y: number): [number, number] {
    const { width, height } = this.size();
    const view = this.plot.get("cameraView") as unknown as Float32Array;
    const across = ((view[0] as number) * x + (view[12] as number)) / (width / height);
    const up = (view[5] as number) * y + (view[13] as number);
    return [(width * (across + 1)) / 2, height * (0.5 - up / 2)];
  }

  toMap(across: number, down: number): [number, number] {
    const { width, height } = this.size();
    const view = this.plot.get("cameraView") as unknown as Float32Array;
    const x = ((2 * across) / width - 1) * (width / height);
    const y = 1 - (2 * down) / height;
    return [(x - (view[12] as number)) / (view[0] as number), (y - (view[13] as number)) / (view[5] as number)];
  }

  // The length of a pixel on the map.
  pixel(): number {
    const view = this.plot.get("cameraView") as unknown as Float32Array;
    return 2 / this.size().height / (view[5] as number);
  }
}

// Whole pixels, so that no browser stretches the drawing.
function fitInto(room: HTMLElement, canvas: HTMLCanvasElement): void {
  const { width, height } = room.getBoundingClientRect();
  canvas.style.width = `${Math.max(1, Math.floor(width) - 2)}px`;
  canvas.style.height = `${Math.max(1, Math.floor(height) - 2)}px`;
}

function hasWebGL(): boolean {
  const context = document.createElement("canvas").getContext("webgl");
  const enough = context !== null && context.getExtension("OES_texture_float") !== null
    && context.getExtension("WEBGL_color_buffer_float") !== null;
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return enough;
}
