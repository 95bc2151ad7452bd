// How a page asks the server that gave it out (microtome serve). A page that no server has given out has no
// <meta name="microtome-server">, and asks nobody for anything.

export function server(): string | null {
  return document.querySelector<HTMLMetaElement>("meta[name=microtome-server]")?.content ?? null;
}

export function isServed(): boolean {
  return server() !== null;
}

// JSON values of an endpoint; body null: GET. Fails with the server's sentence.
export async function ask<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const answer = await answerOf(path, body, signal);
  return (await answer.json()) as T;
}

// The same of an endpoint that tells how far it is before it answers.
export async function askTelling<T>(path: string, body: unknown, told: (done: number, of: number) => void, signal: AbortSignal): Promise<T> {
  const answer = await answerOf(path, body, signal);
  if (!answer.body || !answer.headers.get("content-type")?.startsWith(LINES)) return (await answer.json()) as T;
  let last: Line = {};
  try {
    for await (const line of linesOf(answer.body)) {
      last = JSON.parse(line) as Line;
      if (last.done !== undefined && last.of !== undefined) told(last.done, last.of);
    }
  } catch (error) {
    throw wasStopped(error) ? error : new Error("The server has broken off before its answer.");
  }
  if (last.error) throw new Error(last.error);
  if (last.done !== undefined) throw new Error("The server has broken off before its answer.");
  return last as T;
}

const LINES = "application/x-ndjson";

interface Line {
  done?: number;
  of?: number;
  error?: string;
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = stream.getReader(), decoder = new TextDecoder();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const pieces = (rest + decoder.decode(part.value, { stream: true })).split("\n");
    rest = pieces.pop() ?? "";
    yield* pieces.filter(Boolean);
  }
  if (rest) yield rest;
}

// The answer of an endpoint, which is no refusal.
async function answerOf(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const options: RequestInit = body === null ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  if (signal) options.signal = signal;
  let answer: Response;
  try {
    answer = await fetch((server() ?? "") + path, options);
  } catch (error) {
    if (wasStopped(error)) throw error;
    throw new Error("The server does not answer; is microtome serve still running?");
  }
  if (answer.ok) return answer;
  const refused = (await answer.json().catch(() => ({}))) as Line;
  throw new Error(refused.error || `The server answered with ${answer.status}.`);
}

export function wasStopped(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}

export function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

// The content of a file in base64, without the words before it.
export function base64Of(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",", 2)[1] ?? "");
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(file);
  });
}
