"""Labels by a segmenter: the same numbers as from masks that say the same, whoever works and whatever befalls."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.compare import differences
from helpers.images import photo, save
from numpy.typing import NDArray

from microtome.datasets.formats.folder import FolderDataset
from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.audit import extend_run, repair_run, verify_run
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.run import Run
from microtome.storage.runlog import read_log

SIDE = 112
"""What the built-in classifier sees, so that nothing is resized."""
SEGMENTER = """
import torch

class Reddish(torch.nn.Module):
    labels = ["dark", "middle", "red"]
    category = ["light", "light", "color"]

    def __init__(self):
        super().__init__()
        self.cut = torch.nn.Parameter(torch.tensor({cut}))

    def forward(self, images):
        light = images.mean(1)
        ids = torch.where(light < self.cut, 0, torch.where(light < 0.6, 1, -1))
        red = torch.where(images[:, 0] > images[:, 1] + 0.1, 2, -1)
        return torch.stack([ids, red], 1), torch.stack([light, images[:, 0]], 1)

def reddish():
    return Reddish()
"""


def planes_of(image: NDArray[np.uint8], cut: float = 0.4) -> NDArray[np.uint8]:
    """What the segmenter above gives for an (H, W, 3) image, id + 1, pixel by pixel."""
    values = image.astype(np.float32) / np.float32(255)
    light = ((values[..., 0] + values[..., 1]) + values[..., 2]) / np.float32(3)
    ids = np.where(light < np.float32(cut), 1, np.where(light < np.float32(0.6), 2, 0))
    red = np.where(values[..., 0] > values[..., 1] + np.float32(0.1), 3, 0)
    return np.stack([ids, red]).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A bare folder of images, one of them broken."""
    for number in range(11):
        save(tmp_path / f"photos/images/{number:02}.png", photo(SIDE, SIDE, number))
    save(tmp_path / "photos/images/05.png", b"\x89PNG broken")
    return tmp_path / "photos"


