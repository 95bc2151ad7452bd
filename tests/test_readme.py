"""What the README tells people to type works. Large sample counts are made small; nothing else is changed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from helpers.planted import write_planted

from microtome.dissect.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OTHERS = ("nets.py:my_model", "runs/mine")  # a reader's own files


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def made_small(text: str) -> str:
    return (
        text.replace("scenes:2000", "scenes:40")
        .replace('"scenes:2000"', '"scenes:40"')
        .replace("scenes:3000", "scenes:60")
        .replace("generated:2000", "generated:48")
        .replace("'block?.relu'", "block2.relu")
        .replace("--concept tree --top 20", "--concept tree --top 20 --samples 8 --draws 1")
    )


def test_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in blocks("toml"):
        Path(re.match(r"# (\S+)\n", text)[1]).write_text(text)  # type: ignore[index]
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("microtome ")]
    assert {shlex.split(command)[1] for command in commands} >= {"inspect", "audit", "query", "report"}
    for command in commands:
        if any(own in command for own in OTHERS):
            continue
        with pytest.raises(SystemExit) as exit_:
            main(shlex.split(made_small(command))[1:])
        assert exit_.value.code == 0, command


def test_commands_on_own_files_have_the_shape_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nets.py:my_model folder:photos` and `--resume`, with a model and photos put in the reader's place."""
    monkeypatch.chdir(tmp_path)
    source = write_planted(tmp_path)
    source.rename("nets.py")
    commands = [line for block in blocks("sh") for line in block.splitlines() if any(own in line for own in OTHERS)]
    assert len(commands) == 2
    for command in commands:
        words = command.replace("nets.py:my_model", "nets.py:model").replace("folder:photos", "nets.py:images")
        with pytest.raises(SystemExit) as exit_:
            main(shlex.split(words.replace("layer3,layer4", "units,head"))[1:])
        assert exit_.value.code == 0, command


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    exec(compile(made_small(example), "README.md", "exec"), {})
    assert (tmp_path / "runs/first/report/index.html").exists()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
