"""What an auditor should know before anything else: one sentence a finding, the gravest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from microtome.datasets.base import Concept, CountsUnknownIds, ImageDataset, MakesRemarks
from microtome.datasets.survey.counting import SOME, Counts, Tally
from microtome.datasets.survey.duplicates import Duplicates, Pair, Repeats
from microtome.datasets.survey.look import FLAT

PROBLEM, WARNING, NOTE = "problem", "warning", "note"
"""How grave a finding is: data that is lost or counted wrongly; what may mislead an audit; what is good to know."""

_GRAVEST_FIRST = (PROBLEM, WARNING, NOTE)
_NAMES = 12


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    kind: a stable name; text: one sentence; count: for how many samples, concepts or classes it holds; examples: some
    of them; pairs: images that look alike, some of them
    """

    kind: str
    level: str
    text: str
    count: int
    examples: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()


def find(dataset: ImageDataset, counts: Counts, duplicates: Duplicates | None, *, whole: bool) -> tuple[Finding, ...]:
    """Everything that is odd about a dataset that has been read.

    whole: whether all of it was read, so that what did not occur occurs nowhere.
    """
    found = [
        *_unreadable(counts),
        *_unknown_numbers(dataset),
        *_copies(dataset, counts, duplicates),
        *_remarks(dataset),
        *_samples(dataset, counts),
        *_concepts(dataset.concepts, counts, whole),
        *_classes(dataset.class_names, counts, whole),
    ]
    return tuple(sorted(found, key=lambda finding: _GRAVEST_FIRST.index(finding.level)))


def _unreadable(counts: Counts) -> Iterator[Finding]:
    troubles = sorted(counts.troubles.values(), key=lambda trouble: -trouble.samples.count)
    for trouble in troubles:
        tally = trouble.samples
        alike = "" if tally.count == 1 else " (the first of them; the others differ in numbers at most)"
        some = alike if any(letter.isdigit() for letter in trouble.reason) else ""
        text = f"{_many(tally.count, 'sample')} cannot be used: {trouble.reason}{some}"
        yield Finding("unreadable", PROBLEM, text, tally.count, tuple(tally.examples))


def _unknown_numbers(dataset: ImageDataset) -> Iterator[Finding]:
    unknown = dataset.unknown_ids() if isinstance(dataset, CountsUnknownIds) else {}
    for plane, numbers in unknown.items():
        text = (
            f"the masks of plane {plane} hold {_many(len(numbers), 'number')} that the list of labels does not know; "
            "such pixels count as unlabelled"
        )
        most = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:_NAMES]
        examples = tuple(f"{number} in {_many(images, 'image')}" for number, images in most)
        yield Finding("unknown-labels", WARNING, text, len(numbers), examples)


def _copies(dataset: ImageDataset, counts: Counts, duplicates: Duplicates | None) -> Iterator[Finding]:
    if duplicates is None:
        return
    for across in (True, False):
        equal = duplicates.equal_across if across else duplicates.equal_within
        alike = duplicates.alike_across if across else duplicates.alike_within
        of_split = len(counts.splits) > 1
        where = "of another split" if across else "of the same split" if of_split else "of the dataset"
        suffix = "-across-splits" if across else ""
        level = PROBLEM if across else WARNING
        if len(equal.samples):
            text = f"{len(equal.samples):,} images are equal, pixel for pixel, to one {where}"
            yield _repeats(dataset, counts, f"duplicates{suffix}", level, text, equal)
        if len(np.setdiff1d(alike.samples, equal.samples)):
            both = len(np.intersect1d(alike.samples, equal.samples))
            also = f", {_many(both, 'equal one')} among them" if both else ""
            text = f"{len(alike.samples):,} images look nearly like one {where}{also}"
            level = WARNING if across else NOTE
            yield _repeats(dataset, counts, f"near-duplicates{suffix}", level, text, alike)


