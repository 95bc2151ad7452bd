"""Noise that a generator draws in its forward pass, made reproducible: each sample of a batch draws its own.

What a network draws by lot (the noise inputs of StyleGAN's layers, sampling in a decoder) would come from torch's
global generator, and depend on all that was drawn before and on who else is in the batch. Here every row of what is
drawn comes from a seed that is a hash of this row of the inputs and of how many draws came before it in the pass: the
latents alone decide what an image looks like, and an edited pass draws what the untouched one drew.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")

_LOCK = threading.Lock()  # torch's global generators are seeded and drawn from
_DRAWS = torch.Tag.nondeterministic_seeded


class SampleNoise(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While open in this thread, draws come from the rows of `inputs`, tensors whose first dimension is the batch.

    What is drawn for a whole batch at once (nothing involved has its length) is the same in every pass.
    drawn: how many draws there have been.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inputs = inputs
        self._rows: list[bytes] | None = None
        self.drawn = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as in `following.Follow`

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """An operation of the pass, drawn row by row where it draws."""
        named = dict(kwargs or {})
        if _DRAWS not in func.tags or "attention" in func.name():  # which has no dropout in eval mode
            return func(*args, **named)
        if "generator" in named:
            named["generator"] = None
        number = self.drawn
        self.drawn += 1
        parts = _rows_of(args, len(self._inputs[0]))
        if parts is None:
            return seeded_draw(_seed(b"", number), partial(func, *args, **named))
        if self._rows is None:
            self._rows = rows_digests(self._inputs)
        drawn = [
            seeded_draw(_seed(row, number), partial(func, *part, **named))
            for row, part in zip(self._rows, parts, strict=True)
        ]
        return args[0] if func.name().partition(".")[0].endswith("_") else _joined(drawn)


def rows_digests(inputs: Sequence[Tensor]) -> list[bytes]:
    """A hash of each row of tensors whose first dimension is the batch."""
    columns = [tensor.detach().cpu().contiguous().reshape(len(tensor), -1) for tensor in inputs]
    arrays = [column.view(torch.uint8).numpy() for column in columns]
    return [
        hashlib.blake2b(b"\0".join(array[row].tobytes() for array in arrays), digest_size=16).digest()
        for row in range(len(inputs[0]))
    ]


def _seed(row: bytes, number: int) -> int:
    return int.from_bytes(hashlib.blake2b(row + b"%d" % number, digest_size=7).digest(), "little")


def _rows_of(args: Sequence[Any], batch: int) -> list[list[Any]] | None:
    """The arguments of an operation for each row of the batch alone; None where it has no rows."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if any(tensor.ndim and len(tensor) == batch for tensor in tensors):
        return [[_row(arg, row, batch) for arg in args] for row in range(batch)]
    if tensors:
        return None
    for place, arg in enumerate(args):  # randn(size), randint(low, high, size)
        if isinstance(arg, list | tuple) and arg and arg[0] == batch:
            return [[*args[:place], [1, *arg[1:]], *args[place + 1 :]]] * batch
    return None


def _row(arg: Any, row: int, batch: int) -> Any:
    held = isinstance(arg, Tensor) and arg.ndim and len(arg) == batch
    return arg.narrow(0, row, 1) if held else arg


def seeded_draw(seed: int, draw: Callable[[], T]) -> T:
    """What `draw` gives while torch's global generators begin with `seed`; they are left as they were."""
    generators = [torch.default_generator, *torch.cuda.default_generators]  # of devices that are in use
    with _LOCK:
        states = [generator.get_state() for generator in generators]
        try:
            for generator in generators:
                generator.manual_seed(seed)
            return draw()
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


def _joined(drawn: Sequence[Any]) -> object:
    if isinstance(drawn[0], Tensor):
        return torch.cat(list(drawn))
    if isinstance(drawn[0], tuple):
        return tuple(_joined([each[part] for each in drawn]) for part in range(len(drawn[0])))
    return drawn[0]
