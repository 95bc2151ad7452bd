"""A finished run, to be asked: which units detect a concept, what does a unit detect, how do layers compare."""

from __future__ import annotations

import fnmatch
import operator
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from microtome.dissect.labelling import columns_of, label_column, label_units
from microtome.dissect.maths.scoring import unique_detectors
from microtome.dissect.query.answers import (
    Answer,
    concept_answer,
    layer_answer,
    overview,
    overview_html,
    query_answer,
    unit_answer,
)
from microtome.dissect.query.expression import Term, parse, split_address
from microtome.dissect.query.information import (
    CHOSEN_BY,
    INFORMATION,
    Tau,
    label_by_information,
    read_information,
    refuse_uninformed,
)
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

_COMPARE: dict[str, Callable[[pd.Series, float], pd.Series]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_TRUE, _FALSE = ("yes", "true", "1"), ("no", "false", "0")


def open_run(path: str | Path) -> Dissection:
    """Open a run whose tables are complete.

    Raises UsageError where `path` holds no run or one that has not been tallied yet.
    """
    run = Run.open(path)
    stages = run.info["stages"]
    if stages.get("tally", {"state": "pending"})["state"] != "done":
        raise UsageError(f"{path} has no results yet; finish it with: microtome audit --resume {path}")
    return Dissection(run)


class Dissection:
    """The results of one run as tables. Nothing is computed anew: every answer comes from what the run stores."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.concepts = run.table("concepts")
        self._units = cache(self._read_units)
        self._iou = cache(lambda layer: run.layer_table(layer, "iou"))
        self._informed = cache(lambda layer: read_information(run, layer))

    @property
    def layers(self) -> list[str]:
        """Names of the dissected layers, in the network's order."""
        return self.run.layer_names

    @property
    def taus(self) -> list[float]:
        """The fractions that the run was counted at; the first one labels."""
        return [float(tau) for tau in self.run.info["config"]["tau"]]

    def __repr__(self) -> str:
        return overview(self.run)

    def _repr_html_(self) -> str:
        """What a notebook shows of the run."""
        return overview_html(self.run, {layer: self.units(layer) for layer in self.layers}, self.taus[0])

    def query(self, expression: str = "") -> Answer:
        """Units that meet every term of `expression`, highest IoU first, one row a unit.

        A row gives the unit's label at the first tau (`tau=0.05` selects another, `tau=information` the thresholds of
        most information, whose `iou` is that of the half of the samples that did not choose them); with `concept=NAME`
        it gives that concept's score for every unit. `layer4:123` instead of terms ranks what that unit detects.
        Columns: layer, unit, concept, category, iou, ceiling, is_detector, state, threshold, realised, tau, ...
        It is a table (pandas) that a notebook shows with patches, as are those of `unit`, `layer` and `concept`.
        Raises UnknownNameError with near names for a concept, category, layer or tau that the run does not have.
        """
        address, rest = split_address(expression)
        terms = parse(rest)
        tau = self._tau(terms)
        if address is not None:
            return self.unit(*address, tau)
        layers = self._layers(terms)
        scored = [term for term in terms if term.field == "concept" and term.op == "="]
        scored += [term for term in terms if scored and term.field == "category" and term.op == "="]
        frames = [self._scores(layer, scored, tau) if scored else self._units(layer, tau) for layer in layers]
        frame = pd.concat(frames, ignore_index=True)
        for term in terms:
            if term.field not in ("layer", "tau") and term not in scored:
                frame = frame[self._holds(frame, term)]
        return query_answer(self.run, self._best_first(frame), expression)

    def unit(self, layer: str, unit: int, tau: Tau | None = None) -> Answer:
        """What one unit detects: every concept that its mask meets, highest IoU first.

        Columns: layer, unit, concept, category, iou, ceiling, intersection, unit_pixels, concept_pixels, tau, ...
        """
        units = self.run.layer(layer)["units"]
        if not 0 <= unit < units:
            raise UsageError(f"layer {layer} has units 0 to {units - 1}, not {unit}")
        tau = self._known_tau(tau)
        iou = self._iou_at(layer, tau)
        rows = iou[iou["unit"] == unit].rename(columns={"concept": "concept_id"})
        named = rows.merge(self.concepts[["id", "name", "category"]], left_on="concept_id", right_on="id")
        named = named.rename(columns={"name": "concept"}).assign(layer=layer)
        columns = ["layer", "unit", "concept", "category", "iou", "ceiling"]
        rest = [column for column in iou.columns if column not in (*columns, "concept")]
        named = named.sort_values(["iou", "concept_id"], ascending=[False, True], kind="stable")
        mine = self._units(layer, tau).set_index("unit", drop=False).loc[unit]
        return unit_answer(self.run, named[columns + rest].reset_index(drop=True), mine.to_dict(), tau)

    def layer(self, name: str, tau: Tau | None = None) -> Answer:
        """Every unit of a layer, in order, with its label at `tau`; columns as in `query`."""
        return layer_answer(self.run, self.units(name, tau), name, self._known_tau(tau))

    def concept(self, name: str, category: str | None = None, tau: Tau | None = None) -> Answer:
        """Every unit of every layer with its IoU with one concept, highest first; columns as in `query`.

        category: where several concepts share the name. Raises UnknownNameError.
        """
        terms = [Term("concept", "=", name), *([] if category is None else [Term("category", "=", category)])]
        tau = self._known_tau(tau)
        frames = [self._scores(layer, terms, tau) for layer in self.layers]
        ids = set.intersection(*map(self._concept_ids, terms))
        return concept_answer(self.run, self._best_first(pd.concat(frames, ignore_index=True)), name, sorted(ids), tau)

    def summary(self, tau: Tau | None = None) -> pd.DataFrame:
        """Detectors and unique detectors for each layer and category.

        One row a layer and category, and one a layer with category "all". `unique_detectors` counts distinct best
        labels of detectors; `unique_by_category` counts, within each category, the distinct top labels of units
        whose best concept of that category passes the minimum IoU, and its "all" row is their sum.
        """
        tau = self._known_tau(tau)
        return pd.concat([self._layer_summary(layer, tau) for layer in self.layers], ignore_index=True)

    def units(self, layer: str, tau: Tau | None = None) -> pd.DataFrame:
        """Every unit of `layer`, in order, with its label at `tau`; columns as in `query`."""
        self.run.layer(layer)
        return self._units(layer, self._known_tau(tau))

    def scores(self, layer: str, tau: Tau | None = None) -> pd.DataFrame:
        """iou.parquet of `layer` at `tau`: a row for each unit and concept (its id) that share a pixel."""
        self.run.layer(layer)
        return self._iou_at(layer, self._known_tau(tau))

    def _best_first(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows by IoU, then in the order of layers and units."""
        order = {name: position for position, name in enumerate(self.layers)}
        return (
            frame.assign(_layer=frame["layer"].map(order))
            .sort_values(["iou", "_layer", "unit"], ascending=[False, True, True], kind="stable")
            .drop(columns="_layer")
            .reset_index(drop=True)
        )

    # How the terms are met

    def _tau(self, terms: list[Term]) -> Tau:
        asked = [term for term in terms if term.field == "tau"]
        if not asked:
            return self.taus[0]
        if asked[0].op != "=" or len(asked) > 1:
            raise UsageError("tau selects one of the run's fractions: write tau=0.05 once")
        return self._known_tau(INFORMATION if asked[0].value == INFORMATION else asked[0].number)

    def _known_tau(self, tau: Tau | None) -> Tau:
        """`tau`, or the first one for None. Raises UnknownNameError for one that was not counted, and UsageError for
        INFORMATION where the run is without it."""
        if tau == INFORMATION:
            refuse_uninformed(self.run)
            return INFORMATION
        if tau is not None and tau not in self.taus:
            raise UnknownNameError("tau in this run", f"{tau:g}", [f"{known:g}" for known in self.taus])
        return self.taus[0] if tau is None else tau

    def _layers(self, terms: list[Term]) -> list[str]:
        chosen = self.layers
        for term in terms:
            if term.field != "layer":
                continue
            names = [term.value] if term.value in self.layers else fnmatch.filter(self.layers, term.value)
            if not names:
                raise UnknownNameError("layer of this run", term.value, self.layers)
            chosen = [name for name in chosen if (name in names) == (term.op == "=")]
        return chosen

    def _concept_ids(self, term: Term) -> set[int]:
        """The concepts of a name, or of a category."""
        self._check_name(term)
        column = "name" if term.field == "concept" else "category"
        matching = self.concepts[self.concepts[column].str.casefold() == term.value.casefold()]
        return set(matching["id"])

    def _scores(self, layer: str, terms: list[Term], tau: Tau) -> pd.DataFrame:
        """Every unit with its IoU for the named concept (the best of them where several share the name)."""
        ids = set.intersection(*(self._concept_ids(term) for term in terms))
        if not ids:
            asked = " ".join(f"{term.field}={term.value}" for term in terms)
            raise UsageError(f"no concept is all of {asked}; a unit's row scores one concept: ask one after the other")
        iou = self._iou_at(layer, tau)
        rows = iou[iou["concept"].isin(ids)]
        rows = rows.sort_values(["iou", "concept"], ascending=[False, True]).drop_duplicates("unit").set_index("unit")
        frame = self._units(layer, tau).copy()
        concept_id = rows["concept"].reindex(frame["unit"]).fillna(min(ids)).astype("int64").to_numpy()
        named = self.concepts.set_index("id").loc[concept_id]
        frame["label"] = frame["concept"]
        frame["concept"], frame["category"] = named["name"].to_numpy(), named["category"].to_numpy()
        splits = [column for column in frame.columns if column.startswith("iou_")]
        for column in ("iou", "ceiling", *splits):
            frame[column] = rows[column].reindex(frame["unit"]).fillna(0.0).to_numpy()
        if tau == INFORMATION:
            for column, source in {"threshold": "threshold", "realised": "share", INFORMATION: INFORMATION}.items():
                frame[column] = rows[source].reindex(frame["unit"]).to_numpy()
        frame["is_detector"] = frame["iou"] > self.run.info["config"]["min_iou"]
        return frame

    def _holds(self, frame: pd.DataFrame, term: Term) -> pd.Series:
        if term.field == "detector":
            if term.value.lower() not in _TRUE + _FALSE:
                raise UsageError(f"detector={term.value}: write detector=yes or detector=no")
            return frame["is_detector"] == ((term.value.lower() in _TRUE) == (term.op == "="))
        if term.field in ("concept", "label", "category", "state"):
            column = "label" if term.field == "label" and "label" in frame.columns else term.field
            column = "concept" if column == "label" else column
            self._check_name(term)
            same = frame[column].astype("str").str.casefold() == term.value.casefold()
            return same if term.op == "=" else ~same
        if term.field not in frame.columns:
            raise UnknownNameError("column of this run", term.field, [str(name) for name in frame.columns])
        return _COMPARE[term.op](frame[term.field], term.number)

    def _check_name(self, term: Term) -> None:
        known: Iterable[str] = self.concepts["category"].unique()
        if term.field in ("concept", "label"):
            known = self.concepts["name"]
        elif term.field == "state":
            known = ("ok", "dead", "constant", "saturated")
        names = list(known)
        if term.value.casefold() not in {name.casefold() for name in names}:
            raise UnknownNameError("concept" if term.field == "label" else term.field, term.value, names)

    # Tables

    def _iou_at(self, layer: str, tau: Tau) -> pd.DataFrame:
        """The scores of every pair at `tau`."""
        if tau == INFORMATION:
            return self._informed(layer)
        iou = self._iou(layer)
        return iou[iou["tau"] == tau]

    def _read_units(self, layer: str, tau: Tau) -> pd.DataFrame:
        """One row a unit of `layer`, labelled at `tau`."""
        units = self.run.layer_table(layer, "units")
        if tau == INFORMATION:
            bar = self.run.info["config"]["min_iou"]
            units = label_by_information(self.concepts, self._informed(layer), units, bar)
        elif tau != self.taus[0]:
            units = self._relabelled(layer, units, float(tau))
        labelled = units["iou"] > 0
        frame = pd.DataFrame({"layer": layer, "unit": units["unit"]})
        for column in ("concept", "category"):
            frame[column] = units[column].astype(object).where(labelled, None)
        first = ["iou", "ceiling", "is_detector", "state", "threshold", "realised"]
        splits = [column for column in units.columns if column.startswith("iou_") or column == INFORMATION]
        rest = ["minimum", "maximum", "mean", "std", "dead_share", "nan", "infinite", "positions"]
        return pd.concat(
            [frame, units[first], pd.Series(tau, frame.index, name="tau"), units[[*splits, *rest]]], axis=1
        )

    def _relabelled(self, layer: str, units: pd.DataFrame, tau: float) -> pd.DataFrame:
        """units.parquet with label, threshold and state as they are at another tau."""
        info = self.run.info
        labels = label_units(
            self.concepts, info["data"]["splits"], self._iou(layer), tau, len(units), info["config"]["min_iou"]
        )
        thresholds = self.run.layer_table(layer, "thresholds")
        at_tau = thresholds[thresholds["tau"] == tau].set_index("unit")
        kept = units.drop(columns=[column for column in labels.columns if column != "unit"])
        frame = kept.merge(labels, on="unit", validate="one_to_one")
        for column in ("threshold", "realised"):
            frame[column] = at_tau[column].reindex(frame["unit"]).to_numpy()
        saturated = at_tau["saturated"].reindex(frame["unit"]).to_numpy(dtype=bool)
        lively = frame["state"].isin(["ok", "saturated"])
        frame["state"] = frame["state"].mask(lively, pd.Series(np.where(saturated, "saturated", "ok")))
        return frame

    def _layer_summary(self, layer: str, tau: Tau) -> pd.DataFrame:
        data = self.run.info["data"]
        categories = data["categories"]
        position = {name: number for number, name in enumerate(categories)}
        informed = tau == INFORMATION
        found = unique_detectors(
            columns_of(self._informed(layer).assign(tau=0.0) if informed else self._iou(layer)),
            self.run.layer(layer)["units"],
            [-1, *(position[name] for name in self.concepts["category"])],
            len(categories),
            0.0 if informed else float(tau),
            min_iou=self.run.info["config"]["min_iou"],
            by=CHOSEN_BY if informed else label_column(data["splits"]),
        )
        return pd.DataFrame(
            {
                "layer": layer,
                "category": [*categories, "all"],
                "units": self.run.layer(layer)["units"],
                "detectors": [*found.category_detectors.tolist(), found.detectors],
                "unique_detectors": [*found.category_unique_labels.tolist(), found.unique_labels],
                "unique_by_category": [*found.category_unique.tolist(), found.unique_by_category],
            }
        )
