"""An audit of a generator: what it stores against slow references, and bytes that depend on nothing they should not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.compare import differences
from helpers.generators import KINDS, write_generators
from PIL import Image
from torch import Tensor

from microtome.dissect.audit import AuditConfig, extend_run, resume_audit, run_audit
from microtome.dissect.audit.stopping import StopSignal
from microtome.dissect.cli import main
from microtome.dissect.generators.data import GeneratedDataset, parse_generated
from microtome.dissect.generators.generator import Generator, generator_of_run, open_generator
from microtome.dissect.models.receptive_field import ReceptiveField
from microtome.dissect.models.sites import site_of
from microtome.storage.errors import UsageError
from microtome.storage.run import Run

LAYERS = {
    "plain": "mid",
    "styled": "mapping.2,second",
    "conditional": "start,up",
    "translator": "down",
    "decoder": "layers.3,layers.8",
}


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_generators(tmp_path_factory.mktemp("generators"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 24, 20, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"photo{number:02d}.png")
    (folder / "photo04.png").write_bytes(b"no image")
    return folder


def config(nets: Path, out: Path, count: str = "24", **settings: Any) -> AuditConfig:
    given = {"layers": ("mid",), "tau": (0.05,), "shard_samples": 8, "batch": 8, "map": False, **settings}
    dataset, segmenter = f"generated:{count}", f"{nets}:thirds"
    return AuditConfig(model=f"{nets}:styled", dataset=dataset, segmenter=segmenter, out=out, **given)


def command(arguments: Sequence[str]) -> object:
    """The exit code of `microtome ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def audited(nets: Path, photos: Path, kind: str, out: Path) -> object:
    dataset = f"generated:{photos}" if kind == "translator" else "generated:6?seed=3"
    given = ["audit", f"{nets}:{kind}", dataset, "--segmenter", f"{nets}:thirds", "--layers", LAYERS[kind]]
    return command([*given, "--tau", "0.05", "--shard-samples", "4", "--no-map", "--out", str(out)])


def maps_by_hand(generator: Generator, layer: str, latents: Sequence[Tensor]) -> Tensor:
    """What a hook of our own sees at `layer` for one sample, copied at once: (C, h, w)."""
    seen: list[Tensor] = []
    module = generator.model.module.get_submodule(layer)
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    with torch.no_grad():
        generator.model.run(tuple(latents))
    handle.remove()
    return seen[0][0].reshape(*seen[0].shape[1:], *[1] * (4 - seen[0].ndim))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_from_the_command_line_to_the_page(nets: Path, photos: Path, kind: str, tmp_path: Path) -> None:
    """With a reference: one latent at a time, hooked by hand, and its picture labelled."""
    assert audited(nets, photos, kind, tmp_path / "run") == (3 if kind == "translator" else 0)
    run = Run.open(tmp_path / "run")
    generator = generator_of_run(run)
    segmenter = __import__("runpy").run_path(str(nets))["thirds"]()
    samples = run.table("samples")
    for sample in range(len(samples)):
        if samples["status"][sample] != "ok":
            assert kind == "translator"
            continue
        seed = sample if kind == "translator" else sample + 3
        latents = generator.latents([seed])
        for layer in run.info["layers"]:
            stored = run.arrays.read(f"layers/{layer['folder']}/activations", sample, sample + 1)[0]
            true = maps_by_hand(generator, layer["name"], latents)
            np.testing.assert_allclose(stored.astype(np.float32) * layer["scale"], true, rtol=2e-3, atol=1e-4)
        picture = generator.pictures([seed])[0]
        labels = segmenter(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)[0].numpy() + 1
        np.testing.assert_array_equal(run.arrays.read("segments", sample, sample + 1)[0, 0], labels)
        small = run.arrays.read("thumbnails", sample, sample + 1)[0].astype(float).mean((0, 1))
        np.testing.assert_allclose(small, picture.mean((0, 1)), atol=1)
    assert samples["key"][0] == ("photo00.png" if kind == "translator" else "seed-000003")
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    assert command(["verify", str(tmp_path / "run")]) == 0


@pytest.fixture(scope="module")
def whole(nets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    run_audit(config(nets, out, "24", layers=("first", "second"), workers=1))
    return out


def test_workers_change_no_byte(nets: Path, whole: Path, tmp_path: Path) -> None:
    run_audit(config(nets, tmp_path / "run", "24", layers=("first", "second"), workers=3))
    assert differences(whole, tmp_path / "run") == []


def test_a_seed_is_the_same_sample_in_every_run(nets: Path, whole: Path, tmp_path: Path) -> None:
    run_audit(config(nets, tmp_path / "run", "8?seed=8", layers=("first", "second")))
    one, other = Run.open(whole), Run.open(tmp_path / "run")
    for name in ("segments", "labels", "thumbnails", "layers/second/activations"):
        np.testing.assert_array_equal(one.arrays.read(name, 8, 16), other.arrays.read(name, 0, 8))


@pytest.mark.parametrize("stage", ["segment", "capture"])
def test_stopped_and_resumed(
    nets: Path, whole: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = StopSignal.is_set
    seen = {"count": 0}

    def is_set(self: StopSignal) -> bool:
        seen["count"] += 1
        if seen["count"] == {"segment": 3, "capture": 9}[stage]:
            self.set("enough for now")
        return looked(self)

    monkeypatch.setattr(StopSignal, "is_set", is_set)
    with pytest.raises(Exception, match="stopped: enough for now"):
        run_audit(config(nets, tmp_path / "run", "24", layers=("first", "second")))
    monkeypatch.undo()
    resume_audit(tmp_path / "run")
    assert differences(whole, tmp_path / "run") == []


def test_a_run_that_grows(nets: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    grown = extend_run(tmp_path / "run", "generated:36")
    assert grown.added == 12
    run_audit(config(nets, tmp_path / "fresh", "36", layers=("first", "second")))
    assert differences(tmp_path / "fresh", tmp_path / "run") == []


@pytest.mark.parametrize(
    ("kind", "name"), [("plain", "mid"), ("styled", "second"), ("conditional", "up"), ("decoder", "layers.3")]
)
def test_a_position_changes_its_box_and_nothing_else(nets: Path, kind: str, name: str) -> None:
    """By a change of one position, for positions at the corners, the edges and inside."""
    from microtome.dissect.models import measure_receptive_fields

    model = open_generator(f"{nets}:{kind}").model
    field = measure_receptive_fields(model, [name])[name]
    assert field.note == ""
    site, latents = site_of(model, name), model.inputs(2)
    height, width = site.layout.grid

    def image(raw: Tensor | None = None) -> Tensor:
        output = model.run(latents)
        found: Tensor = output["image"] if isinstance(output, dict) else output
        return found

    with torch.no_grad():
        before = image()
        for row in sorted({0, 1, height // 2, height - 1}):
            for column in sorted({0, width // 3, width - 1}):
                with site.replacing(lambda raw, r=row, c=column: _changed(raw, r, c)):
                    changed = (image() != before).any(dim=(0, 1))
                assert box_of(changed) == field.box(row, column)


def _changed(raw: Tensor, row: int, column: int) -> Tensor:
    changed = raw.clone()
    changed[..., row, column] += 0.5 + torch.rand(raw.shape[:2], generator=torch.Generator().manual_seed(0))
    return changed


def box_of(changed: Tensor) -> tuple[int, int, int, int]:
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def test_boxes_of_patches_are_what_their_positions_change(whole: Path) -> None:
    run = Run.open(whole)
    field = ReceptiveField.from_dict(run.layer("first")["receptive_field"])
    for patch in run.layer_table("first", "patches").itertuples():
        assert (patch.top, patch.left, patch.bottom, patch.right) == field.box(patch.row, patch.column)


REFUSED = {
    "no segmenter": (["plain", "generated:8"], "nobody has labelled the images of a generator"),
    "no images": (["plain", "generated:0", "S"], "has to be 1 or more"),
    "no number": (["plain", "generated:abc", "S"], "neither a number of images"),
    "no such option": (["plain", "generated:8?sead=3", "S"], "'sead' is no option"),
    "a dataset": (["plain", "scenes:8", "S"], "is a generator, which is dissected over the images that it makes"),
    "a folder": (["plain", "generated:/tmp", "S"], "makes images from latents"),
    "no folder": (["translator", "generated:8", "S"], "makes images from images"),
    "a classifier": (["builtin:scenes-cnn", "generated:8", "S"], "and builtin:scenes-cnn is none"),
    "explain": (["plain", "generated:8", "S", "--explain"], "whose units make images"),
    "size": (["plain", "generated:8", "S", "--size", "32"], "takes no images; leave out --size"),
    "no such layer": (["plain", "generated:8", "S", "--layers", "mit"], "did you mean mid"),
    "heads": (["plain", "generated:8", "S", "--layers", "mid:heads"], "attention"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_mistakes_are_one_sentence(
    nets: Path, photos: Path, mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kind, dataset, *more), words = REFUSED[mistake]
    given = [dataset.replace("/tmp", str(photos)), *more]
    if "S" in given:
        given[given.index("S") : given.index("S") + 1] = ["--segmenter", f"{nets}:thirds"]
    if "--layers" not in given:
        given += ["--layers", "mid"]
    model = kind if ":" in kind else f"{nets}:{kind}"
    assert command(["audit", model, *given, "--out", str(tmp_path / "run")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert words in said[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("asked", ["explain", "visualize", "importance", "neighbors"])
def test_what_is_for_other_networks_is_refused(
    nets: Path, whole: Path, photos: Path, asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(photos / "photo00.png")
    given = {
        "explain": [f"{nets}:plain", photo, "--method", "saliency", "--out", str(tmp_path / "out")],
        "visualize": [f"{nets}:plain", "--layer", "mid", "--units", "0", "--out", str(tmp_path / "out")],
        "importance": [str(whole), "--layer", "second"],
        "neighbors": [str(whole), photo],
    }[asked]
    assert command([asked, *given]) == 2
    assert "generator" in capsys.readouterr().err.splitlines()[-1]


def test_a_generated_dataset_needs_a_generator(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["data", "generated:8"]) == 2
    assert "microtome audit GENERATOR generated:2000" in capsys.readouterr().err


def test_nothing_is_opened_to_count_and_name_samples() -> None:
    def never(inputs: object) -> Generator:
        raise AssertionError

    dataset = GeneratedDataset("generated:3?seed=999999", never)
    assert [dataset.entry(index).key for index in range(len(dataset))] == [
        "seed-999999",
        "seed-1000000",
        "seed-1000001",
    ]
    with pytest.raises(IndexError):
        dataset.entry(3)
    with pytest.raises(UsageError, match="seeds go up"):
        parse_generated("generated:1?seed=9223372036854775807")
