"""How much two maps of the same image resemble each other: in the order of their pixels, and to the eye.

Adebayo et al. (2018, "Sanity checks for saliency maps") compare maps by Spearman's rank correlation of absolute values
and by the structural similarity of Wang et al. (2004).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from skimage.metrics import structural_similarity

SHOWN = 99.0
"""A map is shown from 0 to this percentile of its values, beyond which it is clipped."""

_WINDOW = 7


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,): Spearman's rho of maps (n, H, W) and (n, H, W), ties having their mean rank; 0 where one is constant."""
    return np.array([_rho(a.ravel(), b.ravel()) for a, b in zip(one, other, strict=True)], np.float64)


def structural(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n,): SSIM of maps (n, H, W) of magnitudes as they are shown; 7 x 7 windows, smaller on smaller maps."""
    return np.array([_ssim(_shown(a), _shown(b)) for a, b in zip(one, other, strict=True)], np.float64)


def _rho(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    ranks, others = (np.asarray(rankdata(each), np.float64) for each in (a, b))
    ranks, others = ranks - ranks.mean(), others - others.mean()
    scale = float(np.sqrt((ranks @ ranks) * (others @ others)))
    return float(ranks @ others) / scale if scale > 0 else 0.0


def _shown(values: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    top = float(np.percentile(values, SHOWN)) or float(values.max())
    return np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    smaller = min(*a.shape, _WINDOW)
    window = smaller - (smaller + 1) % 2
    found = structural_similarity(a, b, win_size=max(window, 3), data_range=1.0)  # type: ignore[no-untyped-call]
    return float(found)
