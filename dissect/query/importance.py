"""Which units a class needs: importance.parquet of a run, to be asked without torch."""

from __future__ import annotations

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
    return run.layer_table(layer, TABLE), info


def class_number(info: ImportanceInfo, name: str) -> int:
    """The number of a class by its name, in any case, with _ as a blank. Raises UnknownNameError."""
    places = {_folded(known): number for number, known in reversed(list(enumerate(info["classes"])))}
    if _folded(name) not in places:
        raise UnknownNameError("class in the importance of this layer", name, info["classes"])
    return places[_folded(name)]


def needed_units(table: pd.DataFrame, number: int) -> pd.DataFrame:
    """The rows of a class (-1: all of them), the unit that it needs most first: by fall of accuracy, then of the
    probability, then by number."""
    rows = table[table["class"] == number]
    order = ["fall", "probability_fall", "unit"]
    return rows.sort_values(order, ascending=[False, False, True], kind="stable").reset_index(drop=True)


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()
