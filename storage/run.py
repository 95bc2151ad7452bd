"""A run, on disk or in a bucket: the result of one audit, whole or in the making."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, cast, get_origin, get_type_hints, is_typeddict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.storage.arrays import ACTIVATIONS, RunArrays, layer_array
from microtome.storage.commits import StageCommits
from microtome.storage.errors import MicrotomeError, RunDamagedError, UnknownNameError, UsageError
from microtome.storage.files import LEFTOVER_SUFFIX, json_bytes
from microtome.storage.layer_arrays import layer_arrays_key, read_arrays, write_arrays
from microtome.storage.patch_maps import read_patch_maps
from microtome.storage.pictures import PictureBlock, block_keys, read_block
from microtome.storage.places import SWAP_LOCK, Place, name_of, open_place, writing_to
from microtome.storage.readouts import is_readout
from microtome.storage.schema import LATER_PARTS, SCHEMA_VERSION, LayerEntry, RunInfo, StageInfo
from microtome.storage.shards import ShardPlan
from microtome.storage.tables import read_table, write_table
from microtome.storage.vouching import vouch_for_tables

RUN_JSON = "run.json"
REPORT = "report"
ABLATIONS, INSERTIONS, DEFECTS, RANKINGS = "ablations/", "insertions/", "defects/", "rankings/"
_EXPERIMENTS = {"rankings": RANKINGS, "insertions": INSERTIONS, "defects": DEFECTS}
LOCK, LOGS = "lock.json", "log/"

_OBJECTIONABLE = set('/\\:*?"<>|%') | {chr(code) for code in range(32)}


def folder_name(layer: str) -> str:
    """A layer's name as a folder: percent-encoded where some file system objects, else unchanged."""
    encoded = "".join(
        "".join(f"%{byte:02X}" for byte in character.encode()) if character in _OBJECTIONABLE else character
        for character in layer
    )
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    return encoded[:-1] + "%2E" if encoded.endswith(".") else encoded


def _garbled_parts(info: Mapping[str, object]) -> list[str]:
    """The parts of run.json that are absent, though every run has them, or of another kind than the schema has."""
    kinds = {name: get_origin(hint) or hint for name, hint in get_type_hints(RunInfo).items()}
    kinds = {name: dict if is_typeddict(kind) else kind for name, kind in kinds.items()}
    hints = get_type_hints(RunInfo, include_extras=True)
    expected = [name for name, hint in hints.items() if name in info or get_origin(hint) is not NotRequired]
    return [name for name in expected if not isinstance(info.get(name), kinds[name])]


