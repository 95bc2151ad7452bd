"""Build the report of a finished run: `RUN/report/index.html`, a page a layer, patch strips and data beside them.

    report/index.html             what was run, the layers compared, the best detectors
    report/layers/LAYER.html      every unit of a layer; LAYER.html#unit-123 is one unit's address
    report/data/LAYER.js          what that page shows, as a classic script (pages from disk cannot fetch)
    report/patches/LAYER/123.jpg  the top patches of unit 123 side by side
    report/classes.html           what each class needs, where importance was measured; a page for each in classes/
    report/ablations.html         what was kept of ablations, where any was; their contact sheets in ablations/
    report/gan.html               of a generator: edits its images, when the run is served
    report/map.html               the interactive map, where the run has one; its data lie in map/ (maps/build.py)
    report/maps/LAYER.png         its picture for papers, a layer
    report/figures/NAME.svg       figures for papers, also as NAME.png, and their numbers as NAME.csv
    report/explanations/          pictures that explain units and classes, where the run has some (explained.py)
    report/static/                style and script

The same run gives the same bytes. A report is built in a local folder and then takes the place of the old one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from microtome.reports.ablations import ablations_context, pages_by_name
from microtome.reports.alignment import alignments, is_baseline, principal_components
from microtome.reports.classes import ClassPages, class_page, write_class_pages
from microtome.reports.explained import (
    Explained,
    Portraits,
    layer_pictures,
    layer_words,
    model_numbers,
    write_explanations,
)
from microtome.reports.figures.write import write_figures
from microtome.reports.heat import is_heat
from microtome.reports.importance import Importance, classes_of, read_importance
from microtome.reports.maps.page import BUNDLE, MapPages, has_bundle, script_without_bundle
from microtome.reports.maps.page import PAGE as MAP_PAGE
from microtome.reports.maps.write import write_map_files
from microtome.reports.matrix import classes_payload, matrix_context
from microtome.reports.pages import (
    GENERATOR_PAGE,
    LayerFiles,
    axis_ticks,
    category_classes,
    environment,
    index_context,
    shared_context,
    static_files,
)
from microtome.reports.payload import data_script, layer_payload
from microtome.reports.source import Progress, ReadImage, ReportRun, Together
from microtome.reports.strips import write_strips
from microtome.reports.summaries import Concepts, LayerSummary, summarise_layer
from microtome.reports.thumbnails import LayerPatches, plan_patches
from microtome.storage.errors import UsageError

PATCHES_PER_UNIT = 12
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class _Layer:
    """What the pages of one layer are made of."""

    summary: LayerSummary
    plan: LayerPatches
    importance: Importance | None


def build_report(
    run: ReportRun,
    read_image: ReadImage,
    together: Together | None = None,
    *,
    patches_per_unit: int = PATCHES_PER_UNIT,
    workers: int | None = None,
    progress: Progress | None = None,
    map_progress: Progress | None = None,
) -> str:
    """Write the report of `run` and return where its index.html lies; an older report is replaced whole.

    read_image: original upright image of a sample, (H, W, 3) uint8; called once a sample that any patch needs, and
    once where it may have a wrong label, from several threads; may raise SampleError (the patches are then grey).
    together: how several are read at once, where that is cheaper.
    workers: threads, default one a core; map_progress: called with (files of the map written so far, files to write).
    """
    if patches_per_unit < 1:
        raise UsageError(f"patches_per_unit is {patches_per_unit}; a report shows at least 1 patch a unit")
    concepts = Concepts.of(run.table("concepts"))
    layers = [_read_layer(run, number, concepts, patches_per_unit) for number in range(len(run.info["layers"]))]
    samples = run.table("samples")
    workers = workers or min(os.cpu_count() or 1, _MOST_WORKERS)
    with run.report_folder() as building:
        folders = {layer.plan.layer: building / "patches" / layer.summary.entry["folder"] for layer in layers}
        write_strips(
            run,
            read_image,
            [layer.plan for layer in layers],
            folders.__getitem__,
            together=together,
            workers=workers,
            progress=progress,
        )
        classes = _class_pages(layers, concepts)
        summaries = [layer.summary for layer in layers]
        maps = write_map_files(run, read_image, building, summaries, concepts, samples, workers, map_progress)
        explained = write_explanations(run, building, samples)
        _write_data(run, building, layers, concepts, samples, classes, maps, explained)
        _write_pages(run, building, layers, concepts, samples, classes, maps, explained)
        run.publish_report(building)
    return run.index_page


def _read_layer(run: ReportRun, number: int, concepts: Concepts, per_unit: int) -> _Layer:
    entry = run.info["layers"][number]
    summary = summarise_layer(run, entry, concepts)
    patches = run.layer_table(entry["name"], "patches")
    plan = plan_patches(entry["name"], summary.units, patches, per_unit, heat=is_heat(entry))
    return _Layer(summary, plan, read_importance(run, number, summary, concepts))


def _class_pages(layers: Sequence[_Layer], concepts: Concepts) -> ClassPages | None:
    """What the pages of classes are made of; None where no layer has importance."""
    measured = [layer.importance for layer in layers if layer.importance is not None]
    if not measured:
        return None
    summaries, plans = [layer.summary for layer in layers], [layer.plan for layer in layers]
    return ClassPages.of(concepts, summaries, plans, measured, classes_of(measured))


def _write_data(
    run: ReportRun,
    folder: Path,
    layers: Sequence[_Layer],
    concepts: Concepts,
    samples: pd.DataFrame,
    classes: ClassPages | None,
    maps: MapPages | None,
    explained: Explained | None,
) -> None:
    keys = samples.set_index("index")["key"].astype(str)
    (folder / "data").mkdir()
    for number, layer in enumerate(layers):
        entry = layer.summary.entry
        used = sorted(set(layer.plan.sample.tolist()))
        payload = layer_payload(
            layer.summary,
            concepts,
            layer.plan,
            run.layer_table(entry["name"], "histogram"),
            dict(zip(used, keys.reindex(used), strict=True)),
            strips=f"../{LayerFiles.of(entry['folder']).strips}",
            bar=float(run.info["config"]["min_iou"]),
        )
        payload["categoryStyles"] = category_classes(concepts.categories)
        if classes is not None and layer.importance is not None:
            payload["classes"] = classes_payload(layer.importance, classes.addresses[layer.importance.layer])
        if maps is not None and (address := maps.units_address(number)):
            payload["map"] = f"../{address}"
        if explained is not None and entry["name"] in explained.layers:
            payload["explained"] = layer_pictures(explained.layers[entry["name"]])
        text = data_script("MICROTOME_LAYER", payload)
        (folder / "data" / f"{entry['folder']}.js").write_text(text, encoding="ascii")


def _write_pages(
    run: ReportRun,
    folder: Path,
    layers: Sequence[_Layer],
    concepts: Concepts,
    samples: pd.DataFrame,
    classes: ClassPages | None,
    maps: MapPages | None,
    explained: Explained | None,
) -> None:
    env = environment()
    summaries = [layer.summary for layer in layers]
    addresses = pages_by_name(classes.classes, class_page) if classes else {}
    ablations = ablations_context(run.ablations(), addresses, principal_components(summaries))
    portraits = Portraits.of(explained) if explained and explained.classes and not classes else None
    more = [("Map", MAP_PAGE)] if maps else []
    more += [("Classes", "classes.html")] if classes or portraits else []
    more += [("Ablations", "ablations.html")] if any(ablations.values()) else []
    more += [("Edit", GENERATOR_PAGE)] if "generator" in run.info["model"] else []
    shared = shared_context(run.info, concepts, summaries, more)

    def write(name: str, template: str, context: Mapping[str, Any]) -> None:
        text = env.get_template(template).render(root="", **shared, **context)
        (folder / name).write_text(text, encoding="utf-8")

    _write_layers(env, folder / "layers", layers, classes, maps, explained, {**shared, "names": concepts.names})
    if classes:
        write("classes.html", "classes.html", {"page": "classes.html", **classes.listing()})
        pictures = explained.classes if explained else {}
        template = env.get_template("class.html")
        write_class_pages(classes, template, folder / "classes", shared, pictures, model_numbers(run))
    if portraits:
        portraits.write(env, folder, shared)
    if maps:
        write(MAP_PAGE, "map.html", {"page": MAP_PAGE, **maps.page()})
    _write_ablation_pictures(run, folder, ablations["generated"])
    if any(ablations.values()):
        write("ablations.html", "ablations.html", {"page": "ablations.html", **ablations})
    if "generator" in run.info["model"]:
        write(GENERATOR_PAGE, "gan.html", {"page": GENERATOR_PAGE})
    index = _index(run, layers, concepts, samples, classes, maps, ablations, shared["layers"])
    index["figures"] = write_figures(folder, summaries, concepts, shared["bar"])
    write("index.html", "index.html", index)
    _write_static(folder / "static", maps is not None, "generator" in run.info["model"])


def _write_ablation_pictures(run: ReportRun, folder: Path, ablations: Sequence[dict[str, Any]]) -> None:
    """The contact sheets of generators' ablations, and into each ablation its "picture", or None."""
    for number, ablation in enumerate(ablations, 1):
        picture = run.ablation_picture(ablation["file"])
        ablation["picture"] = None if picture is None else f"ablations/{number}.png"
        if picture is not None:
            (folder / "ablations").mkdir(exist_ok=True)
            (folder / "ablations" / f"{number}.png").write_bytes(picture)


