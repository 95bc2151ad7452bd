"""Rules that a run is held to: `none = "concept=watermark iou>0.05"`, in a TOML file, judged by `microtome check`.

    [[rules]]
    name = "no watermark detectors"
    none = "concept=watermark iou>0.05"     # no unit may meet it

    [[rules]]
    name = "wheels are detected"
    some = "concept=wheel iou>0.1"          # at least one unit has to

    [[rules]]
    name = "few dead units"
    units = "layer=block5 state=dead"       # so many units have to
    at_most = 10                            # at_least = N, or both

A rule that names what the run's data do not have, or asks for what no unit could be, cannot be told: that is an error,
never a rule that holds. Rotated baselines count only where a rule names their layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from microtome.dissect.query.dissection import Dissection
from microtome.dissect.query.expression import EXAMPLE, Term, parse, split_address
from microtome.dissect.toml_files import toml_values
from microtome.storage.errors import UnknownNameError, UsageError, near_names
from microtome.storage.run import Run
from microtome.storage.schema import RuleInfo

WORDS = ("none", "some", "units")
KEYS = ("name", *WORDS, "at_least", "at_most")
HOLDS, FAILS, UNKNOWN = "holds", "fails", "unknown"
FIRST = 10
"""Units of a verdict that are named."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: how many units may meet `expression`. at_least, at_most: None = any number; word: as it was written."""

    name: str
    word: str
    expression: str
    at_least: int | None
    at_most: int | None

    @property
    def asked(self) -> str:
        """How many units are asked for, in words."""
        if self.at_most == 0:
            return "none"
        if self.at_most is None:
            return f"at least {self.at_least}"
        if not self.at_least:
            return f"at most {self.at_most}"
        return f"{self.at_least} to {self.at_most}" if self.at_least < self.at_most else f"exactly {self.at_most}"

    def allows(self, count: int) -> bool:
        """Whether so many units are as many as there may be."""
        return (self.at_least or 0) <= count and (self.at_most is None or count <= self.at_most)

    def to_dict(self) -> RuleInfo:
        """The rule as it was written."""
        info = RuleInfo(name=self.name)
        if self.word == "none":
            info["none"] = self.expression
        elif self.word == "some":
            info["some"] = self.expression
        else:
            info["units"] = self.expression
            if self.at_least is not None:
                info["at_least"] = self.at_least
            if self.at_most is not None:
                info["at_most"] = self.at_most
        return info


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a rule. outcome: HOLDS, FAILS or UNKNOWN; count: units that meet it; first: rows of the FIRST of
    them by IoU (layer, unit, concept, category, iou, state); why: where it cannot be told, the error."""

    rule: Rule
    outcome: str
    count: int = 0
    first: tuple[dict[str, Any], ...] = ()
    why: str = ""

    @property
    def summary(self) -> str:
        """One sentence."""
        if self.outcome == UNKNOWN:
            return f"cannot be told: {self.why}"
        found = "no unit meets" if self.count == 0 else f"{self.count:,} unit{'s'[: self.count != 1]} meet"
        return f"{found}{'s' if self.count == 1 else ''} {self.rule.expression}; asked for: {self.rule.asked}"

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return {
            **self.rule.to_dict(),
            "asked": self.rule.asked,
            "outcome": self.outcome,
            "count": None if self.outcome == UNKNOWN else self.count,
            "first": list(self.first),
            "error": self.why or None,
        }


def rules_from(values: object, *, source: str) -> tuple[Rule, ...]:
    """The rules in `values`, a list of tables as TOML has it; `source` is named in errors.

    Raises UnknownNameError for a key that no rule has, UsageError for what else makes no rule.
    """
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise UsageError(
            f"rules in {source}: write each as a table, [[rules]], with a name and one of {_listed(WORDS)}"
        )
    rules = tuple(_rule(value, f"rule {number} of {source}") for number, value in enumerate(values, 1))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{source} has two rules named {name!r}; give each a name of its own")
    return rules


def rules_from_toml(path: Path) -> tuple[Rule, ...]:
    """The rules of a TOML file, which may be that of an audit: its settings are passed over. Raises UsageError."""
    values = toml_values(path)
    tables = [key for key, value in values.items() if isinstance(value, dict | list) and _has_tables(value)]
    for key in tables:
        if key != "rules":
            raise UnknownNameError(f"table (in {path})", key, ["rules"], "Write [[rules]].")
    if not values.get("rules"):
        near = near_names("rules", values)
        raise UsageError(f"{path} has no rules; write [[rules]]{f' in place of {near[0]}' if near else ''}, {_HOW}")
    return rules_from(values["rules"], source=str(path))


def keep_rules(run: Run, rules: Sequence[Rule]) -> None:
    """Have `run` hold these rules and no others; nothing else of it depends on them."""
    infos = [rule.to_dict() for rule in rules]
    if infos != run.info.get("rules", []):
        run.info["rules"] = infos
        run.save()


def kept_rules(run: Run) -> tuple[Rule, ...]:
    """The rules that `run` holds. Raises UsageError where there are none."""
    where = run.place.path or run.url
    kept = run.info.get("rules", [])
    if not kept:
        raise UsageError(f"{where} has no rules; give some with --rules FILE.toml, {_HOW}")
    return rules_from(kept, source=f"{where}/run.json")


def judge(dissection: Dissection, rules: Sequence[Rule]) -> list[Verdict]:
    """A verdict on each rule, in order."""
    return [_verdict(dissection, rule) for rule in rules]


_HOW = 'with a name and, for example, none = "concept=watermark iou>0.05"'


def _verdict(dissection: Dissection, rule: Rule) -> Verdict:
    try:
        terms = parse(rule.expression)
        _refuse_absent(dissection, terms)
        _refuse_impossible(dissection, terms)
        frame = dissection.query(rule.expression)
        if not any(term.field == "layer" for term in terms):
            frame = frame[~frame["layer"].isin(rotations(dissection))]
    except UsageError as error:
        return Verdict(rule, UNKNOWN, why=str(error))
    outcome = HOLDS if rule.allows(len(frame)) else FAILS
    return Verdict(rule, outcome, len(frame), tuple(_row(row) for _, row in frame.head(FIRST).iterrows()))


def _row(row: pd.Series) -> dict[str, Any]:
    texts = {name: None if pd.isna(row[name]) else str(row[name]) for name in ("layer", "concept", "category", "state")}
    return {
        "layer": texts["layer"],
        "unit": int(row["unit"]),
        "concept": texts["concept"],
        "category": texts["category"],
        "iou": float(row["iou"]),
        "state": texts["state"],
    }


def _refuse_absent(dissection: Dissection, terms: Sequence[Term]) -> None:
    """Raise UsageError where a term asks for a concept or category that no image of the run has: no unit could be
    found for it, and a rule would hold, or fail, whatever the units do."""
    concepts = dissection.concepts
    seen = concepts["images"] > 0
    if "dropped" in concepts.columns:
        seen &= ~concepts["dropped"].astype(bool)
    for term in terms:
        if term.op != "=" or term.field not in ("concept", "label", "category"):
            continue
        names = concepts["category" if term.field == "category" else "name"].str.casefold()
        named = names == term.value.casefold()
        if named.any() and not (named & seen).any():
            raise UsageError(
                f"{term.field}={term.value}: no image that the run counted has it, so no unit can be judged by it; "
                "audit over images that have it, or take the rule out"
            )


def rotations(dissection: Dissection) -> list[str]:
    """Layers that are random rotations of others: baselines, whose units are none of the network's."""
    from microtome.reports.alignment import is_rotation

    names = set(dissection.layers)
    return [name for name in dissection.layers if is_rotation(dissection.run.layer(name), names)]


