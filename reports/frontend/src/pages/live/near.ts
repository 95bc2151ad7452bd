// The images of the run that a layer takes for similar to one of them, or to an image of the asker's own.

import { byId, el } from "../../dom";
import { copyButtons } from "../copying";
import { short, thousands } from "../format";
import { ask, base64Of, words } from "./asking";
import type { Hello } from "./hello";
import { Room } from "./room";
import { keep, read } from "./state";

interface Neighbor {
  rank: number;
  sample: number;
  key: string;
  split: string;
  class: string;
  concept: string;
  distance: number;
  src: string;
}

interface Found {
  layer: string;
  metric: string;
  method: string;
  recall: number | null;
  recall_at: number | null;
  query: { sample: number | null; name: string };
  note: string;
  src: string;
  neighbors: Neighbor[];
}

const COLUMNS = ["rank", "sample", "key", "split", "class", "concept", "distance"] as const;

export class NearRoom {
  private readonly room = new Room("near");
  private readonly layer = byId<HTMLSelectElement>("near-layer");
  private readonly metric = byId<HTMLSelectElement>("near-metric");
  private readonly sample = byId<HTMLInputElement>("near-sample");
  private readonly count = byId<HTMLInputElement>("near-count");
  private readonly file = byId<HTMLInputElement>("near-file");
  private asked = "";

  constructor(private readonly can: Hello) {
    const { layers, why, uploads } = can.neighbors, [usual, most] = can.limits.neighbors;
    byId("near-form").hidden = Boolean(why);
    if (why) this.room.refuse(why);
    this.layer.replaceChildren(...layers.map((name) => el("option", { value: name }, name)));
    this.layer.value = layers.at(-1) ?? "";
    this.sample.max = String(can.samples - 1);
    this.count.max = String(most);
    this.count.value = String(usual);
    byId("near-samples").textContent = `0 to ${thousands(can.samples - 1)}`;
    byId("near-own").textContent = uploads || `An image of yours stays on this machine; at most ${Math.floor(can.upload_bytes / 1e6)} MB.`;
    this.file.disabled = Boolean(uploads);
    byId("near-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.bySample();
    });
    this.file.addEventListener("change", () => {
      const [file] = this.file.files ?? [];
      if (file) void this.byFile(file);
    });
    if (!uploads && !why) this.listenForDrops();
  }

  // As the address says.
  show(): void {
    const state = read(), sample = state.get("sample"), layer = state.get("layer") ?? "", metric = state.get("metric");
    if (this.can.neighbors.layers.includes(layer)) this.layer.value = layer;
    if (metric === "cosine" || metric === "euclidean") this.metric.value = metric;
    if (sample === undefined || !/^\d{1,12}$/.test(sample) || this.asked === [sample, this.layer.value, this.metric.value].join()) return;
    this.sample.value = sample;
    this.bySample();
  }

  private listenForDrops(): void {
    const place = byId("near");
    const over = (event: DragEvent, on: boolean): void => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      place.classList.toggle("dropping", on);
    };
    place.addEventListener("dragover", (event) => over(event, true));
    place.addEventListener("dragleave", (event) => over(event, false));
    place.addEventListener("drop", (event) => {
      over(event, false);
      const file = event.dataTransfer?.files[0];
      if (file) void this.byFile(file);
    });
  }

  private bySample(): void {
    const sample = this.sample.valueAsNumber;
    if (!Number.isInteger(sample) || sample < 0 || sample >= this.can.samples) {
      this.room.fail(`The run has images 0 to ${thousands(this.can.samples - 1)}.`);
      return;
    }
    this.file.value = "";
    this.asked = [sample, this.layer.value, this.metric.value].join();
    keep({ sample: String(sample), layer: this.layer.value, metric: this.metric.value === "euclidean" ? null : this.metric.value });
    this.ask({ sample }, "Looking for its neighbours …");
  }

  private async byFile(file: File): Promise<void> {
    if (file.size > this.can.upload_bytes) {
      this.room.fail(`The file is larger than ${Math.floor(this.can.upload_bytes / 1e6)} MB.`);
      return;
    }
    this.asked = "";
    keep({ sample: null, layer: this.layer.value });
    try {
      this.ask({ image: await base64Of(file) }, "The model looks at your image; it is opened first, where it has not been …");
    } catch (error) {
      this.room.fail(words(error));
    }
  }

  private ask(about: Record<string, unknown>, waiting: string): void {
    const question = { layer: this.layer.value, metric: this.metric.value, count: this.count.valueAsNumber || this.can.limits.neighbors[0], ...about };
    void this.room.ask(waiting, (signal) => ask<Found>("neighbors", question, signal), (found) => this.draw(found));
  }

  private draw(found: Found): void {
    const { neighbors, query } = found;
    if (!neighbors.length) {
      this.room.answer.replaceChildren(el("p", { class: "nothing" }, "The run has no other image that could be read."));
      return;
    }
    const name = query.sample === null ? "your image" : `image ${query.sample}`;
    const how = found.recall === null ? "all images were compared" : `by an index that finds ${(100 * found.recall).toFixed(1)}% of the ${found.recall_at ?? 0} nearest`;
    const copy = copyButtons(() => ({
      name: `neighbours-${query.sample ?? "own"}`, columns: [...COLUMNS], rows: neighbors.map((one) => COLUMNS.map((column) => one[column])),
    }));
    this.room.answer.replaceChildren(
      el("p", { class: "note" }, `${found.layer}, ${found.metric} distance between the means of its units; ${how}. `, copy),
      found.note ? el("p", { class: "note" }, `Small pictures: ${found.note}.`) : "",
      el(
        "ol", { class: "near" },
        el("li", { class: "asked" }, el("figure", {}, picture(found.src, name), el("figcaption", {}, el("b", {}, name), " ", query.sample === null ? null : el("small", {}, query.name)))),
        ...neighbors.map((one) => this.neighbor(one)),
      ),
    );
  }

  private neighbor(one: Neighbor): HTMLElement {
    const shows = one.class || one.concept;
    const next = el("button", {
      type: "button", class: "plain", title: `images nearest to ${one.key}`, "aria-label": `image ${one.sample}: images nearest to it`, click: () => {
        this.sample.value = String(one.sample);
        this.bySample();
      },
    }, `image ${one.sample}`);
    return el("li", {}, el("figure", {}, picture(one.src, shows ? `image ${one.sample}: ${shows}` : one.key), el(
      "figcaption", {}, next, shows ? el("span", {}, shows) : null, el("small", { title: one.key }, `${short(one.distance)} away`),
    )));
  }
}

export function nearAddress(layer: string, sample: number): string {
  return `ask.html#sample=${sample}&layer=${encodeURIComponent(layer)}`;
}

function picture(src: string, alt: string): HTMLElement {
  return src ? el("img", { src, alt, loading: "lazy" }) : el("span", { class: "absent", role: "img", "aria-label": alt }, "no picture");
}