@pytest.fixture
def segmenter(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(SEGMENTER.format(cut=0.4))
    return f"{tmp_path}/nets.py:reddish"


def config(photos: Path, out: Path, *, map: bool = False, **settings: object) -> AuditConfig:  # noqa: A002
    return AuditConfig(
        model="builtin:scenes-cnn",
        dataset=f"folder:{photos}",
        layers=("block2",),
        tau=(0.05,),
        out=out,
        shard_samples=4,
        batch=2,
        map=map,
        **settings,  # type: ignore[arg-type]
    )


def test_it_equals_masks_that_say_the_same(
    tmp_path: Path, photos: Path, segmenter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_audit(config(photos, tmp_path / "run", segmenter=segmenter, map=True))
    masked = tmp_path / "masked"
    for path in sorted((photos / "images").iterdir()):
        if path.name == "05.png":
            save(masked / "images/05.png", path.read_bytes())
            continue
        image = FolderDataset(photos).read(int(path.stem)).image
        save(masked / "images" / path.name, image)
        for name, plane in zip(("a", "b"), planes_of(image), strict=True):
            save(masked / "masks" / name / path.name, plane)
    (masked / "classes.csv").write_text("index,name,category\n1,dark,light\n2,middle,light\n3,red,color\n")
    run_audit(config(masked, tmp_path / "same", map=True))
    assert differences(tmp_path / "run", tmp_path / "same") == [
        key for key in differences(tmp_path / "run", tmp_path / "same") if key.startswith("arrays.zarr/segments")
    ]
    assert found.run.table("concepts")["pixels"].min() > 0
    assert found.unreadable == 1
    share = np.mean([(planes_of(photo(SIDE, SIDE, n))[:, 1::2, 1::2] == 0).mean() for n in range(11) if n != 5])
    assert f"{share:.1%} of the pixels unlabelled" in capsys.readouterr().err
    info = found.run.info["segmenter"]
    assert (info["labels"], info["categories"]) == (["dark", "middle", "red"], ["light", "light", "color"])
    assert (info["planes"], info["confidence"], info["size"]) == (2, None, [SIDE, SIDE])
    assert found.run.info["data"]["plane_names"] == ["segmenter 1", "segmenter 2"]


def test_whoever_works_and_however_often_gives_the_same(tmp_path: Path, photos: Path, segmenter: str) -> None:
    run_audit(config(photos, tmp_path / "run", segmenter=segmenter))
    run_audit(config(photos, tmp_path / "processes", segmenter=segmenter, cluster="processes", workers=1))
    assert differences(tmp_path / "run", tmp_path / "processes") == []
    run_audit(config(photos, tmp_path / "streamed", segmenter=segmenter, keep_activations=False))
    layers = [key for key in differences(tmp_path / "run", tmp_path / "streamed") if "activations" not in key]
    assert layers == []


def test_a_damaged_shard_of_labels_is_found_and_made_again(tmp_path: Path, photos: Path, segmenter: str) -> None:
    for name in ("run", "damaged"):
        run_audit(config(photos, tmp_path / name, segmenter=segmenter))
    shard = next((tmp_path / "damaged/arrays.zarr/segments/c").rglob("0"))
    shard = shard if shard.is_file() else next(path for path in shard.rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    verdict = verify_run(tmp_path / "damaged")
    assert [damage.stages for damage in verdict.damages] == [("segment",)]
    assert repair_run(tmp_path / "damaged").fine
    assert differences(tmp_path / "run", tmp_path / "damaged") == []


def test_a_grown_run_labels_only_what_is_new(tmp_path: Path, photos: Path, segmenter: str) -> None:
    run_audit(config(photos, tmp_path / "run", segmenter=segmenter, free=("colors",)))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/arrays.zarr/segments/c").rglob("*")}
    for number in range(4):
        save(photos / f"images/03-{number}.png", photo(SIDE, SIDE, 90 + number))
    assert extend_run(tmp_path / "run").added == 4
    kept = [path for path, time in before.items() if path.is_file() and path.stat().st_mtime_ns == time]
    assert len(kept) == 2
    raw = Run.open(tmp_path / "run").arrays.read("segments", 11, 15)
    for row in range(4):
        np.testing.assert_array_equal(raw[row], planes_of(photo(SIDE, SIDE, 90 + row))[:, 1::2, 1::2])
    order = [f"{number:02}.png" for number in range(11)] + [f"03-{number}.png" for number in range(4)]
    assert Run.open(tmp_path / "run").table("samples")["key"].tolist() == order


def test_another_segmenter_is_refused(tmp_path: Path, photos: Path, segmenter: str) -> None:
    run_audit(config(photos, tmp_path / "run", segmenter=segmenter))
    run_json = tmp_path / "run/run.json"
    info = json.loads(run_json.read_text())
    info["stages"]["segment"]["state"] = "pending"
    run_json.write_text(json.dumps(info))
    for path in (tmp_path / "run/commits/segment").iterdir():
        path.unlink()
    (tmp_path / "nets.py").write_text(SEGMENTER.format(cut=0.41))
    with pytest.raises(RunMismatchError, match="is another one, or has other weights, than the run was started with"):
        run_audit(config(photos, tmp_path / "run", segmenter=segmenter))
    with pytest.raises(RunMismatchError, match="another segmenter"):
        run_audit(config(photos, tmp_path / "run", segmenter=segmenter.replace("reddish", "Reddish")))


def test_below_the_confidence_it_is_unlabelled(tmp_path: Path, photos: Path, segmenter: str) -> None:
    out = tmp_path / "run"
    found = run_audit(config(photos, out, segmenter=segmenter, segmenter_confidence=0.5)).run
    image = FolderDataset(photos).read(0).image
    expected = planes_of(image)
    values = image.astype(np.float32) / np.float32(255)
    sure = np.stack([values.mean(-1), values[..., 0]]) >= 0.5
    stored = found.arrays.read("segments", 0, 1)[0]
    np.testing.assert_array_equal(stored, np.where(sure, expected, 0)[:, 1::2, 1::2])
    assert found.info["segmenter"]["confidence"] == 0.5


def test_it_may_see_more_than_the_model(tmp_path: Path, photos: Path, segmenter: str) -> None:
    for path in (photos / "images").iterdir():
        path.unlink()
    for number in range(3):
        save(photos / f"images/{number}.png", photo(256, 300, number))
    found = run_audit(config(photos, tmp_path / "run", segmenter=segmenter, segmenter_size=256)).run
    assert found.info["segmenter"]["size"] == [256, 256]
    image = FolderDataset(photos).read(0).image[:, 22:278]
    centres = (2 * np.arange(56) + 1) * 256 // (2 * 56)
    expected = planes_of(image)[:, centres][:, :, centres]
    assert (found.arrays.read("segments", 0, 1)[0] == expected).mean() > 0.98  # the crop is a pixel to the right


def test_its_labels_join_those_that_are_there(tmp_path: Path, photos: Path, segmenter: str) -> None:
    table = tmp_path / "catalogue.csv"
    table.write_text("name,into,into_category,keep\ndark,gloom,,\nmiddle,gloom,,\nred,paint,,yes\n")
    settings = {"segmenter": segmenter, "free": ("colors",), "concepts": table}
    run = run_audit(config(photos, tmp_path / "run", **settings)).run
    concepts = run.table("concepts")
    assert {"gloom", "paint", "red"} <= set(concepts["name"])
    assert concepts[["name", "category"]].duplicated().sum() == 0
    assert not {"dark", "middle"} & set(concepts["name"])
    ids = concepts.set_index("name")["id"]
    labels = run.arrays.read("labels", 0, 4)
    raw = run.arrays.read("segments", 0, 4)
    assert labels.shape[1] == 2 * (1 + 2)
    gloomy = (labels == ids["gloom"]).any(axis=1)
    np.testing.assert_array_equal(gloomy, np.isin(raw, [1, 2]).any(axis=1))
    red = (labels == ids["red"]).sum(axis=1)
    assert red.max() == 1  # by its pixels and by the segmenter: once
    np.testing.assert_array_equal((labels == ids["paint"]).any(axis=1), red > 0)


def test_concepts_in_few_images_are_dropped(tmp_path: Path, photos: Path) -> None:
    for number in range(11):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:56] = 1
        mask[56:, : 40 if number < 2 else 0] = 2
        mask[56:, 64:] = 3
        save(photos / f"masks/{number:02}.png", mask)
    (photos / "classes.csv").write_text("index,name,category\n1,sky,object\n2,rare,thing\n3,road,object\n")
    run = run_audit(config(photos, tmp_path / "run", min_images=3)).run
    concepts = run.table("concepts")
    assert concepts["dropped"].tolist() == [False, True, False]
    assert concepts["images"].tolist() == [10, 2, 10]
    iou = run.layer_table("block2", "iou")
    assert set(iou["concept"]) == {1, 3}
    for number in range(2):  # the same as where it was never listed
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:56] = 1
        mask[56:, 64:] = 3
        save(photos / f"masks/{number:02}.png", mask)
    plain = run_audit(config(photos, tmp_path / "plain")).run
    assert plain.layer_table("block2", "iou").equals(iou)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("labels = ['a']\ndef f(x): return x", r"gave torch.float32 \(1, 3, 112, 112\); expected int64 ids"),
        ("labels = ['a']\ndef f(x): return (x[:, 0] > 0).long() * 3 - 1", "gave ids from 2 to 2; with 1 labels"),
        ("labels = ['a']\ndef f(x): return (x[:, 0, ::2] > 0).long() - 1", "expected the images' height and width"),
        ("labels = ['a']\ndef f(x): return None", "gave NoneType"),
        ("labels = ['a']\ndef f(x): raise ValueError('no such layer')", "failed on images .* no such layer"),
        ("labels = []\ndef f(x): return x", "`labels` has to be a list of names"),
        ("labels = ['a', ' ']\ndef f(x): return x", "the label of id 1 is empty"),
        ("labels = ['a']\ncategory = ['x', 'y']\ndef f(x): return x", "or one for each of its 1 labels; it has 2"),
    ],
)
def test_a_segmenter_that_breaks_its_contract_is_told(tmp_path: Path, photos: Path, code: str, message: str) -> None:
    head, _, body = code.partition("\ndef f")
    text = (
        f"class Segmenter:\n    {head.replace(chr(10), chr(10) + '    ')}\n    @staticmethod\n    def __call__{body}\n"
    )
    (tmp_path / "mine.py").write_text(text)
    save(photos / "images/00.png", np.full((SIDE, SIDE, 3), 200, np.uint8))
    for number in range(1, 11):
        (photos / f"images/{number:02}.png").unlink()
    with pytest.raises(UsageError, match=message):
        run_audit(config(photos, tmp_path / "run", segmenter=f"{tmp_path}/mine.py:Segmenter"))
    assert not (tmp_path / "run/run.json").exists()


