"""What the training scripts of the built-in networks share: rates, optimizers, and the log in TRAINING.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import nn

HERE: Final = Path(__file__).parent


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
