"""Stage explain: what a run keeps of what its units and classes look for, and that a killed stage ends the same."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.page_data import read_page_data
from helpers.tiny import write_tiny
from PIL import Image

from microtome.dissect import AuditConfig, extend_run, resume_audit, run_audit
from microtome.dissect.audit.exemplars import exemplars
from microtome.dissect.audit.repair import repair_run
from microtome.dissect.audit.stages import explain, portraits
from microtome.dissect.audit.verify import verify_run
from microtome.storage.pictures import block_keys, read_block
from microtome.storage.run import Run

LAYERS = ("first", "second")


@pytest.fixture(autouse=True, scope="module")
def quick() -> Any:
    """Few steps and small blocks: what is made is no work of art."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(explain, "BLOCK", 4)
        patched.setattr(explain, "SYNTHESIS", replace(explain.SYNTHESIS, steps=2))
        patched.setattr(portraits, "SYNTHESIS", replace(portraits.SYNTHESIS, steps=2))
        yield


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("net"))


def config(net: Path, out: Path, factory: str = "relu", **settings: Any) -> AuditConfig:
    layers = settings.pop("layers", LAYERS)
    common = {"tau": (0.05,), "map": False, "device": "cpu", **settings}
    return AuditConfig(model=f"{net}:{factory}", dataset="scenes:24", layers=layers, out=out, **common)


