"""What a classifier loses without some of its units.

`importance` removes one unit at a time and measures every class; `ablate` removes a set at once and compares it with
random sets of the same size. Both run the network up to the layer once an image (`trace`, `tail`, `network`), and only
the rest of it for every ablation.

Names are loaded on first use, so that nothing waits for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microtome.dissect.ablation.sets import ablate
    from microtome.dissect.ablation.units import importance

__all__ = ["ablate", "importance"]

_HOMES = {"ablate": "sets", "importance": "units"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
