"""A finished audit of a small model over images of coloured squares: what is near to what is known beforehand."""

from __future__ import annotations

from pathlib import Path

from microtome.dissect import AuditConfig, run_audit

SOURCE = '''
import numpy as np
import torch
from torch import nn

from microtome.datasets.base import Concept, Entry, Sample
from microtome.storage.errors import SampleError

COUNT, SIZE, UNREADABLE, BLACK = 45, 16, 7, 11


class Net(nn.Module):
    """Units 0, 1, 2 are red, green and blue of a pixel; 3 is their product, 0 in most."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.units = nn.Identity()
        self.preprocess = {"size": SIZE, "mean": [0, 0, 0], "std": [1, 1, 1]}

    def forward(self, x):
        x = torch.cat([x, x.prod(dim=1, keepdim=True)], dim=1) * self.gain
        return self.units(x)


def model():
    return Net().eval()


def other():
    return Net(2.0).eval()


def square(index):
    """Pictures 20 and 40 are the same; 11 is black; the square of the others is red, green or blue by turns."""
    dice = np.random.default_rng(20 if index == 40 else index)
    image = dice.integers(0, 20, (SIZE, SIZE, 3), dtype=np.uint8)
    top, left = dice.integers(0, 8, 2)
    image[top : top + 7, left : left + 7, index % 3 if index != 40 else 20 % 3] = 160 + dice.integers(0, 90)
    return (image * (index != BLACK)).astype(np.uint8), top, left


class Images:
    spec = "squares"
    concepts = (Concept(1, "red square", "object"), Concept(2, "green square", "object"), Concept(3, "blue", "color"))
    plane_names = ("object",)
    image_label_slots = 0
    class_names = ("red", "green", "blue")

    def __len__(self):
        return COUNT

    def entry(self, index):
        return Entry(f"image-{index}", "val" if index % 5 == 0 else "train", index % 3)

    def read(self, index):
        if index == UNREADABLE:
            raise SampleError("image-7", "not an image")
        image, top, left = square(index)
        planes = np.zeros((1, SIZE, SIZE), np.uint16)
        planes[0, top : top + 7, left : left + 7] = index % 3 + 1
        return Sample(image, planes, np.zeros(0, np.uint16))

    def fingerprint(self):
        return "squares"

    def sample_fingerprint(self, index):
        return index


def images():
    return Images()
'''


def audit_squares(folder: Path, *, keep_activations: bool = True) -> Path:
    """The run of layer `units`; `squares.py` lies beside it."""
    source = folder / "squares.py"
    source.write_text(SOURCE, encoding="utf-8")
    run_audit(
        AuditConfig(
            model=f"{source}:model",
            dataset=f"{source}:images",
            layers=("units",),
            out=folder / "run",
            tau=(0.1,),
            top=3,
            batch=4,
            keep_activations=keep_activations,
            map=False,
        )
    )
    return folder / "run"
