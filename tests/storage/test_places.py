"""Every kind of place keeps the same promises: local folders, memory, and S3."""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import tempfile
import threading
import urllib.request
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.s3 import S3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtome.storage import files
from microtome.storage.errors import NotWritableError, OutOfSpaceError, UsageError
from microtome.storage.places import LocalPlace, Place, is_url, name_of, open_place, where_of

EXAMPLES = itertools.count()
KINDS = ("local", "memory", "s3")
NAMES = st.text(st.sampled_from("ab%é &+=~()!_-"), min_size=1, max_size=4).filter(lambda name: name.strip() == name)
KEYS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return open_place(tmp_path / "run")
    if request.param == "memory":
        return open_place(f"memory://{tmp_path.name}-{os.urandom(4).hex()}")
    s3: S3 = request.getfixturevalue("s3")
    return open_place(f"{s3.url}/some/run")


def test_what_is_written_is_read(place: Place) -> None:
    place.write("a/b.json", b"one")
    assert place.read("a/b.json") == b"one"
    place.write("a/b.json", b"")
    assert place.read("a/b.json") == b""
    assert place.size("a/b.json") == 0


def test_what_is_not_there(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        place.read("a")
    with pytest.raises(FileNotFoundError):
        place.checksum("a")
    assert place.size("a") is None
    assert list(place.list()) == list(place.list("a/")) == []
    assert place.sizes(["a", "b/c"]) == place.read_many(["a", "b/c"]) == {}
    assert not place.replace("a", b"", b"x")
    place.delete(["a", "b/c"])
    place.write("a/b", b"x")
    assert place.size("a") is None  # a folder is no file
    assert place.size("a/b/c") is None


def test_only_one_creates(place: Place) -> None:
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda number: place.create("lock.json", b"%d" % number), range(8)))
    assert sum(told) == 1
    assert place.read("lock.json") == b"%d" % told.index(True)
    assert not place.create("lock.json", place.read("lock.json"))  # also where the content is the very same
    place.delete(["lock.json"])
    assert place.create("lock.json", b"again")


def test_replace_compares_first(place: Place) -> None:
    place.write("lock.json", b"old")
    assert not place.replace("lock.json", b"other", b"new")
    assert place.read("lock.json") == b"old"
    assert place.replace("lock.json", b"old", b"new")
    assert not place.replace("lock.json", b"old", b"newer")
    assert place.read("lock.json") == b"new"


def test_of_many_who_replace_every_one_counts(place: Place) -> None:
    place.write("count", b"0")
    start = threading.Barrier(4)

    def count(_: int) -> None:
        start.wait()
        for _ in range(5):
            while not place.replace("count", found := place.read("count"), b"%d" % (int(found) + 1)):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert place.read("count") == b"20"


def test_listing_and_deleting(place: Place) -> None:
    contents = {f"commits/{stage}/{n}": b"x" * n for stage in ("capture", "capture.merge1") for n in range(12)}
    contents["run.json"] = b"{}"
    for key, data in contents.items():
        place.write(key, data)
    sizes = {key: len(data) for key, data in contents.items()}
    assert dict(place.list()) == sizes
    assert dict(place.list("commits/capture/")) == {k: n for k, n in sizes.items() if k.startswith("commits/capture/")}
    assert place.sizes([*contents, "no", "commits/no"]) == sizes
    assert place.sizes([*contents, *(f"no/{n}" for n in range(100))]) == sizes
    assert place.sizes(["run.json", "no"]) == {"run.json": 2}
    assert place.read_many([*contents, "no"]) == contents
    place.delete(["commits/capture/3", "run.json", "absent"])
    assert set(dict(place.list())) == set(contents) - {"commits/capture/3", "run.json"}


@given(contents=st.dictionaries(KEYS, st.binary(max_size=20), max_size=4))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_place_is_a_mapping_of_keys_to_bytes(place: Place, contents: dict[str, bytes]) -> None:
    contents = {key: data for key, data in contents.items() if not any(k.startswith(f"{key}/") for k in contents)}
    place.delete([key for key, _ in place.list()])
    folder = f"example-{next(EXAMPLES)}"  # on a disk, empty folders stay
    contents = {f"{folder}/{key}": data for key, data in contents.items()}
    for key, data in contents.items():
        place.write(key, data)
    assert {key: place.read(key) for key, _ in place.list()} == contents
    assert {key: place.checksum(key) for key in contents} == {
        key: (len(data), zlib.crc32(data)) for key, data in contents.items()
    }


def test_a_place_arrives_in_another_process_as_the_same(place: Place) -> None:
    place.write("a", b"x")
    again = pickle.loads(pickle.dumps(place))
    assert again == place
    assert again.url == place.url
    assert again.read("a") == b"x"
    assert open_place(place.url).read("a") == b"x"
    assert open_place(place) is place


