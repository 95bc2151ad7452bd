"""The part of stage explain that is about classes: an image synthesised for each class, and Grad-CAM on some of its
images: typical ones, those that the network is surest of, and those that it takes for something else.

Which class is right follows from labels or, where these do not fit the model's classes, from the model's answers, as
in importance (dissect/ablation/truth.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.exemplars import KINDS, exemplars
from microtome.dissect.audit.explained import block_name, vouch_for_explanations
from microtome.dissect.audit.images import read_item
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import Progress
from microtome.dissect.audit.stopping import Stopped
from microtome.dissect.synthesis.settings import Settings
from microtome.storage.errors import MicrotomeError
from microtome.storage.pictures import PictureBlock, block_key, blocks_folder, holds_block, read_block, write_block

if TYPE_CHECKING:
    from microtome.dissect.ablation.truth import Truth
    from microtome.dissect.audit.explaining import Explainer, Picture

BLOCK = 8
SYNTHESIS = Settings(batch=BLOCK)
SHOWN = 3
"""Images of each kind that a class shows."""

IMAGES = 50
"""Images of a class that are looked at: its first ones."""

MOST_IMAGES = 2000
"""Images that are looked at in all where the model's own answers say which class is right."""


@dataclass(frozen=True)
class Portraits:
    """The classes to explain, by their numbers among the model's, and what is known of the images that were looked at.

    sample, right, answer: (n,) int64, the image, its right class, the model's answer; probability: (n,) float64, of
    the right class; why: there are no classes, "" where there are.
    """

    truth: Truth | None
    classes: list[int]
    sample: NDArray[np.int64]
    right: NDArray[np.int64]
    answer: NDArray[np.int64]
    probability: NDArray[np.float64]
    why: str = ""

    @property
    def blocks(self) -> list[list[int]]:
        """The classes that are explained together."""
        return [self.classes[start : start + BLOCK] for start in range(0, len(self.classes), BLOCK)]


def plan_portraits(job: Job, explainer: Explainer) -> Portraits:
    """Look at images of every class, or take what was found before: who shows which class, and how surely."""
    from microtome.dissect.ablation.truth import find_truth

    truth = find_truth(job.dataset, job.samples, job.model.class_names)
    samples = _candidates(job, truth)
    most = job.run.info["explanations"]["settings"]["classes"]
    file = f"{blocks_folder(None)}answers.safetensors"
    key = block_name(job.run, None, {"images": IMAGES, "most": MOST_IMAGES}, samples)
    if holds_block(job.run.place, file, key):
        found = read_block(job.run.place, file).about
    else:
        try:
            found = _look_at(job, explainer, truth, samples)
        except MicrotomeError as error:
            found = {"sample": [], "right": [], "answer": [], "probability": [], "why": str(error)}
        write_block(job.run.place, file, PictureBlock(key, found, {}))
    right = np.array(found["right"], np.int64)
    return Portraits(
        truth,
        np.unique(right)[:most].tolist(),
        np.array(found["sample"], np.int64),
        right,
        np.array(found["answer"], np.int64),
        np.array(found["probability"], np.float64),
        found["why"],
    )


def _candidates(job: Job, truth: Truth) -> list[int]:
    """The images to look at: the first of every class or, where only the model knows the classes, the first of all."""
    if not truth.of_label:
        return list(range(min(job.samples, MOST_IMAGES)))
    seen: dict[int, int] = {}
    chosen = []
    for index in range(job.samples):
        label = job.dataset.entry(index).label
        if label in truth.of_label and seen.get(label, 0) < IMAGES:
            seen[label] = seen.get(label, 0) + 1
            chosen.append(index)
    return chosen


def _look_at(job: Job, explainer: Explainer, truth: Truth, samples: Sequence[int]) -> dict[str, Any]:
    """Of the readable ones among `samples` that have a right class: that, the model's answer, and the probability of
    the right class."""
    found: dict[str, Any] = {"sample": [], "right": [], "answer": [], "probability": [], "why": ""}
    counts: dict[int, int] = {}
    for start in range(0, len(samples), job.config.batch):
        if job.stop.is_set():
            raise Stopped
        here = samples[start : start + job.config.batch]
        items = [(index, read_item(job.dataset, index, job.preprocess, job.label_size)) for index in here]
        items = [(index, item) for index, item in items if item.ok]
        if not items:
            continue
        logits = explainer.logits([item.image for _, item in items])
        right = truth.of([job.dataset.entry(index).label for index, _ in items], logits)
        shares = _softmax(logits)
        for row, (index, _) in enumerate(items):
            klass = int(right[row])
            counts[klass] = counts.get(klass, 0) + 1
            if klass >= 0 and counts[klass] <= IMAGES and np.isfinite(shares[row]).all():
                found["sample"].append(index)
                found["right"].append(klass)
                found["answer"].append(int(logits[row].argmax()))
                found["probability"].append(float(shares[row, klass]))
    if not found["sample"]:
        found["why"] = "no image that can be read has a class of the model"
    return found


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return shares


