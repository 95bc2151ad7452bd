"""docs/architecture.md says what a run holds and where things are: it has to be true."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.tree import ROOT, project_files

from microtome.dissect.audit.pipeline import STAGES as PIPELINE
from microtome.dissect.audit.stages.registry import STAGES as NAMED
from microtome.dissect.generators.causal_table import empty_table
from microtome.storage.run import Run
from microtome.storage.schema import SHARDED, STAGES

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def documented_columns(table: str, splits: list[str]) -> list[str]:
    """The columns that the page gives a table, with iou_SPLIT written out."""
    (row,) = re.findall(rf"^\| `{table}` \| (.*) \|$", TEXT, re.MULTILINE)
    columns: list[str] = []
    for name in re.findall(r"`(\w+)`", row):
        columns += [f"iou_{split}" for split in splits] if name == "iou_SPLIT" else [name]
    return columns


TABLES = ("samples", "concepts", "units", "iou", "thresholds", "histogram", "patches")
MAP_TABLES = ("map", "components", "clusters", "disagreements")


@pytest.mark.parametrize("table", [*TABLES, *MAP_TABLES])
def test_tables_have_the_documented_columns(planted_run: Path, table: str) -> None:
    run = Run.open(planted_run)
    frame = run.table(table) if table in ("samples", "concepts") else run.layer_table("units", table)
    assert list(frame.columns) == documented_columns(table, run.info["data"]["splits"])


def test_causes_have_the_documented_columns() -> None:
    assert list(empty_table(2, np.ones(1, np.int64)).columns) == documented_columns("causal", [])


def test_stages_are_the_same_wherever_they_are_listed() -> None:
    assert tuple(PIPELINE) == STAGES == tuple(re.findall(r"^\| (\w+) \| `dissect/audit/stages/", TEXT, re.MULTILINE))
    assert {stage.name for stage in NAMED.values()} == set(SHARDED)


def test_every_table_on_disk_is_documented(planted_run: Path) -> None:
    found = {path.stem for path in planted_run.rglob("*.parquet")}
    assert [name for name in sorted(found) if f"| `{name}` |" not in TEXT] == []


def test_arrays_have_the_documented_shapes(planted_run: Path) -> None:
    run = Run.open(planted_run)
    pattern = r"^    (labels|image_labels|thumbnails|presence|layers/LAYER/\w+) +\(([^)]*)\) (\w+)"
    documented = {name: (axes.split(", "), dtype) for name, axes, dtype in re.findall(pattern, TEXT, re.MULTILINE)}
    arrays = run.arrays.describe()
    assert {re.sub(r"layers/[^/]+/", "layers/LAYER/", name) for name in arrays} == set(documented)
    for name, shape in arrays.items():
        axes, dtype = documented[re.sub(r"layers/[^/]+/", "layers/LAYER/", name)]
        assert len(shape) == len(axes), name
        assert run.arrays.read(name, 0, 1).dtype == dtype, name


def test_every_file_that_is_named_exists() -> None:
    files = {path.as_posix() for path in project_files()}
    folders = {parent.as_posix() for path in project_files() for parent in path.parents}
    named = set(re.findall(r"`((?:storage|datasets|reports|dissect|tests|docs)/[\w./]*)`", TEXT))
    assert len(named) > 30
    assert [name for name in sorted(named) if name not in files and name.rstrip("/") not in folders] == []
