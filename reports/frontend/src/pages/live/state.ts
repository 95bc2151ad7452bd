// The state of the page "Ask" in its address: the fields of all of its parts, each under its own name.

import { fields, fragment, setFragment, written } from "../../place";

export function read(): Map<string, string> {
  return fields(fragment());
}

// The fields of one part take the place of those it had; null: none.
export function keep(changes: Record<string, string | null>): void {
  const state = read();
  for (const [name, value] of Object.entries(changes)) {
    if (value) state.set(name, value);
    else state.delete(name);
  }
  setFragment(written(state));
}
