// How the page of a generator asks its server: of several questions that come while one is at work, only the latest is
// asked.

import { ask, wasStopped } from "../pages/live/asking";

export interface LayerAbout {
  name: string;
  units: number;
  grid: number[];
}

// GET generator
export interface About {
  spec: string;
  layers: LayerAbout[];
  size: [number, number]; // height, width
  first_seed: number;
  last_seed: number | null; // null: any
  segmenter: boolean;
  most_edits: number;
}

export type Failed = (error: unknown) => void;

// A line of questions to one endpoint: one is at work, the latest of those that came meanwhile follows it.
export class Line<Asked, Answer> {
  private working = false;
  private next: Asked | null = null;

  // show: the next question is asked once it has shown this answer; idle: nothing is left to ask.
  constructor(
    private readonly path: string,
    private readonly show: (answer: Answer, asked: Asked) => void | Promise<void>,
    private readonly fail: Failed,
    private readonly idle: () => void,
  ) {}

  get busy(): boolean {
    return this.working;
  }

  ask(asked: Asked): void {
    if (this.working) this.next = asked;
    else void this.begin(asked);
  }

  private async begin(asked: Asked): Promise<void> {
    this.working = true;
    for (let one: Asked | null = asked; one !== null; one = this.taken()) {
      try {
        await this.show(await ask<Answer>(this.path, one), one);
      } catch (error) {
        this.fail(error);
      }
    }
    this.working = false;
    this.idle();
  }

  private taken(): Asked | null {
    const next = this.next;
    this.next = null;
    return next;
  }
}

// A question that may be left: a newer one, or `leave`, takes the older one back, and the server drops it.
export class Leaving<Asked, Answer> {
  private timer = 0;
  private working: AbortController | null = null;

  // wait: milliseconds before a question is asked, in which a newer one replaces it.
  constructor(
    private readonly path: string,
    private readonly wait: number,
    private readonly show: (answer: Answer, asked: Asked) => void,
    private readonly fail: Failed,
  ) {}

  leave(): void {
    window.clearTimeout(this.timer);
    this.working?.abort();
    this.working = null;
  }

  ask(asked: Asked): void {
    this.leave();
    this.timer = window.setTimeout(() => void this.begin(asked), this.wait);
  }

  private async begin(asked: Asked): Promise<void> {
    const mine = new AbortController();
    this.working = mine;
    try {
      const found = await ask<Answer>(this.path, asked, mine.signal);
      if (this.working === mine) this.show(found, asked);
    } catch (error) {
      if (!wasStopped(error) && this.working === mine) this.fail(error);
    }
  }
}

// Pixels (RGBA) of the picture at an address.
export async function pixelsOf(source: string): Promise<ImageData> {
  const image = new Image();
  image.src = source;
  try {
    await image.decode();
  } catch {
    throw new Error("The picture that the server sent cannot be read.");
  }
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const draw = contextOf(canvas, { willReadFrequently: true });
  draw.drawImage(image, 0, 0);
  return draw.getImageData(0, 0, canvas.width, canvas.height);
}

export function contextOf(canvas: HTMLCanvasElement, settings: CanvasRenderingContext2DSettings = {}): CanvasRenderingContext2D {
  const draw = canvas.getContext("2d", settings);
  if (!draw) throw new Error("This browser draws on no canvas.");
  return draw;
}

// A share as the page writes it.
export function shareText(share: number): string {
  const value = 100 * share;
  return `${value && value < 0.01 ? "<0.01" : value.toFixed(value < 1 ? 2 : 1)}%`;
}