def _refuse_impossible(dissection: Dissection, terms: Sequence[Term]) -> None:
    """Raise UsageError where no unit of any network could meet the terms: such a rule would hold, or fail, for ever."""
    for field in ("iou", "ceiling"):
        bounds = [(term, term.number) for term in terms if term.field == field and term.op != "!="]
        for term, value in bounds:
            if not 0 <= value <= 1:
                raise UsageError(f"{field}{term.op}{term.value}: {field} lies between 0 and 1, as 0.05")
        low = max((value for term, value in bounds if term.op in (">", ">=", "=")), default=0.0)
        high = min((value for term, value in bounds if term.op in ("<", "<=", "=")), default=1.0)
        if low > high:
            raise UsageError(f"no {field} is {low} or more and {high} or less; one of the two bounds is wrong")
    units = max(dissection.run.layer(name)["units"] for name in dissection.layers)
    for term in terms:
        if term.field == "unit" and term.op == "=" and not 0 <= term.number < units:
            raise UsageError(f"unit={term.value}: the largest layer of the run has {units:,} units, 0 to {units - 1:,}")


def _rule(values: Mapping[str, Any], where: str) -> Rule:
    for key in values:
        if str(key).replace("-", "_") not in KEYS:
            raise UnknownNameError(f"key of a rule (in {where})", str(key), KEYS)
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    name = values.get("name")
    if not isinstance(name, str) or not name.strip():
        raise UsageError(f'{where} lacks a name: write name = "no watermark detectors"')
    where = f"{where} ({_short(name)})"
    words = [word for word in WORDS if word in values]
    if len(words) != 1:
        said = f"has {_listed(words, 'and')}" if words else "says not what it asks"
        raise UsageError(f"{where} {said}; give one of {_listed(WORDS)}, {_HOW}")
    word, expression = words[0], values[words[0]]
    _check_expression(expression, f"{where}, {word}")
    least, most = _bounds(word, values, where)
    return Rule(name, word, expression, least, most)


def _check_expression(expression: object, where: str) -> None:
    if not isinstance(expression, str) or not expression.strip():
        raise UsageError(f"{where}: give a query in quotes, {EXAMPLE}")
    if split_address(expression)[0] is not None:
        raise UsageError(f"{where}: {expression!r} is one unit; write layer=NAME unit=17")
    try:
        parse(expression)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _bounds(word: str, values: Mapping[str, Any], where: str) -> tuple[int | None, int | None]:
    """The least and the greatest number of units that a rule allows."""
    given = {key: values[key] for key in ("at_least", "at_most") if key in values}
    if word != "units":
        if given:
            raise UsageError(f"{where}: {_listed(list(given), 'and')} is for units; write units in place of {word}")
        return (None, 0) if word == "none" else (1, None)
    if not given:
        raise UsageError(f"{where}: say how many units there have to be: at_least = 5, at_most = 10, or both")
    for key, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UsageError(f"{where}: {key} = {value!r}; give a whole number of units, 0 or more")
    least, most = given.get("at_least"), given.get("at_most")
    if most is None and least == 0:
        raise UsageError(f"{where}: at_least = 0 holds for any run; give at least 1, or at_most")
    if most is not None and (least or 0) > most:
        raise UsageError(f"{where}: at_least = {least} is more than at_most = {most}")
    return least, most


def _has_tables(value: dict[str, Any] | list[Any]) -> bool:
    """Whether a value of TOML is a table, or a list with one."""
    return isinstance(value, dict) or any(isinstance(item, dict) for item in value)


def _listed(words: Sequence[str], last: str = "or") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")