def explain_classes(job: Job, explainer: Explainer, portraits: Portraits, shown: Progress) -> None:
    """Make the pictures of classes that are still missing."""
    run, files = job.run, []
    settings = {"shown": SHOWN, "images": IMAGES, "most": MOST_IMAGES, "synthesis": SYNTHESIS.to_dict()}
    for number, classes in enumerate(portraits.blocks):
        if job.stop.is_set():
            raise Stopped
        file, key = block_key(None, number), block_name(run, None, settings, classes)
        if not holds_block(run.place, file, key):
            write_block(run.place, file, _block(job, explainer, portraits, key, classes))
        files.append(file)
        shown.advance(len(classes))
    vouch_for_explanations(run, None, files)
    run.info["explanations"]["classes"] = len(portraits.classes)
    run.info["explanations"]["why"] = portraits.why
    run.save()


def _block(job: Job, explainer: Explainer, portraits: Portraits, key: str, classes: Sequence[int]) -> PictureBlock:
    from microtome.dissect.audit.explaining import webp

    synthesised, no_synthesis = _synthesise(job, explainer, classes)
    pictures: dict[str, bytes] = {}
    about = []
    for klass in classes:
        if job.stop.is_set():
            raise Stopped
        if klass in synthesised:
            pictures[f"{klass}"] = webp(synthesised[klass])
        said, shown = _images(job, explainer, portraits, klass)
        pictures |= {name: webp(picture) for name, picture in shown.items()}
        about.append(said)
    return PictureBlock(key, {"classes": about, "no_synthesis": no_synthesis}, pictures)


def _synthesise(job: Job, explainer: Explainer, classes: Sequence[int]) -> tuple[dict[int, Picture], str]:
    """An image for each class that could be driven, and why there is none for any of them."""
    from microtome.dissect.audit.explaining import SYNTHESIS_SIDE, at_most
    from microtome.dissect.synthesis import synthesise_classes

    try:
        made = list(synthesise_classes(explainer.model, classes, settings=SYNTHESIS, stop=job.stop.is_set))
    except MicrotomeError as error:
        if job.stop.is_set():
            raise Stopped from error
        return {}, str(error)
    return {one.subject: at_most(one.image, SYNTHESIS_SIDE) for one in made if one.driven}, ""


def _images(
    job: Job, explainer: Explainer, portraits: Portraits, klass: int
) -> tuple[dict[str, Any], dict[str, Picture]]:
    """What is said of a class and its images, and each image beside its Grad-CAM (or alone, where there is none)."""
    from microtome.dissect.audit.explaining import CLASS_SIDE, at_most, beside

    mine = np.flatnonzero(portraits.right == klass)
    said: dict[str, Any] = {"class": klass, "name": _name(portraits, klass), "images": len(mine), "kinds": {}}
    pictures: dict[str, Picture] = {}
    for kind in KINDS:
        said["kinds"][kind] = []
        for place in exemplars(portraits.probability[mine], SHOWN)[kind]:
            row = int(mine[place])
            sample, answer = int(portraits.sample[row]), int(portraits.answer[row])
            item = read_item(job.dataset, sample, job.preprocess, job.label_size)
            if not item.ok:
                continue
            why, shown = "", [at_most(item.image, CLASS_SIDE)]
            try:
                shown.append(at_most(explainer.heat(item.image, klass), CLASS_SIDE))
            except MicrotomeError as error:
                why = str(error)
            name = f"{klass}-{kind}-{len(said['kinds'][kind])}"
            pictures[name] = beside(shown)
            said["kinds"][kind].append(
                {
                    "name": name,
                    "sample": sample,
                    "probability": float(portraits.probability[row]),
                    "answer": "" if answer == klass else _name(portraits, answer),
                    "why": why,
                }
            )
    return said, pictures


def _name(portraits: Portraits, klass: int) -> str:
    return str(klass) if portraits.truth is None else portraits.truth.name(klass)
