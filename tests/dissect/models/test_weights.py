"""Weights from files: what is opened, what is refused and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from microtome.dissect.models.weights import load_weights, read_state
from microtome.storage.errors import UsageError


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("form", ["plain", "nested", "parallel", "compiled", "trainer", "safetensors"])
def test_every_form_of_state_dict(tmp_path: Path, form: str) -> None:
    source, target = net(), net()
    state = source.state_dict()
    forms: dict[str, Any] = {
        "plain": state,
        "nested": {"epoch": 3, "state_dict": state},
        "parallel": prefixed(state, "module."),
        "compiled": {"model": prefixed(state, "module._orig_mod.")},
        "trainer": {"model": {"state_dict": prefixed(state, "_orig_mod.")}, "lr": 0.1},
    }
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(forms[form], path)
    load_weights(target, path)
    assert all(torch.equal(target.state_dict()[key], state[key]) for key in state)


def test_keys_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    state = net().state_dict()
    torch.save({key.replace("0.", "stem."): value for key, value in state.items()}, path)
    with pytest.raises(UsageError, match=r"it lacks 2 \(0.weight, 0.bias\); the model has no place for 2 \(stem"):
        load_weights(net(), path)
    torch.save(state | {"2.weight": torch.zeros(7, 4)}, path)
    with pytest.raises(UsageError, match=r"size mismatch for 2.weight.*\[7, 4\]"):
        load_weights(net(), path)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def test_a_pickle_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Payload()}, tmp_path / "evil.pt")
    torch.save(net(), tmp_path / "whole.pt")
    for name in ("evil.pt", "whole.pt"):
        with pytest.raises(UsageError, match="not a plain state dict"):
            read_state(tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.pt", b"hello", "text.pt"),
        ("empty.pt", b"", "cannot be read as weights"),
        ("bad.safetensors", b"hello world", "cannot be read as weights"),
    ],
)
def test_files_that_hold_no_weights(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_state(tmp_path / name)


def test_other_contents(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(UsageError, match="no such file"):
        read_state(path)
    torch.save([1, 2], path)
    with pytest.raises(UsageError, match="holds a list"):
        read_state(path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(UsageError, match="epoch hold no tensors"):
        read_state(path)
    torch.save({}, path)
    with pytest.raises(UsageError, match="it is empty"):
        read_state(path)
