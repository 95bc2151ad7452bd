"""HuggingFace's library, as far as it is needed: finding a dataset, or fetching it, and saying what columns it has.

What it leaves behind are Arrow files, which are read without it (see `rows`). It is an extra, and imported when the
first dataset is opened; its telemetry, download counts and progress bars are switched off.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from microtome.datasets.formats.hf.options import HfOptions
from microtome.datasets.listing import below, size_and_time, walk
from microtome.storage.errors import UnknownNameError, UsageError

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FORMS = (
    "expected a folder made by save_to_disk, one that holds Parquet files, or the name of a dataset on the hub, such "
    "as hf:user/name"
)


@dataclass(frozen=True)
class Table:
    """One split: where its rows lie, and what its columns are.

    files: Arrow files in the order of their rows; state: changes when the rows change; images: the columns of images;
    labels: the columns of class labels, with the names of the classes; columns: all of them
    """

    split: str
    files: tuple[str, ...]
    rows: int
    state: str
    columns: tuple[str, ...]
    images: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]


def load_tables(options: HfOptions) -> list[Table]:
    """The splits of a dataset that have rows, in its order, or the one that was asked for.

    Raises UsageError where the library is missing, the dataset cannot be loaded, has no such split or no rows.
    """
    library = _library()
    folder = Path(options.place).expanduser()
    if folder.exists():
        loaded, saved = _from_folder(library, folder, options)
    elif options.place.startswith(("/", ".", "~")) or not _HUB_NAME.fullmatch(options.place):
        raise UsageError(f"{options.spec}: {folder} does not exist; {_FORMS}")
    else:
        loaded, saved = _called(options, library.load_dataset, options.place, options.config), False
    splits = dict(loaded) if isinstance(loaded, dict) else {_split_name(loaded): loaded}
    if options.split is not None:
        if options.split not in splits:
            raise UnknownNameError("split", options.split, [name for name in splits if name], hint=_of(options))
        splits = {options.split: splits[options.split]}
    tables = [_table(library, name, split, saved, options) for name, split in splits.items()]
    if not any(table.rows for table in tables):
        raise UsageError(f"{options.spec} has no rows in {', '.join(filter(None, splits)) or 'it'}; expected images")
    return [table for table in tables if table.rows]


def _library() -> Any:
    """HuggingFace's `datasets`, quiet."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    try:
        library = import_module("datasets")
        hub = import_module("huggingface_hub")
        constants: Any = import_module("huggingface_hub.constants")
    except ImportError as error:
        raise UsageError(
            f"hf: needs HuggingFace's datasets, which cannot be imported ({error}); pip install 'microtome[hf]'"
        ) from error
    if not hasattr(library, "load_from_disk"):
        where = next(iter(getattr(library, "__path__", ())), "elsewhere")
        raise UsageError(
            f"hf: needs HuggingFace's datasets, but {where} is what Python imports by that name; start from another "
            "folder, or pip install 'microtome[hf]'"
        )
    constants.HF_HUB_DISABLE_TELEMETRY = True
    library.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    library.disable_progress_bars()
    hub.utils.disable_progress_bars()
    return library


def _from_folder(library: Any, folder: Path, options: HfOptions) -> tuple[Any, bool]:
    """The dataset in a folder, and whether it was saved there by save_to_disk."""
    if not folder.is_dir():
        raise UsageError(f"{options.spec}: {folder} is not a folder; {_FORMS}")
    for _, files in walk(folder):
        for entry in files:
            if entry.name.endswith((".json", ".arrow", ".parquet")) and not os.path.isfile(entry.path):
                raise UsageError(f"{entry.path} is no regular file; expected what save_to_disk wrote: save it again")
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        if options.config is not None:
            raise UsageError(f"{options.spec}: config= is for datasets of the hub; a folder has one configuration")
        return _called(options, _load_saved, library, folder), True
    if any(entry.name.endswith(".parquet") for _, files in walk(folder) for entry in files):
        return _called(options, library.load_dataset, str(folder), options.config), False
    raise UsageError(f"{options.spec}: {folder} holds no saved dataset (state.json, dataset_dict.json); {_FORMS}")


def _load_saved(library: Any, folder: Path) -> Any:
    """What save_to_disk wrote: one dataset, or its splits by name. The library cannot load a split without rows."""
    index = folder / "dataset_dict.json"
    names = _json(index)["splits"] if index.is_file() else [""]
    found = {}
    for name in names:
        place = below(folder, name) if name else folder
        if place is None:
            raise UsageError(f"{index}: the split {name!r} leads out of the folder; save the dataset again")
        state = _json(place / "state.json")
        for file in state["_data_files"]:
            if below(place, file["filename"]) is None:
                raise UsageError(f"{place / 'state.json'}: {file['filename']!r} leads out of the folder; save it again")
        if state["_data_files"]:
            found[name] = library.load_from_disk(str(place), keep_in_memory=False)
    return found if index.is_file() else found.get("", {})


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON ({error}); save the dataset again") from error


def _called(options: HfOptions, function: Any, *arguments: Any, **named: Any) -> Any:
    try:
        return function(*arguments, **named)
    except UsageError:
        raise
    except Exception as error:  # the library raises many kinds, for what is missing, damaged or out of reach
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"{options.spec} cannot be loaded ({type(error).__name__}: {text}); {_FORMS}") from error


def _split_name(dataset: Any) -> str:
    return str(dataset.split) if dataset.split is not None else ""


def _table(library: Any, name: str, dataset: Any, saved: bool, options: HfOptions) -> Table:
    """`dataset` in our words. state: of a saved dataset its files, else what the library knows the data by."""
    files = tuple(str(file["filename"]) for file in dataset.cache_files)
    if dataset.num_rows and (not files or dataset._indices is not None):
        raise UsageError(f"{options.spec} does not lie in Arrow files of its own; save it with save_to_disk first")
    states = [f"{os.path.basename(file)} {size_and_time(Path(file))}" for file in files]
    return Table(
        split=name,
        files=files,
        rows=int(dataset.num_rows),
        state="\n".join(states) if saved else str(dataset._fingerprint),
        columns=tuple(dataset.features),
        images=tuple(key for key, kind in dataset.features.items() if isinstance(kind, library.Image)),
        labels={
            key: tuple(kind.names) for key, kind in dataset.features.items() if isinstance(kind, library.ClassLabel)
        },
    )


def _of(options: HfOptions) -> str:
    return f"The dataset is {options.place}."
