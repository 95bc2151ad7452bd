"""Tiny classifiers with random weights, as a Python file that model specs can name: with ReLU, and without."""

from __future__ import annotations

from pathlib import Path

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, act):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 10, 5, stride=4, padding=2), act())
        self.second = nn.Sequential(nn.Conv2d(10, 6, 3, stride=2, padding=1), act())
        self.head = nn.Linear(6, 4)
        self.preprocess = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
        self.class_names = ["street", "beach", "farm", "<b>& co"]

    def forward(self, x):
        return self.head(self.second(self.first(x)).mean((2, 3)))


def relu():
    return Net(nn.ReLU).eval()


def gelu():
    return Net(nn.GELU).eval()
"""


def write_tiny(folder: Path) -> Path:
    """Write the file `net.py` into `folder`; specs are `net.py:relu` and `net.py:gelu`."""
    file = folder / "net.py"
    file.write_text(SOURCE)
    return file
