// Data files: each is a classic script that pushes [NAME, VALUE] onto window.MICROTOME, before this script runs or after.

import { runScript } from "../place";

interface Waiting {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

const held = new Map<string, unknown>();
const waiting = new Map<string, Waiting[]>();
const asked = new Map<string, Promise<unknown>>();

function take(...items: unknown[]): number {
  for (const item of items) {
    if (!Array.isArray(item) || typeof item[0] !== "string") continue;
    held.set(item[0], item[1]);
    for (const { resolve } of waiting.get(item[0]) ?? []) resolve(item[1]);
    waiting.delete(item[0]);
  }
  return held.size;
}

export function listen(): void {
  const early = window.MICROTOME ?? [];
  window.MICROTOME = { push: take };
  if (Array.isArray(early)) take(...early);
}

// The value of that name, which is the address of its file in data/, without .js; it is asked for at most once.
export function load<T>(name: string): Promise<T> {
  if (held.has(name)) return Promise.resolve(held.get(name) as T);
  const before = asked.get(name);
  if (before) return before as Promise<T>;
  const loading = new Promise<unknown>((resolve, reject) => {
    waiting.set(name, [...(waiting.get(name) ?? []), { resolve, reject }]);
    const path = `data/${name}.js`;
    runScript(path).then(() => {
      if (waiting.has(name)) throw new Error(`${path} does not hold what its name says`);
    }).catch((error: unknown) => {
      asked.delete(name);
      waiting.delete(name);
      reject(error instanceof Error ? error : new Error(String(error)));
    });
  });
  asked.set(name, loading);
  return loading as Promise<T>;
}

declare global {
  interface Window {
    MICROTOME?: unknown[] | { push: typeof take };
    MICROTOME_LAYER?: unknown;
  }
}