def _repeats(dataset: ImageDataset, counts: Counts, kind: str, level: str, text: str, repeats: Repeats) -> Finding:
    size = len(repeats.samples)
    groups = f"{_many(repeats.groups, 'group')}, the largest of {repeats.largest:,}"
    spread = np.bincount(counts.split[repeats.samples], minlength=len(counts.splits)).tolist()
    shares = [
        f"{part:,} of the {total:,} of {name or 'no split'}"
        for (name, total), part in zip(counts.splits.items(), spread, strict=True)
        if part
    ]
    by_split = f": {', '.join(shares[:_NAMES])}" if len(counts.splits) > 1 else ""
    examples = tuple(
        f"{dataset.entry(pair.first).key} {'=' if pair.equal else '~'} {dataset.entry(pair.second).key}"
        for pair in repeats.pairs
    )
    return Finding(kind, level, f"{text}, in {groups}{by_split}", size, examples[:SOME], repeats.pairs)


def _remarks(dataset: ImageDataset) -> Iterator[Finding]:
    for remark in dataset.remarks() if isinstance(dataset, MakesRemarks) else ():
        text = f"{remark.count:,} {remark.text}"
        yield Finding("remark", WARNING, text, remark.count, remark.examples)


def _samples(dataset: ImageDataset, counts: Counts) -> Iterator[Finding]:
    bare = counts.bare
    if bare.count and dataset.concepts:
        yield _tally("no-label", WARNING, f"{_many(bare.count, 'sample')} without any label", bare)
    if counts.classless.count:
        text = f"{_many(counts.classless.count, 'sample')} without a class label"
        yield _tally("no-class", WARNING, text, counts.classless)
    if counts.flat.count:
        text = f"{_many(counts.flat.count, 'image')} of one colour (no channel spans more than {FLAT} of 255)"
        yield _tally("one-colour", WARNING, text, counts.flat)
    if counts.rescaled.count:
        text = (
            f"{_many(counts.rescaled.count, 'sample')} with labels on a grid of another size than the image, of the "
            "same shape; nothing is lost"
        )
        yield _tally("other-grid", NOTE, text, counts.rescaled)


def _tally(kind: str, level: str, text: str, tally: Tally) -> Finding:
    return Finding(kind, level, text, tally.count, tuple(tally.examples))


def _concepts(concepts: Sequence[Concept], counts: Counts, whole: bool) -> Iterator[Finding]:
    absent = [concept for concept in concepts if not counts.images[concept.id]]
    where = "in no sample" if whole else "in none of the samples that were read"
    if absent:
        text = f"{_many(len(absent), 'concept')} of {len(concepts):,} {'is' if len(absent) == 1 else 'are'} {where}"
        yield Finding("unused-concepts", WARNING, text, len(absent), _names(absent))
    splits = list(counts.splits)
    alone = [c for c in concepts if counts.images[c.id] and counts.lowest_split[c.id] == counts.highest_split[c.id]]
    for number, split in enumerate(splits if len(splits) > 1 else ()):
        mine = [concept for concept in alone if counts.lowest_split[concept.id] == number]
        if mine:
            verb = "occurs" if len(mine) == 1 else "occur"
            text = f"{_many(len(mine), 'concept')} {verb} in {f'split {split}' if split else 'no split'} alone"
            yield Finding("one-split-concepts", WARNING, text, len(mine), _names(mine))


def _classes(names: Sequence[str], counts: Counts, whole: bool) -> Iterator[Finding]:
    absent = [name for name, count in zip(names, counts.classes.tolist(), strict=True) if not count]
    if absent and whole:
        text = f"{_many(len(absent), 'class')} of {len(names):,} without a sample"
        yield Finding("empty-classes", WARNING, text, len(absent), tuple(absent[:_NAMES]))


def _names(concepts: Iterable[Concept]) -> tuple[str, ...]:
    return tuple(f"{concept.name} ({concept.category})" for concept in concepts)[:_NAMES]


def _many(count: int, noun: str) -> str:
    plural = noun if count == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {plural}"
