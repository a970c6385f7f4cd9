"""The cache gives back what was put in, or nothing."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galgaze.surveys.base import Source
from galgaze.surveys.cache import DownloadCache, read_head

IDENTITY = {"kind": "legacy", "layer": "ls-dr9"}
SOURCE = Source("a", 10.0, 20.0)
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Clock:
    """The time, which tests move."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(tmp_path, clock):
    return DownloadCache(tmp_path / "cache", no_coverage_days=90, now=clock)


def files(cache):
    return [path for path in cache.folder.rglob("*") if path.is_file()]


def body_of(cache, identity=IDENTITY, source=SOURCE):
    entry = cache.get(identity, source)
    return entry and entry.body


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.binary(max_size=500))
def test_what_goes_in_comes_out(cache, body):
    cache.put(IDENTITY, SOURCE, body, "http://sky/1")
    assert cache.get(IDENTITY, SOURCE) == (body, None, "http://sky/1", "2026-11-21T12:00:00+00:00")
    assert cache.known(IDENTITY, SOURCE) == "ok"
    assert len(files(cache)) == 1


def test_nothing_there(cache):
    assert cache.get(IDENTITY, SOURCE) is None
    assert cache.known(IDENTITY, SOURCE) is None
    assert not cache.folder.exists(), "asking makes no folder"


def test_the_request_is_the_address(cache):
    cache.put(IDENTITY, SOURCE, b"body")
    assert body_of(cache, dict(reversed(IDENTITY.items()))) == b"body"
    assert body_of(cache, source=Source("another id, one place", 10.0, 20.0, las_arcsec=3.0)) == b"body"
    assert body_of(cache, source=Source("a turn of the sky", 370.0, 20.0)) == b"body"
    assert body_of(cache, source=Source("finer than is asked", 10.00000001, 20.0)) == b"body"
    assert cache.get({**IDENTITY, "layer": "ls-dr10"}, SOURCE) is None
    assert cache.get(IDENTITY, Source("a", 10.0, 20.0000001)) is None


def test_an_entry_says_what_it_is(cache):
    cache.put(IDENTITY, SOURCE, b"body", "http://sky/1")
    head = read_head(cache.path(IDENTITY, SOURCE))
    assert head["request"] == {**IDENTITY, "ra_deg": 10.0, "dec_deg": 20.0}
    assert (head["status"], head["bytes"], head["url"]) == ("ok", 4, "http://sky/1")


def test_hostile_ids_are_not_in_the_path(cache):
    path = cache.path(IDENTITY, Source("../../x", 1.0, 2.0))
    assert path.resolve().is_relative_to(cache.folder.resolve())
    assert path.name.isalnum()


@pytest.mark.parametrize(
    "damage",
    [
        lambda old: b"",
        lambda old: old[:-1],
        lambda old: old[:40],
        lambda old: old[:-1] + b"!",
        lambda old: b"[]\n" + old,
        lambda old: old.replace(b'"status": "ok"', b'"status": "no"'),
        lambda old: old.replace(b"ls-dr9", b"ls-dr8"),
        lambda old: b"\xff\xfe" * 40_000,
    ],
    ids=["empty", "cut", "cut in the head", "flipped", "not a head", "other status", "other request", "noise"],
)
def test_decay_is_noticed_and_removed(cache, damage):
    cache.put(IDENTITY, SOURCE, b"the body of an image")
    path = cache.path(IDENTITY, SOURCE)
    path.write_bytes(damage(path.read_bytes()))
    assert body_of(cache) is None
    assert not path.exists()
    cache.put(IDENTITY, SOURCE, b"again")
    assert body_of(cache) == b"again"


def test_an_entry_under_another_requests_name_is_not_believed(cache):
    other = Source("b", 11.0, 20.0)
    cache.put(IDENTITY, SOURCE, b"body")
    cache.path(IDENTITY, other).parent.mkdir(parents=True, exist_ok=True)
    cache.path(IDENTITY, SOURCE).rename(cache.path(IDENTITY, other))
    assert cache.get(IDENTITY, other) is None


class TestTombstones:
    def test_no_coverage_is_kept_with_its_reason(self, cache):
        cache.put_no_coverage(IDENTITY, SOURCE, "nothing there")
        assert cache.get(IDENTITY, SOURCE)[:2] == (None, "nothing there")
        assert cache.known(IDENTITY, SOURCE) == "no_coverage"

    def test_it_is_believed_for_so_many_days(self, cache, clock):
        cache.put_no_coverage(IDENTITY, SOURCE, "nothing there")
        clock.now = NOW + timedelta(days=89.9)
        assert cache.known(IDENTITY, SOURCE) == "no_coverage"
        clock.now = NOW + timedelta(days=90.1)
        assert cache.known(IDENTITY, SOURCE) is None
        assert cache.get(IDENTITY, SOURCE) is None
        assert files(cache) == []

    def test_images_do_not_age(self, cache, clock):
        cache.put(IDENTITY, SOURCE, b"body")
        clock.now = NOW + timedelta(days=10_000)
        assert body_of(cache) == b"body"

    def test_an_image_replaces_it(self, cache):
        cache.put_no_coverage(IDENTITY, SOURCE, "nothing there")
        cache.put(IDENTITY, SOURCE, b"body")
        assert body_of(cache) == b"body"


def test_a_failed_write_leaves_the_old_body(cache, monkeypatch):
    cache.put(IDENTITY, SOURCE, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        cache.put(IDENTITY, SOURCE, b"new")
    assert body_of(cache) == b"old"
    assert len(files(cache)) == 1


def test_folders_have_the_permissions_of_the_cache(cache):
    """Those who may write into a shared cache may write into all of it, whatever the umask of who came first."""
    cache.folder.mkdir()
    cache.folder.chmod(0o2775)
    old = os.umask(0o077)
    try:
        cache.put(IDENTITY, SOURCE, b"body")
    finally:
        os.umask(old)
    path = cache.path(IDENTITY, SOURCE)
    assert {oct(folder.stat().st_mode & 0o7777) for folder in (path.parent, path.parent.parent)} == {"0o2775"}
    assert oct(path.stat().st_mode & 0o777) == "0o644"


def test_processes_may_write_the_same_entry(cache):
    """Whoever comes last wins, and every reader sees a whole entry."""
    code = (
        "import sys; from galgaze.surveys.cache import DownloadCache; from galgaze.surveys.base import Source\n"
        "cache = DownloadCache(sys.argv[1])\n"
        "for n in range(50): cache.put({'kind': 'legacy', 'layer': 'ls-dr9'}, Source('a', 10.0, 20.0), b'x' * 10000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, cache.folder]) for _ in range(2)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        entry = cache.get(IDENTITY, SOURCE)
        seen.add(entry and entry.body)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {None, b"x" * 10_000}
    assert body_of(cache) == b"x" * 10_000
    assert len(files(cache)) == 1


def test_heads_are_plain_json(cache):
    cache.put(IDENTITY, SOURCE, b"\n\nbody")
    first, _, rest = cache.path(IDENTITY, SOURCE).read_bytes().partition(b"\n")
    assert json.loads(first)["bytes"] == 6
    assert rest == b"\n\nbody"