@pytest.fixture(scope="module")
def plain(net: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without explanations."""
    out = tmp_path_factory.mktemp("plain") / "run"
    run_audit(config(net, out))
    return out


@pytest.fixture(scope="module")
def explained(net: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, asked for explanations of up to 6 units a layer by the command that made it."""
    out = tmp_path_factory.mktemp("explained") / "run"
    shutil.copytree(plain, out)
    run_audit(config(net, out, explain=True, explain_units=6))
    return out


def contents(run: Path) -> dict[str, bytes]:
    """Every picture of the run, and what vouches for them."""
    files = [*run.rglob("explanations/*"), *(run / "commits" / "explain").rglob("*.json")]
    found = {file.relative_to(run).as_posix(): file.read_bytes() for file in files if file.is_file()}
    return {name: content for name, content in found.items() if not name.startswith("report/")}


def test_units_and_classes_have_pictures(explained: Path) -> None:
    run = Run.open(explained)
    info = run.info["explanations"]
    assert {name: about["method"] for name, about in info["layers"].items()} == dict.fromkeys(LAYERS, "guided-backprop")
    assert [about["why"] for about in info["layers"].values()] == ["", ""]
    units = run.layer_table("first", "units")
    order = units[units["state"] == "ok"].sort_values(["iou", "unit"], ascending=[False, True])["unit"].tolist()
    blocks = list(run.picture_blocks("first"))
    assert [unit for block in blocks for unit in block.about["units"]] == order[:6]
    assert [len(block.about["units"]) for block in blocks] == [4, 2]
    strip = Image.open(io.BytesIO(blocks[0].pictures[f"{order[0]}-patches"]))
    assert strip.size == (4 * 96, 96)
    assert np.asarray(strip).std() > 2  # not grey all over


def test_classes_show_typical_best_and_worst_images(explained: Path) -> None:
    run = Run.open(explained)
    (block,) = run.picture_blocks(None)
    assert len(block.about["classes"]) == run.info["explanations"]["classes"] > 0
    for about in block.about["classes"]:
        shown = {kind: [one["probability"] for one in ones] for kind, ones in about["kinds"].items()}
        if about["images"] > 2:
            assert max(shown["worst"]) <= min(shown["typical"]) <= max(shown["typical"]) <= min(shown["best"])
        for one in (one for ones in about["kinds"].values() for one in ones):
            across = 1 if one["why"] else 2
            assert Image.open(io.BytesIO(block.pictures[one["name"]])).size == (32 * across, 32)


def test_pages_show_them(explained: Path) -> None:
    shown = read_page_data(explained / "report", "layers/first")["explained"]
    assert sum(unit is not None for unit in shown["units"]) == 6
    assert shown["method"] == "Guided backpropagation"
    page = (explained / "report" / "layers" / "first.html").read_text()
    assert "An image is synthesised for 6 of 10 units, those of highest IoU" in page
    pictures = {file.name for file in (explained / "report" / "explanations" / "first").iterdir()}
    assert len(pictures & {f"{unit}-patches.webp" for unit in range(10)}) == 6
    for file in (explained / "report" / "classes").iterdir():
        text = file.read_text()
        assert "Grad-CAM" in text
        assert "<b>& co" not in text


def test_numbers_of_the_run_stay(plain: Path, explained: Path) -> None:
    before, after = Run.open(plain), Run.open(explained)
    assert before.info["config"] == after.info["config"]
    for name in ("units", "iou", "patches"):
        assert (plain / "layers/first" / f"{name}.parquet").read_bytes() == (
            explained / "layers/first" / f"{name}.parquet"
        ).read_bytes()
    assert verify_run(explained).fine


def test_a_stage_that_was_killed_ends_with_the_same_bytes(
    net: Path, plain: Path, explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    written = []

    class Killed(BaseException):
        pass

    def counting(place: Any, file: str, block: Any) -> None:
        if len(written) == 2:
            raise Killed
        written.append(file)
        real(place, file, block)

    real = explain.write_block
    with monkeypatch.context() as patched:
        patched.setattr(explain, "write_block", counting)
        with pytest.raises(Killed):
            resume_audit(out, explain={"units": 6, "classes": 100})
    assert Run.open(out).info["stages"]["explain"]["state"] == "pending"
    stamps = {file: (out / file).stat().st_mtime_ns for file in written}
    resume_audit(out)
    assert {file: (out / file).stat().st_mtime_ns for file in written} == stamps
    assert contents(out) == contents(explained)


def test_more_units_keep_whole_blocks(explained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(explained, out)
    first = out / block_keys(Run.open(out).place, "first")[0]
    stamp = first.stat().st_mtime_ns
    resume_audit(out, explain={"units": 10, "classes": 100})
    assert first.stat().st_mtime_ns == stamp
    assert Run.open(out).info["explanations"]["layers"]["first"]["units"] > 6
    assert verify_run(out).fine


@pytest.mark.slow
def test_damaged_pictures_are_found_and_made_again(explained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(explained, out)
    file = out / block_keys(Run.open(out).place, "second")[0]
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    (damage,) = verify_run(out).damages
    assert damage.stages == ("explain",)
    assert repair_run(out).fine
    assert contents(out) == contents(explained)


def test_left_out_pictures_leave_nothing(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    with monkeypatch.context() as patched:
        patched.setattr(portraits, "explain_classes", None)
        patched.setattr(explain, "explain_classes", None)
        with pytest.raises(TypeError):
            resume_audit(out, explain={"units": 1, "classes": 1})
    assert contents(out)
    resume_audit(out, explain=False)
    assert contents(out) == {}
    assert "explain" not in Run.open(out).info["stages"]


@pytest.mark.slow
def test_a_run_that_grows_is_explained_anew(explained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(explained, out)
    extend_run(out, "scenes:28")
    assert Run.open(out).info["stages"]["explain"]["state"] == "done"
    assert contents(out).keys() == contents(explained).keys()
    assert contents(out) != contents(explained)
    assert verify_run(out).fine


def test_without_relu_pages_say_what_does_not_apply(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_audit(config(net, out, "gelu", layers=("first",), explain=True, explain_units=1, explain_classes=1))
    about = Run.open(out).info["explanations"]["layers"]["first"]
    assert about["method"] == "smoothgrad"
    assert about["why"].startswith("guided-backprop does not apply")
    page = (out / "report" / "layers" / "first.html").read_text()
    assert "Guided-backprop does not apply" in page
    assert "SmoothGrad shows what of its first patches" in page


def test_directions_are_not_explained(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = {"units": ("pca2",), "explain": True, "explain_classes": 1}
    run_audit(config(net, out, layers=("second",), **asked))
    (name,) = Run.open(out).layer_names
    about = Run.open(out).info["explanations"]["layers"][name]
    assert about["units"] == 0
    assert "directions in second are no units of the network" in about["why"]


def test_exemplars() -> None:
    probability = np.array([0.9, 0.1, 0.5, 0.55, 0.99, 0.2, 0.45, 0.7, 0.3])
    found = exemplars(probability, 2)
    assert found == {"typical": [2, 6], "best": [4, 0], "worst": [1, 5]}
    assert exemplars(probability[:2], 3) == {"typical": [], "best": [0], "worst": [1]}
    assert exemplars(probability[:1], 3) == {"typical": [], "best": [0], "worst": []}
    assert exemplars(np.zeros(0), 3) == {"typical": [], "best": [], "worst": []}
    assert exemplars(np.full(9, 0.5), 3) == {"typical": [6, 7, 8], "best": [0, 1, 2], "worst": [3, 4, 5]}


def test_blocks_are_read_back(explained: Path) -> None:
    run = Run.open(explained)
    block = read_block(run.place, block_keys(run.place, "first")[0])
    assert all(picture[:4] == b"RIFF" for picture in block.pictures.values())
