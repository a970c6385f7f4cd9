"""The cache gives back what was put in, or nothing."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galgaze.surveys.base import Source
from galgaze.surveys.cache import DownloadCache

IDENTITY = {"kind": "legacy", "layer": "ls-dr9"}
SOURCE = Source("a", 10.0, 20.0)


@pytest.fixture
def cache(tmp_path):
    return DownloadCache(tmp_path / "cache")


def files(cache):
    return [path for path in cache.folder.rglob("*") if path.is_file()]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.binary(max_size=500))
def test_what_goes_in_comes_out(cache, body):
    cache.put(IDENTITY, SOURCE, body)
    assert cache.get(IDENTITY, SOURCE) == body
    assert len(files(cache)) == 1


def test_nothing_there(cache):
    assert cache.get(IDENTITY, SOURCE) is None
    assert not cache.folder.exists(), "asking makes no folder"


def test_the_request_is_the_address(cache):
    cache.put(IDENTITY, SOURCE, b"body")
    assert cache.get(dict(reversed(IDENTITY.items())), SOURCE) == b"body"
    assert cache.get(IDENTITY, Source("another id, one place", 10.0, 20.0, las_arcsec=3.0)) == b"body"
    assert cache.get({**IDENTITY, "layer": "ls-dr10"}, SOURCE) is None
    assert cache.get(IDENTITY, Source("a", 10.0, 20.0000001)) is None


def test_hostile_ids_are_not_in_the_path(cache):
    path = cache.path(IDENTITY, Source("../../x", 1.0, 2.0))
    assert path.resolve().is_relative_to(cache.folder.resolve())
    assert path.name.isalnum()


@pytest.mark.parametrize(
    "damage", [lambda old: b"", lambda old: old[:-1], lambda old: old[:40], lambda old: old[:-1] + b"!"]
)
def test_decay_is_noticed_and_removed(cache, damage):
    cache.put(IDENTITY, SOURCE, b"the body of an image")
    path = cache.path(IDENTITY, SOURCE)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(IDENTITY, SOURCE) is None
    assert not path.exists()
    cache.put(IDENTITY, SOURCE, b"again")
    assert cache.get(IDENTITY, SOURCE) == b"again"


def test_a_failed_write_leaves_the_old_body(cache, monkeypatch):
    cache.put(IDENTITY, SOURCE, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.put(IDENTITY, SOURCE, b"new")
    assert cache.get(IDENTITY, SOURCE) == b"old"
    assert len(files(cache)) == 1
