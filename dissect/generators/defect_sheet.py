"""The pictures of a search for defects: the worst images, what the units answer to, and images before and after."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.dissect.generators.defects import Suspects
from microtome.dissect.generators.edits import Edit
from microtome.dissect.generators.generator import Generator
from microtome.dissect.generators.judging import Judged
from microtome.dissect.generators.recipes import edited_pictures
from microtome.dissect.generators.seeds import Seeds, of_run
from microtome.reports.contact import Row, Tile, draw_sheet
from microtome.storage.run import Run

ACROSS = 9
UNITS_SHOWN = 6


def draw_defects(
    run: Run,
    generator: Generator,
    judged: Judged,
    worst: NDArray[np.bool_],
    suspects: Suspects | None,
    edit: Edit | None,
    seeds: Seeds | None,
    scores: NDArray[np.float64] | None,
) -> Image.Image:
    """Rows of pictures, RGB. worst: (n,) of the judged images; seeds, scores: of the repair, (m, n) as it has them."""
    order = np.argsort(-judged.badness, kind="stable")[: ACROSS + 1]
    tiles = _own(run, generator, judged.samples[order], [f"{judged.scores[at]:.4g}" for at in order])
    rows = [_row(f"the worst of {len(worst):,} images: {judged.words}", tiles)]
    if suspects is not None:
        bad = {*judged.samples[worst].tolist()}
        rows += [_unit_row(run, generator, suspects, unit, bad) for unit in suspects.units[:UNITS_SHOWN].tolist()]
    if edit is not None and seeds is not None:
        rows += _repair_rows(generator, judged, edit, seeds, scores)
    return draw_sheet(rows, judged.note)


def _row(title: str, tiles: list[Tile]) -> Row:
    return Row(title, tiles[0], tiles[1:])


def _own(run: Run, generator: Generator, samples: NDArray[np.int64], lines: list[str]) -> list[Tile]:
    own = of_run(run)
    seeds = [own[sample] for sample in samples.tolist()]
    pictures = generator.pictures(seeds)
    return [Tile(picture, (line, f"seed {seed}")) for picture, line, seed in zip(pictures, lines, seeds, strict=True)]


def _unit_row(run: Run, generator: Generator, suspects: Suspects, unit: int, bad: set[int]) -> Row:
    """The unit's top patches, those in the worst images named."""
    patches = run.layer_table(suspects.layer, "patches")
    patches = patches[patches["unit"] == unit].sort_values("rank").head(ACROSS + 1)
    samples = patches["sample"].to_numpy(np.int64)
    lines = ["in one of the worst" if sample in bad else "" for sample in samples.tolist()]
    height, width = generator.size
    sides = patches[["top", "left", "bottom", "right"]].to_numpy(np.float64) / [height, width, height, width]
    tiles = [
        Tile(tile.image, tile.lines, (float(box[0]), float(box[1]), float(box[2]), float(box[3])))
        for tile, box in zip(_own(run, generator, samples, lines), sides, strict=True)
    ]
    auc = f"{suspects.evidence.auc[unit]:.2f} [{suspects.evidence.low[unit]:.2f}, {suspects.evidence.high[unit]:.2f}]"
    tiles = tiles or [Tile(None, (), missing="no patch")]
    return _row(f"unit {unit} of {suspects.layer}: tells the worst images with AUC {auc}; its top patches", tiles)


def _repair_rows(
    generator: Generator, judged: Judged, edit: Edit, seeds: Seeds, scores: NDArray[np.float64] | None
) -> list[Row]:
    """The fresh images that were worst before (the first ones, where they have no score), untouched and repaired."""
    at = np.arange(min(ACROSS + 1, len(seeds.numbers)))
    if scores is not None:
        at = np.argsort(-judged.sign * scores[0], kind="stable")[: ACROSS + 1]
    chosen = [seeds.numbers[number] for number in at.tolist()]
    which = "worst of the fresh images" if scores is not None else "fresh images"
    rows = []
    for number, (title, edits) in enumerate(
        (
            (which, []),
            (f"the same without {len(edit.units)} unit{'s' * (len(edit.units) != 1)} of {edit.layer}", [edit]),
        )
    ):
        lines = ["" if scores is None else f"{scores[number, place]:.4g}" for place in at.tolist()]
        pictures = edited_pictures(generator, edits, chosen)
        tiles = [
            Tile(picture, (line, f"seed {seed}")) for picture, line, seed in zip(pictures, lines, chosen, strict=True)
        ]
        rows.append(_row(title, tiles))
    return rows
