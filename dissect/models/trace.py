"""Watch one forward pass: which modules are called, in what order, how often, and what they give."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv

from microtome.dissect.models.adapter import UnusableOutputError, unit_maps
from microtome.dissect.models.model import Model
from microtome.storage.errors import UsageError

CHANNELS_LAST = "gives channels last (B, h, w, C), which this version does not dissect"
_CHANNELS_FIRST = (conv._ConvNd, batchnorm._NormBase, nn.GroupNorm)
_Parts = list[tuple[str, "weakref.ref[nn.Module]"]]
_KEPT: weakref.WeakKeyDictionary[Model, dict[int, tuple[_Parts, list[Call]]]] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()  # also, the hooks of two passes at once would record each other's calls


@dataclass(frozen=True)
class Call:
    """One call of one module. `ordinal` counts from 1; `calls` is how many that module had in the whole pass.

    shape: (C, h, w), None where the output holds no units; `note` then says what it is instead.
    """

    module_name: str
    ordinal: int
    calls: int
    shape: tuple[int, int, int] | None
    note: str = ""

    @property
    def name(self) -> str:
        """The layer's name: the module's, with `@ordinal` where it is called more than once."""
        return self.module_name if self.calls == 1 else f"{self.module_name}@{self.ordinal}"


def trace(model: Model, batch: int = 2) -> list[Call]:
    """Run noise through the model and list every call in the order in which the outputs are ready.

    Kept for the next request, as long as the model lives and has the same modules; threads wait for each other.
    With a batch of 1 an output whose first dimension is not the batch may pass for one. Raises UsageError if the
    model does not run on an input of its own preprocessing's size.
    """
    parts = [(name, weakref.ref(module)) for name, module in model.module.named_modules()]
    with _LOCK:
        kept = _KEPT.setdefault(model, {})
        if batch not in kept or kept[batch][0] != parts:
            kept[batch] = parts, _run(model, batch)
        return list(kept[batch][1])


def _run(model: Model, batch: int) -> list[Call]:
    recorder = _Recorder(batch)
    handles = [
        module.register_forward_hook(partial(recorder.record, name)) for name, module in model.module.named_modules()
    ]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.module(model.noise(batch))
    except Exception as error:
        height, width = model.preprocess.size
        text = " ".join(str(error).split())
        raise UsageError(
            f"{model.spec} does not run on images (B, 3, {height}, {width}): {type(error).__name__}: {text}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return recorder.result()


class _Recorder:
    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._seen: list[tuple[str, int, tuple[int, int, int] | None, str]] = []
        self._count: Counter[str] = Counter()
        self._channels_last: list[tuple[str, Tensor]] = []  # kept alive, so that identities stay unique
        self._channels_first: list[tuple[str, torch.Size]] = []

    def record(self, name: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        """A forward hook, but for the first argument."""
        self._count[name] += 1
        shape: tuple[int, int, int] | None = None
        note = ""
        try:
            maps = unit_maps(output, self._batch)
            shape = (maps.shape[1], maps.shape[2], maps.shape[3])
        except UnusableOutputError as error:
            note = str(error)
        if shape is not None and isinstance(output, Tensor) and output.ndim == 4:
            if self._is_channels_last(name, module, inputs, output):
                self._channels_last.append((name, output))
                shape, note = None, CHANNELS_LAST
            elif isinstance(module, _CHANNELS_FIRST):
                self._channels_first.append((name, output.shape))
        self._seen.append((name, self._count[name], shape, note))

    def result(self) -> list[Call]:
        """Every call so far."""
        return [Call(name, ordinal, self._count[name], shape, note) for name, ordinal, shape, note in self._seen]

    def _is_channels_last(self, name: str, module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> bool:
        """Whether a 4-d output is (B, h, w, C), which its shape alone cannot tell.

        Layers over the last dimension make such outputs; others pass on the layout of an input of the same shape,
        and a module with parts has the layout of the parts that give the same shape.
        """
        if isinstance(module, nn.Linear):
            return True
        if isinstance(module, nn.LayerNorm):  # subclasses may work on (B, C, h, w)
            size = module.normalized_shape[-1]
            return output.shape[-1] == size and not (output.shape[1] == size and _says_2d(module))
        if isinstance(module, _CHANNELS_FIRST):
            return False
        same = [(part, tensor) for part, tensor in self._channels_last if tensor.shape == output.shape]
        if any(tensor is given for _, tensor in same for given in inputs):
            return True
        prefix = f"{name}." if name else ""
        against = any(p.startswith(prefix) and s == output.shape for p, s in self._channels_first)
        return not against and any(part.startswith(prefix) for part, _ in same)


def _says_2d(module: nn.Module) -> bool:
    return "2d" in type(module).__name__.lower()
