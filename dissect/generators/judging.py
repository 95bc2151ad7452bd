"""What is asked about a generator's bad images, and how bad each of the run's own images is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.specs import open_dataset
from microtome.dissect.audit.progress import progress
from microtome.dissect.generators.defects import STATISTICS
from microtome.dissect.generators.features import (
    DISTANCES,
    NEIGHBOURS,
    Eyes,
    Features,
    Reals,
    open_eyes,
    real_pictures,
)
from microtome.dissect.generators.generator import Generator
from microtome.dissect.generators.scores import LEAST_AGREEMENT, Score, fit_stand_in, load_scorer, read_scores
from microtome.dissect.generators.seeds import of_run, readable_samples
from microtome.dissect.models.feeding import Pixels
from microtome.storage.errors import UsageError
from microtome.storage.run import Run

SAMPLES, DRAWS, SEED, TOP, WORST, REALS = 256, 5, 0, 20, 0.1, 2000
BATCH = 32
HIGHER = "higher"


@dataclass(frozen=True, eq=False)
class Judged:
    """The run's images with their scores. samples: (n,) ascending; scores: (n,), as they were given; sign: 1 where
    higher is worse, -1 where lower is; score: of any picture, None where there is none to be trusted; words, note."""

    samples: NDArray[np.int64]
    scores: Features
    sign: int
    score: Score | None
    words: str
    note: str = ""

    @property
    def badness(self) -> Features:
        """(n,) higher is worse."""
        return self.sign * self.scores


@dataclass(frozen=True)
class Question:
    """What is asked. One of scores (a CSV), real (a dataset's spec) and scorer says what is bad; scores and scorer may
    have real beside them, for the Frechet distance alone."""

    scores: Path | None = None
    real: str | None = None
    scorer: str | None = None
    worse: str = HIGHER
    worst: float = WORST
    statistic: str = STATISTICS[0]
    layer: str | None = None
    top: int = TOP
    features: str | None = None
    features_layer: str | None = None
    distance: str = DISTANCES[0]
    neighbours: int = NEIGHBOURS
    reals: int = REALS
    limit: int | None = None
    samples: int = SAMPLES
    draws: int = DRAWS
    seed: int = SEED

    def check(self) -> None:
        """Raise UsageError where it cannot be answered."""
        if self.scores is not None and self.scorer is not None:
            raise UsageError("--scores and --scorer both say what is bad; give one")
        if self.scores is None and self.scorer is None and self.real is None:
            raise UsageError("say what is bad: --scores FILE.csv, --scorer FILE.py:factory or --real DATASET")
        if self.scores is None and self.scorer is None and self.worse != HIGHER:
            raise UsageError(
                "--worse lower: images far from real ones are the worse; it goes with --scores or --scorer"
            )
        if not 0 < self.worst < 1:
            raise UsageError(
                f"--worst {self.worst:g}: give the share of images that counts as bad, between 0 and 1, as in "
                "--worst 0.1"
            )
        if self.samples < 2 or self.draws < 0:
            raise UsageError(
                f"--samples {self.samples} --draws {self.draws}: give 2 latents or more, and no fewer than 0"
            )

    @property
    def name(self) -> str:
        """What tells it from others: its source, and settings that are no defaults."""
        source = self.scores.stem if self.scores is not None else self.scorer or f"real-{self.real}"
        default = Question()
        told = (
            "worst",
            "statistic",
            "layer",
            "top",
            "features",
            "features_layer",
            "distance",
            "reals",
            "limit",
            "samples",
        )
        values = {name: getattr(self, name) for name in (*told, "draws", "seed", "worse", "neighbours")}
        parts = [f"{name}-{value}" for name, value in values.items() if value != getattr(default, name)]
        beside = [f"beside-{self.real}"] if self.real is not None and (self.scores or self.scorer) else []
        return "-".join([source, *beside, *parts])


@dataclass(frozen=True, eq=False)
class Looking:
    """The network that looks at images, and real ones, where there are any."""

    eyes: Eyes
    reals: Reals | None


def look_by(question: Question, generator: Generator) -> Looking | None:
    """What looks at images, where something has to: real images, or a list that needs a stand-in."""
    if question.real is None and question.scores is None:
        return None
    eyes = open_eyes(question.features, question.features_layer, generator.device)
    if question.real is None:
        return Looking(eyes, None)
    dataset = open_dataset(question.real)
    count = min(question.reals, len(dataset))
    parts = []
    with progress("real", count, "images") as shown:
        for pictures in real_pictures(dataset, count, generator.size):
            parts.append(eyes.features(pictures))
            shown.advance(len(pictures))
    if not parts:
        raise UsageError(f"--real {question.real}: no image of it can be read")
    return Looking(eyes, Reals(np.concatenate(parts), question.distance, question.neighbours))


def judge(run: Run, generator: Generator, question: Question, looking: Looking | None) -> Judged:
    """The scores of the run's images, and how other images get one."""
    readable = readable_samples(run)
    own = readable[: question.limit]
    sign = 1 if question.worse == HIGHER else -1
    if question.scorer is not None:
        score = load_scorer(question.scorer, generator.device)
        return Judged(own, _over(run, generator, own, score), sign, score, f"score by {question.scorer}")
    if question.scores is None and looking is not None and looking.reals is not None:
        eyes, reals = looking.eyes, looking.reals

        def far(pictures: Pixels) -> Features:
            return reals.far(eyes.features(pictures))

        return Judged(own, _over(run, generator, own, far), sign, far, f"{reals.words} ({eyes.words})")
    if question.scores is None or looking is None:
        raise UsageError("say what is bad: --scores FILE.csv, --scorer FILE.py:factory or --real DATASET")
    samples, scores = read_scores(question.scores, run)
    known = np.isin(samples, readable)
    samples, scores = samples[known], scores[known]
    if not len(samples) or np.ptp(scores) == 0:
        raise UsageError(f"--scores {question.scores} has no two different scores: there is no worst image among them")
    return _with_stand_in(run, generator, samples, scores, sign, looking.eyes, str(question.scores))


def _with_stand_in(
    run: Run, generator: Generator, samples: NDArray[np.int64], scores: Features, sign: int, eyes: Eyes, file: str
) -> Judged:
    """Scores of a list, with a regression that stands in for it."""
    stand_in = fit_stand_in(_over(run, generator, samples, eyes.features), scores)
    agrees = f"rank correlation {stand_in.agreement:.2f} with scores that it was not fitted to"
    if not stand_in.agreement >= LEAST_AGREEMENT:
        note = f"fresh images have no score: a regression from {eyes.words} does not foretell the list ({agrees})"
        return Judged(samples, scores, sign, None, f"score of {file}", note)
    note = f"fresh images are scored by a regression from {eyes.words} that stands in for the list ({agrees})"
    return Judged(samples, scores, sign, lambda pictures: stand_in(eyes.features(pictures)), f"score of {file}", note)


def _over(
    run: Run, generator: Generator, samples: NDArray[np.int64], function: Callable[[Pixels], Features]
) -> Features:
    """`function` over the run's own images, a batch at a time."""
    own = of_run(run)
    parts = []
    with progress("score", len(samples), "images") as shown:
        for start in range(0, len(samples), BATCH):
            seeds = [own[sample] for sample in samples[start : start + BATCH].tolist()]
            parts.append(function(generator.pictures(seeds)))
            shown.advance(len(seeds))
    return np.concatenate(parts)
