"""The page of methods: what every word and number of a report means, and every parameter that they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from microtome.reports.figures.distribution import BINS as IOU_BINS
from microtome.reports.figures.distribution import SHARES
from microtome.reports.histograms import BINS
from microtome.reports.importance import LEAST_DRIVE, LEAST_SHARE
from microtome.reports.maps.points import MOST_POINTS
from microtome.reports.pages import CONVENTIONS
from microtome.reports.strips import QUALITY
from microtome.reports.summaries import BEST, LayerSummary
from microtome.reports.thumbnails import SIZE
from microtome.storage.schema import RunInfo

SETTINGS = {
    "model": "the network, as it was asked for",
    "dataset": "the images and labels, as they were asked for",
    "layers": "the layers dissected, as names and globs",
    "weights": "a file of weights in place of the model’s own",
    "size": "side of the crop that the model sees, in place of its own",
    "resize": "shorter side of an image before the crop, in place of the model’s own",
    "mean": "mean of each channel that is subtracted, in place of the model’s own",
    "std": "standard deviation that each channel is divided by, in place of the model’s own",
    "interpolation": "how images are resized, in place of the model’s own",
    "tau": "shares of all positions that a unit’s threshold is exceeded on; the first one labels",
    "iou": "over which samples mask pixels are counted",
    "min_iou": "the IoU that the label of a detector exceeds",
    "top": "patches kept of each unit",
    "label_size": "height and width of the label grid, in place of half the model’s input",
    "limit": "how many samples of the dataset were taken, from its first",
    "batch": "images a forward pass",
    "shard_samples": "samples a shard",
    "device": "where the model ran",
    "torch_threads": "threads of one forward pass",
    "channels_last": "memory layout of the forward pass",
    "precision": "arithmetic of the model; activations are stored in float16 either way",
    "keep_activations": "whether all activation maps stay in the run, or those of top patches alone",
    "free": "concepts computed from the pixels of the images",
    "concepts": "a catalogue that merged, renamed and dropped concepts",
    "min_images": "concepts in fewer images were dropped",
    "segmenter": "the model that labelled the images",
    "segmenter_confidence": "its confidence below which a pixel is unlabelled",
    "segmenter_size": "shorter side of the images that it saw, in place of the model’s input",
    "units": "directions read out of every layer in place of its axes",
    "rotation_baseline": "whether each layer stands beside a random rotation of itself",
    "grid": "grid of token streams, where it was given",
    "prefix": "tokens before those of the image, where their number was given",
    "map": "whether layers have maps of the samples",
    "map_perplexity": "perplexity of the maps’ Gaussian affinities, in place of equal ones",
    "map_neighbors": "nearest neighbours that equal affinities keep",
    "map_seed": "seed of what maps draw by lot",
    "information": "whether units and concepts also have thresholds of most information",
}
"""What each setting of a run decides; tests hold it against those that there are."""


def methods_context(info: RunInfo, layers: Sequence[LayerSummary], patches: int) -> dict[str, Any]:
    """What methods.html shows beyond what every page knows. patches: drawn of each unit."""
    return {
        "conventions": CONVENTIONS,
        "parameters": [
            {"name": name, "value": setting_words(value), "meaning": SETTINGS.get(name, "")}
            for name, value in info["config"].items()
        ],
        "report_parameters": report_parameters(patches),
        "report_version": _version(info["microtome"]),
        "stages": [
            {"name": name, "seconds": stage["seconds"]}
            for name, stage in info["stages"].items()
            if stage["state"] == "done" and name != "report"  # how long this took is known when it is written
        ],
        "scales": [{"name": layer.entry["name"], "scale": layer.entry["scale"]} for layer in layers],
        "readouts": _readouts(layers),
        "maps": _maps(info),
        "importances": _importances(info),
        "drive": {"least": LEAST_DRIVE, "share": LEAST_SHARE},
        "explained": info.get("explanations"),
        "quantiles": ", ".join(f"{100 * share:.0f}" for share in SHARES),
    }


def report_parameters(patches: int) -> list[dict[str, str]]:
    """What the pages themselves depend on, beside the run."""
    rows = (
        ("patches", patches, "drawn of each unit, of those that the run keeps"),
        ("side of a patch", f"{SIZE} px", f"the longer one; JPEG of quality {QUALITY}, several to a file"),
        ("concepts listed", BEST, "of each unit, by IoU"),
        ("bins of activations", BINS, "in the histogram of a unit; heights on a logarithmic scale"),
        ("bins of IoU", f"about {IOU_BINS}", "in the figure of its distribution, one edge at the bar of detectors"),
        ("points of a map", f"{MOST_POINTS:,}".replace(",", "\u202f"), "at most; of more samples, as many by lot"),
    )
    return [{"name": name, "value": str(value), "meaning": meaning} for name, value, meaning in rows]


def setting_words(value: object) -> str:
    """A setting as one reads it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(setting_words, value)) or "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "—" if value is None else str(value)


def _readouts(layers: Sequence[LayerSummary]) -> list[dict[str, Any]]:
    """Of each layer whose units are not its own axes: what they are."""
    found = []
    for layer in layers:
        readout = layer.entry.get("readout")
        if readout is not None:
            found.append({"name": layer.entry["name"], **readout})
    return found


def _maps(info: RunInfo) -> list[dict[str, Any]]:
    """How the map of each layer was made."""
    return [
        {
            "layer": name,
            "engine": made["engine"],
            "samples": made["samples"],
            "iterations": made["iterations"],
            "divergence": made["kl"],
            "neighbors": made["neighbors"],
            "recall": made.get("neighbors_recall"),
            "aligned_to": made["aligned_to"],
            "settings": ", ".join(f"{key} {setting_words(value)}" for key, value in made["settings"].items()),
        }
        for name, made in info.get("map", {}).items()
    ]


def _importances(info: RunInfo) -> list[dict[str, Any]]:
    return [
        {"layer": name, **{key: measured[key] for key in ("images", "value", "truth", "accuracy")}}
        for name, measured in info.get("importance", {}).items()
    ]


def _version(known: str) -> str:
    """The version that writes the report, which may be another than the run's."""
    try:
        return version("microtome")
    except PackageNotFoundError:
        return known
