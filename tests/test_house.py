"""The house stands as docs/architecture.md says: an import goes to the same floor or down, and rooms stay ignorant."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tree import FLOORS, ROOT, imports, module_name, modules, project_files, syntax

LONGEST_FILE = 450

# Room: what it must not import, by the first words of the module's name.
IGNORANT_OF = {
    "storage": ("torch", "torchvision", "timm", "jinja2", "dask", "numba", "click"),
    "datasets": (
        *("torch", "torchvision", "timm", "jinja2", "dask", "zarr", "numcodecs", "click"),
        *("microtome.storage.run", "microtome.storage.arrays", "microtome.storage.commits"),
    ),
    "reports": ("torch", "torchvision", "timm", "dask", "zarr", "numcodecs", "click"),
    "dissect": ("zarr", "numcodecs", "jinja2"),
    "dissect/maths": (
        *("torch", "torchvision", "timm", "pandas", "dask", "click", "PIL", "cv2"),
        *("microtome.storage.run", "microtome.storage.arrays", "microtome.storage.commits", "microtome.storage.tables"),
        *("microtome.datasets", "microtome.reports", "microtome.dissect.audit", "microtome.dissect.builtin"),
        *("microtome.dissect.models", "microtome.dissect.query", "microtome.dissect.cli"),
    ),
    "dissect/models": ("dask", "microtome.reports", "microtome.storage.run", "microtome.dissect.audit"),
    "dissect/comparing": (
        *("torch", "dask", "click", "microtome.datasets", "microtome.reports"),
        *("microtome.dissect.audit", "microtome.dissect.models", "microtome.dissect.cli"),
    ),
    "dissect/query": (
        *("torch", "dask", "click", "microtome.reports.build", "microtome.reports.server"),
        *("microtome.dissect.audit", "microtome.dissect.models", "microtome.dissect.cli"),
    ),
}
WITHOUT_TORCH = ("storage", "datasets", "reports", "dissect/maths", "dissect/query", "dissect/comparing")
TEXT_SUFFIXES = {
    *(".py", ".js", ".ts", ".mjs", ".css", ".html", ".md", ".toml", ".json", ".lock", ".txt", ".yml", ".yaml", ".cfg"),
    *(".in", ".sh", ""),
}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_to_the_same_floor_or_down(floor: str) -> None:
    upwards = [
        f"{path}:{line} imports {name}"
        for path in modules(floor)
        for name, line in imports(path)
        for other, height in FLOORS.items()
        if within(name, f"microtome.{other}") and height > FLOORS[floor]
    ]
    assert upwards == []


@pytest.mark.parametrize("room", IGNORANT_OF)
def test_a_room_does_not_know_what_it_must_not(room: str) -> None:
    found = modules(room)
    assert found, f"there is no room {room}"
    known = [
        f"{path}:{line} imports {name}"
        for path in found
        for name, line in imports(path)
        if any(within(name, unknown) for unknown in IGNORANT_OF[room])
    ]
    assert known == []


def test_no_relative_imports_and_no_bare_floors() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path in modules(*FLOORS, "tests", "benchmarks", ".packaging")
        for name, line in imports(path)
        if name.startswith(".") or name.partition(".")[0] in FLOORS
    ]
    assert wrong == []


def test_no_module_shadows_the_package() -> None:
    """`microtome` has no __init__.py: it is the repository's folder, or the namespace in site-packages."""
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "microtome").exists()


def loaded(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after `code`."""
    tail = "\nimport sys\nprint('\\n'.join({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=False, cwd="/")
    assert ran.returncode == 0, ran.stderr
    return set(ran.stderr.split())


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "from microtome.dissect.cli import main\n"
        "for command in ([], ['audit'], ['data'], ['query'], ['inspect'], ['report'], ['status'], ['verify'],\n"
        "                ['neighbors'], ['importance'], ['ablate'], ['map'], ['serve'], ['explain'], ['visualize'],\n"
        "                ['generate'], ['rank'], ['insert'], ['defects'], ['compare'], ['check']):\n"
        "    try:\n        main([*command, '--help'])\n"
        "    except SystemExit as done:\n        assert not done.code, command\n"
    )
    slow = {"torch", "torchvision", "pandas", "zarr", "numba", "dask", "cv2", "jinja2"}
    assert loaded(code) & slow == set()


def test_a_run_is_asked_without_what_draws_it() -> None:
    code = (
        "import microtome.dissect.query, sys\n"
        "assert not any(name.startswith('microtome.reports') for name in sys.modules)"
    )
    assert loaded(code) & {"torch", "dask", "jinja2", "cv2", "matplotlib", "PIL"} == set()


def test_results_are_read_and_drawn_without_torch() -> None:
    lower = [module_name(path) for path in modules(*WITHOUT_TORCH)]
    code = "\n".join(f"import {name}" for name in lower)
    assert loaded(code) & {"torch", "torchvision", "timm"} == set()


def test_a_module_says_what_it_is_for() -> None:
    silent = [str(path) for path in modules() if syntax(path).body and not ast.get_docstring(syntax(path))]
    assert silent == []


def test_input_is_never_checked_by_assert() -> None:
    asserts = [
        f"{path}:{node.lineno}" for path in modules() for node in ast.walk(syntax(path)) if isinstance(node, ast.Assert)
    ]
    assert asserts == []


def text_files() -> list[Path]:
    return [path for path in project_files() if path.suffix in TEXT_SUFFIXES]


def test_no_file_is_two_stories() -> None:
    code = [path for path in text_files() if path.suffix in {".py", ".js", ".ts", ".mjs", ".css", ".html"}]
    lengths = {str(path): (ROOT / path).read_text(encoding="utf-8").count("\n") for path in code}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_address_of_a_package_index() -> None:
    """Versions are locked by name alone, so that any index or mirror serves."""
    hosts = ["pypi", "pythonhosted", "download.pytorch", "npmjs", "anaconda", "crates"]
    options = ["index-" + "url", "find-" + "links"]
    pattern = re.compile(
        rf"({'|'.join(map(re.escape, hosts))})\.(org|com|io)\b|(?<!-no-emit)-({'|'.join(options)})\b", re.IGNORECASE
    )
    found = [
        f"{path}: {match.group()}"
        for path in text_files()
        if (match := pattern.search((ROOT / path).read_text(encoding="utf-8")))
    ]
    assert found == []
