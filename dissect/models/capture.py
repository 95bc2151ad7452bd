"""Take the activation maps of chosen layers out of a forward pass.

with ActivationCapture(module, ["layer3", "layer4.1.relu@2"]) as capture:
    maps = capture(batch)  # {"layer3": (B, 256, 14, 14) float32, ...}
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from microtome.dissect.models.adapter import UnusableOutputError, unit_maps
from microtome.storage.errors import UnknownNameError, UsageError

T = TypeVar("T")


def copy_maps(name: str, maps: Tensor) -> Tensor:
    """The default transform: a contiguous float32 copy, which later in-place operations cannot change."""
    return maps.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


class ActivationCapture(Generic[T]):
    """Hooks on layers of a module, attached while the context is open.

    module: without compile or parallel wrappers (see `load_model`), in eval mode.
    names: resolved layer names (`resolve_layers`), NAME@2 for the second call of a module in a forward pass.
    transform: called in the hook as `transform(name, maps)`, maps (B, C, h, w) in the model's dtype and on its
    device; what it returns must not share memory with `maps`, since the next operation may work in place. Default:
    `copy_maps`.
    early_stop: end the forward pass as soon as the last chosen layer has been captured. The first pass of a capture
    always runs to the end, to make sure that every plain NAME is called once only.
    resolved: the names come from `resolve_layers`, so that even the first pass may end early.
    gradients: record the pass for autograd; a transform that keeps the graph is then needed (`copy_maps` does not).

    Several threads may call one capture at the same time; each sees its own pass. Raises
    UnknownNameError for names that are no modules; a call raises UsageError when a layer is not called, called more
    than once without saying which, or gives no units.
    """

    @overload
    def __init__(
        self: ActivationCapture[Tensor],
        module: nn.Module,
        names: Sequence[str],
        *,
        early_stop: bool = True,
        gradients: bool = False,
        resolved: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self: ActivationCapture[T],
        module: nn.Module,
        names: Sequence[str],
        *,
        transform: Callable[[str, Tensor], T],
        early_stop: bool = True,
        gradients: bool = False,
        resolved: bool = False,
    ) -> None: ...
    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        *,
        transform: Callable[[str, Tensor], object] = copy_maps,
        early_stop: bool = True,
        gradients: bool = False,
        resolved: bool = False,
    ) -> None:
        self._module = module
        self._names = tuple(dict.fromkeys(names))
        self._transform = transform
        self._early_stop = early_stop
        self._gradients = gradients
        self._wanted = _group_by_module(module, self._names)
        self._local = threading.local()
        self._handles: list[RemovableHandle] = []
        self._verified = resolved

    def __enter__(self) -> Self:
        modules = dict(self._module.named_modules())
        for module_name, calls in self._wanted.items():
            hook = self._hook_for(module_name, calls)
            self._handles.append(modules[module_name].register_forward_hook(hook))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Remove every hook; leaving the context does it too."""
        while self._handles:
            self._handles.pop().remove()

    def __call__(self, batch: Tensor) -> dict[str, T]:
        """Run `batch` (B, 3, H, W) through the module; the captured maps by layer name, in the order of `names`."""
        if not self._handles and self._names:
            raise UsageError("the capture is closed: use it inside `with ActivationCapture(...) as capture:`")
        record: _Pass[T] = _Pass(len(batch), stop=self._early_stop and self._verified)
        self._local.record = record
        try:
            with torch.set_grad_enabled(self._gradients):
                self._module(batch)
        except _Stop:
            pass
        finally:
            self._local.record = None
        self._check(record)
        self._verified = True
        return {name: record.captured[name] for name in self._names}

    def _hook_for(self, module_name: str, calls: dict[int, str]) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            record: _Pass[T] | None = getattr(self._local, "record", None)
            if record is None:
                return
            ordinal = record.calls[module_name] = record.calls.get(module_name, 0) + 1
            name = calls.get(ordinal) or (calls.get(0) if ordinal == 1 else None)
            if name is None:
                return
            try:
                maps = unit_maps(output, record.batch)
            except UnusableOutputError as error:
                raise UsageError(f"layer {name!r} {error}") from None
            record.captured[name] = self._transform(name, maps)  # type: ignore[assignment]
            if record.stop and len(record.captured) == len(self._names):
                raise _Stop

        return hook

    def _check(self, record: _Pass[T]) -> None:
        for name in self._names:
            if name not in record.captured:
                raise UsageError(f"layer {name!r} was not called in the forward pass")
        if record.stop:
            return
        for module_name, calls in self._wanted.items():
            count = record.calls.get(module_name, 0)
            if 0 in calls and count > 1:
                raise UsageError(
                    f"layer {module_name!r} is called {count} times in a forward pass; "
                    f"choose among {module_name}@1 to {module_name}@{count}"
                )


class _Pass(Generic[T]):
    """What one forward pass has given so far."""

    def __init__(self, batch: int, *, stop: bool) -> None:
        self.batch = batch
        self.stop = stop
        self.calls: dict[str, int] = {}
        self.captured: dict[str, T] = {}


class _Stop(BaseException):
    """Ends a forward pass early. Not an Exception, so that a model's own `except Exception` lets it through."""


def split_call(name: str) -> tuple[str, int]:
    """The module's name and which of its calls: ("relu", 2) for "relu@2", ("relu", 0) for "relu"."""
    module_name, at, ordinal = name.rpartition("@")
    return (module_name, int(ordinal)) if at and ordinal.isdecimal() and int(ordinal) > 0 else (name, 0)


def _group_by_module(module: nn.Module, names: Sequence[str]) -> dict[str, dict[int, str]]:
    known = {name for name, _ in module.named_modules()}
    wanted: dict[str, dict[int, str]] = {}
    for name in names:
        module_name, ordinal = (name, 0) if name in known else split_call(name)
        if module_name not in known:
            raise UnknownNameError("layer", name, known - {""})
        wanted.setdefault(module_name, {})[ordinal] = name
    return wanted
