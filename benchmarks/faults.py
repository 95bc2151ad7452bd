"""Recovery from whatever a night brings: a campaign of faults (tests/helpers/campaign.py), several rounds of it.

Processes, workers and a scheduler are killed, disks filled, a bucket misbehaves, files are harmed. After each fault
the results are compared with those of an undisturbed audit, byte by byte.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"


def run(quick: bool, seed: int | None = None) -> dict[str, Any]:
    """Two rounds of every fault, or one; moments and places are drawn from `seed`, a fresh one by default."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    from helpers.campaign import carry_out
    from helpers.faults import table

    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    with tempfile.TemporaryDirectory() as folder:
        campaign = carry_out(Path(folder), seed, 1 if quick else 2, thorough=not quick)
    wrong = [fault for fault in campaign.faults if fault.wrong]
    if wrong:
        raise RuntimeError(f"seed {seed}: {len(wrong)} faults did harm, such as {wrong[:3]}")
    refusals = {
        (fault.kind, fault.code, re.sub(r"\d+", "N", fault.message)) for fault in campaign.faults if fault.message
    }
    return {
        "seed": seed,
        "hit": len(campaign.faults),
        "missed": campaign.missed,
        "by kind": table(campaign.faults),
        "refusals": [{"fault": kind, "code": code, "message": text} for kind, code, text in sorted(refusals)],
        "each": {str(number): f"{fault.kind}: {fault.what}" for number, fault in enumerate(campaign.faults)},
    }
