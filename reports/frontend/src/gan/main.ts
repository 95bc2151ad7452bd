// The entry of the page that edits what a generator makes. Without a server (microtome serve) the page says how to start
// one, and this script does nothing.

import { byId } from "../dom";
import { ask, isServed } from "../pages/live/asking";
import type { About } from "./asking";
import { GeneratorPage, say, showTrouble } from "./page";

if (isServed()) {
  byId("unserved").hidden = true;
  byId("gan").hidden = false;
  ask<About>("generator", null).then((about) => {
    const page = new GeneratorPage(about);
    say("The generator is being opened …");
    page.begin();
  }).catch(showTrouble);
}
