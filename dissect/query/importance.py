"""Which units a class needs: importance.parquet of a run, to be asked without torch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run
from microtome.storage.schema import ImportanceInfo

TABLE = "importance"


def read_importance(run: Run, layer: str) -> tuple[pd.DataFrame, ImportanceInfo]:
    """The table of a layer, and what run.json says of it. Raises UsageError where it was not measured."""
    run.layer(layer)
    info = run.info.get("importance", {}).get(layer)
    if info is None or not run.has_layer_table(layer, TABLE):
        raise UsageError(
            f"the importance of layer {layer} has not been measured; do that first: "
            f"microtome importance {run.place.path or run.url} --layer {layer}"
        )
    if "class_indices" not in info:
        raise UsageError(
            f"the importance of layer {layer} was measured by an earlier version; measure it again: "
            f"microtome importance {run.place.path or run.url} --layer {layer}"
        )
    return run.layer_table(layer, TABLE), info


def class_number(info: ImportanceInfo, asked: str) -> int:
    """The number of a class in the table: by its name (see `matching`), by its number among the model's classes, 134,
    or by both, "crane (134)".

    Raises UnknownNameError, and UsageError for a name that several classes have.
    """
    indices = info["class_indices"]
    plain = [name.removesuffix(f" ({index})") for name, index in zip(info["classes"], indices, strict=True)]
    both = [f"{name} ({index})" for name, index in zip(plain, indices, strict=True)]
    found = matching(asked, plain) or matching(asked, both) or matching(asked, [str(index) for index in indices])
    if not found:
        raise UnknownNameError("class in the importance of this layer", asked, info["classes"])
    if len(found) > 1:
        raise UsageError(
            f"--class {asked}: {len(found)} of the model's classes are called so; say which by its number, "
            f"--class {indices[found[0]]}, or by both: {' or '.join(repr(both[number]) for number in found)}"
        )
    return found[0]


def matching(name: str, known: Sequence[str]) -> list[int]:
    """The places of those in `known` that are called `name`: exactly or, where there is none, in any case, with _ as a
    blank."""
    exact = [place for place, other in enumerate(known) if other == name]
    return exact or [place for place, other in enumerate(known) if _folded(other) == _folded(name)]


def needed_units(table: pd.DataFrame, number: int) -> pd.DataFrame:
    """The rows of a class (-1: all of them), the unit that it needs most first: by fall of accuracy, then of the
    probability, then by number."""
    rows = table[table["class"] == number]
    order = ["fall", "probability_fall", "unit"]
    return rows.sort_values(order, ascending=[False, False, True], kind="stable").reset_index(drop=True)


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()
