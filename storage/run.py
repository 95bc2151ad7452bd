"""A run on disk: the result of one audit, whole or in the making."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_origin, get_type_hints, is_typeddict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.storage.arrays import ACTIVATIONS, RunArrays, layer_array
from microtome.storage.commits import StageCommits
from microtome.storage.errors import RunDamagedError, UnknownNameError, UsageError
from microtome.storage.files import LEFTOVER_SUFFIX, read_json, remove_leftovers, write_json
from microtome.storage.schema import SCHEMA_VERSION, LayerEntry, RunInfo, StageInfo
from microtome.storage.shards import ShardPlan
from microtome.storage.tables import read_table, write_table

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
    """The parts of run.json that are absent or of another kind than the schema has."""
    kinds = {name: get_origin(hint) or hint for name, hint in get_type_hints(RunInfo).items()}
    kinds = {name: dict if is_typeddict(kind) else kind for name, kind in kinds.items()}
    return [name for name, kind in kinds.items() if not isinstance(info.get(name), kind)]


class Run:
    """One run's folder. `info` is run.json as it was read or last written."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info
        shards = info["shards"]
        self.plan = ShardPlan(info["data"]["samples"], shards["samples"], shards["chunk"])
        self.arrays = RunArrays(path, self.plan)

    @classmethod
    def create(cls, path: Path, info: RunInfo) -> Run:
        """Start a run in `path`, which must be absent, empty or hold nothing but an earlier failed start."""
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; --out needs a folder that is new or empty")
        for leftover in path.glob(f".run.json.*{LEFTOVER_SUFFIX}"):
            leftover.unlink()
        if path.exists() and any(path.iterdir()):
            raise UsageError(f"{path} is not empty and holds no run; choose another --out")
        run = cls(path, info)
        run.save()
        return run

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Open the run in `path`. Raises UsageError where there is none, RunDamagedError where it is unreadable."""
        path = Path(path)
        file = path / "run.json"
        if not file.exists():
            what = "has no run.json" if path.is_dir() else "does not exist"
            raise UsageError(f"{path} {what}; give the folder that `microtome audit --out` made")
        try:
            info = read_json(file)
            version = info["schema_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunDamagedError(f"{file} cannot be read ({error})") from error
        if version != SCHEMA_VERSION:
            raise RunDamagedError(
                f"{file} has schema version {version}; this Microtome reads version {SCHEMA_VERSION}: "
                "use the version that wrote it, or audit again"
            )
        if garbled := _garbled_parts(info):
            raise RunDamagedError(f"{file} lacks or garbles {', '.join(garbled)}")
        try:
            return cls(path, cast("RunInfo", info))
        except (KeyError, TypeError, ValueError) as error:
            raise RunDamagedError(f"{file} lacks or garbles {error}") from error

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether `path` holds a run, finished or not."""
        return (Path(path) / "run.json").exists()

    @property
    def url(self) -> str:
        """Where the run lies, as any process of this machine would find it."""
        return str(self.path.resolve())

    def save(self) -> None:
        """Write `info` to run.json."""
        write_json(self.path / "run.json", self.info)

    def set_stage(self, stage: str, state: str, seconds: float) -> None:
        """Record that `stage` is pending, running or done, with `seconds` more spent on it, and save."""
        spent = self.info["stages"].get(stage, StageInfo(state="pending", seconds=0.0))["seconds"]
        self.info["stages"][stage] = StageInfo(state=state, seconds=round(spent + seconds, 3))
        self.save()

    def clean(self) -> int:
        """Delete temporary files of writers that were killed; returns how many."""
        return remove_leftovers(self.path)

    def commits(self, stage: str, key: str) -> StageCommits:
        """The commit records of `stage` for results that depend on `key`."""
        return StageCommits(self.path, stage, key)

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

    def activations(self, layer: str, sample: int) -> NDArray[np.float32]:
        """Every unit's activation map of one sample: (C, h, w) float32, true values."""
        maps: NDArray[np.float32] = self.activation_range(layer, sample, sample + 1)[0]
        return maps

    def activation_range(self, layer: str, start: int, stop: int) -> NDArray[np.float32]:
        """Activation maps of samples start ... stop - 1: (n, C, h, w) float32, true values."""
        entry = self.layer(layer)
        stored = self.arrays.read(layer_array(entry["folder"], ACTIVATIONS), start, stop)
        maps: NDArray[np.float32] = np.multiply(stored, np.float32(entry["scale"]), dtype=np.float32)
        return maps

    def activation_maps(self, layer: str, samples: NDArray[np.int64], units: NDArray[np.int64]) -> NDArray[np.float32]:
        """Activation map of unit `units[i]` for sample `samples[i]`, for all i: (n, h, w) float32, true values.

        Reads the samples between the least and the greatest: ask for neighbours.
        """
        entry = self.layer(layer)
        if not len(samples):
            return np.zeros((0, *entry["grid"]), np.float32)
        first = int(samples.min())
        stored = self.arrays.read(layer_array(entry["folder"], ACTIVATIONS), first, int(samples.max()) + 1)
        maps: NDArray[np.float32] = np.multiply(
            stored[samples - first, units], np.float32(entry["scale"]), dtype=np.float32
        )
        return maps

    # Tables

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run: "samples" or "concepts"."""
        return read_table(self.path / f"{name}.parquet")

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table of the run."""
        write_table(self.path / f"{name}.parquet", frame)

    def layer_table(self, layer: str, name: str) -> pd.DataFrame:
        """A table of one layer: "units", "iou", "patches", "thresholds" or "histogram"."""
        return read_table(self._layer_path(layer) / f"{name}.parquet")

    def write_layer_table(self, layer: str, name: str, frame: pd.DataFrame) -> None:
        """Write a table of one layer."""
        write_table(self._layer_path(layer) / f"{name}.parquet", frame)

    @property
    def report_path(self) -> Path:
        """Folder of the HTML report."""
        return self.path / "report"

    def _layer_path(self, layer: str) -> Path:
        return self.path / "layers" / self.layer(layer)["folder"]
