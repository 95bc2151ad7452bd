"""How bad an image is: by the user's list, by a function of the user's, or by how far its features are from real ones.

A list says nothing of images that are not in it, such as those of a repaired generator. A regression from features to
the listed scores stands in there, and says how well it agrees with scores that it was not fitted to.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from microtome.dissect.generators.features import BATCH, Features
from microtome.dissect.generators.seeds import of_run
from microtome.dissect.models.factories import Product, make_from_file, make_from_module
from microtome.dissect.models.feeding import Pixels
from microtome.storage.errors import UsageError
from microtome.storage.run import Run

Score = Callable[[Pixels], Features]
"""Pictures (n, H, W, 3) uint8 -> (n,) float64."""

LEAST_AGREEMENT = 0.3
"""Rank correlation with scores that it was not fitted to, below which a stand-in is not used."""

FOLDS = 5
_STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
_PRODUCT = Product("a callable of images (B, 3, H, W) in [0, 1] that gives (B,) scores", callable)
_COLUMNS = "give a header key,score or seed,score, and a line an image, such as seed-000017,0.42 or 17,0.42"


def read_scores(path: Path, run: Run) -> tuple[NDArray[np.int64], Features]:
    """The samples of the run that a CSV scores, ascending, and their scores. Raises UsageError where it is unusable."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            columns = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(f"--scores {path} cannot be read ({said}); {_COLUMNS}") from error
    name = next((name for name in ("key", "seed") if name in columns), None)
    if name is None or "score" not in columns:
        raise UsageError(f"--scores {path} has the columns {', '.join(columns) or 'none'}; {_COLUMNS}")
    known = _samples_by(run, name)
    found: dict[int, float] = {}
    for number, row in enumerate(rows, 2):
        given = (row[name] or "").strip()
        if given not in known:
            raise UsageError(f"--scores {path}, line {number}: the run has no sample of {name} {given!r}")
        if known[given] in found:
            raise UsageError(f"--scores {path}, line {number}: {name} {given} has a score already; give one an image")
        found[known[given]] = _number(row["score"], f"--scores {path}, line {number}")
    samples = np.array(sorted(found), np.int64)
    return samples, np.array([found[sample] for sample in samples.tolist()], np.float64)


def _samples_by(run: Run, name: str) -> dict[str, int]:
    if name == "key":
        table = run.table("samples")
        return dict(zip(table["key"].astype(str), table["index"].astype(int), strict=True))
    return {str(seed): sample for sample, seed in enumerate(of_run(run))}


def _number(text: str | None, where: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{where}: {text!r} is no score; give a finite number")
    return number


def load_scorer(spec: str, device: torch.device) -> Score:
    """The user's function behind `package.module:factory` or `path/file.py:factory`, as one of pictures.

    The factory returns a callable of images (B, 3, H, W), float in [0, 1], that gives (B,) scores. Raises UsageError
    where it cannot be had; what is returned does where the callable does not keep to that.
    """
    source, colon, attribute = spec.rpartition(":")
    if not colon or not source or not attribute:
        raise UsageError(f"--scorer {spec}: give path/file.py:factory or package.module:factory")
    if source.endswith(".py") or "/" in source:
        made = make_from_file(Path(source).expanduser(), attribute, _PRODUCT)
    else:
        made = make_from_module(source, attribute, _PRODUCT)
    if isinstance(made, torch.nn.Module):
        made.eval().to(device)
    if not callable(made):
        raise UsageError(f"--scorer {spec} gives no callable")
    call: Callable[[Tensor], object] = made

    def score(pictures: Pixels) -> Features:
        parts = [np.zeros(0)]
        for start in range(0, len(pictures), BATCH):
            images = torch.from_numpy(pictures[start : start + BATCH]).permute(0, 3, 1, 2).float().div_(255).to(device)
            with torch.no_grad():
                found = call(images)
            if not isinstance(found, Tensor) or found.numel() != len(images) or not bool(found.isfinite().all()):
                raise UsageError(f"--scorer {spec}: expected {len(images)} finite scores for as many images, a tensor")
            parts.append(found.detach().reshape(-1).double().cpu().numpy())
        return np.concatenate(parts)

    return score


@dataclass(frozen=True, eq=False)
class StandIn:
    """Scores that are foretold from features by ridge regression. agreement: the rank correlation of foretold and
    listed scores of images that it was not fitted to, by five folds."""

    weight: Features
    shift: float
    agreement: float

    def __call__(self, features: Features) -> Features:
        """(n, d) -> (n,)."""
        return features @ self.weight + self.shift


def fit_stand_in(features: Features, scores: Features) -> StandIn:
    """Fit features (n, d) to scores (n,), with that strength of the penalty that foretells best across folds."""
    folds = np.random.default_rng(0).permutation(len(scores)) % FOLDS
    foretold = {strength: np.empty(len(scores)) for strength in _STRENGTHS}
    for fold in range(FOLDS):
        out = folds == fold
        for strength in _STRENGTHS:
            weight, shift = _ridge(features[~out], scores[~out], strength)
            foretold[strength][out] = features[out] @ weight + shift
    best = min(_STRENGTHS, key=lambda strength: float(np.square(foretold[strength] - scores).sum()))
    agreement = float(spearmanr(foretold[best], scores).statistic) if np.ptp(foretold[best]) > 0 else 0.0
    return StandIn(*_ridge(features, scores, best), agreement)


def _ridge(features: Features, scores: Features, strength: float) -> tuple[Features, float]:
    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    scaled = (features - mean) * scale
    gram = scaled.T @ scaled + strength * len(scores) * np.eye(len(mean))
    weight = np.linalg.solve(gram, scaled.T @ (scores - scores.mean())) * scale
    return weight, float(scores.mean() - mean @ weight)
