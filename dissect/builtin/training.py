"""What the training scripts of the built-in networks share: rates, optimizers, and the log in TRAINING.md."""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

HERE: Final = Path(__file__).parent
TOLD_AFTER: Final = 50
"""Steps between two lines of the log."""

log = logging.getLogger("microtome.train")


def add_options(parser: argparse.ArgumentParser, changes: Mapping[str, type]) -> None:
    """The options of the scripts; changes: numbers of the recipe that can be given in place of its own."""
    cache = Path(tempfile.gettempdir()) / "scenes-cache"
    parser.add_argument("--cache", type=Path, default=cache, help="where painted scenes are kept")
    parser.add_argument("--out", type=Path, help="weights file (default: the package's own)")
    for name, kind in changes.items():
        parser.add_argument(f"--{name}", type=kind, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=2)


def begin(parser: argparse.ArgumentParser, changes: Mapping[str, type]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Read the command line, set up log and threads; the options, and those of `changes` that were given."""
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    return options, {name: value for name in changes if (value := getattr(options, name)) is not None}


class Steps:
    """The steps of a training, told in the log with their mean loss every TOLD_AFTER of them."""

    def __init__(self, count: int) -> None:
        self._count, self._done, self._recent, self._started = count, 0, 0.0, time.monotonic()

    def done(self, loss: Tensor) -> bool:
        """One more is done; whether it was told."""
        self._done += 1
        self._recent += float(loss.detach()) / TOLD_AFTER
        if self._done % TOLD_AFTER:
            return False
        seconds = time.monotonic() - self._started
        log.info("step %d of %d: loss %.3f, %.0f s", self._done, self._count, self._recent, seconds)
        self._recent = 0.0
        return True


def cosine(step: int, steps: int, rate: float) -> float:
    """Learning rate: linear warm-up over the first twentieth, then a cosine from `rate` down to nothing."""
    warm = max(steps // 20, 1)
    if step < warm:
        return rate * (step + 1) / warm
    return rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same learning rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def adamw(model: nn.Module, rate: float, decay: float) -> torch.optim.Optimizer:
    """AdamW; biases and norms without weight decay."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate)


def write_section(path: Path, title: str, lines: Sequence[str]) -> None:
    """Write one section of TRAINING.md, leaving the others as they are."""
    old = path.read_text() if path.exists() else "# How the built-in models were trained\n\n"
    head, *sections = old.split("\n## ")
    kept = {s.split("\n", 1)[0]: "## " + s.rstrip() + "\n" for s in sections}
    kept[title] = "\n".join([f"## {title}", "", *lines, ""])
    path.write_text(head.rstrip() + "\n\n" + "\n".join(kept[key] for key in sorted(kept)))