def test_a_folder_takes_the_place_of_another(place: Place, tmp_path: Path) -> None:
    place.write("reports", b"not below report")
    for pages in ({"index.html": "old", "layers/gone.html": "old"}, {"index.html": "new", "data/a.js": "x"}):
        folder = tmp_path / "building"
        for name, text in pages.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        place.publish(folder, "report")
        assert {key: place.read(key).decode() for key, _ in place.list("report/")} == {
            f"report/{name}": text for name, text in pages.items()
        }
        for file in sorted(folder.rglob("*"), reverse=True) if folder.exists() else []:
            file.rmdir() if file.is_dir() else file.unlink()
    assert place.read("reports") == b"not below report"


def test_pages_are_served_as_what_they_are(s3: S3, tmp_path: Path) -> None:
    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css", "jpg": "image/jpeg", "bin": ""}
    for suffix in kinds:
        (tmp_path / f"a.{suffix}").write_bytes(b"x")
    open_place(f"{s3.url}/run").publish(tmp_path, "report")
    for suffix, kind in kinds.items():
        request = urllib.request.Request(f"{s3.endpoint}/{s3.bucket}/run/report/a.{suffix}", method="HEAD")
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request")
        with urllib.request.urlopen(request) as answer:
            assert answer.headers["Content-Type"].startswith(kind)


def test_more_objects_than_one_listing_holds(s3: S3) -> None:
    place = open_place(s3.url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: place.write(f"many/{number}", b"x" * (number % 7)), range(1203)))
    assert dict(place.list()) == {f"many/{number}": number % 7 for number in range(1203)}
    place.delete(f"many/{number}" for number in range(1203))
    assert list(place.list()) == []


@pytest.mark.parametrize(
    ("text", "url"),
    [("s3://b/p/", "s3://b/p"), ("s3://b", "s3://b"), ("gs://b/p/q", "gs://b/p/q"), ("az://c/p", "az://c/p")],
)
def test_urls_are_places(text: str, url: str) -> None:
    place = open_place(text)
    assert (place.url, place.path, is_url(text), where_of(text)) == (url, None, True, text)
    assert name_of(place, "run.json") == f"{url}/run.json"


def test_paths_are_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for where in ("runs/a", Path("runs/a")):
        place = open_place(where)
        assert (place.url, place.path) == (str(tmp_path / "runs" / "a"), Path("runs/a"))
    assert name_of(open_place("runs/a"), "run.json") == "runs/a/run.json"
    assert open_place(f"file://{tmp_path}/a%20b").path == tmp_path / "a b"
    assert where_of("~/run") == Path.home() / "run"
    assert not is_url("runs/a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [("ftp://host/run", "not at ftp://"), ("s3://", "names no bucket"), ("file://host/run", "no host")],
)
def test_no_place(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_place(text)


def test_a_url_that_was_made_a_path_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="give it as text"):
        open_place(Path("s3://bucket/run"))


# Only local


def test_temporary_files_are_not_listed(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    place.write("a/b", b"x")
    for name in ("a/.b.1.partial", "a/c.0f.partial", ".hidden", "report.partial/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    assert list(place.list()) == [("a/b", 1)]
    assert place.clean() == 2
    assert (tmp_path / "a" / "b").read_bytes() == b"x"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    place = LocalPlace(tmp_path)
    place.write("a", b"old")

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    doings: list[Callable[[], object]] = [
        lambda: place.write("a", b"new"),
        lambda: place.create("b", b"new"),
        lambda: place.replace("a", b"old", b"new"),
        lambda: place.flush(["a"]),
    ]
    for do in doings:
        with pytest.raises(OutOfSpaceError, match=f"{tmp_path} is full .*make room and run the same command again"):
            do()
    monkeypatch.undo()
    assert dict(place.list()) == {"a": 3}
    assert place.read("a") == b"old"
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))


def test_another_error_of_the_disk_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        LocalPlace(tmp_path).write("a", b"x")


def test_where_links_are_not_to_be_had_one_creates_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    place = LocalPlace(tmp_path)
    assert place.create("a", b"1")
    assert not place.create("a", b"2")
    assert dict(place.list()) == {"a": 1}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_may_not_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    place = LocalPlace(tmp_path)
    place.write("a.json", b"old")

    def closed(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkstemp", closed)
    monkeypatch.setattr(Path, "unlink", closed)
    advice = f"{tmp_path} cannot be written to .*make it writable for this user, or give another place"
    with pytest.raises(NotWritableError, match=advice):
        place.write("a.json", b"new")
    with pytest.raises(NotWritableError, match=advice):
        place.create("b.json", b"new")
    with pytest.raises(NotWritableError, match=advice):
        place.replace("a.json", b"old", b"new")
    with pytest.raises(NotWritableError, match=advice):
        place.delete(["a.json"])
    assert place.read("a.json") == b"old"
