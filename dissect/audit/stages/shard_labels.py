"""The labels of one shard, as the stages that compare them with masks read them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.job import Job
from microtome.dissect.audit.stages.totals import capture_totals, dropped_concepts
from microtome.dissect.maths.labels import count_labels
from microtome.dissect.maths.tally import Convention
from microtome.storage.arrays import IMAGE_LABELS, LABELS


@dataclass(frozen=True)
class ShardLabels:
    """One shard's labels (n, P, H, W) and (n, Q), its readable samples, their splits and annotated categories."""

    labels: NDArray[np.uint16]
    image_labels: NDArray[np.uint16]
    rows: NDArray[np.int64]
    splits: NDArray[np.int8]
    annotated: NDArray[np.bool_]

    @classmethod
    def read(cls, job: Job, shard: int) -> ShardLabels:
        """Read the labels of `shard`; samples that could not be read are left out of `rows`."""
        samples = job.run.plan.samples_of(shard)
        totals = capture_totals(job)
        rows = np.flatnonzero(totals.error[samples.start : samples.stop] == "")
        found = cls(
            labels=_read_or_empty(job, LABELS, shard, (len(job.dataset.plane_names), *job.label_size)),
            image_labels=_read_or_empty(job, IMAGE_LABELS, shard, (job.dataset.image_label_slots,)),
            rows=rows,
            splits=job.split_of[samples.start : samples.stop][rows],
            annotated=totals.annotated[samples.start : samples.stop],
        )
        dropped = dropped_concepts(job)
        return found.without(job, dropped) if dropped.any() else found

    def without(self, job: Job, dropped: NDArray[np.bool_]) -> ShardLabels:
        """The same labels, where some concepts are none."""
        stays = np.where(dropped, 0, np.arange(len(dropped))).astype(np.uint16)
        labels, image_labels = stays[self.labels], stays[self.image_labels]
        concepts, categories = len(job.dataset.concepts), len(job.categories)
        counts = count_labels(labels, image_labels, concepts, job.category_of, categories)
        return replace(self, labels=labels, image_labels=image_labels, annotated=counts.annotated)

    def of_split(self, split: int) -> NDArray[np.int64]:
        """The readable samples of one split, by their place in the shard."""
        chosen: NDArray[np.int64] = self.rows[self.splits == split]
        return chosen


def convention(job: Job) -> Convention:
    """The run's IoU convention."""
    return cast("Convention", job.config.iou)  # checked by AuditConfig


def _read_or_empty(job: Job, name: str, shard: int, item: tuple[int, ...]) -> NDArray[np.uint16]:
    if job.run.arrays.exists(name):
        return np.ascontiguousarray(job.run.arrays.read_shard(name, shard), np.uint16)
    return np.zeros((len(job.run.plan.samples_of(shard)), *item), np.uint16)
