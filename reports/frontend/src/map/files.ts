// Data files: each is a classic script that calls MICROTOME_MAP_DATA(ID, BASE64), and is asked for at most once at a time.

import type { View } from "./decode";
import type { Box } from "./manifest";
import type { Done, Job } from "./worker";
import { runScript } from "../place";
import code from "worker:code";

interface Waiting<T> {
  resolve: (value: T) => void;
  reject: (error: Error) => void;
}

const arriving = new Map<string, Waiting<string>>();
const working = new Map<number, Waiting<Done>>();
let worker: Worker | null = null;
let jobs = 0;

export function listen(): void {
  window.MICROTOME_MAP_DATA = (id, text) => {
    arriving.get(id)?.resolve(text);
    arriving.delete(id);
  };
}

// The content of the data file at `address` ("map/class.js").
export async function bytesOf(address: string): Promise<Uint8Array> {
  const done = await work({ text: await textOf(address) });
  return done.bytes as Uint8Array;
}

// The positions in the view file at `address`, decoded in the worker.
export async function viewOf(address: string, n: number, box: Box): Promise<View> {
  const done = await work({ text: await textOf(address), view: { n, box } });
  return done.view as View;
}

export async function jsonOf(address: string): Promise<unknown> {
  return JSON.parse(new TextDecoder().decode(await bytesOf(address)));
}

function textOf(address: string): Promise<string> {
  const id = address.replace(/\.js$/, "");
  return new Promise((resolve, reject) => {
    arriving.set(id, { resolve, reject });
    runScript(address).then(() => {
      if (arriving.delete(id)) reject(new Error(`${address} does not hold what its name says`));
    }, (error: unknown) => {
      arriving.delete(id);
      reject(error instanceof Error ? error : new Error(String(error)));
    });
  });
}

function work(job: Omit<Job, "id">): Promise<Done> {
  worker ??= start();
  jobs += 1;
  const id = jobs;
  return new Promise((resolve, reject) => {
    working.set(id, { resolve, reject });
    worker?.postMessage({ id, ...job });
  });
}

function start(): Worker {
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const started = new Worker(address);
  URL.revokeObjectURL(address);
  started.onmessage = (event: MessageEvent<Done>) => {
    const waiting = working.get(event.data.id);
    working.delete(event.data.id);
    if (event.data.error === undefined) waiting?.resolve(event.data);
    else waiting?.reject(new Error(event.data.error));
  };
  return started;
}
