"""The plan of a campaign of faults: every kind, as often as asked for, each at moments and places drawn from a seed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from helpers.commands import Commands
from helpers.dask_processes import dask_processes
from helpers.disks import small_disk
from helpers.faults import Campaign
from helpers.s3 import FaultyS3, faulty_proxy, make_bucket, moto_server, s3_environment

DISK_BYTES = 8_000_000
TIMEOUT = "2"

SIGNALS = (*[signal.SIGKILL] * 4, signal.SIGTERM, signal.SIGINT)
DAMAGES = (
    ("byte flipped", "arrays.zarr/layers/*/activations/c/**/*"),
    ("byte flipped", "arrays.zarr/labels/c/**/*"),
    ("byte flipped", "commits/*/*.safetensors.zst"),
    ("byte flipped", "commits/*/0*.json"),
    ("byte flipped", "**/*.parquet"),
    ("file cut short", "arrays.zarr/**/c/**/*"),
    ("file cut short", "commits/*/0*"),
    ("file deleted", "arrays.zarr/layers/*/*/c/**/*"),
)
REQUESTS = (
    (
        ("500", "PUT", "activations/c/1", 2),
        ("503", "GET", "commits/capture/", 3),
        ("429", "PUT", "commits/thresholds/", 2),
        ("hang", "PUT", "commits/tally/", 1),
    ),
    (
        ("cut request", "PUT", "activations/c/2", 1),
        ("cut answer", "GET", "commits/thresholds/", 2),
        ("lost answer", "PUT", "lock.json", 1),
        ("500", "GET", "activations/c/", 2),
        ("cut request", "PUT", ".parquet", 2),
    ),
)


def carry_out(folder: Path, seed: int, rounds: int = 1, *, thorough: bool = False) -> Campaign:
    """Do every kind of fault `rounds` times over; what came of them is `faults` of what is returned.

    thorough: also what takes long and is tested elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Commands(folder / "said") as commands:
        campaign = Campaign(folder, commands, seed)
        for _ in range(rounds):
            _processes(campaign)
            _files(campaign)
            with small_disk(folder / f"disk-{len(campaign.faults)}", DISK_BYTES) as disk:
                if disk is not None:
                    campaign.fill_disk(disk)
            _bucket(campaign)
            _cluster(campaign, thorough)
    return campaign


def _processes(campaign: Campaign) -> None:
    for number in SIGNALS:
        _until_it_hits(lambda number=number: campaign.kill_audit(number))
    _until_it_hits(campaign.kill_repair)
    campaign.two_at_once(killed=False)
    campaign.two_at_once(killed=True)


def _files(campaign: Campaign) -> None:
    for harm, pattern in DAMAGES:
        campaign.damage(harm, pattern)
    _until_it_hits(campaign.damage_unfinished)
    campaign.damage_run_json()
    campaign.damage_unnoticed("file cut short", "arrays.zarr/**/c/**/*")
    campaign.damage_unnoticed("file deleted", "commits/*/0*")


def _bucket(campaign: Campaign) -> None:
    with moto_server() as upstream, faulty_proxy(upstream) as (endpoint, faults):
        environment = {**s3_environment(endpoint), "MICROTOME_TIMEOUT": TIMEOUT}
        with mock.patch.dict(os.environ, environment):
            s3 = FaultyS3(endpoint, make_bucket(upstream), faults, upstream)
            campaign.begin_buckets()
            for orders in REQUESTS:
                campaign.bucket_faults(s3, *_shuffled(campaign, orders))
            campaign.bucket_faults(s3, ("507", "PUT", campaign.dice.choice(["peaks/c/", "commits/", ".parquet"]), 1))
            campaign.outage(s3, 2.0)
            campaign.outage(s3, None)
            campaign.kill_audit_into_bucket(s3)
            campaign.damage_in_bucket(s3)


def _cluster(campaign: Campaign, thorough: bool) -> None:
    campaign.kill_workers(2)
    if thorough:
        campaign.kill_audit_with_workers()
    with dask_processes(campaign.folder / f"dask-{len(campaign.faults)}") as processes, processes.workers("one"):
        processes.order("pause")
        campaign.kill_scheduler(processes.address, processes.scheduler.kill)


def _shuffled(campaign: Campaign, orders: Sequence[tuple[str, str, str, int]]) -> list[tuple[str, str, str, int]]:
    """Other numbers of requests each time."""
    return [(kind, method, match, campaign.dice.randint(1, times)) for kind, method, match, times in orders]


def _until_it_hits(fault: Callable[[], bool], tries: int = 4) -> None:
    """Try a moment until the audit was at work at it."""
    for _ in range(tries):
        if fault():
            return
