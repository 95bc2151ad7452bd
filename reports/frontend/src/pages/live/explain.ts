// What a server (microtome serve) explains on demand: on cards of units, pages of units and pages of classes.

import { el } from "../../dom";
import type { LayerData } from "../data";
import { ask, base64Of, isServed, wasStopped, words } from "./asking";
import { greet, type Hello } from "./hello";

interface Found {
  methods: string[];
  refused: { name: string; why: string }[];
}

interface Pictures {
  pictures: { caption: string; src: string | null }[];
}

type About = { layer: string; unit: number } | { class: number };

// One offer: what is explained, and the samples that may be explained, each with its number and its name.
class Offer {
  private readonly method = el("select", {}, el("option", {}, "…"));
  private readonly source = el("select", {});
  private readonly file = el("input", { type: "file", accept: "image/*", "aria-label": "image file" });
  private readonly upload = el("label", {}, "file", this.file);
  private readonly go = el("button", { type: "submit", disabled: true }, "Explain");
  private readonly trouble = el("p", { class: "trouble", role: "alert", hidden: true });
  private readonly busy = el("p", { class: "note", role: "status", hidden: true });
  private readonly refused = el("details", { class: "note", hidden: true });
  private readonly answers = el("div", { class: "answers" });
  readonly node: HTMLDetailsElement;
  private working: AbortController | null = null;
  private asked = false;
  private seed = 1;

  constructor(private readonly about: About, samples: [number, string][], private readonly can: Hello) {
    for (const [number, name] of samples) this.source.append(el("option", { value: number }, name));
    this.source.append(el("option", { value: "upload" }, "an image of yours"));
    const make = can.visualise ? el("button", { type: "button", click: () => this.make() }, "Synthesise anew") : null;
    const form = el("form", {}, el("label", {}, "method", this.method), el("label", {}, "image", this.source), this.upload, this.go, make);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.explain();
    });
    this.node = el("details", {}, el("summary", {}, "Explain"), form, this.busy, this.trouble, this.answers, this.refused);
    this.node.addEventListener("toggle", () => { if (this.node.open) void this.learn(); });
    const show = (): void => { this.upload.hidden = this.source.value !== "upload"; };
    this.source.addEventListener("change", show);
    show();
  }

  private say(node: HTMLElement, text: string): void {
    node.textContent = text;
    node.hidden = !text;
  }

  private async learn(): Promise<void> {
    if (this.asked) return;
    this.asked = true;
    this.say(this.busy, "The model is being opened …");
    try {
      const found = await ask<Found>("methods", this.about);
      this.method.replaceChildren(...found.methods.map((name) => el("option", { value: name }, name)));
      this.go.disabled = !found.methods.length;
      this.refused.hidden = !found.refused.length;
      this.refused.replaceChildren(el("summary", {}, `does not apply: ${found.refused.map(({ name }) => name).join(", ")}`));
      for (const { name, why } of found.refused) this.refused.append(el("p", {}, el("b", {}, name), `: ${why}`));
    } catch (error) {
      this.asked = false;
      this.say(this.trouble, words(error));
    }
    this.say(this.busy, "");
  }

  private async work(path: string, body: Record<string, unknown>): Promise<void> {
    this.working?.abort();
    const working = new AbortController();
    this.working = working;
    this.say(this.trouble, "");
    this.say(this.busy, "Working …");
    try {
      const found = await ask<Pictures>(path, body, working.signal);
      this.answers.replaceChildren(...found.pictures.map(({ caption, src }) => {
        const image = src ? el("img", { src, alt: caption }) : null;
        return el("figure", {}, image, el("figcaption", {}, caption));
      }));
    } catch (error) {
      if (wasStopped(error)) return;
      this.say(this.trouble, words(error));
    }
    this.say(this.busy, "");
  }

  private make(): void {
    void this.work("visualise", { seed: this.seed++, ...this.about });
  }

  private async explain(): Promise<void> {
    const body: Record<string, unknown> = { methods: [this.method.value], ...this.about };
    const file = this.file.files?.[0];
    if (this.source.value !== "upload") {
      await this.work("explain", { ...body, sample: Number(this.source.value) });
    } else if (!file) {
      this.say(this.trouble, "Choose an image file first.");
    } else if (file.size > this.can.upload_bytes) {
      this.say(this.trouble, `The file is larger than ${Math.floor(this.can.upload_bytes / 1e6)} MB.`);
    } else {
      try {
        await this.work("explain", { ...body, image: await base64Of(file) });
      } catch (error) {
        this.say(this.trouble, words(error));
      }
    }
  }
}

// The patches of the unit can be explained, where its layer can.
export function offerUnit(card: HTMLElement, data: LayerData, unit: number): void {
  if (!isServed()) return;
  void greet().then((can) => {
    if (!can.layers.includes(data.layer) || card.querySelector(".live")) return;
    const samples = (data.patches.units[unit] ?? []).map((patch, rank): [number, string] => [
      data.patches.samples[patch[0]] ?? 0, `patch ${rank + 1}: ${data.patches.keys[patch[0]] ?? ""}`,
    ]);
    card.append(el("div", { class: "live" }, new Offer({ layer: data.layer, unit }, samples, can).node));
  }, () => undefined);
}

// A page of a class
export function offerClasses(): void {
  const rooms = [...document.querySelectorAll<HTMLElement>("section.live")];
  if (!isServed() || !rooms.length) return;
  void greet().then((can) => {
    const shown = [...document.querySelectorAll<HTMLElement>(".portrait li [data-sample]")];
    const samples = shown.map((node): [number, string] => [Number(node.dataset.sample), node.getAttribute("title") ?? ""]);
    for (const room of rooms) {
      room.append(new Offer({ class: Number(room.dataset.class) }, samples, can).node);
      room.hidden = false;
      const section = room.closest<HTMLElement>("#pictures");
      if (section) section.hidden = false;
    }
  }, () => undefined);
}
