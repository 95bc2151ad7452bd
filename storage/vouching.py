"""What a stage vouches for beside its shards: its tables, and the metadata of the arrays that it created.

`commits/STAGE/tables.json` holds size and CRC-32 of each, taken from the bytes that were written, and is itself written
just before run.json calls the stage done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from microtome.storage.files import json_bytes
from microtome.storage.places import Place

TABLED = ("index", "thresholds", "tally", "information", "patches")
ARRAYS_STAGE = "index"


def tables_key(stage: str) -> str:
    """Where the record of the tables of `stage` lies."""
    return f"commits/{stage}/tables.json"


def vouch_for_tables(place: Place, stage: str, written: Mapping[str, tuple[int, int]]) -> None:
    """Record size and CRC-32 of the files `written` by `stage`."""
    files = dict(written)
    if stage == ARRAYS_STAGE:
        metadata = [key for key, _ in place.list("arrays.zarr/") if key.endswith("zarr.json")]
        files |= {key: place.checksum(key) for key in metadata}
    if stage in TABLED:
        record = {"stage": stage, "files": {key: list(files[key]) for key in sorted(files)}}
        place.write(tables_key(stage), json_bytes(record))


def vouch_for_files(place: Place, what: str, keys: Iterable[str], depends: str = "") -> None:
    """Record size and CRC-32 of what lies at `keys`, under the name `what`.

    depends: a hash of everything that it depends on, for whoever asks whether it is what is wanted.
    """
    record: dict[str, object] = {"stage": what, "files": {key: list(place.checksum(key)) for key in sorted(keys)}}
    if depends:
        record["key"] = depends
    place.write(tables_key(what), json_bytes(record))


def vouched_files(place: Place, what: str) -> dict[str, tuple[int, int]] | None:
    """Size and CRC-32, by key, of what is recorded under the name `what`; None where no record can be read."""
    try:
        files = json.loads(place.read(tables_key(what)))["files"]
        return {str(name): (int(size), int(crc)) for name, (size, crc) in files.items()}
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return None
