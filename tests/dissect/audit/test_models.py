"""Users' own models through a whole audit: dtypes, in-place operations, wrappers, packages in the current folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from microtome.dissect import AuditConfig, open_run, run_audit

SOURCE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        a = self.conv1(x)
        y = self.relu(a)
        y += a
        z = self.conv2(y)
        z.mul_(2)
        return self.head(z.mean((2, 3)))

PREPROCESS = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}

def plain():
    net = Net()
    net.preprocess = PREPROCESS
    return net

def bfloat16():
    return plain().bfloat16()

def float64():
    return plain().double()

def wrapped():
    net = nn.DataParallel(Net())
    net.preprocess = PREPROCESS
    return net
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mynets"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "nets.py").write_text(SOURCE)
    (folder / "relative.py").write_text("from .nets import plain\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "spec",
    [
        "mynets/nets.py:plain",
        "mynets/nets.py:bfloat16",
        "mynets/nets.py:float64",
        "mynets/nets.py:wrapped",
        "mynets/relative.py:plain",
        "mynets.relative:plain",
    ],
)
def test_it_is_audited_with_measured_receptive_fields(package: Path, spec: str) -> None:
    out = package / "run"
    run_audit(AuditConfig(model=spec, dataset="scenes:6?size=32", layers=("conv1", "relu", "conv2"), out=out, top=2))
    run = open_run(out).run
    sizes = {layer["name"]: layer["receptive_field"]["rows"]["size"] for layer in run.info["layers"]}
    assert sizes == {"conv1": 3, "relu": 3, "conv2": 7}
    assert all(not layer["receptive_field"]["note"] for layer in run.info["layers"])
    conv1, relu = run.activation_range("conv1", 0, 6), run.activation_range("relu", 0, 6)
    np.testing.assert_array_equal(np.maximum(conv1, 0), relu)  # not what the addition in place made of it
