"""Answers of a run: tables that show themselves in a notebook, by what `microtome.reports.notebook` makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from microtome.dissect.query.information import INFORMATION, Tau
from microtome.storage.run import Run


@dataclass(frozen=True, slots=True)
class _Look:
    """How an answer shows itself: a headline, and HTML for a table with such columns."""

    headline: str
    show: Callable[[pd.DataFrame], str]
    columns: tuple[object, ...]


class Answer(pd.DataFrame):
    """A table with a headline, and with a picture of itself where one can be shown.

    It is a DataFrame in all else, and what is taken out of it, or computed from it, is a plain one.
    """

    def __init__(self, table: pd.DataFrame, headline: str, show: Callable[[pd.DataFrame], str]) -> None:
        """show: HTML for a table with the columns of this one."""
        super().__init__(table)  # type: ignore[call-arg]  # the stubs have __new__ alone
        # pandas takes what is set in the common way for a column
        object.__setattr__(self, "_look", _Look(headline, show, tuple(table.columns)))

    @property
    def _own_look(self) -> _Look:
        look: _Look = object.__getattribute__(self, "_look")
        return look

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """What is pickled is a plain table."""
        return pd.DataFrame, (pd.DataFrame(self),)

    def __repr__(self) -> str:
        return f"{self._own_look.headline}\n{pd.DataFrame(self)!r}"

    def _repr_html_(self) -> str:
        """What a notebook shows; where columns were changed since, what pandas shows."""
        plain, look = pd.DataFrame(self), self._own_look
        return look.show(plain) if tuple(plain.columns) == look.columns else plain.to_html(max_rows=20, notebook=True)


def query_answer(run: Run, rows: pd.DataFrame, expression: str) -> Answer:
    """The rows of a query."""

    def show(now: pd.DataFrame) -> str:
        from microtome.reports.notebook import query_html  # heavy, and needed in notebooks alone

        return query_html(run, now, expression)

    count = f"{len(rows):,} unit{'' if len(rows) == 1 else 's'}"
    return Answer(rows, f"{count} for {expression!r}" if expression else count, show)


def unit_answer(run: Run, scores: pd.DataFrame, unit: Mapping[Any, Any], tau: Tau) -> Answer:
    """What one unit detects. unit: its row among those of its layer."""

    def show(now: pd.DataFrame) -> str:
        from microtome.reports.notebook import unit_html

        return unit_html(run, unit, now, words_of(tau))

    label = "overlaps no concept"
    if unit["iou"] > 0:
        label = f"{unit['concept']} ({unit['category']}), IoU {unit['iou']:.3f}"
    kind = "detector" if unit["is_detector"] else "no detector"
    return Answer(scores, f"{unit['layer']}, unit {unit['unit']} ({unit['state']}): {label}, {kind}", show)


def layer_answer(run: Run, units: pd.DataFrame, layer: str, tau: Tau) -> Answer:
    """The units of a layer."""

    def show(now: pd.DataFrame) -> str:
        from microtome.reports.notebook import layer_html

        return layer_html(run, now, layer, words_of(tau))

    detectors = units[units["is_detector"]]
    unique = len(detectors.drop_duplicates(["concept", "category"]))
    return Answer(units, f"{layer}: {len(units):,} units, {len(detectors):,} detectors of {unique:,} concepts", show)


def concept_answer(run: Run, units: pd.DataFrame, name: str, ids: Sequence[int], tau: Tau) -> Answer:
    """Every unit by its IoU with the concepts `ids`, which share a name."""

    def show(now: pd.DataFrame) -> str:
        from microtome.reports.notebook import concept_html

        return concept_html(run, now, name, ids, words_of(tau))

    passing = int(units["is_detector"].sum())
    return Answer(units, f"{name}: {passing:,} of {len(units):,} units have an IoU above the bar with it", show)


def overview(run: Run) -> str:
    """A run in a line."""
    info = run.info
    units = sum(layer["units"] for layer in info["layers"])
    return (
        f"<Dissection of {info['model']['spec']} over {info['data']['spec']}: "
        f"{len(info['layers'])} layers, {units:,} units>"
    )


def overview_html(run: Run, layers: Mapping[str, pd.DataFrame], tau: Tau) -> str:
    """A run as a notebook shows it. layers: the units of each."""
    from microtome.reports.notebook import run_html

    return run_html(run, layers, words_of(tau))


def words_of(tau: Tau) -> str:
    """How thresholds were chosen, in words."""
    return "thresholds of most information" if tau == INFORMATION else f"τ = {100 * float(tau):.4g}%"
