"""What a stranger installs: every module, weights, templates and static files; and it runs from anywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from helpers.tree import FLOORS, ROOT, module_name, modules, packages, project_files

DATA_FOLDERS = {"templates", "static", "weights"}
BUILT = [Path("reports/static") / name for name in ("map.js", "map.licenses.txt", "gan.js", "pages.js")]
"""What `make setup` builds and git does not hold (.packaging/frontend.py)."""


def project() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed() -> None:
    """A subpackage that is not listed works in an editable install and is missing from the wheel."""
    listed = project()["tool"]["setuptools"]["packages"]  # type: ignore[index]
    assert listed == sorted(packages())


def test_every_floor_says_that_it_is_typed() -> None:
    """A marker covers the packages below it; `microtome` itself is a namespace and can carry none."""
    assert [floor for floor in FLOORS if not (ROOT / floor / "py.typed").is_file()] == []


def test_versions_agree() -> None:
    version = project()["project"]["version"]
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_lock_holds_every_requirement_at_one_exact_version() -> None:
    lines = [line.partition(";")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines()]
    locked = {line.partition("==")[0].lower() for line in lines if line and not line.startswith("#")}
    assert all("==" in line for line in lines if line and not line.startswith("#"))
    parsed = project()
    wanted = [*parsed["project"]["dependencies"], *parsed["dependency-groups"]["dev"]]  # type: ignore[misc]
    names = {re.split(r"[\[>=]", requirement)[0].strip().lower() for requirement in wanted}
    assert names - locked == set()


def clean_copy(target: Path) -> Path:
    """The project's files and the built script (to build it takes a registry), and decoys."""
    for path in (*project_files(), *BUILT):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target / path)
    for decoy in (
        ".venv/lib/decoy.py",
        "runs/first/decoy.parquet",
        "dissect/__pycache__/decoy.pyc",
        "reports/decoy.txt",
        "reports/frontend/node_modules/decoy/static/decoy.js",
    ):
        (target / decoy).parent.mkdir(parents=True, exist_ok=True)
        (target / decoy).write_bytes(b"")
    return target


def run(*command: object, cwd: Path) -> str:
    """Standard output of a command that has to succeed, with an environment that knows nothing of this checkout."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    words = [str(word) for word in command]
    ran = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, f"{words} in {cwd}:\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = clean_copy(tmp_path_factory.mktemp("source"))
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of a fresh environment with the wheel in it, and beside it what this one has installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    (site,) = folder.glob("lib/python*/site-packages")
    # Named in a .pth file, these folders are searched, but their own .pth files (the editable install) are not read.
    borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "borrowed.pth").write_text("\n".join(borrowed), encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--no-compile", "--ignore-installed", wheel, cwd=folder)
    lend_kernels(site / "microtome")
    return scripts


def lend_kernels(package: Path) -> None:
    """Give the installed modules what numba has compiled of the same files here, which takes half a minute.

    Numba knows a file by its size and its time of change.
    """
    for module in modules():
        installed = package / module
        here, there = (path.parent / "__pycache__" for path in (ROOT / module, installed))
        kernels = [*here.glob(f"{module.stem}.*.nbi"), *here.glob(f"{module.stem}.*.nbc")]
        if not kernels or installed.read_bytes() != (ROOT / module).read_bytes():
            continue
        there.mkdir(exist_ok=True)
        for kernel in kernels:
            shutil.copyfile(kernel, there / kernel.name)
        status = (ROOT / module).stat()
        os.utime(installed, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_the_wheel_holds_every_file_and_no_other(wheel: Path) -> None:
    expected = {f"microtome/{path.as_posix()}" for path in modules()} | {
        f"microtome/{floor}/py.typed" for floor in FLOORS
    }
    data = [path for path in project_files() if path.parts[0] in FLOORS and DATA_FOLDERS & set(path.parts[:-1])]
    expected |= {f"microtome/{path.as_posix()}" for path in (*data, *BUILT)}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (licence,) = [name for name in archive.namelist() if name.endswith("LICENSE")]
        assert b"Apache License" in archive.read(licence)
    assert held == expected
    suffixes = {Path(name).suffix for name in held}
    assert {".py", ".html", ".js", ".css", ".safetensors"} <= suffixes


def test_every_module_imports_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    names = [module_name(path) for path in modules() if path.name != "__main__.py"]
    code = (
        f"import importlib\nfiles = [importlib.import_module(name).__file__ for name in {names!r}]\n"
        "print('\\n'.join(files))"
    )
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("raise ImportError('not ours')\n")
    files = run(installed / "python", "-W", "error", "-c", code, cwd=tmp_path).split()
    assert len(files) == len(names)
    assert [file for file in files if not Path(file).is_relative_to(installed.parent)] == []


def test_the_command_is_installed(installed: Path, tmp_path: Path) -> None:
    assert (
        run(installed / "microtome", "--version", cwd=tmp_path)
        == f"microtome, version {project()['project']['version']}\n"
    )


@pytest.mark.slow
def test_a_built_in_model_is_audited_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Weights, scenes, templates and static files come out of the installed package, wherever it is called from."""
    audit = ("audit", "builtin:scenes-cnn", "scenes:40", "--layers", "block5", "--tau", "0.02", "--out", "run")
    run(installed / "microtome", *audit, cwd=tmp_path)
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    assert (tmp_path / "run" / "report" / "layers" / "block5.html").is_file()
    answer = json.loads(run(installed / "microtome", "query", "run", "iou>0", "--json", cwd=tmp_path))
    assert answer["schema_version"] == 1
    assert len(answer["units"]) > 100
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["model"]["trained"] is True


