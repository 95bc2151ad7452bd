"""What `microtome ablate` shows of a generator's ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from microtome.dissect.cli.output import show_table

SHOWN_CONCEPTS = 40


def show_ablation(result: Mapping[str, Any]) -> None:
    """Concepts as a table, the dose curve, side effects, and a sentence."""
    where = "fresh latents" if result["fresh"] else "latents that the run was made of"
    draws = result["draws"]
    random = f"; {draws} random set{'s' * (draws != 1)} of {len(result['units'])} ({result['drawn_from']})"
    click.echo(f"{result['layer']}: {result['chosen_by']}, each {result['removal']}{random if result['draws'] else ''}")
    if result["why"]:
        click.echo(result["why"])
    click.echo(f"{result['samples']:,} {where} ({result['data']})")
    rows = sorted(result["concepts"].items(), key=lambda item: (item[0] != result["concept"], -item[1]["area"]))
    header = ["concept", "images", "area", "without", "removed", "interval", "random", "interval"]
    show_table(header, [_row(name, row) for name, row in rows[:SHOWN_CONCEPTS]], right=range(1, len(header)))
    if len(rows) > SHOWN_CONCEPTS:
        click.echo(f"... {len(rows) - SHOWN_CONCEPTS} more; --json gives them")
    if result["dose"]:
        click.echo(f"removed of {result['concept']}, best units first ({result['dose'][0]['samples']} latents):")
        show_table(
            ["units", "removed", "interval", "random", "interval"],
            [
                [str(one["units"]), *_share(one, "removed", "interval"), *_share(one, *_RANDOM)]
                for one in result["dose"]
            ],
            right=range(5),
        )
    click.echo(side_effects(result))
    click.echo(conclusion(result))


_RANDOM = ("removed_random", "random_interval")


def conclusion(result: Mapping[str, Any]) -> str:
    """What came out, in a sentence."""
    units = f"{len(result['units'])} unit{'s' * (len(result['units']) != 1)}"
    name = result["concept"]
    if name is None or result["concepts"].get(name, {}).get("removed") is None:
        about = "no concept was named" if name is None else f"none of the images shows {name}"
        return f"{units} of {result['layer']}: {about}; the table says what becomes of each."
    row = result["concepts"][name]
    random = ""
    if row["removed_random"] is not None:
        random = f"; as many random units: {_percent(row['removed_random'])} {_interval(row['random_interval'])}"
    verb = "removes" if len(result["units"]) == 1 else "remove"
    return f"{units} {verb} {_percent(row['removed'])} {_interval(row['interval'])} of the area of {name}{random}."


def side_effects(result: Mapping[str, Any]) -> str:
    """What else changes, in a sentence."""
    effects = result["side_effects"]
    parts = []
    if effects["others_lose"] is not None:
        parts.append(f"other concepts lose {_percent(effects['others_lose'])} of their area")
    if effects["most"] is not None and effects["most"]["removed"] > 0:
        parts.append(f"most {effects['most']['concept']}, {_percent(effects['most']['removed'])}")
    pixels, features = effects["pixels"], effects["features"]
    for change, what in ((pixels, "pixels change by"), (features, "features by")):
        if change["mean"] is not None:
            random = "" if change["mean_random"] is None else f" (random {change['mean_random']:.3f})"
            parts.append(f"{what} {change['mean']:.3f}{random}")
    return f"side effects, {effects['outside']}: {'; '.join(parts) or '-'}"


def _row(name: str, row: Mapping[str, Any]) -> list[str]:
    areas = [_percent(row[part]) for part in ("area", "area_after")]
    return [name, f"{row['images']:,}", *areas, *_share(row, "removed", "interval"), *_share(row, *_RANDOM)]


def _share(row: Mapping[str, Any], value: str, interval: str) -> list[str]:
    if row[value] is None:
        return ["-", "-"]
    return [_percent(row[value]), _interval(row[interval])]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(ends: Sequence[float | None]) -> str:
    low, high = ("?" if end is None else f"{100 * end:.1f}" for end in ends)
    return f"[{low}, {high}]"
