// What the server that gave a page out can be asked, once a page.

import { ask, isServed } from "./asking";

export interface Removable {
  name: string;
  units: number;
}

// GET hello. why, uploads: the reason why something cannot be asked of this run, "" where it can. limits: how many where
// the asker does not say, and at most.
export interface Hello {
  upload_bytes: number;
  layers: string[]; // whose units can be explained
  visualise: boolean;
  samples: number;
  neighbors: { why: string; uploads: string; layers: string[] };
  ablate: { why: string; layers: Removable[] };
  limits: { rows: Limit; neighbors: Limit; images: Limit; draws: Limit };
}

export type Limit = [usual: number, most: number];

let hello: Promise<Hello> | null = null;

// Fails where no server has given the page out, or it does not answer.
export function greet(): Promise<Hello> {
  if (!isServed()) return Promise.reject(new Error("No server has given this page out."));
  hello ??= ask<Hello>("hello", null);
  return hello;
}
