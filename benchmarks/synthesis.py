"""Pictures of 64 units of a layer: in batches, one by one, and by the usual loop; and what a large dream takes.

One by one is a call of `visualise_units` for each unit. The usual loop is what one writes by hand: a batch of one
through the whole network, a hook that keeps the layer's output, and torch's own Adam, on all cores, with the same
spectrum, shifts alone, and as many steps. Both are timed on three units and reckoned up to 64.
`difference` is the largest between a picture made in a batch and alone, on the scale of [0, 1]. CPU times are those of
all threads; wall times mean little while other programs use the cores, whose share stands beside them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import busy_seconds
from microtome.dissect.attribution.subject import at_rest
from microtome.dissect.models import Model, load_model
from microtome.dissect.synthesis import Settings, visualise_units
from microtome.dissect.synthesis.objectives import at_size
from microtome.dissect.synthesis.parametrisation import FourierPainting

KIT = Path(__file__).resolve().parents[2] / "shared" / "real"
UNITS = 64
NETWORKS = [("builtin:scenes-cnn", "block4", 112), ("builtin:scenes-cnn", "block4", 64)]
REAL = [(f"{KIT}/classifiers.py:efficientnet_lite0", "_blocks.10", 128)]
DREAMS = [("torchvision:resnet18?weights=none", "layer3")]

DREAM = """
import re, sys
import numpy as np
from microtome.dissect.models import load_model
from microtome.dissect.synthesis import dream
photo = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8).repeat(64, 0).repeat(64, 1)
dream(load_model(sys.argv[1]), photo, sys.argv[2])
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**20)
"""


def run(quick: bool) -> dict[str, Any]:
    """Seconds for 64 units in each way, ratios and differences; gigabytes of a dream over 1024 x 768."""
    real = (KIT / "README.md").is_file()
    networks = NETWORKS + (REAL if real else [])
    settings = Settings(steps=6 if quick else 40)
    dreams = DREAMS + ([(REAL[0][0], REAL[0][1])] if real else [])
    return {
        "load before": os.getloadavg()[0],
        f"{UNITS} units, {settings.steps} steps": [_compared(*each, settings) for each in networks],
        "a dream of 1024 x 768, a fresh process": [] if quick else [_dreamt(*each) for each in dreams],
    }


def _compared(spec: str, layer: str, side: int, settings: Settings) -> dict[str, object]:
    model = at_size(load_model(spec), (side, side))
    some = [0, 31, 63]
    made: list[Any] = []
    together = _timed(lambda: made.append(visualise_units(model, layer, range(UNITS), settings=settings)))
    alone = _timed(lambda: made.extend(visualise_units(model, layer, [unit], settings=settings) for unit in some))
    usual = _timed(lambda: [_usual(model, layer, unit, settings) for unit in some])
    share = UNITS / len(some)
    difference = max(
        int(np.abs(made[0][unit].astype(int) - one[0]).max()) for unit, one in zip(some, made[1:], strict=True)
    )
    return {
        "model": Path(spec).name,
        "layer": layer,
        "side": side,
        "batches CPU s": round(together[0], 1),
        "one by one CPU s": round(alone[0] * share, 1),
        "usual loop CPU s": round(usual[0] * share, 1),
        "batches wall s": round(together[1], 1),
        "one by one wall s": round(alone[1] * share, 1),
        "usual loop wall s": round(usual[1] * share, 1),
        "one by one / batches": round(alone[1] * share / together[1], 1),
        "usual / batches": round(usual[1] * share / together[1], 1),
        "others' share": round(max(together[2], alone[2], usual[2]), 2),
        "difference": difference / 255,
    }


def _timed(work: Callable[[], object]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds, and the share of all cores that others used."""
    busy, cpu, wall = busy_seconds(), time.process_time(), time.perf_counter()
    work()
    own, seconds = time.process_time() - cpu, time.perf_counter() - wall
    return own, seconds, max(0.0, busy_seconds() - busy - own) / (seconds * (os.cpu_count() or 1))


def _usual(model: Model, layer: str, unit: int, settings: Settings) -> None:
    kept: list[torch.Tensor] = []
    painting = FourierPainting(model.preprocess.size, [torch.Generator().manual_seed(unit)], model.placeholder())
    coefficients = painting.coefficients.requires_grad_()
    optimiser = torch.optim.Adam([coefficients], lr=settings.rate)
    mean = torch.tensor(model.preprocess.mean).reshape(1, 3, 1, 1)
    std = torch.tensor(model.preprocess.std).reshape(1, 3, 1, 1)
    handle = model.module.get_submodule(layer).register_forward_hook(lambda _, __, out: kept.append(out))
    with at_rest(model.module):
        for _ in range(settings.steps):
            optimiser.zero_grad()
            shift = torch.randint(-8, 9, (2,)).tolist()
            model.module((painting.image(coefficients).roll(shift, (2, 3)) - mean) / std)
            (-kept.pop()[0, unit].mean()).backward()
            optimiser.step()
    handle.remove()


def _dreamt(spec: str, layer: str) -> dict[str, object]:
    cpu, start = os.times().children_user, time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", DREAM, spec, layer], capture_output=True, text=True, check=True)
    return {
        "model": Path(spec).name,
        "layer": layer,
        "GB": round(float(ran.stdout.split()[-1]) * 2**30 / 1e9, 2),
        "CPU s": round(os.times().children_user - cpu, 1),
        "wall s": round(time.perf_counter() - start, 1),
    }
