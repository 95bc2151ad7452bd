"""Data findings: what is in the dataset of a run, and what is odd about it, from the tables that the run has anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.reports.alignment import is_baseline
from microtome.reports.maps.page import MapPages
from microtome.reports.pages import UNREADABLE_ROWS, category_classes, unreadable
from microtome.reports.source import ReportRun
from microtome.reports.summaries import Concepts, LayerSummary, concepts_found
from microtome.storage.arrays import IMAGE_LABELS

SUSPICIOUS = 50
"""Rows of samples that the neighbours of most layers disagree with, at most."""
MOST_NAMES = 200
"""Names of dropped or absent concepts that are listed, at most."""


def findings_context(
    run: ReportRun, concepts: Concepts, samples: pd.DataFrame, layers: Sequence[LayerSummary], maps: MapPages | None
) -> dict[str, Any]:
    """What data.html shows beyond what every page knows. samples: samples.parquet."""
    table = run.table("concepts")
    whole = image_label_counts(run, len(concepts.names))
    detected = {found.concept for found in concepts_found([one for one in layers if not is_baseline(one, layers)])}
    readable = int((samples["status"].astype(str) == "ok").sum())
    return {
        "readable": readable,
        "sizes": image_sizes(samples),
        "splits": splits(samples),
        "classes": classes(samples, run.info["data"]["class_names"]),
        "unreadable": unreadable(samples),
        "unreadable_rows": UNREADABLE_ROWS,
        "unknown": [
            {"where": where, "name": name, "count": count}
            for where, names in run.info["data"]["unknown_ids"].items()
            for name, count in names.items()
        ],
        "categories_found": concepts_by_category(concepts, whole, detected, readable, run.info["label_size"]),
        "image_labels": {"concepts": int((whole > 0).sum()), "labels": int(whole.sum())},
        "dropped": dropped(table),
        "absent": absent(table),
        "suspicious": suspicious(run, samples),
        "candidates": _pictures(run, maps),
    }


def image_sizes(samples: pd.DataFrame) -> dict[str, Any] | None:
    """The least, median and greatest height and width of readable images, and the number of sizes; None of none."""
    sizes = samples.loc[samples["status"].astype(str) == "ok", ["height", "width"]]
    if sizes.empty:
        return None
    found = {str(name): [int(sizes[name].min()), float(sizes[name].median()), int(sizes[name].max())] for name in sizes}
    return {**found, "distinct": len(sizes.drop_duplicates())}


def splits(samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Samples of each split, and how many of them could be read; nothing where there are no splits."""
    name = samples["split"].fillna("").astype(str)
    ok = samples["status"].astype(str) == "ok"
    if set(name) <= {""}:
        return []
    return [
        {"name": str(split) or "in none", "samples": int(mine.sum()), "readable": int((mine & ok).sum())}
        for split in sorted(set(name))
        if (mine := name == split).any()
    ]


