// The page "Ask": what the run itself answers where microtome serve gives it out. From disk it says how to start that.

import { byId, el } from "../../dom";
import { href } from "../../place";
import type { LayerData, Listing } from "../data";
import { listenTo } from "../keys";
import { load } from "../registry";
import { AblateRoom, ablationAddress } from "./ablate";
import { isServed } from "./asking";
import { greet } from "./hello";
import { nearAddress, NearRoom } from "./near";
import { QueryRoom } from "./query";

export async function startAsk(signal: AbortSignal): Promise<void> {
  listenTo([], signal);
  if (!isServed()) {
    byId("command").textContent = `microtome serve ${runHere()}`;
    return;
  }
  const [listing, can] = await Promise.all([load<Listing>("index"), greet()]);
  byId("unserved").hidden = true;
  byId("asking").hidden = false;
  const rooms = [new QueryRoom(listing, can), new NearRoom(can), new AblateRoom(listing, can)];
  const show = (): void => rooms.forEach((room) => room.show());
  window.addEventListener("hashchange", show, { signal });
  show();
}

// The folder of the run whose report this is, where the page lies in it on a disk; RUN where it does not.
function runHere(): string {
  const match = location.protocol === "file:" ? /^(.+)\/report\/[^/]*$/.exec(decodeURI(location.pathname)) : null;
  const folder = (match?.[1] ?? "RUN").replace(/^\/([A-Za-z]:)/, "$1");
  return /^[\w@%+=:,./-]+$/.test(folder) ? folder : `'${folder.replaceAll("'", "'\\''")}'`;
}

// On the page of a unit: what can be done with it.
export function offerUnitActions({ layer, patches }: LayerData, unit: number): void {
  const room = document.getElementById("live");
  if (!room || !isServed()) return;
  greet().then((can) => {
    const first = patches.units[unit]?.[0], sample = first && patches.samples[first[0]];
    const ways: [string, string, string][] = [];
    if (!can.ablate.why && can.ablate.layers.some(({ name }) => name === layer)) ways.push([ablationAddress(layer, unit), "Ablate this unit", "which classes suffer when it is set to zero"]);
    if (!can.neighbors.why && sample !== undefined) ways.push([nearAddress(layer, sample), "Images like its first patch’s", `what ${layer} takes for similar to image ${sample}`]);
    room.hidden = !ways.length;
    room.replaceChildren(el("h2", {}, "Ask the run"), el("ul", { class: "actions" }, ...ways.map(([address, name, about]) => el("li", {}, el("a", { href: href(address) }, name), " ", el("small", {}, about)))));
  }, () => undefined);
}
