"""An audit into S3 is the audit that a disk would hold: same tables, arrays, states and pages, also through faults."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers.compare import differences, results
from helpers.planted import write_planted
from helpers.s3 import S3, FaultyS3

from microtome.dissect import AuditConfig, open_run, rebuild_report, resume_audit, run_audit
from microtome.dissect.audit.config import config_from_mapping
from microtome.dissect.cli.app import app
from microtome.storage import retry
from microtome.storage.errors import OutOfSpaceError, PlaceUnreachableError, UsageError
from microtome.storage.places import open_place
from microtome.storage.run import Run


def config_of(source: Path, out: Path | str, **changes: object) -> AuditConfig:
    values = {
        "model": f"{source}:model",
        "dataset": f"{source}:images",
        "layers": ("units", "head"),
        "out": out,
        "tau": (0.05,),
        "batch": 2,
        "shard_samples": 16,
        "top": 3,
        "map": False,
    }
    return config_from_mapping({**values, **changes}, source="test")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    run_audit(config_of(source, source.parent / "undisturbed"))
    return source.parent / "undisturbed"


def contents(where: Path | str, prefix: str) -> dict[str, bytes]:
    place = open_place(where)
    return place.read_many(key for key, _ in place.list(prefix))


def test_a_run_in_a_bucket_is_the_run_on_a_disk(source: Path, tmp_path: Path, s3: S3) -> None:
    """Maps included; the other tests do without."""
    url, disk = f"{s3.url}/some/run", tmp_path / "run"
    run_audit(config_of(source, disk, map=True))
    outcome = run_audit(config_of(source, url, map=True))
    assert outcome.index_page == f"{url}/report/index.html"
    assert len(results(url)) > 20
    assert differences(disk, url) == []
    states = contents(url, "commits/")
    assert {key for key in states if key.endswith(".zst")} >= {
        f"commits/capture/{n:06d}.safetensors.zst" for n in range(3)
    }
    local = contents(disk, "commits/")
    assert set(local) == set(states)
    for key, content in states.items():  # sizes and checksums, too; only the run's key may differ
        if key.endswith(".json"):
            assert {**json.loads(content), "key": ""} == {**json.loads(local[key]), "key": ""}
        else:
            assert content == local[key]
    pages, local_pages = contents(url, "report/"), contents(disk, "report/")
    assert set(pages) == set(local_pages)
    assert {k: v for k, v in pages.items() if k.endswith(".jpg")} == {
        k: v for k, v in local_pages.items() if k.endswith(".jpg")
    }
    pd.testing.assert_frame_equal(open_run(url).summary(), open_run(disk).summary())
    again = resume_audit(url)
    assert (again.index_page, again.unreadable) == (outcome.index_page, 0)


def test_commands_take_urls(source: Path, s3: S3, undisturbed: Path) -> None:
    url = f"{s3.url}/run"
    shell = CliRunner()
    audit = ["audit", f"{source}:model", f"{source}:images", "--layers", "units,head", "--tau", "0.05", "--top", "3"]
    audit += ["--no-map"]
    done = shell.invoke(app, [*audit, "--out", url, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["run"] == url
    assert json.loads(done.stdout)["report"] == f"{url}/report/index.html"
    for command in (["query", url, "--summary", "--json"], ["query", str(undisturbed), "--summary", "--json"]):
        shown = shell.invoke(app, command, catch_exceptions=False)
        assert json.loads(shown.stdout)["summary"][0]["layer"] == "units"
    page = shell.invoke(app, ["report", url], catch_exceptions=False)
    assert page.stdout.strip() == f"{url}/report/index.html"
    resumed = shell.invoke(app, ["audit", "--resume", url], catch_exceptions=False)
    assert resumed.stdout.strip().endswith(f"{url}/report/index.html")


def test_an_audit_through_faults_ends_with_the_same_bytes(source: Path, undisturbed: Path, faulty_s3: FaultyS3) -> None:
    heard: list[str] = []
    end = retry.listen(lambda what, error, attempt, pause: heard.append(error))
    faulty_s3.faults.at_random(0.08, ("500", "503", "429", "cut request", "cut answer", "lost answer"), seed=3)
    try:
        run_audit(config_of(source, f"{faulty_s3.url}/run"))
    finally:
        end()
        faulty_s3.faults.none()
    assert len(faulty_s3.faults.met) >= 10
    assert len(heard) >= 10
    assert differences(undisturbed, f"{faulty_s3.url}/run") == []


def test_a_bucket_that_stays_away_costs_the_shards_at_work(
    source: Path, undisturbed: Path, faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{faulty_s3.url}/run"
    monkeypatch.setenv("MICROTOME_PATIENCE", "0.3")
    faulty_s3.inject("503", times=10_000, match="commits/thresholds/000001")
    with pytest.raises(PlaceUnreachableError, match="run the same command again"):
        run_audit(config_of(source, url))
    faulty_s3.faults.none()
    assert Run.open(url).info["stages"]["capture"]["state"] == "done"
    run_audit(config_of(source, url))
    assert differences(undisturbed, url) == []


def test_a_bucket_that_is_full_says_so_and_goes_on_afterwards(
    source: Path, undisturbed: Path, faulty_s3: FaultyS3
) -> None:
    url = f"{faulty_s3.url}/run"
    faulty_s3.inject("507", match="activations/c/1")
    with pytest.raises(OutOfSpaceError, match="make room and run the same command again"):
        run_audit(config_of(source, url))
    run_audit(config_of(source, url))
    assert differences(undisturbed, url) == []


def test_a_place_that_is_not_empty_is_refused(source: Path, s3: S3) -> None:
    open_place(f"{s3.url}/run").write("thesis.tex", b"mine")
    with pytest.raises(UsageError, match=rf"{s3.url}/run is not empty and holds no run"):
        run_audit(config_of(source, f"{s3.url}/run"))
    with pytest.raises(UsageError, match=r"has no run\.json"):
        Run.open(f"{s3.url}/run")


def test_a_report_is_published_anew(source: Path, s3: S3) -> None:
    url = f"{s3.url}/run"
    run_audit(config_of(source, url))
    place = open_place(url)
    before = contents(url, "report/")
    place.write("report/layers/gone.html", b"stale")
    assert rebuild_report(url) == f"{url}/report/index.html"
    assert contents(url, "report/").keys() == before.keys()