def classes(samples: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """Readable samples of each class, most first; nothing where samples have no classes."""
    known = samples.loc[samples["status"].astype(str) == "ok", "label"].dropna().astype(np.int64)
    counts = known[known >= 0].value_counts()
    rows: list[dict[str, Any]] = [
        {"name": names[number] if number < len(names) else f"class {number}", "number": number, "samples": int(count)}
        for number, count in zip(counts.index.tolist(), counts.tolist(), strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["samples"], row["number"]))


def image_label_counts(run: ReportRun, concepts: int) -> NDArray[np.int64]:
    """(concepts,) how many samples have each concept as a label of the whole image; read shard by shard."""
    counts = np.zeros(concepts, np.int64)
    if not run.arrays.exists(IMAGE_LABELS):
        return counts
    for shard in range(run.plan.count):
        labels = np.sort(run.arrays.read_shard(IMAGE_LABELS, shard).astype(np.int64), axis=1)
        repeated = np.zeros(labels.shape, np.bool_)
        repeated[:, 1:] = labels[:, 1:] == labels[:, :-1]
        found = labels[~repeated & (labels > 0) & (labels < concepts)]
        counts += np.bincount(found, minlength=concepts)
    return counts


def concepts_by_category(
    concepts: Concepts,
    whole: NDArray[np.int64],
    detected: set[int],
    readable: int,
    label_size: Sequence[int],
) -> list[dict[str, Any]]:
    """Every category with its concepts that occur, those in most images first.

    `share`: of the readable images; `area`: of the label grid of the images that show it, on average.
    whole: (K + 1,) labels of whole images; detected: ids with a detector
    """
    found = []
    grid = label_size[0] * label_size[1]
    for number, (name, style) in enumerate(
        zip(concepts.categories, category_classes(concepts.categories), strict=True)
    ):
        ids = np.flatnonzero((concepts.category == number) & (concepts.images > 0))
        ids = ids[np.lexsort((ids, -concepts.pixels[ids], -concepts.images[ids]))]
        rows: list[dict[str, Any]] = [
            {
                "id": concept,
                "name": concepts.names[concept],
                "images": int(concepts.images[concept]),
                "share": int(concepts.images[concept]) / readable if readable else 0.0,
                "pixels": int(concepts.pixels[concept]),
                "area": int(concepts.pixels[concept]) / (grid * int(concepts.images[concept])),
                "whole": int(whole[concept]),
                "detected": concept in detected,
            }
            for concept in ids.tolist()
        ]
        if rows:
            pixels, seen = sum(row["pixels"] for row in rows), sum(row["detected"] for row in rows)
            found.append({"name": name, "style": style, "rows": rows, "pixels": pixels, "detected": seen})
    return found


def dropped(table: pd.DataFrame) -> dict[str, Any]:
    """Concepts that occur in too few images to be counted."""
    if "dropped" not in table:
        return {"count": 0, "rows": []}
    mine = table[table["dropped"].to_numpy(np.bool_)].sort_values(["images", "id"], ascending=[False, True])
    return {"count": len(mine), "rows": _named(mine.head(MOST_NAMES))}


def absent(table: pd.DataFrame) -> dict[str, Any]:
    """Concepts that the dataset lists and no readable image shows."""
    gone = table["images"].to_numpy() == 0
    if "dropped" in table:
        gone &= ~table["dropped"].to_numpy(np.bool_)
    return {"count": int(gone.sum()), "rows": _named(table[gone].head(MOST_NAMES))}


def _named(table: pd.DataFrame) -> list[dict[str, Any]]:
    columns = (table[name].tolist() for name in ("name", "category", "images"))
    return [
        {"name": str(name), "category": str(category), "images": int(images)}
        for name, category, images in zip(*columns, strict=True)
    ]


def suspicious(run: ReportRun, samples: pd.DataFrame) -> dict[str, Any]:
    """Samples whose neighbours have another class, those that most layers disagree with first, and how many each layer
    lists. Within as many layers, the one whose neighbours agree best on another class comes first."""
    layers, frames = [], []
    for number, entry in enumerate(run.info["layers"]):
        if entry["name"] in run.info.get("map", {}) and run.has_layer_table(entry["name"], "disagreements"):
            frame = run.layer_table(entry["name"], "disagreements")
            layers.append({"number": number, "count": len(frame)})
            frames.append(frame.assign(layer=number))
    if not frames or not sum(map(len, frames)):
        return {"layers": [], "count": 0, "rows": []}
    table = pd.concat(frames, ignore_index=True)
    votes = table.groupby("sample").agg(layers=("layer", "nunique"), share=("share", "max"))
    order = votes.reset_index().sort_values(["layers", "share", "sample"], ascending=[False, False, True])
    first = order.head(SUSPICIOUS)
    strongest = table.sort_values(["share", "layer"], ascending=[False, False]).drop_duplicates("sample")
    said = strongest.set_index("sample")
    keys = samples[samples["index"].isin(first["sample"])].set_index("index")["key"]
    rows = [
        {
            "sample": int(sample),
            "key": str(keys.get(sample, "")),
            "class": str(said.at[sample, "class"]),
            "neighbors_class": str(said.at[sample, "neighbors_class"]),
            "share": float(share),
            "layers": int(count),
        }
        for sample, count, share in first.itertuples(index=False)
    ]
    return {"layers": layers, "count": len(order), "rows": rows}


def _pictures(run: ReportRun, maps: MapPages | None) -> Mapping[str, Any] | None:
    """The candidates of the last layer that has pictures of some, as its own page shows them."""
    if maps is None:
        return None
    for number in reversed(range(len(run.info["layers"]))):
        found = maps.layer(number)
        if found is not None and found["candidates"]:
            return found
    return None