def test_settings_that_make_no_sense(tmp_path: Path, photos: Path, segmenter: str) -> None:
    with pytest.raises(UsageError, match="are for a --segmenter; name one"):
        config(photos, tmp_path / "run", segmenter_confidence=0.5)
    with pytest.raises(UsageError, match="--segmenter-confidence 2: a number from 0 to 1"):
        config(photos, tmp_path / "run", segmenter=segmenter, segmenter_confidence=2)
    with pytest.raises(UsageError, match="--segmenter: no segmenter is named"):
        config(photos, tmp_path / "run", segmenter="")
    with pytest.raises(UsageError, match="there is no file"):
        run_audit(config(photos, tmp_path / "run", segmenter="nowhere.py:reddish"))
    with pytest.raises(UsageError, match="'reddish' is no segmenter; a segmenter is builtin:NAME, path"):
        run_audit(config(photos, tmp_path / "run", segmenter="reddish"))


def test_the_number_of_maps_may_not_change(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nclass S:\n    labels = ['a']\n    seen = 0\n"
        "    def __call__(self, x):\n        S.seen += len(x)\n"
        "        return torch.zeros(len(x), 2 if S.seen > 6 else 1, *x.shape[-2:], dtype=torch.int64)\n"
    )
    with pytest.raises(UsageError, match=r"gave 2 maps an image at sample .*, and 1 before"):
        run_audit(config(photos, tmp_path / "run", segmenter=f"{tmp_path}/mine.py:S"))


def test_what_the_data_remarks_is_told_and_kept(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "catalogue.csv"
    table.write_text("name,into\nredd,warm\n")
    run = run_audit(config(photos, tmp_path / "run", free=("colors",), concepts=table)).run
    text = "lines of catalogue.csv name no concept of the dataset"
    assert f"note: 1 {text} (line 2: redd)" in capsys.readouterr().err
    assert run.info["data"]["remarks"] == [{"text": text, "count": 1, "examples": ["line 2: redd"]}]
    assert text in (tmp_path / "run/report/index.html").read_text()
    assert [event["text"] for event in read_log(run.place) if event["kind"] == "remark"] == [text]