def _write_layers(
    env: Environment,
    folder: Path,
    layers: Sequence[_Layer],
    classes: ClassPages | None,
    maps: MapPages | None,
    explained: Explained | None,
    shared: Mapping[str, Any],
) -> None:
    """A page for each layer."""
    folder.mkdir()
    template = env.get_template("layer.html")
    for number, layer in enumerate(layers):
        one = layer.importance
        page = template.render(
            root="../",
            number=number,
            matrix=matrix_context(one, classes.addresses[number]) if classes and one else None,
            map=maps.layer(number) if maps else None,
            explained=_words(layer, explained),
            **shared,
        )
        (folder / f"{layer.summary.entry['folder']}.html").write_text(page, encoding="utf-8")


def _index(
    run: ReportRun,
    layers: Sequence[_Layer],
    concepts: Concepts,
    samples: pd.DataFrame,
    classes: ClassPages | None,
    maps: MapPages | None,
    ablations: Mapping[str, Any],
    rows: Sequence[Any],
) -> dict[str, Any]:
    """What the index page shows; rows: all layers as every page lists them."""
    summaries = [layer.summary for layer in layers]
    own = [number for number, layer in enumerate(summaries) if not is_baseline(layer, summaries)]
    widest = max((row["unique"] for row in rows), default=0)
    plans = [layers[number].plan for number in own]
    return {
        **index_context(run.info, concepts, [summaries[number] for number in own], plans, samples),
        "own_layers": [rows[number] for number in own],
        "widest": max(widest, 1),
        "ticks": axis_ticks(widest),
        "map": maps.teaser(own) if maps else None,
        "classes": classes.teaser() if classes else None,
        "ablations": ablations["ablations"],
        "generated": ablations["generated"],
        "alignments": alignments(summaries, rows),
    }


def _write_static(folder: Path, maps: bool, generator: bool) -> None:
    """Scripts and styles."""
    folder.mkdir()
    for file in static_files(maps=maps, generator=generator):
        (folder / file.name).write_bytes(file.read_bytes())
    if maps and not has_bundle():
        (folder / BUNDLE).write_text(script_without_bundle(), encoding="ascii")


def _words(layer: _Layer, explained: Explained | None) -> list[str]:
    """What the page of a layer says of its pictures."""
    known = explained.layers.get(layer.summary.entry["name"]) if explained else None
    return [] if known is None else layer_words(known)
