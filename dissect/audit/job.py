"""Everything that the stages of one audit share: the run, the model, the data, and how the work is divided.

Every process that works on an audit has a job of its own; the model is loaded only where something asks for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.dissect.audit.config import AuditConfig, preprocess_overrides, token_hints
from microtome.dissect.audit.readouts import open_readouts
from microtome.dissect.audit.stopping import StopSignal
from microtome.dissect.models import Model, Preprocess, load_model
from microtome.dissect.models.readouts import Readout
from microtome.dissect.models.segmenters import Segmenter, load_segmenter
from microtome.storage.commits import StageCommits
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry, PreprocessInfo, SegmenterInfo

if TYPE_CHECKING:
    from microtome.dissect.audit.schedule import Executor

T = TypeVar("T")


@dataclass(frozen=True)
class Division:
    """How this machine divides the work: shards at work at once in capture (`lanes`) and elsewhere (`workers`),
    forward passes at once (`passes`; the other lanes decode and write meanwhile), torch's threads within one, whether
    its tensors are laid out with the channels last, and its arithmetic."""

    device: torch.device
    workers: int
    lanes: int
    passes: int
    torch_threads: int
    channels_last: bool
    precision: str = "float32"


def choose_device(name: str) -> torch.device:
    """The torch device that `name` (auto, cpu, cuda:N) means here. Raises UsageError where it is not to be had."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: give auto, cpu or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch finds no CUDA device here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


@dataclass(frozen=True)
class Job:
    """One audit at work."""

    config: AuditConfig
    run: Run
    dataset: ImageDataset
    division: Division
    executor: Executor
    stop: StopSignal = field(default_factory=StopSignal)
    on_shards: Callable[[str, Sequence[int]], None] = lambda stage, shards: None
    _kept: dict[str, object] = field(default_factory=dict)

    @cached_property
    def model(self) -> Model:
        """The model, loaded at the first call. Raises RunMismatchError where it is not the one of the run."""
        kept = self._kept.get("model")
        if kept is not None:
            return cast("Model", kept)
        model = load_configured(self.config)
        if model.fingerprint != self.run.info["model"]["fingerprint"]:
            raise RunMismatchError(
                f"{self.config.model} is another model, or has other weights, than the run was started with"
            )
        return model

    def keep_model(self, model: Model) -> None:
        """Use `model`, which is known to be the one of the run."""
        self._kept["model"] = model

    @cached_property
    def preprocess(self) -> Preprocess:
        """What the model is fed with, as run.json has it."""
        return preprocess_of(self.run.info["model"]["preprocess"])

    @cached_property
    def segmenter(self) -> Segmenter:
        """The run's segmenter, loaded at the first call. Raises RunMismatchError where it is another one."""
        return same_segmenter(self.run.info["segmenter"])

    @property
    def readouts(self) -> Mapping[str, Readout]:
        """The read-outs of those layers that are directions in another, by name, opened at the first call.

        Raises RunDamagedError or RunMismatchError where they are not those of the run.
        """
        return self.once("readouts", lambda: open_readouts(self.run))

    def check_here(self) -> None:
        """Raise RunMismatchError where this process sees other data than the run was started with."""
        if self.dataset.fingerprint() != self.run.info["data"]["fingerprint"]:
            raise RunMismatchError(
                f"{self.config.dataset} is not what the run was started with; every worker must see the same files"
            )

    @property
    def layers(self) -> list[LayerEntry]:
        """The layers of the run, in the network's order."""
        return self.run.info["layers"]

    @property
    def samples(self) -> int:
        """Number of samples of the run."""
        return self.run.plan.samples

    @property
    def taus(self) -> tuple[float, ...]:
        """The fractions of the run; the first one labels."""
        return self.config.tau

    @property
    def label_size(self) -> tuple[int, int]:
        """(H, W) of the label grid."""
        height, width = self.run.info["label_size"]
        return height, width

    @cached_property
    def categories(self) -> list[str]:
        """Concept categories in order of first appearance; their positions are the category ids."""
        return self.run.info["data"]["categories"]

    @cached_property
    def category_of(self) -> NDArray[np.int64]:
        """(K + 1,) category id of each concept id; -1 for 0, which is no concept."""
        ids = {name: position for position, name in enumerate(self.categories)}
        return np.array([-1, *(ids[concept.category] for concept in self.dataset.concepts)], dtype=np.int64)

    @cached_property
    def splits(self) -> list[str]:
        """Names of the splits, in order of first appearance; [""] where the dataset has none."""
        return self.run.info["data"]["splits"]

    @cached_property
    def split_of(self) -> NDArray[np.int8]:
        """(N,) position in `splits` of each sample."""
        ids = {name: position for position, name in enumerate(self.splits)}
        found = (ids[self.dataset.entry(index).split] for index in range(self.samples))
        return np.fromiter(found, dtype=np.int8, count=self.samples)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, made at the first call under this name and kept."""
        if name not in self._kept:
            self._kept[name] = make()
        return cast("T", self._kept[name])

    def commits(self, stage: str) -> StageCommits:
        """The commit records of `stage`, valid for this model, data and these settings only."""
        return self.run.commits(stage, run_key(self.run))


def load_configured(config: AuditConfig) -> Model:
    """The model that `config` names, a generator or not, fed and read as it says."""
    settings = asdict(config)
    return load_model(
        config.model,
        weights=config.weights,
        preprocess=preprocess_overrides(settings),
        tokens=token_hints(settings),
        generators=True,
    )


def same_segmenter(info: SegmenterInfo) -> Segmenter:
    """The segmenter that run.json describes, loaded. Raises RunMismatchError where it is another one now."""
    segmenter = load_segmenter(info["spec"])
    if segmenter.fingerprint != info["fingerprint"]:
        raise RunMismatchError(
            f"segmenter {info['spec']} is another one, or has other weights, than the run was started with"
        )
    return segmenter


def preprocess_of(info: PreprocessInfo) -> Preprocess:
    """The preprocessing that run.json describes."""
    size, mean, std = info["size"], info["mean"], info["std"]
    return Preprocess(
        size=(size[0], size[1]),
        resize=info["resize"],
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        interpolation=info["interpolation"],
    )


def run_key(run: Run) -> str:
    """A hash of everything in run.json that the numbers depend on."""
    info = run.info
    parts = [
        info["schema_version"],
        info["config"],
        info["model"]["fingerprint"],
        info["data"]["fingerprint"],
        info["layers"],
        info["label_size"],
        info["shards"],
    ]
    if "segmenter" in info:
        parts.append(info["segmenter"])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
