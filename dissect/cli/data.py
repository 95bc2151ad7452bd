"""`microtome data`: what is in a dataset, and what is odd about it, before any audit."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from microtome.dissect.cli.options import label_options, split_list
from microtome.dissect.cli.output import show_json, show_table

if TYPE_CHECKING:
    from microtome.datasets.survey.overview import Sizes, Survey

UNREADABLE = 3
_ROWS = 20
_LONGEST_SLUG = 80


@click.command("data")
@click.argument("dataset")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Look at the first N samples only.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the page goes. [runs/data/NAME; no page with --json]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Threads. [one a core]")
@click.option(
    "--examples", type=click.IntRange(min=0), default=16, show_default=True, metavar="N", help="Images on the page."
)
@click.option("--no-duplicates", is_flag=True, help="Read the labels alone: quicker, but damaged images go unnoticed.")
@label_options
def data_command(
    dataset: str,
    free: tuple[str, ...],
    concepts: Path | None,
    limit: int | None,
    out: Path | None,
    as_json: bool,
    workers: int | None,
    examples: int,
    no_duplicates: bool,
) -> int:
    """Count the samples and concepts of DATASET, look for what is odd, and draw a page with examples.

    Counts are over the labels as they are stored. Found are samples that cannot be used, numbers that no label has,
    concepts that never occur, images without labels, and images that are equal or look alike, across splits too.

    \b
    Examples:
      microtome data scenes:200
      microtome data folder:~/data/street --out runs/street
      microtome data imagefolder:~/data/birds --no-duplicates --json
      microtome data images:~/photos --free colors,textures
    """
    from microtome.datasets.specs import open_dataset
    from microtome.datasets.survey.overview import survey
    from microtome.datasets.views.labelled import with_labels
    from microtome.dissect.audit.cores import available_cores
    from microtome.dissect.audit.progress import progress
    from microtome.reports.dataset import build_dataset_page, page_folder

    opened = with_labels(open_dataset(dataset), split_list(free), None, concepts)
    folder = out if as_json or out else Path("runs", "data", slug(dataset))
    if folder is not None:
        page_folder(folder)
    with progress("data", min(limit or len(opened), len(opened)), "images") as shown:
        found = survey(
            opened,
            limit=limit,
            duplicates=not no_duplicates,
            examples=examples,
            workers=workers or available_cores(),
            progress=shown.advance,
        )
    page = None if folder is None else build_dataset_page(opened, found, folder)
    if as_json:
        show_json(**found.to_dict(), page=None if page is None else str(page))
    else:
        _show(found)
        click.echo(f"\n{page}")
    return UNREADABLE if found.unreadable else 0


def slug(spec: str) -> str:
    """A spec as the name of a folder."""
    name = re.sub(r"[^A-Za-z0-9._=-]+", "-", spec).strip("-.") or "data"
    if len(name) <= _LONGEST_SLUG:
        return name
    digest = hashlib.blake2b(spec.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return f"{name[: _LONGEST_SLUG - 9]}-{digest}"


def _show(found: Survey) -> None:
    first = "" if found.samples == found.total else f" (the first of {found.total:,})"
    click.echo(f"{found.spec}: {found.samples:,} samples{first}, {found.unreadable:,} of them unusable")
    if len(found.splits) > 1 or (found.splits and found.splits[0][0]):
        click.echo(f"  splits      {_listed(found.splits)}")
    if found.classes:
        click.echo(f"  classes     {_listed(sorted(found.classes, key=lambda item: -item[1]))}")
    for name, sizes in (("images", found.image_sizes), ("labels", found.grid_sizes)):
        if sizes:
            click.echo(f"  {name}      {_sizes(sizes)}")
    if found.unlabelled is not None:
        click.echo(
            f"  unlabelled  {100 * found.unlabelled:.1f}% of an image in the mean; "
            f"{found.without_labels:,} samples have no label at all"
        )
    for category in found.categories:
        click.echo(f"\n{category.name}: {category.concepts:,} concepts, {category.annotated:,} images annotated")
        mine = [count for count in found.concepts if count.concept.category == category.name]
        mine.sort(key=lambda count: (-count.images, -count.pixels, count.concept.id))
        rows = [[f"  {count.concept.name}", f"{count.images:,}", f"{count.pixels:,}"] for count in mine[:_ROWS]]
        show_table(["  concept", "images", "pixels"], rows, right=(1, 2))
        if len(mine) > _ROWS:
            click.echo(f"  and {len(mine) - _ROWS:,} more; the page and --json have them all")
    click.echo(f"\n{len(found.findings):,} finding{'' if len(found.findings) == 1 else 's'}")
    for finding in found.findings:
        click.echo(f"  {finding.level:<8} {finding.text}")
        for example in finding.examples[:3]:
            click.echo(f"           {example}")


def _listed(counts: list[tuple[str, int]] | tuple[tuple[str, int], ...]) -> str:
    shown = ", ".join(f"{name or '(none)'} {count:,}" for name, count in counts[:_ROWS])
    return f"{shown}, and {len(counts) - _ROWS:,} more" if len(counts) > _ROWS else shown


def _sizes(sizes: Sizes) -> str:
    def words(size: tuple[int, int]) -> str:
        return f"{size[1]}x{size[0]}"

    if sizes.different == 1:
        return words(sizes.median)
    return f"{words(sizes.smallest)} to {words(sizes.largest)}, median {words(sizes.median)}"
