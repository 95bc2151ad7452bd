// What the page saves and opens: pictures and recipes.

import { ask } from "../pages/live/asking";
import type { RecipeEdit } from "./edits";

export interface ReadRecipe {
  edits: RecipeEdit[];
  seeds: number[];
}

export function savePicture(picture: string, seed: number, edited: boolean): void {
  const bytes = Uint8Array.from(atob(picture.split(",", 2)[1] ?? ""), (letter) => letter.charCodeAt(0));
  save(new Blob([bytes], { type: "image/png" }), `seed-${String(seed).padStart(6, "0")}${edited ? "-edited" : ""}.png`);
}

// Gives the command that applies the recipe elsewhere.
export async function saveRecipe(spec: string, edits: RecipeEdit[], seed: number): Promise<string> {
  const { recipe } = await ask<{ recipe: unknown }>("recipe", { edits, seeds: [seed] });
  save(new Blob([`${JSON.stringify(recipe, null, 2)}\n`], { type: "application/json" }), "edit.json");
  return `microtome generate ${quoted(spec)} --recipe edit.json --seeds ${seed} --out images`;
}

export async function openRecipe(file: File): Promise<ReadRecipe> {
  let recipe: unknown;
  try {
    recipe = JSON.parse(await file.text());
  } catch {
    throw new Error(`${file.name} is no JSON; bring a recipe that this page or microtome has made.`);
  }
  return ask<ReadRecipe>("edits", { recipe });
}

function save(blob: Blob, download: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = download;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// As a shell takes it for one word.
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
