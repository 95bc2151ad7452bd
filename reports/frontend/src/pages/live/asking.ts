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
  const options: RequestInit = body === null ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  if (signal) options.signal = signal;
  let answer: Response;
  try {
    answer = await fetch((server() ?? "") + path, options);
  } catch (error) {
    if (wasStopped(error)) throw error;
    throw new Error("The server does not answer; is microtome serve still running?");
  }
  const found = (await answer.json().catch(() => ({}))) as { error?: string };
  if (!answer.ok) throw new Error(found.error || `The server answered with ${answer.status}.`);
  return found as T;
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
