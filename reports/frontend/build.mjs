// Bundle each page's source into one classic script, and write the licences of what is bundled beside them.
//
//     node build.mjs FIRST-LINE map.licenses.txt src/map/main.ts=map.js src/pages/main.ts=pages.js ...
//
// The decoder runs in a worker that is made from a string, since pages from disk cannot load one from a file: it is
// bundled first, and `worker:code` imports it as text.

import { build } from "esbuild";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const [banner, licences, ...scripts] = process.argv.slice(2);
const common = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome109", "edge109", "firefox115", "safari16.4"],
  charset: "ascii",
  legalComments: "eof",
  metafile: true,
  write: false,
  logLevel: "error",
};

const worker = await build({ ...common, entryPoints: ["src/map/worker.ts"] });
const workerCode = {
  name: "worker-code",
  setup(bundle) {
    bundle.onResolve({ filter: /^worker:code$/ }, (found) => ({ path: found.path, namespace: "worker" }));
    bundle.onLoad({ filter: /.*/, namespace: "worker" }, () => ({
      contents: worker.outputFiles[0].text, loader: "text",
    }));
  },
};
const inputs = [worker.metafile];
for (const asked of scripts) {
  const cut = asked.indexOf("=");
  const page = await build({
    ...common, entryPoints: [asked.slice(0, cut)], plugins: [workerCode], banner: { js: banner },
  });
  inputs.push(page.metafile);
  writeFileSync(asked.slice(cut + 1), page.outputFiles[0].text);
}

// "node_modules/@scope/name/dist/file.js" belongs to the package "@scope/name".
function packagesOf(metafile) {
  return Object.keys(metafile.inputs)
    .map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
    .filter((name) => name !== undefined);
}

function about(name) {
  return JSON.parse(readFileSync(join(here, "node_modules", name, "package.json"), "utf8"));
}

// Packages come bundled already, with what they depend on inside: those licences count, too.
function withDependencies(names, found = new Set()) {
  for (const name of names) {
    if (found.has(name)) continue;
    found.add(name);
    withDependencies(Object.keys(about(name).dependencies ?? {}), found);
  }
  return found;
}

function licenceOf(name) {
  const folder = join(here, "node_modules", name);
  const { version, license } = about(name);
  const file = readdirSync(folder).find((entry) => /^licen[cs]e(\.(md|txt))?$/i.test(entry));
  if (!file) throw new Error(`${name} comes without a licence file`);
  const text = readFileSync(join(folder, file), "utf8").replaceAll("\r\n", "\n").trim();
  return `${name} ${version} (${license})\n\n${text}\n`;
}

const names = [...withDependencies(inputs.flatMap(packagesOf))].sort();
const copied = readFileSync(join(here, "licenses", "kdbush.txt"), "utf8"); // within regl-scatterplot's own source
const rule = `\n${"-".repeat(80)}\n\n`;
const opening = "map.js is part of Microtome (Apache License 2.0) and contains the packages below under their own licences.\n";
writeFileSync(licences, [opening, ...names.map(licenceOf), copied].join(rule));
