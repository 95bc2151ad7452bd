"""docs/tour.ipynb is the source beside it, run; and that source runs over any such run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.tree import ROOT

from microtome.dissect.audit import AuditConfig, run_audit

SOURCE, NOTEBOOK = ROOT / "docs" / "tour.py", ROOT / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook_maker", ROOT / ".packaging" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def outputs(notebook: dict[str, Any]) -> list[list[str]]:
    """What kinds of output each cell of code has."""
    return [
        [kind for output in cell["outputs"] for kind in output.get("data", {"stdout": ""})]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


@pytest.mark.slow
def test_the_tour_runs(maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AuditConfig(
        model="builtin:scenes-cnn",
        dataset="scenes:40",
        layers=("block4", "block4:rotated"),
        tau=(0.04,),
        map=False,
        out=tmp_path / "runs/demo",
    )
    run_audit(config)
    monkeypatch.chdir(tmp_path)
    maker.write_notebook(SOURCE, tmp_path / "tour.ipynb")
    made = json.loads((tmp_path / "tour.ipynb").read_text(encoding="utf-8"))
    kept = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert outputs(made) == outputs(kept)
    assert [cell["source"] for cell in made["cells"]] == [cell["source"] for cell in kept["cells"]]
    first = (tmp_path / "tour.ipynb").read_bytes()
    maker.write_notebook(SOURCE, tmp_path / "tour.ipynb")
    assert (tmp_path / "tour.ipynb").read_bytes() == first


def test_the_notebook_is_small_and_complete() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < 400_000
    notebook = json.loads(text)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert all(outputs(notebook))
    assert "data:image/jpeg;base64," in text
    assert "No pictures yet" not in text


def test_cells_are_found(maker: ModuleType) -> None:
    cells = maker.cells_of('"""Left out."""\n# %% [markdown]\n# # A\n#\n# b\n# %%\nx = 1\n\n# a comment\nx\n# %%\n\n')
    assert [(cell.text, cell.markdown) for cell in cells] == [("# A\n\nb", True), ("x = 1\n\n# a comment\nx", False)]


def test_cells_give_what_they_print_and_end_with(maker: ModuleType) -> None:
    cells = maker.cells_of("# %%\nx = 2\nprint('a')\nx + 1\n# %%\nx\n# %%\nNone\n# %%\ny = x")
    found = maker.notebook_of(cells)["cells"]
    assert found[0]["outputs"][0] == {"output_type": "stream", "name": "stdout", "text": ["a\n"]}
    assert found[0]["outputs"][1]["data"] == {"text/plain": ["3"]}
    assert found[1]["outputs"][0]["execution_count"] == 2
    assert found[2]["outputs"] == found[3]["outputs"] == []


def test_a_cell_that_fails_is_named(maker: ModuleType) -> None:
    with pytest.raises(ZeroDivisionError) as failed:
        maker.notebook_of(maker.cells_of("# %%\nx = 0\n# %%\n1 / x"))
    assert failed.value.__notes__ == ["in cell 2:\n1 / x"]
