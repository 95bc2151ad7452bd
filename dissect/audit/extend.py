"""A finished run that grows: images are added, only new shards are captured, and all tables are made anew.

The run's samples keep their places, whatever has come between them in the dataset since; new ones follow. Shards of the
capture that are whole stay, with their states; a last one that was partial is captured again. Exact thresholds depend
on every image, so what was counted below the old ones is counted again from the stored activations.

One write of run.json makes the small run a large one that is not finished: before it nothing but an order was
stored, and after it `audit --resume` and `extend` do the same. Stage index then goes over what is there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.datasets.views.labelled import with_labels
from microtome.datasets.views.ordered import OrderedDataset
from microtome.datasets.views.view import sample_fingerprints
from microtome.dissect.audit.budget import NO_LIMITS, Budget
from microtome.dissect.audit.config import AuditConfig, config_of_run, with_changes
from microtome.dissect.audit.data import open_plain, refuse_unmatched, segments_of
from microtome.dissect.audit.images import read_item
from microtome.dissect.audit.job import choose_device, load_configured, preprocess_of, run_key, same_segmenter
from microtome.dissect.audit.measured import drop_measured, without_measured
from microtome.dissect.audit.pilot import PILOT_IMAGES, PILOT_TRIES, run_pilot
from microtome.dissect.audit.pipeline import Outcome, executor_of, finish, holding
from microtome.dissect.audit.prepare import divide, reopen
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.readouts import changed_matrices, open_readouts
from microtome.dissect.audit.stages.index import concept_lines
from microtome.dissect.audit.stages.merge import unpack_texts
from microtome.dissect.models import Model
from microtome.dissect.models.readouts import Readout
from microtome.storage.arrays import IMAGE_LABELS, LABELS
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.order import write_order
from microtome.storage.run import Run
from microtome.storage.schema import RunInfo
from microtome.storage.shards import CHUNK_SAMPLES, ShardPlan

if TYPE_CHECKING:
    from distributed import Client

MANY_SHARDS = 1000
NAMED = 3
SPOT_CHECKS = 16


@dataclass(frozen=True)
class Extension:
    """What an extension came to: the finished run, and how many samples were added."""

    outcome: Outcome
    added: int


def extend_run(
    path: Path | str,
    dataset: str | None = None,
    *,
    limit: int | None = None,
    workers: int | None = None,
    cluster: str = "threads",
    client: Client | None = None,
    budget: Budget = NO_LIMITS,
) -> Extension:
    """Add the images that the dataset of the run in `path` has got since; finish the run where it is unfinished.

    dataset: the spec of the grown dataset, None = the run's own; limit: samples that the run shall have in all,
    None = every one that the dataset has.
    Raises RunMismatchError, naming it, where an image of the run is gone or is not what it was.
    """
    Run.open(path)  # where there is none, say so before anything is written there
    with holding(path, "extend") as stop:
        growth = _planned(path, dataset, limit, budget)
        run = Run.open(path)
        if growth is None and all(stage["state"] == "done" for stage in run.info["stages"].values()):
            return Extension(Outcome(run, run.index_page, run.info["data"]["unreadable"], 0.0), 0)
        with executor_of(cluster, workers, client) as executor:
            if growth is not None:
                executor.where_the_model_runs(choose_device, run.info["config"]["device"])  # refuses before the write
                growth.write(run)
            added = 0 if growth is None else growth.added
            return Extension(finish(reopen(path, executor, workers=workers, stop=stop), budget), added)


@dataclass(frozen=True)
class Growth:
    """What a run is to become: run.json of the larger one, the order of its samples where it needs one (else None),
    and how many samples are added."""

    info: RunInfo
    order: NDArray[np.int64] | None
    added: int

    def write(self, run: Run) -> None:
        """Make `run` the larger run."""
        drop_measured(run, "is that of the smaller run")
        without_measured(self.info)
        _say_what_stays(run, self.info, self.added)
        if self.order is not None:
            self.info["data"]["order"] = write_order(run.place, self.order)
        run.info = self.info
        run.save()


def _planned(path: Path | str, spec: str | None, limit: int | None, budget: Budget) -> Growth | None:
    """What the run in `path` is to become, None where it has all samples; refuses what can be, and writes nothing."""
    run = Run.open(path)
    if not _has_begun(run):
        return None  # to be resumed as it is
    known = Known.of(run)
    config = config_of_run(run.info["config"], out=path, workers=None)
    config = with_changes(config, dataset=spec or config.dataset, limit=limit)
    if limit is not None and limit < run.plan.samples:
        raise UsageError(f"--limit {limit}: {run.url} has {run.plan.samples:,} samples; extend only adds")
    reader = open_plain(config)
    order = _order(run, known, reader)
    view = None if order is None else OrderedDataset(reader, order)
    dataset = _labelled(view or reader, config, run)
    _refuse_other_labels(run, known, dataset)
    _refuse_changed(run, known, dataset)
    samples = min(len(dataset), limit or len(dataset))
    added = samples - run.plan.samples
    other_pending = added == 0 and not _is_indexed(run) and dataset.fingerprint() != run.info["data"]["fingerprint"]
    if added < 1 and not other_pending:
        return None
    budget.refuse_disk(run.info["estimate"], samples, kept=config.keep_activations)
    model, readouts = _same_model(run, config), _same_readouts(run, config)
    if view is not None:
        view = OrderedDataset(reader, view.order[:samples])
        dataset = _labelled(view, config, run)
    info = _larger(run, config, dataset, samples)
    if known.count < PILOT_TRIES and known.readable < PILOT_IMAGES:
        _pilot_again(info, config, model, dataset, readouts)
    return Growth(info, None if view is None else view.order[:samples], added)


def _labelled(dataset: ImageDataset, config: AuditConfig, run: Run) -> ImageDataset:
    return with_labels(dataset, config.free, segments_of(run.info.get("segmenter")), config.concepts)


def _is_indexed(run: Run) -> bool:
    return run.info["stages"]["index"]["state"] == "done"


def _has_begun(run: Run) -> bool:
    """Whether there may be anything to keep."""
    return _is_indexed(run) or "growth" in run.info["data"]


@dataclass(frozen=True)
class Known:
    """What a run knows of the samples that its capture may hold: their rows of samples.parquet and, where stage index
    noted them, their fingerprints and the concepts of the dataset."""

    samples: pd.DataFrame
    fingerprints: NDArray[np.uint64] | None
    concepts: list[str] | None

    @classmethod
    def of(cls, run: Run) -> Known:
        """Read what `run` knows."""
        samples = run.table("samples")
        keys = [run_key(run), *run.info["data"].get("growth", {})]
        noted = next((commits for key in keys if (commits := run.commits("index", key)).is_done(0)), None)
        if noted is None:
            return cls(samples, None, None)
        state = noted.state(0)
        fingerprints = state["samples"].astype(np.uint64) if "samples" in state else None
        return cls(samples.iloc[: int(state["count"][0])], fingerprints, unpack_texts(state["concepts"]))

    @property
    def count(self) -> int:
        """How many samples."""
        return len(self.samples)

    @property
    def readable(self) -> int:
        """How many of the samples are known to be readable."""
        return int((self.samples["status"] == "ok").sum()) if "status" in self.samples else 0


def _order(run: Run, known: Known, dataset: ImageDataset) -> NDArray[np.int64] | None:
    """Where in `dataset` the samples of the run are; None where it begins with them.

    Raises RunMismatchError naming those that are gone.
    """
    keys = known.samples["key"].tolist()
    if len(dataset) >= len(keys) and all(dataset.entry(index).key == key for index, key in enumerate(keys)):
        return None
    places: dict[str, int] = {}
    for index in range(len(dataset)):
        places.setdefault(dataset.entry(index).key, index)
    if len(places) < len(dataset):
        raise RunMismatchError(f"{dataset.spec} gives two samples the same key: the run's cannot be found in it")
    gone = [key for key in keys if key not in places]
    if gone:
        raise RunMismatchError(
            f"{run.url} holds images that {dataset.spec} has no more ({_named(gone)}); extend only adds: "
            "put them back, or audit again into another --out"
        )
    return np.array([places[key] for key in keys], np.int64)


def _refuse_other_labels(run: Run, known: Known, dataset: ImageDataset) -> None:
    """Raise RunMismatchError where labels mean something else than they did."""
    data = run.info["data"]
    concepts = concept_lines(dataset)
    parts = {
        "label planes": (data["plane_names"], list(dataset.plane_names)),
        "labels of whole images": (data["image_label_slots"], dataset.image_label_slots),
        "classes": (data["class_names"], list(dataset.class_names)),
        "concepts": (known.concepts or concepts, concepts),
    }
    other = [name for name, (before, now) in parts.items() if before != now]
    if other:
        raise RunMismatchError(
            f"{dataset.spec} has other {' and '.join(other)} than {run.url} was made with; "
            "extend only adds images: audit again into another --out"
        )


def _refuse_changed(run: Run, known: Known, dataset: ImageDataset) -> None:
    """Raise RunMismatchError naming the images of the run that are not what they were."""
    keys = known.samples["key"].tolist()
    entries = [dataset.entry(index) for index in range(known.count)]
    splits = known.samples["split"].tolist()
    labels = [None if pd.isna(label) else int(label) for label in known.samples["label"]]
    same = np.array(
        [
            (entry.split, entry.label) == expected
            for entry, expected in zip(entries, zip(splits, labels, strict=True), strict=True)
        ]
    )
    if dataset.fingerprint() != run.info["data"]["fingerprint"]:
        now = sample_fingerprints(dataset, known.count)
        if now is not None and known.fingerprints is not None:
            same &= now == known.fingerprints
        else:
            same &= _spot_check(run, known, dataset)
    if not same.all():
        changed = [keys[index] for index in np.flatnonzero(~same).tolist()]
        raise RunMismatchError(
            f"{dataset.spec}: images of {run.url}, or their labels, are not what they were ({_named(changed)}); "
            "extend only adds: put them back, or audit again into another --out"
        )


def _spot_check(run: Run, known: Known, dataset: ImageDataset) -> NDArray[np.bool_]:
    """Which samples may be what they were, where the dataset cannot tell: a few are read and compared."""
    same = np.ones(known.count, np.bool_)
    if "status" not in known.samples:
        return same
    chosen = np.unique(np.linspace(0, known.count - 1, SPOT_CHECKS).astype(np.int64)).tolist()
    say(f"{dataset.spec} keeps no fingerprint of each image: {len(chosen)} of {known.count:,} are read to compare them")
    preprocess = preprocess_of(run.info["model"]["preprocess"])
    for index in chosen:
        row = known.samples.iloc[index]
        item = read_item(dataset, index, preprocess, _pair(run.info["label_size"]))
        same[index] = item.ok == (row["status"] == "ok") and (item.height, item.width) == (row["height"], row["width"])
        for name, now in ((LABELS, item.planes), (IMAGE_LABELS, item.image_labels)):
            if same[index] and item.ok and run.arrays.exists(name):
                same[index] = np.array_equal(run.arrays.read(name, index, index + 1)[0], now)
    return same


def _larger(run: Run, config: AuditConfig, dataset: ImageDataset, samples: int) -> RunInfo:
    """run.json of the run over `samples`, nothing of it done yet but the capture's whole shards."""
    info = copy.deepcopy(run.info)
    info["config"] = config.identity()
    data = info["data"]
    if _is_indexed(run):
        data["growth"] = {run_key(run): run.plan.samples // run.plan.shard}
    else:  # an extension that was interrupted has taken over some of what may stay, or nothing yet
        data["growth"][run_key(run)] = max(data["growth"].values(), default=0)
    data["spec"], data["samples"] = config.dataset, samples
    data["fingerprint"] = dataset.fingerprint()
    data["splits"] = list(dict.fromkeys(dataset.entry(index).split for index in range(samples)))
    data.pop("order", None)
    info["shards"]["count"] = ShardPlan(samples, run.plan.shard, run.plan.chunk).count
    for stage in info["stages"].values():
        stage["state"] = "pending"
    return info


def _same_model(run: Run, config: AuditConfig) -> Model:
    model = load_configured(config)
    refuse_unmatched(config, model)
    if model.fingerprint != run.info["model"]["fingerprint"]:
        raise RunMismatchError(
            f"{config.model} is another model, or has other weights, than {run.url} was made with; "
            "bring it back, or audit again into another --out"
        )
    return model


def _same_readouts(run: Run, config: AuditConfig) -> dict[str, Readout]:
    """The read-outs of the run. Raises where one of them, a file that one was taken from, or the segmenter changed."""
    if changed := changed_matrices(run, config):
        raise RunMismatchError(
            f"the matrix in {' and in '.join(changed)} is another one than {run.url} was made with; "
            "bring it back, or audit again into another --out"
        )
    if "segmenter" in run.info:
        same_segmenter(run.info["segmenter"])
    return open_readouts(run)


def _pilot_again(
    info: RunInfo, config: AuditConfig, model: Model, dataset: ImageDataset, readouts: Mapping[str, Readout]
) -> None:
    """Scales come from the first few readable images: where there are more of them now, begin as a new run would."""
    try:
        choose_device(config.device)
    except UsageError:
        config = with_changes(config, device="cpu")
    scales = run_pilot(config, model, dataset, info["data"]["samples"], divide(config), readouts).scales
    if all(layer["scale"] == scales[layer["name"]] for layer in info["layers"]):
        return
    for layer in info["layers"]:
        layer["scale"] = scales[layer["name"]]
    info["data"]["growth"] = dict.fromkeys(info["data"]["growth"], 0)


def _say_what_stays(run: Run, info: RunInfo, added: int) -> None:
    count, kept = info["shards"]["count"], max(info["data"]["growth"].values(), default=0)
    say(f"{run.url}: {added:,} images more, {info['data']['samples']:,} in all; {kept:,} of {count:,} shards stay")
    if count > MANY_SHARDS and run.plan.shard < CHUNK_SAMPLES:
        say(f"note: its shards hold {run.plan.shard} samples each; a new audit would take larger ones and be quicker")


def _named(keys: Sequence[str]) -> str:
    """The first few of `keys`, and how many there are besides."""
    more = f" and {len(keys) - NAMED:,} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[1]