class Run:
    """One run. `info` is run.json as it was read or last written."""

    def __init__(self, place: Place, info: RunInfo) -> None:
        self.place = place
        self.info = info
        shards = info["shards"]
        self.plan = ShardPlan(info["data"]["samples"], shards["samples"], shards["chunk"])
        self.arrays = RunArrays(place, self.plan)
        self._written: dict[str, tuple[int, int]] = {}  # size and CRC-32 of the tables of the stage at work

    def __reduce__(self) -> tuple[type[Run], tuple[Place, RunInfo]]:
        return Run, (self.place, self.info)

    @classmethod
    def create(cls, where: str | Path | Place, info: RunInfo, files: Mapping[str, bytes] = {}) -> Run:
        """Start a run in `where`, which must be absent, empty or hold nothing but an earlier failed start.

        files: by key, matrices of read-outs (storage/readouts.py): they are there before run.json speaks of them.
        """
        place = open_place(where)
        path = place.path
        if path is not None:
            if path.exists() and not path.is_dir():
                raise UsageError(f"{path} is a file; --out needs a folder that is new or empty")
            for leftover in path.glob(f".run.json.*{LEFTOVER_SUFFIX}"):
                leftover.unlink()
        cls.refuse_taken(place)
        run = cls(place, info)
        for key, content in files.items():
            place.write(key, content)
        if not place.create(RUN_JSON, json_bytes(info)):
            raise UsageError(f"{path or place.url} holds a run already; choose another --out, or resume it")
        return run

    @staticmethod
    def refuse_taken(place: Place) -> None:
        """Raise UsageError where `place`, which holds no run, holds something else."""
        if _is_taken(place):
            raise UsageError(f"{place.path or place.url} is not empty and holds no run; choose another --out")

    @staticmethod
    def sweep_up(place: Place) -> None:
        """Remove what an attempt left that never came to a run: an empty folder and who had held it."""
        path = place.path
        if path is None or not path.is_dir() or _is_taken(place):
            return
        for entry in path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
        path.rmdir()

    @classmethod
    def open(cls, where: str | Path | Place) -> Run:
        """Open the run in `where`. Raises UsageError where there is none, RunDamagedError where it is unreadable."""
        place = open_place(where)
        file = name_of(place, RUN_JSON)
        try:
            info = json.loads(place.read(RUN_JSON))
            version = info["schema_version"]
        except (FileNotFoundError, NotADirectoryError) as error:
            path = place.path
            what = "has no run.json" if path is None or path.is_dir() else "does not exist"
            raise UsageError(
                f"{path or place.url} {what}; give the folder or URL that `microtome audit --out` made"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, MicrotomeError):
                raise
            raise RunDamagedError(f"{file} cannot be read ({error})") from error
        if version != SCHEMA_VERSION:
            raise RunDamagedError(
                f"{file} has schema version {version}; this Microtome reads version {SCHEMA_VERSION}: "
                "use the version that wrote it, or audit again"
            )
        for name, absent in LATER_PARTS.items():
            info.setdefault(name, {**absent})
        if garbled := _garbled_parts(info):
            raise RunDamagedError(f"{file} lacks or garbles {', '.join(garbled)}")
        try:
            return cls(place, cast("RunInfo", info))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, MicrotomeError):
                raise
            raise RunDamagedError(f"{file} lacks or garbles {error}") from error

    @staticmethod
    def exists(where: str | Path | Place) -> bool:
        """Whether `where` holds a run, finished or not."""
        return open_place(where).size(RUN_JSON) is not None

    @property
    def path(self) -> Path:
        """The run's folder. Raises UsageError where the run lies in a bucket."""
        if self.place.path is None:
            raise UsageError(f"{self.place.url} is no local folder; copy the run to a disk first")
        return self.place.path

    @property
    def url(self) -> str:
        """Where the run lies, as any process would find it: an absolute path, or a URL."""
        return self.place.url

    def save(self) -> None:
        """Write `info` to run.json."""
        self.place.write(RUN_JSON, json_bytes(self.info))

    def set_stage(self, stage: str, state: str, seconds: float) -> None:
        """Record that `stage` is pending, running or done, with `seconds` more spent on it, and save."""
        if state == "done":
            vouch_for_tables(self.place, stage, self._written)
        self._written = {}
        spent = self.info["stages"].get(stage, StageInfo(state="pending", seconds=0.0))["seconds"]
        self.info["stages"][stage] = StageInfo(state=state, seconds=round(spent + seconds, 3))
        self.save()

    def clean(self) -> int:
        """Delete temporary files of writers that were killed; returns how many."""
        return self.place.clean()

    def commits(self, stage: str, key: str) -> StageCommits:
        """The commit records of `stage` for results that depend on `key`."""
        return StageCommits(self.place, stage, key)

    # Layers

    @property
    def layer_names(self) -> list[str]:
        """Names of the dissected layers, in the network's order."""
        return [layer["name"] for layer in self.info["layers"]]

    def layer(self, name: str) -> LayerEntry:
        """The entry of layer `name`. Raises UnknownNameError."""
        for layer in self.info["layers"]:
            if layer["name"] == name:
                return layer
        raise UnknownNameError("layer of this run", name, self.layer_names)

    @property
    def keeps_activations(self) -> bool:
        """Whether the activation maps of all samples are stored, not those of top patches alone."""
        return bool(self.info["config"].get("keep_activations", True))

    def keeps(self, array: str) -> bool:
        """Whether the run keeps `array`, one of MORE_ARRAYS, which runs of earlier versions lack."""
        return array in self.info.get("more_arrays", [])

    def activations(self, layer: str, sample: int) -> NDArray[np.float32]:
        """Every unit's activation map of one sample: (C, h, w) float32, true values.

        Raises UsageError where the run keeps no activations.
        """
        maps: NDArray[np.float32] = self.activation_range(layer, sample, sample + 1)[0]
        return maps

    def activation_range(self, layer: str, start: int, stop: int) -> NDArray[np.float32]:
        """Activation maps of samples start ... stop - 1: (n, C, h, w) float32, true values.

        Raises UsageError where the run keeps no activations.
        """
        entry = self.layer(layer)
        if not self.keeps_activations:
            raise UsageError(
                f"{self.url} was made with --keep-activations no and has no activation maps of layer {layer} but those "
                "of top patches; audit with --keep-activations yes into another --out for all of them"
            )
        stored = self.arrays.read(layer_array(entry["folder"], ACTIVATIONS), start, stop)
        maps: NDArray[np.float32] = np.multiply(stored, np.float32(entry["scale"]), dtype=np.float32)
        return maps

    def activation_maps(self, layer: str, samples: NDArray[np.int64], units: NDArray[np.int64]) -> NDArray[np.float32]:
        """Activation map of unit `units[i]` for sample `samples[i]`, for all i: (n, h, w) float32, true values.

        Reads the samples between the least and the greatest: ask for neighbours. A run that keeps no activations has
        those of top patches alone and raises UsageError for others.
        """
        entry = self.layer(layer)
        stored = np.zeros((len(samples), *entry["grid"]), np.float16)
        if not self.keeps_activations:
            for shard in np.unique(samples // self.plan.shard).tolist():
                here = samples // self.plan.shard == shard
                stored[here] = read_patch_maps(self.place, entry["folder"], shard, samples[here], units[here])
        elif len(samples):
            first = int(samples.min())
            read = self.arrays.read(layer_array(entry["folder"], ACTIVATIONS), first, int(samples.max()) + 1)
            stored[...] = read[samples - first, units]
        maps: NDArray[np.float32] = np.multiply(stored, np.float32(entry["scale"]), dtype=np.float32)
        return maps

    # Tables

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run: "samples" or "concepts"."""
        return read_table(self.place, f"{name}.parquet")

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table of the run."""
        self._write_table(f"{name}.parquet", frame)

    def layer_table(self, layer: str, name: str) -> pd.DataFrame:
        """A table of one layer: "units", "iou", "patches", "thresholds", "histogram", "map" and so on."""
        return read_table(self.place, self._layer_key(layer, name))

    def has_layer_table(self, layer: str, name: str) -> bool:
        """Whether a table of one layer is there."""
        return self.place.size(self._layer_key(layer, name)) is not None

    def write_layer_table(self, layer: str, name: str, frame: pd.DataFrame) -> None:
        """Write a table of one layer."""
        self._write_table(self._layer_key(layer, name), frame)

    def layer_arrays(self, layer: str, name: str) -> dict[str, NDArray[np.generic]]:
        """Named arrays of one layer: "pca". Raises RunDamagedError where they are missing or cannot be read."""
        return read_arrays(self.place, layer_arrays_key(self.layer(layer)["folder"], name))

    def has_layer_arrays(self, layer: str, name: str) -> bool:
        """Whether named arrays of one layer are there."""
        return self.place.size(layer_arrays_key(self.layer(layer)["folder"], name)) is not None

    def write_layer_arrays(self, layer: str, name: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Write named arrays of one layer."""
        key = layer_arrays_key(self.layer(layer)["folder"], name)
        self._written[key] = write_arrays(self.place, key, arrays)

    def _write_table(self, key: str, frame: pd.DataFrame) -> None:
        self._written[key] = write_table(self.place, key, frame)

    def _layer_key(self, layer: str, name: str) -> str:
        return f"layers/{self.layer(layer)['folder']}/{name}.parquet"

    # Ablations, insertions, defects

    def ablations(self) -> list[dict[str, Any]]:
        """The kept ablations by file name, each with its "file"; what is no JSON object has only an "error" besides."""
        return self._kept(ABLATIONS)

    def experiments(self, kind: str) -> list[dict[str, Any]]:
        """What a generator's run keeps of a kind, "rankings", "insertions" or "defects", likewise."""
        return self._kept(_EXPERIMENTS[kind])

    def experiment_picture(self, kind: str, file: str) -> bytes | None:
        """A picture beside them, None where there is none."""
        key = f"{_EXPERIMENTS[kind]}{file}"
        return None if self.place.size(key) is None else self.place.read(key)

    def _kept(self, folder: str) -> list[dict[str, Any]]:
        found = []
        for key in sorted(key for key, _ in self.place.list(folder) if key.endswith(".json")):
            file = key.removeprefix(folder)
            try:
                content = json.loads(self.place.read(key))
                error = "" if isinstance(content, dict) else "it holds no object"
            except (ValueError, FileNotFoundError) as failure:
                content, error = {}, f"it cannot be read as JSON ({failure})"
            found.append({"file": file, "error": error} if error else {**content, "file": file})
        return found

    def ablation_picture(self, file: str) -> bytes | None:
        """The contact sheet beside a kept ablation, a PNG; None where there is none. file: as `ablations` names it."""
        key = f"{ABLATIONS}{file.removesuffix('.json')}.png"
        return None if self.place.size(key) is None else self.place.read(key)

    # Explanations

    def picture_blocks(self, layer: str | None) -> Iterator[PictureBlock]:
        """The pictures of a layer's units (None: of classes), block by block. Raises RunDamagedError."""
        for file in block_keys(self.place, None if layer is None else self.layer(layer)["folder"]):
            yield read_block(self.place, file)

    # Report

    @property
    def index_page(self) -> str:
        """The first page of the report: an absolute path, or a URL."""
        return f"{self.place.url}/{REPORT}/index.html"

    def report_file(self, name: str) -> bytes | None:
        """A file of the report by its address in it, None where it is not there."""
        key = f"{REPORT}/{name}"
        return None if self.place.size(key) is None else self.place.read(key)

    @contextmanager
    def report_folder(self) -> Iterator[Path]:
        """A new, empty local folder to build a report in; what is not published from there is gone afterwards."""
        if self.place.path is None:
            with tempfile.TemporaryDirectory(prefix="microtome-report-") as name, writing_to(tempfile.gettempdir()):
                yield Path(name)
            return
        folder = self.place.path / f"{REPORT}{LEFTOVER_SUFFIX}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with writing_to(self.place.url):
                folder.mkdir(parents=True)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish_report(self, folder: Path) -> None:
        """Have the report in `folder` take the place of the run's report."""
        self.place.publish(folder, REPORT)


def _is_taken(place: Place) -> bool:
    """Whether something lies there that is neither a run's beginning nor what is written before a run begins."""
    if place.path is not None:
        return place.path.exists() and not all(_is_ours(place.path, entry) for entry in place.path.iterdir())
    return any(key != LOCK and not key.startswith(LOGS) and not is_readout(key) for key, _ in place.list())


def _is_ours(root: Path, entry: Path) -> bool:
    """Whether an entry of the folder is what is there before a run begins; a lock may be half written just now."""
    if entry.name in (LOCK, LOGS.rstrip("/"), SWAP_LOCK) or _holds_readouts(root, entry):
        return True
    return entry.name.startswith((f".{LOCK}.", f".{RUN_JSON}.")) and entry.name.endswith(LEFTOVER_SUFFIX)


def _holds_readouts(root: Path, folder: Path) -> bool:
    """Whether `folder` is that of the layers, with nothing in it but matrices of read-outs, whole or half written."""
    if folder.name != "layers" or not folder.is_dir():
        return False
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    return all(path.name.endswith(LEFTOVER_SUFFIX) or is_readout(path.relative_to(root).as_posix()) for path in files)
