"""Which layers of a run have units that can be changed: the network's own, not directions in others."""

from __future__ import annotations

from microtome.storage.errors import UsageError
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry


def own_layer(run: Run, name: str) -> LayerEntry:
    """The layer's entry. Raises UnknownNameError, and UsageError where its units are directions in another layer."""
    entry = run.layer(name)
    readout = entry.get("readout")
    if readout is not None:
        raise UsageError(
            f"layer {name} holds directions in {readout['base']}, which are no units of the network; take units of "
            f"{readout['base']}"
        )
    return entry


def own_layers(run: Run) -> list[str]:
    """The names of all such layers, in the network's order. Raises UsageError where there is none."""
    names = [entry["name"] for entry in run.info["layers"] if entry.get("readout") is None]
    if not names:
        raise UsageError(f"{run.url}: all of its layers hold directions in others; audit the layers themselves")
    return names
