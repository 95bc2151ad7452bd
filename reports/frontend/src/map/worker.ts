// The worker: base64 and gzip undone off the page's thread, and positions decoded.

import { decodeView } from "./decode";

export interface Job {
  id: number;
  text: string; // base64 of gzip
  view?: { n: number; box: readonly number[] };
}

export interface Done {
  id: number;
  bytes?: Uint8Array;
  view?: { x: Float32Array; y: Float32Array };
  error?: string;
}

const post = postMessage as (message: Done, transfer: Transferable[]) => void;

addEventListener("message", (event: MessageEvent<Job>) => {
  const { id, text, view } = event.data;
  unzip(text).then(
    (bytes) => {
      if (!view) return post({ id, bytes }, [bytes.buffer]);
      const decoded = decodeView(bytes, view.n, view.box);
      return post({ id, view: decoded }, [decoded.x.buffer, decoded.y.buffer]);
    },
  ).catch((error: unknown) => post({ id, error: String(error) }, []));
});

async function unzip(text: string): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
