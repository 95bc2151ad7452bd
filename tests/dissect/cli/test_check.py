"""`microtome check`: exit codes, what it prints, and JUnit XML."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.planted import write_planted

from microtome.dissect.cli import main

GOOD = "[[rules]]\nname = 'trees are detected'\nsome = 'concept=tree iou>0.05'\n"
BAD = "[[rules]]\nname = '<b>no trees</b>'\nnone = 'concept=tree iou>0.05'\n"
ABSENT = "[[rules]]\nname = 'no watermark detectors'\nnone = 'concept=watermark iou>0.05'\n"


def check(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["check", *map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (GOOD, 0, "holds"),
        (GOOD + BAD, 5, "FAILS"),
        (GOOD + BAD + ABSENT, 2, "CANNOT BE TOLD"),
    ],
)
def test_the_exit_code_tells(
    planted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, words: str
) -> None:
    (tmp_path / "rules.toml").write_text(text)
    arguments = (planted_run, "--rules", tmp_path / "rules.toml", "--junit", tmp_path / "rules.xml")
    assert check(*arguments) == code
    assert words in capsys.readouterr().out
    assert check(*arguments, "--json") == code
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema_version"], answer["holds"]) == (1, code == 0)
    assert len(answer["rules"]) == text.count("[[rules]]")
    (suite,) = ElementTree.fromstring((tmp_path / "rules.xml").read_bytes())
    assert [case.get("name") for case in suite] == [rule["name"] for rule in answer["rules"]]
    expected = [{"holds": [], "fails": ["failure"], "unknown": ["error"]}[rule["outcome"]] for rule in answer["rules"]]
    assert [[child.tag for child in case] for case in suite] == expected
    if code == 5:
        failure = suite[1][0]
        assert "units:5" in (failure.text or "")
        assert "IoU 0." in (failure.text or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no rules; give some with --rules"),
        ("[[rules]]\nname = 'a'\nnon = 'iou>0'\n", "did you mean none"),
        ("[[rules]]\nname = 'a'\nnone = 'iou>>0'\n", "iou takes a number"),
        ("[[rules\n", "is not valid TOML"),
    ],
)
def test_rules_that_cannot_be_read_are_refused(
    planted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    (tmp_path / "rules.toml").write_text(text or "")
    assert check(planted_run, *(("--rules", tmp_path / "rules.toml") if text else ())) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_a_folder_for_the_xml_has_to_be_there(planted_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(planted_run, "--junit", "nowhere/rules.xml") == 2
    assert "no folder nowhere" in capsys.readouterr().err


def test_rules_of_an_audit_and_of_what_grew_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_planted(tmp_path)
    run = tmp_path / "run"
    file = tmp_path / "audit.toml"
    settings = (
        f'model = "{source}:model"\ndataset = "{source}:images"\nlayers = ["units"]\nout = "{run}"\n'
        "map = false\nlimit = 7\ntau = [0.02]\n"
    )

    def microtome(*arguments: object) -> None:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert end.value.code == 0, capsys.readouterr().err

    file.write_text(settings + BAD.replace("concept=tree iou>0.05", "state=dead"))
    microtome("audit", file)
    assert check(run) == 5
    microtome("extend", run)
    assert check(run) == 5
    (tmp_path / "again.toml").write_text(
        settings.replace("limit = 7\n", "") + GOOD.replace("concept=tree iou>0.05", "state=dead")
    )
    microtome("audit", tmp_path / "again.toml")
    assert check(run) == 0
    microtome("audit", "--resume", run)
    assert check(run) == 0
    (tmp_path / "again.toml").write_text(settings.replace("limit = 7\n", ""))
    microtome("audit", tmp_path / "again.toml")
    assert check(run) == 2


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("--help") == 0
    assert "microtome check runs/first" in capsys.readouterr().out
