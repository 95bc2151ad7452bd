"""`microtome extend`: more images in a finished run."""

from __future__ import annotations

from pathlib import Path

import click

from microtome.dissect.cli.options import RUN, budget_of, limit_options
from microtome.dissect.cli.output import show_json

UNREADABLE_SAMPLES = 3


@click.command("extend")
@click.argument("run", type=RUN)
@click.argument("dataset", required=False)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Samples in all. [every one that there is]")
@click.option("--workers", type=click.IntRange(min=1), help="Shards at work at once. [number of cores]")
@click.option("--cluster", default="threads", metavar="WHO", help="As in microtome audit. [threads]")
@limit_options
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def extend_command(
    run: Path | str,
    dataset: str | None,
    limit: int | None,
    workers: int | None,
    cluster: str,
    as_json: bool,
    **limits: str | None,
) -> int:
    """Add to RUN the images that its dataset has got since; DATASET names it where it is called otherwise now.

    Only the new images go through the model; thresholds, scores, patches and pages are made anew, and are what an
    audit of all images would have given. The images of RUN must be there still, unchanged; they keep their places, and
    new ones follow them. A run that an audit or an extension left unfinished is finished.

    Directions fitted at the start (--units pca, pca64) are kept as they are, so that such layers are not what a new
    audit, which fits them to all images, would have given.

    \b
    Examples:
      microtome extend runs/mine
      microtome extend runs/first scenes:4000
      microtome extend runs/first --limit 3000
    """
    from microtome.dissect.audit.extend import extend_run

    extension = extend_run(run, dataset, limit=limit, workers=workers, cluster=cluster, budget=budget_of(limits))
    outcome = extension.outcome
    samples = outcome.run.plan.samples
    worked = bool(extension.added or outcome.seconds)
    if as_json:
        show_json(
            run=outcome.run.url,
            report=outcome.index_page,
            added=extension.added,
            samples=samples,
            unreadable=outcome.unreadable,
            seconds=round(outcome.seconds, 3),
        )
    elif worked:
        click.echo(f"{extension.added:,} images more, {samples:,} in all")
        click.echo(outcome.index_page)
    else:
        click.echo(f"nothing new: {outcome.run.url} has all {samples:,} images")
    if outcome.unreadable and worked and not as_json:
        click.echo(f"{outcome.unreadable} samples could not be read; samples.parquet and the report say why")
    return UNREADABLE_SAMPLES if outcome.unreadable and worked else 0
