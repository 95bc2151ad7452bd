"""The project's own files, as git sees them, and what they import."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {"storage": 1, "datasets": 2, "reports": 3, "dissect": 4}


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that is tracked or could be, relative to the root; what .gitignore names is left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {Path(name) for name in listed.split("\0") if name}
    return tuple(sorted(path for path in files if (ROOT / path).is_file()))


def modules(*folders: str) -> list[Path]:
    """The Python files below the given folders, relative to the root; below all floors where none is given."""
    wanted = [Path(folder) for folder in folders or FLOORS]
    return [
        path for path in project_files() if path.suffix == ".py" and any(path.is_relative_to(top) for top in wanted)
    ]


def packages() -> set[str]:
    """Every folder below a floor that holds Python files, as the package that it is."""
    return {".".join(("microtome", *path.parent.parts)) for path in modules()}


def module_name(path: Path) -> str:
    """The name under which the file `path` of a floor is imported."""
    parts = path.with_suffix("").parts
    return ".".join(("microtome", *(parts[:-1] if parts[-1] == "__init__" else parts)))


@cache
def syntax(path: Path) -> ast.Module:
    """The syntax tree of a Python file, given relative to the root."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(module, line) of every import in a file, those inside functions and TYPE_CHECKING blocks too.

    `from a.b import c` gives "a.b.c"; a relative import gives its leading dots.
    """
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from ((f"{source}.{alias.name}", node.lineno) for alias in node.names)
