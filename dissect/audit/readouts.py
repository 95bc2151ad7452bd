"""The directions of a run: made once, before its first shard (`fitting.py`), and from then on read from the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from microtome.dissect.audit.config import AuditConfig
from microtome.dissect.audit.progress import say
from microtome.dissect.models.readouts import Readout
from microtome.dissect.models.readouts.encoders import Encoder, encoder_readout
from microtome.dissect.models.readouts.matrices import as_columns, read_matrix
from microtome.dissect.models.readouts.names import UnitsSpec, parse_all
from microtome.dissect.models.readouts.readout import directions
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.readouts import fingerprint_of, pack_readout, read_readout, readout_key
from microtome.storage.run import Run, folder_name
from microtome.storage.schema import LayerEntry, ReadoutInfo


def open_readouts(run: Run) -> dict[str, Readout]:
    """The read-outs of a run, by the layers' names.

    Raises RunDamagedError where a stored matrix is not what it was, RunMismatchError where an encoder is not.
    """
    readouts = {}
    encoders: dict[str, Encoder] = {}
    for entry in run.info["layers"]:
        info = entry.get("readout")
        if info is None:
            continue
        if info["kind"] == "encoder":
            source = info["source"]
            encoder = encoders[source] = encoders.get(source) or Encoder(source)
            if encoder.fingerprint != info["fingerprint"]:
                raise RunMismatchError(
                    f"encoder {source} is another one, or has other weights, than {run.url} was made with; "
                    "bring it back, or audit again into another --out"
                )
            readouts[entry["name"]] = encoder_readout(info["base"], info["inputs"], encoder)
        else:
            matrices = read_readout(run.place, entry["folder"], info["fingerprint"])
            readouts[entry["name"]] = directions(
                info["base"], info["kind"], info["source"], info["fingerprint"], matrices, info["images"]
            )
    return readouts


def readout_info(readout: Readout) -> ReadoutInfo:
    """What run.json says of a read-out."""
    return ReadoutInfo(
        base=readout.base,
        kind=readout.kind,
        source=readout.source,
        fingerprint=readout.fingerprint,
        inputs=readout.inputs,
        images=readout.images,
    )


def readout_files(readouts: Mapping[str, Readout]) -> dict[str, bytes]:
    """The files that a run keeps of its read-outs, by key."""
    return {
        readout_key(folder_name(name)): pack_readout(readout.matrices)
        for name, readout in readouts.items()
        if readout.matrices
    }


def changed_matrices(run: Run, config: AuditConfig) -> list[str]:
    """The user's files that hold other matrices than the run has taken from them; one that is gone is not needed."""
    specs = {spec.label: spec for spec in parse_all(config.units) if spec.kind == "matrix"}
    changed = []
    for entry in run.info["layers"]:
        info = entry.get("readout")
        spec = specs.get(_label(entry, info)) if info is not None and info["kind"] == "matrix" else None
        if info is None or spec is None:
            continue
        if spec.path is None or not spec.path.is_file():
            say(f"note: {spec.source} is gone; the run has what it held")
        elif not _is_same(spec, info):
            changed.append(spec.source)
    return list(dict.fromkeys(changed))


def units_as_compared(units: Sequence[str]) -> list[str]:
    """What of `--units` has to be the same when a run is resumed: a matrix may lie elsewhere, its content counts."""
    return [spec.label if spec.kind == "matrix" else spec.source for spec in parse_all(units)]


def _label(entry: LayerEntry, info: ReadoutInfo) -> str:
    return entry["name"].removeprefix(f"{info['base']}:")


def _is_same(spec: UnitsSpec, info: ReadoutInfo) -> bool:
    try:
        matrix, _ = as_columns(read_matrix(spec), info["inputs"], layer=info["base"], source=spec.source)
    except UsageError:
        return False
    return fingerprint_of({"weight": matrix}) == info["fingerprint"]
