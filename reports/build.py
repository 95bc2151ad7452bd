"""Build the report of a finished run: `RUN/report/index.html`, a page a layer, patch strips and data beside them.

    report/index.html             what was run, the layers compared, the best detectors
    report/layers/LAYER.html      every unit of a layer; LAYER.html#unit-123 is one unit's address
    report/unit.html              one unit: unit.html#layer=NAME&unit=123
    report/concepts.html          every concept; concept.html#concept=ID is one, with its units in all layers
    report/layers.html            two layers side by side
    report/data/layers/LAYER.js   what pages of a layer and its units show, as a classic script (from disk, pages cannot
                                  fetch); data/index.js: what can be searched; data/concepts/N.js, data/depths.js
    report/patches/LAYER/123.jpg  the top patches of unit 123 side by side
    report/classes.html           what each class needs, where importance was measured; a page for each in classes/
    report/ablations.html         what was kept of ablations, where any was; their contact sheets in ablations/
    report/gan.html               of a generator: edits its images, when the run is served
    report/map.html               the interactive map, where the run has one; its data lie in map/ (maps/build.py)
    report/maps/LAYER.png         its picture for papers, a layer
    report/figures/NAME.svg       figures for papers, also as NAME.png, and their numbers as NAME.csv
    report/explanations/          pictures that explain units and classes, where the run has some (explained.py)
    report/static/                style and script
    report/single-file.html       all of it as one file, where that was asked for

The same run gives the same bytes. A report is built in a local folder and then takes the place of the old one.
"""

from __future__ import annotations

import os

from microtome.reports.contents import Contents, class_pages, read_layer
from microtome.reports.data_files import write_data
from microtome.reports.explained import write_explanations
from microtome.reports.maps.write import write_map_files
from microtome.reports.single_file import write_single_file
from microtome.reports.site import Site
from microtome.reports.source import Progress, ReadImage, ReportRun, Together
from microtome.reports.strips import write_strips
from microtome.reports.summaries import Concepts
from microtome.storage.errors import UsageError

PATCHES_PER_UNIT = 12
_MOST_WORKERS = 8


def build_report(
    run: ReportRun,
    read_image: ReadImage,
    together: Together | None = None,
    *,
    patches_per_unit: int = PATCHES_PER_UNIT,
    workers: int | None = None,
    progress: Progress | None = None,
    map_progress: Progress | None = None,
    single_file: bool = False,
) -> str:
    """Write the report of `run` and return where its index.html lies; an older report is replaced whole.

    read_image: original upright image of a sample, (H, W, 3) uint8; called once a sample that any patch needs, and
    once where it may have a wrong label, from several threads; may raise SampleError (the patches are then grey).
    together: how several are read at once, where that is cheaper.
    single_file: whether the whole report is also written as one file, `single_file.NAME` beside index.html.
    workers: threads, default one a core; map_progress: called with (files of the map written so far, files to write).
    """
    if patches_per_unit < 1:
        raise UsageError(f"patches_per_unit is {patches_per_unit}; a report shows at least 1 patch a unit")
    concepts = Concepts.of(run.table("concepts"))
    layers = [read_layer(run, number, concepts, patches_per_unit) for number in range(len(run.info["layers"]))]
    samples = run.table("samples")
    workers = workers or min(os.cpu_count() or 1, _MOST_WORKERS)
    with run.report_folder() as building:
        folders = {layer.plan.layer: building / "patches" / layer.folder for layer in layers}
        write_strips(
            run,
            read_image,
            [layer.plan for layer in layers],
            folders.__getitem__,
            together=together,
            workers=workers,
            progress=progress,
        )
        classes = class_pages(layers, concepts)
        summaries = [layer.summary for layer in layers]
        maps = write_map_files(run, read_image, building, summaries, concepts, samples, workers, map_progress)
        explained = write_explanations(run, building, samples)
        contents = Contents(run, concepts, layers, samples, classes, maps, explained)
        write_data(contents, building)
        Site(contents, building).write()
        if single_file:
            write_single_file(building, f"{run.info['model']['spec']} · {run.info['data']['spec']}")
        run.publish_report(building)
    return run.index_page
