"""Rules for a run: how they are written, what is refused, and what they say of a run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from helpers.tree import ROOT

from microtome.dissect import AuditConfig, open_run, run_audit
from microtome.dissect.audit.config import config_from_mapping, config_from_toml
from microtome.dissect.audit.job import run_key
from microtome.dissect.query.rules import (
    FAILS,
    FIRST,
    HOLDS,
    UNKNOWN,
    Rule,
    judge,
    keep_rules,
    kept_rules,
    rules_from,
    rules_from_toml,
)
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run


def written(**values: object) -> tuple[Rule, ...]:
    return rules_from([{"name": "a rule", **values}], source="rules.toml")


def test_the_words_say_how_many_units_there_may_be() -> None:
    cases = {
        "none": ({"none": "iou>0"}, [0], [1, 5]),
        "at least 1": ({"some": "iou>0"}, [1, 5], [0]),
        "at least 5": ({"units": "iou>0", "at_least": 5}, [5, 9], [0, 4]),
        "at most 3": ({"units": "iou>0", "at-most": 3}, [0, 3], [4]),
        "2 to 4": ({"units": "iou>0", "at_least": 2, "at_most": 4}, [2, 4], [1, 5]),
        "exactly 2": ({"units": "iou>0", "at_least": 2, "at_most": 2}, [2], [1, 3]),
    }
    for words, (values, allowed, refused) in cases.items():
        (rule,) = written(**values)
        assert rule.asked == words
        assert [rule.allows(count) for count in allowed + refused] == [True] * len(allowed) + [False] * len(refused)
        assert rules_from([rule.to_dict()], source="again") == (rule,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"non": "iou>0"}, "did you mean none"),
        ({"units": "iou>0", "at_lest": 3}, "did you mean at_least"),
        ({}, "says not what it asks"),
        ({"none": "iou>0", "some": "iou>0"}, "has none and some"),
        ({"none": ""}, "give a query"),
        ({"none": 3}, "give a query"),
        ({"none": "concpt=car"}, "did you mean concept"),
        ({"none": "iou>lots"}, "iou takes a number"),
        ({"none": "block5:17"}, "layer=NAME unit=17"),
        ({"none": "iou>0", "at_most": 3}, "write units in place of none"),
        ({"units": "iou>0"}, "how many units"),
        ({"units": "iou>0", "at_least": True}, "whole number"),
        ({"units": "iou>0", "at_most": -1}, "whole number"),
        ({"units": "iou>0", "at_least": 0}, "holds for any run"),
        ({"units": "iou>0", "at_least": 5, "at_most": 4}, "more than at_most"),
        ({"name": " ", "none": "iou>0"}, "lacks a name"),
    ],
)
def test_what_makes_no_rule_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        written(**values)


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two rules named 'a'"):
        rules_from([{"name": "a", "none": "iou>0"}, {"name": "a", "some": "iou>0"}], source="rules.toml")


def test_a_file_of_rules_may_be_that_of_an_audit(tmp_path: Path) -> None:
    file = tmp_path / "audit.toml"
    rule = '[[rules]]\nname = "no watermark detectors"\nnone = "concept=watermark iou>0.05"\n'
    file.write_text(f'model = "m"\ndataset = "d"\nlayers = ["x"]\nout = "run"\ntau = [0.02]\n{rule}')
    rules = rules_from_toml(file)
    assert [(one.name, one.expression) for one in rules] == [("no watermark detectors", "concept=watermark iou>0.05")]
    assert config_from_toml(file).rules == rules
    file.write_text(f"{rule}[[rule]]\nname = 'typo'\nnone = 'iou>0'\n")
    with pytest.raises(UnknownNameError, match=r"no table .*'rule'; did you mean rules"):
        rules_from_toml(file)
    file.write_text('model = "m"\n')
    with pytest.raises(UsageError, match="has no rules"):
        rules_from_toml(file)
    file.write_text("[rules]\nname = 'one table'\nnone = 'iou>0'\n")
    with pytest.raises(UsageError, match=r"\[\[rules\]\]"):
        rules_from_toml(file)


@pytest.mark.parametrize("page", ["README.md", "docs/compare.md"])
def test_documented_rules_can_be_read(tmp_path: Path, page: str) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "rules.toml").write_text(example)
    assert len(rules_from_toml(tmp_path / "rules.toml")) == example.count("[[rules]]") > 1


def test_verdicts_are_those_of_queries(planted_run: Path) -> None:
    dissection = open_run(planted_run)
    asked = {
        "trees": ("concept=tree iou>0.05", {"some"}),
        "dead": ("layer=units state=dead", {"some"}),
        "all": ("", set()),
    }
    for name, (expression, _) in asked.items():
        count = len(dissection.query(expression))
        text = expression or "iou>=0"
        found = judge(
            dissection,
            rules_from(
                [
                    {"name": f"{name} exactly", "units": text, "at_least": count, "at_most": count},
                    {"name": f"{name} too few", "units": text, "at_least": count + 1},
                    {"name": f"{name} none", "none": text},
                ],
                source="test",
            ),
        )
        assert [verdict.outcome for verdict in found] == [HOLDS, FAILS, FAILS]
        assert [verdict.count for verdict in found] == [count] * 3
        rows = dissection.query(text).head(FIRST)
        assert [(row["layer"], row["unit"], row["iou"]) for row in found[2].first] == list(
            zip(rows["layer"], rows["unit"], rows["iou"], strict=True)
        )
        assert str(count) in found[1].summary


@pytest.mark.parametrize("expression", ["concept=watermark iou>0.05", "layer=nowhere iou>1", "tau=0.3 iou>0", "foo=1"])
def test_a_rule_about_what_the_run_does_not_have_cannot_be_told(planted_run: Path, expression: str) -> None:
    rule = Rule("a rule", "none", expression, None, 0)
    (verdict,) = judge(open_run(planted_run), [rule])
    assert verdict.outcome == UNKNOWN
    assert "cannot be told: no " in verdict.summary
    assert verdict.to_dict()["count"] is None


@pytest.mark.parametrize("how", ["no images", "dropped"])
def test_a_concept_that_no_counted_image_has_cannot_be_told(planted_run: Path, tmp_path: Path, how: str) -> None:
    shutil.copytree(planted_run, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    concepts = run.table("concepts")
    last = concepts.iloc[-1]
    mine = concepts["name"] == last["name"]
    if how == "dropped":
        concepts.loc[mine, "dropped"] = True
    else:
        concepts.loc[mine, "images"] = 0
    run.write_table("concepts", concepts)
    dissection = open_run(tmp_path / "run")
    for word in ("concept", "label"):
        (verdict,) = judge(dissection, written(none=f"{word}='{last['name']}' iou>0.99"))
        assert verdict.outcome == UNKNOWN
        assert "no image that the run counted has it" in verdict.why
    (verdict,) = judge(dissection, written(none=f"concept!='{last['name']}' iou>0.99"))
    assert verdict.outcome in (HOLDS, FAILS)


def test_rules_are_kept_beside_the_settings_and_change_no_key(planted_run: Path, tmp_path: Path) -> None:
    shutil.copytree(planted_run, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    with pytest.raises(UsageError, match="has no rules"):
        kept_rules(run)
    key = run_key(run)
    rules = written(units="iou>0.1", at_least=1)
    keep_rules(run, rules)
    again = Run.open(tmp_path / "run")
    assert kept_rules(again) == rules
    assert run_key(again) == key
    keep_rules(again, ())
    with pytest.raises(UsageError, match="has no rules"):
        kept_rules(Run.open(tmp_path / "run"))


def test_editing_rules_of_a_finished_audit_does_nothing_anew(planted_run: Path, tmp_path: Path) -> None:
    shutil.copytree(planted_run, tmp_path / "run")
    config = Run.open(tmp_path / "run").info["config"]
    values = {**config, "out": str(tmp_path / "run"), "rules": [{"name": "trees", "some": "concept=tree"}]}
    before = pd.read_parquet(tmp_path / "run" / "samples.parquet")
    changed = (tmp_path / "run" / "samples.parquet").stat().st_mtime_ns
    outcome = run_audit(config_from_mapping(values, source="test"))
    assert [rule.name for rule in kept_rules(outcome.run)] == ["trees"]
    assert (tmp_path / "run" / "samples.parquet").stat().st_mtime_ns == changed
    pd.testing.assert_frame_equal(outcome.run.table("samples"), before)
    silent = {**config, "out": str(tmp_path / "run")}
    kept = run_audit(config_from_mapping(silent, source="test"))
    assert isinstance(config_from_mapping(silent, source="test"), AuditConfig)
    assert [rule.name for rule in kept_rules(kept.run)] == ["trees"]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("concept=tree iou>5", "iou lies between 0 and 1"),
        ("iou>=-0.1", "iou lies between 0 and 1"),
        ("iou>0.5 iou<0.1", "one of the two bounds is wrong"),
        ("unit=99999", "the largest layer of the run has"),
        ("unit=-1", "the largest layer of the run has"),
    ],
)
def test_what_no_unit_could_meet_cannot_be_told(planted_run: Path, expression: str, message: str) -> None:
    (verdict,) = judge(open_run(planted_run), written(none=expression))
    assert verdict.outcome == UNKNOWN
    assert message in verdict.why


def test_no_number_is_no_bound() -> None:
    with pytest.raises(UsageError, match="iou takes a number"):
        written(none="iou>nan")
