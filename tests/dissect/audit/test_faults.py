"""At least thirty faults of every kind in one go: after each, the results are those of an undisturbed audit."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.campaign import carry_out
from helpers.disks import SmallDisk, small_disk
from helpers.faults import table

KINDS = ("audit ended", "repair ended", "worker ended", "scheduler ended", "a second audit", "lock of a dead audit")
KINDS += ("file cut short", "byte flipped", "file deleted", "bucket unreachable", "bucket: object cut short")
KINDS += tuple(f"bucket: {kind}" for kind in ("500", "503", "429", "hang", "cut request", "cut answer", "lost answer"))


@pytest.mark.slow
def test_after_every_fault_the_results_are_those_of_an_undisturbed_audit(tmp_path: Path) -> None:
    campaign = carry_out(tmp_path / "campaign", seed=3)
    for row in table(campaign.faults):
        print(row)  # noqa: T201
    wrong = [fault for fault in campaign.faults if fault.wrong]
    assert not wrong, "\n".join(f"{fault.kind}, {fault.what}: {fault.wrong}" for fault in wrong)
    assert len(campaign.faults) >= 30
    hit = {fault.kind for fault in campaign.faults}
    kinds = (*KINDS, "disk full") if _can_mount(tmp_path) else KINDS
    assert [kind for kind in kinds if not any(name.startswith(kind) for name in hit)] == []
    assert all(fault.message for fault in campaign.faults if fault.ended.startswith("refused"))


def _can_mount(folder: Path) -> bool:
    with small_disk(folder / "probe", 1_000_000) as disk:
        return isinstance(disk, SmallDisk)
