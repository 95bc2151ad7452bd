"""`microtome audit`: from a model and a dataset to dissected units and pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from microtome.dissect.cli.options import (
    LIMITS,
    RUN,
    budget_of,
    label_options,
    limit_options,
    model_options,
    parse_size,
    preprocess_values,
    segmenter_options,
    split_list,
    split_numbers,
)
from microtome.dissect.cli.output import records, show_json, show_table
from microtome.storage.errors import UsageError

if TYPE_CHECKING:
    from microtome.dissect.audit import AuditConfig, Outcome

UNREADABLE_SAMPLES = 3


@click.command("audit")
@click.argument("model", required=False)
@click.argument("dataset", required=False)
@click.option("--layers", multiple=True, metavar="GLOB,...", help="Layers by name or glob; repeatable.")
@click.option("--units", multiple=True, metavar="SPEC,...", help="axes, pca64, rotated, FILE.npy, FILE.py:encoder.")
@click.option("--rotation-baseline", is_flag=True, help="Beside each layer, a random rotation of it.")
@click.option("--out", type=RUN, metavar="RUN", help="Folder or URL of the run. [runs/MODEL-DATASET]")
@click.option("--resume", "resumed", type=RUN, metavar="RUN", help="Finish an interrupted run.")
@click.option("--tau", multiple=True, metavar="T,...", help="Fractions above the threshold; the first labels. [0.005]")
@click.option("--iou", type=click.Choice(["image", "mask", "all"]), help="Over which samples IoU is taken. [image]")
@click.option("--min-iou", type=float, help="A unit whose best IoU exceeds this is a detector. [0.04]")
@click.option("--top", type=int, help="Patches kept for each unit. [12]")
@click.option("--label-size", metavar="N|HxW", help="Label grid. [half the model's input; small generated images: all]")
@click.option("--limit", type=int, metavar="N", help="Only the first N samples.")
@click.option("--device", metavar="auto|cpu|cuda:N", help="Where the model runs. [auto]")
@click.option("--batch", type=int, help="Images a forward pass. [32]")
@click.option("--torch-threads", type=int, help="Threads of one forward pass. [half the cores: two run side by side]")
@click.option("--channels-last", type=click.Choice(["auto", "yes", "no"]), help="Memory layout of the model. [auto]")
@click.option(
    "--precision",
    type=click.Choice(["float32", "tf32", "bfloat16", "float16"]),
    help="The model's arithmetic; less than float32 changes results a little. [float32]",
)
@click.option("--workers", type=int, help="Shards at work at once. [number of cores]")
@click.option("--cluster", metavar="WHO", help="threads, processes, or a Dask scheduler: tcp://HOST:8786. [threads]")
@click.option(
    "--keep-activations", type=click.Choice(["yes", "no"]), help="no: less disk, a second pass of the model. [yes]"
)
@click.option("--shard-samples", type=int, help="Samples a shard.")
@click.option("--no-map", is_flag=True, help="Make no maps of the samples. [one for every layer]")
@click.option("--map-perplexity", type=float, metavar="P", help="Of the maps' t-SNE. [15 neighbours, all alike]")
@click.option("--map-neighbors", type=int, metavar="K", help="Nearest neighbours that a map takes account of. [15]")
@click.option("--map-seed", type=int, help="Of what maps draw by lot. [0]")
@click.option("--explain/--no-explain", default=None, help="Show what units and classes look for. [no]")
@click.option("--explain-units", type=click.IntRange(min=1), metavar="N", help="Units a layer that it shows. [64]")
@click.option("--explain-classes", type=click.IntRange(min=1), metavar="N", help="Classes that it shows. [100]")
@click.option(
    "--information/--no-information",
    default=None,
    help="Also the threshold that says most about each concept. [generators: yes]",
)
@label_options
@click.option("--min-images", type=int, metavar="N", help="Drop concepts in fewer images. [1]")
@segmenter_options
@limit_options
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@model_options
def audit_command(
    model: str | None, dataset: str | None, resumed: Path | str | None, as_json: bool, **options: Any
) -> int:
    """Dissect MODEL over the images of DATASET, or as FILE.toml says.

    A generator is dissected over its own images, generated:COUNT (seeds from 0; generated:COUNT?seed=S;
    generated:FOLDER for an image-to-image network), which a --segmenter labels.

    Runs the model over every image, finds each unit's exact threshold, counts how its mask overlaps every concept,
    keeps its top patches and writes HTML pages. Interrupted or killed, the same command goes on where it stopped.

    \b
    Examples:
      microtome audit builtin:scenes-cnn scenes:2000 --layers 'block?' --tau 0.02 --out runs/first
      microtome audit nets.py:my_model folder:photos --layers layer3,layer4 --out runs/mine
      microtome audit torchvision:resnet18 folder:photos --layers 'layer[34]' --device cuda:0
      microtome audit nets.py:my_model folder:photos --layers layer4 --units axes,pca64,sae.npy --rotation-baseline
      microtome audit nets.py:my_model images:photos --layers layer4 --segmenter nets.py:my_segmenter --free colors
      microtome audit nets.py:my_generator generated:2000 --layers mid --tau 0.05 --segmenter nets.py:my_segmenter
      microtome audit night.toml --time-limit 07:00
      microtome audit --resume runs/mine
      microtome audit --resume runs/mine --explain
    """
    from microtome.dissect.audit import resume_audit, run_audit
    from microtome.dissect.audit.config import audit_values, config_from_mapping

    if resumed is not None:
        if model is not None or dataset is not None:
            raise UsageError("--resume RUN takes everything from the run; give no MODEL and DATASET with it")
        workers, cluster = options["workers"], options["cluster"] or "threads"
        outcome = resume_audit(
            resumed,
            workers=workers,
            cluster=cluster,
            budget=budget_of(options),
            maps=not options["no_map"],
            explain=_explanations(options),
        )
    else:
        if model is not None and dataset is None and model.endswith(".toml"):
            toml = audit_values(Path(model))
            options |= {name: options[name] or toml.pop(name, None) for name in LIMITS}
            config = config_from_mapping({**toml, **_given(options)}, source=model)
        else:
            config = _config(model, dataset, options)
        outcome = run_audit(config, budget=budget_of(options))
    _show(outcome, as_json)
    return UNREADABLE_SAMPLES if outcome.unreadable else 0


def _explanations(options: dict[str, Any]) -> dict[str, int] | bool:
    """What is to become of the explanations of a run that is resumed."""
    from microtome.dissect.audit.config import AuditConfig

    if not options["explain"]:
        if options["explain_units"] or options["explain_classes"]:
            raise UsageError("--explain-units and --explain-classes say how much --explain shows; give --explain too")
        return options["explain"] is None
    units = options["explain_units"] or AuditConfig.explain_units
    return {"units": units, "classes": options["explain_classes"] or AuditConfig.explain_classes}


def _config(model: str | None, dataset: str | None, options: dict[str, Any]) -> AuditConfig:
    from microtome.dissect.audit.config import config_from_mapping

    given = _given(options)
    if model is None or dataset is None:
        raise UsageError("give MODEL and DATASET, FILE.toml, or --resume RUN (microtome audit --help has examples)")
    if not given.get("layers"):
        raise UsageError(f"name the layers to dissect with --layers; microtome inspect {model} lists them")
    given.setdefault("out", Path("runs") / f"{_slug(model)}-{_slug(dataset)}")
    return config_from_mapping({"model": model, "dataset": dataset, **given}, source="the command line")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Only what the user gave, so that a TOML file's values and the defaults stay where nothing was said."""
    values = {
        "layers": split_list(options["layers"]),
        "units": split_list(options["units"]),
        "rotation_baseline": options["rotation_baseline"] or None,
        "map": False if options["no_map"] else None,
        "free": split_list(options["free"]),
        "tau": split_numbers(options["tau"], "--tau"),
        "label_size": parse_size(options["label_size"], "--label-size"),
    }
    simple = ["out", "iou", "min_iou", "top", "limit", "batch", "shard_samples"]
    simple += ["device", "torch_threads", "channels_last", "precision", "keep_activations"]
    simple += ["workers", "cluster", "concepts", "min_images"]
    simple += ["segmenter", "segmenter_confidence", "segmenter_size"]
    simple += ["map_perplexity", "map_neighbors", "map_seed", "explain", "explain_units", "explain_classes"]
    simple += ["information"]
    values |= {name: options[name] for name in simple} | preprocess_values(options)
    return {name: value for name, value in values.items() if value not in (None, ())}


def _slug(spec: str) -> str:
    """The telling end of a spec: `nets/mine.py:factory` gives `factory`, `folder:../camvid` gives `camvid`."""
    return re.sub(r"[^\w.-]+", "-", re.split(r"[:/\\]", spec.rstrip("/\\"))[-1]).strip("-.") or "run"


def _show(outcome: Outcome, as_json: bool) -> None:
    from microtome.dissect.query import Dissection

    summary = Dissection(outcome.run).summary()
    if as_json:
        show_json(
            run=outcome.run.url,
            report=outcome.index_page,
            samples=outcome.run.plan.samples,
            unreadable=outcome.unreadable,
            seconds=round(outcome.seconds, 3),
            summary=records(summary),
        )
        return
    whole = summary[summary["category"] == "all"]
    rows = [
        [str(row["layer"]), str(row["units"]), str(row["detectors"]), str(row["unique_detectors"])]
        for row in records(whole)
    ]
    show_table(["layer", "units", "detectors", "unique detectors"], rows, right=(1, 2, 3))
    if outcome.unreadable:
        click.echo(f"{outcome.unreadable} samples could not be read; samples.parquet and the report say why")
    click.echo(outcome.index_page)