@pytest.mark.parametrize("name", ["scenes-cnn", "scenes-vit", "scenes-gan", "scenes-segmenter"])
def test_every_built_in_model_has_its_weights_in_the_wheel(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert f"microtome/dissect/builtin/weights/{name}.safetensors" in archive.namelist()


def test_the_licences_of_what_the_map_is_made_of_are_shipped(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        script = archive.read("microtome/reports/static/map.js").decode("ascii")
        licences = archive.read("microtome/reports/static/map.licenses.txt").decode("utf-8")
    assert BUILT[1].name in script.splitlines()[0]
    bundled = json.loads((ROOT / "reports/frontend/package.json").read_text())["dependencies"]
    shipped = [name for name in bundled if name != "esbuild"]
    assert [name for name in shipped if f"\n{name} " not in licences] == []
    assert licences.count("Copyright") >= len(shipped)


def test_the_page_of_maps_names_no_registry() -> None:
    lock = json.loads((ROOT / "reports/frontend/package-lock.json").read_text())
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []
    assert [name for name, entry in lock["packages"].items() if name and "integrity" not in entry] == []


def without_node(script: Path) -> subprocess.CompletedProcess[str]:
    """Run a file of Python with an empty PATH and no package but the standard library."""
    words = [sys.executable, "-I", "-S", str(script)]
    return subprocess.run(words, cwd="/", capture_output=True, text=True, check=False, env={"PATH": ""})


def test_a_script_that_is_current_needs_no_node(tmp_path: Path) -> None:
    source = clean_copy(tmp_path / "source")
    before = (source / BUILT[0]).read_bytes()
    done = without_node(source / ".packaging/frontend.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (source / BUILT[0]).read_bytes() == before


@pytest.mark.parametrize("harm", ["missing", "older than its sources"])
def test_without_node_a_script_that_is_not_current_is_refused_in_a_sentence(tmp_path: Path, harm: str) -> None:
    source = clean_copy(tmp_path / "source")
    if harm == "missing":
        (source / BUILT[0]).unlink()
    else:
        main = source / "reports/frontend/src/map/main.ts"
        main.write_text(main.read_text(encoding="utf-8") + "\n// changed\n", encoding="utf-8")
    done = without_node(source / ".packaging/frontend.py")
    assert done.returncode == 1
    assert " have to be built, and there is neither node" in done.stderr
    assert all(str(path) in done.stderr for path in BUILT if path.suffix == ".js")
    assert done.stderr.count("\n") == 1


def test_the_source_distribution_can_be_built_again(tmp_path: Path) -> None:
    """It holds the script and all that it is built from, so that it asks for node only where a source was changed."""
    source = clean_copy(tmp_path / "source")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path / "dist", cwd=source)
    (built,) = (tmp_path / "dist").iterdir()
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    frontend = {path.as_posix() for path in project_files() if path.parts[:2] == ("reports", "frontend")}
    build = {".packaging/frontend.py", ".packaging/microtome_build.py"}
    assert frontend | build | {path.as_posix() for path in BUILT} <= held
    assert [name for name in held if "node_modules" in name] == []
