"""`galgaze cache size`, `verify` and `prune`."""

import hashlib
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from tests.stages.runs import make_run, write_config
from tests.stages.test_fetch_cli import run_main

from galgaze.stages.cache import cache_prune, cache_size, cache_verify
from galgaze.surveys.base import Source
from galgaze.surveys.cache import DownloadCache

LEGACY, FIRST = {"kind": "legacy", "layer": "ls-dr9"}, {"kind": "first", "size_px": 300}
BRICK = "bricks/dr9/south/coadd/000/0001m002/legacysurvey-0001m002-image-g.fits.fz"


def filled(run):
    """Two images and an old tombstone of legacy, two images of first, a brick, an absent one, a footprint."""
    folder = run.layout.results.parent / "cache"
    new = DownloadCache(folder)
    old = DownloadCache(folder, now=lambda: datetime.now(UTC) - timedelta(days=100))
    for number in range(2):
        new.put(LEGACY, Source("a", number, 1.0), bytes(500_000))
    old.put_no_coverage(LEGACY, Source("a", 10.0, 1.0), "nothing there")
    old.put(FIRST, Source("a", 1.0, 1.0), bytes(300_000))
    new.put(FIRST, Source("a", 2.0, 1.0), bytes(300_000))
    brick = folder / BRICK
    brick.parent.mkdir(parents=True)
    brick.write_bytes(bytes(1_000_000))
    brick.with_name(brick.name + ".sha256").write_text(
        f"{hashlib.sha256(bytes(1_000_000)).hexdigest()}  {brick.name}\n"
    )
    brick.with_name("legacysurvey-0001m002-image-i.fits.fz.absent").write_text("{}")
    (folder / "bricks/locks").mkdir()
    (folder / "bricks/locks/3.lock").touch()
    (folder / "footprints").mkdir()
    (folder / "footprints/0123").write_bytes(bytes(100_000))
    return folder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, {"kind": "simulated_legacy"})


@pytest.fixture
def cache(run):
    return filled(run)


def entry(cache, identity, ra):
    return DownloadCache(cache).path(identity, Source("a", ra, 1.0))


def files(cache):
    return {path for path in cache.rglob("*") if path.is_file()}


def test_size(run, cache):
    assert cache_size(run).splitlines() == [
        f"{cache}: 9 files, 2.7 MB",
        "  bricks: 1 no coverage, 2 files, 1.0 MB",
        "  first: 2 images, 0.6 MB",
        "  footprints: 1 files, 0.1 MB",
        "  legacy: 2 images, 1 no coverage, 1.0 MB",
    ]
    entry(cache, LEGACY, 0.0).write_bytes(b"noise")
    assert "  damaged: 1 files, 0.0 MB" in cache_size(run).splitlines()


@pytest.mark.parametrize("verb", [cache_size, cache_verify, cache_prune])
def test_there_is_nothing(run, tmp_path, verb):
    text = {cache_size: "nothing", cache_verify: "0 good, none damaged", cache_prune: "nothing removed"}[verb]
    assert verb(run) == f"{tmp_path}/cache: {text}"
    assert not (tmp_path / "cache").exists()
    (tmp_path / "cache/cutouts").mkdir(parents=True)
    assert verb(run) == f"{tmp_path}/cache: {text}"


class TestVerify:
    def test_good(self, run, cache):
        before = files(cache)
        assert cache_verify(run) == f"{cache}: 7 good, none damaged"
        assert files(cache) == before

    def test_damaged(self, run, cache):
        brick = cache / BRICK
        victims = [entry(cache, LEGACY, 0.0), entry(cache, FIRST, 1.0), entry(cache, LEGACY, 10.0), brick]
        damage = [lambda old: old[:-1], lambda old: b"", lambda old: old[:-3], lambda old: old[:-1] + b"!"]
        for victim, change in zip(victims, damage, strict=True):
            victim.write_bytes(change(victim.read_bytes()))
        lines = cache_verify(run).splitlines()
        assert lines[0] == f"{cache}: 3 good, 4 damaged, removed: they will be fetched again"
        assert sorted(line.split(": ")[0].strip() for line in lines[1:]) == sorted(map(str, victims))
        assert f"  {brick}: not the file that was kept" in lines
        assert f"  {victims[1]}: the entry has no head" in lines
        assert not [victim for victim in victims if victim.exists()]
        assert cache_verify(run) == f"{cache}: 3 good, none damaged"


class TestPrune:
    def test_without_conditions_only_what_is_of_no_use_goes(self, run, cache):
        before = files(cache)
        assert cache_prune(run) == f"{cache}: nothing removed"
        assert files(cache) == before
        entry(cache, LEGACY, 0.0).write_bytes(b"noise")
        stale, young = cache / "cutouts/.old.partial", cache / "cutouts/.new.partial"
        for path in (stale, young):
            path.write_bytes(bytes(10))
        os.utime(stale, (time.time() - 90_000,) * 2)
        assert cache_prune(run) == f"{cache}: 2 files, 0.0 MB removed (2 damaged)"
        assert young.exists(), "somebody may be writing it"
        assert files(cache) - {young} == before - {entry(cache, LEGACY, 0.0)}

    @pytest.mark.parametrize(
        ("conditions", "removed"),
        [
            ({"older_than_days": 0}, "9 files, 2.7 MB removed (3 bricks, 2 first, 1 footprints, 3 legacy)"),
            ({"older_than_days": 99}, "2 files, 0.3 MB removed (1 first, 1 legacy)"),
            ({"older_than_days": 101}, "nothing removed"),
            ({"no_coverage": True}, "2 files, 0.0 MB removed (1 bricks, 1 legacy)"),
            ({"kind": "first"}, "2 files, 0.6 MB removed (2 first)"),
            ({"kind": "bricks"}, "3 files, 1.0 MB removed (3 bricks)"),
            ({"kind": "first", "older_than_days": 50}, "1 file, 0.3 MB removed (1 first)"),
            ({"kind": "first", "no_coverage": True}, "nothing removed"),
            ({"kind": "legacy", "no_coverage": True, "older_than_days": 50}, "1 file, 0.0 MB removed (1 legacy)"),
        ],
    )
    def test_conditions(self, run, cache, conditions, removed):
        before = files(cache)
        would = removed.replace(" removed", " would be removed")
        assert cache_prune(run, **conditions, dry_run=True) == f"{cache}: {would}"
        assert files(cache) == before
        assert cache_prune(run, **conditions) == f"{cache}: {removed}"
        number = 0 if removed.startswith("nothing") else int(removed.split()[0])
        assert len(files(cache)) == len(before) - number
        assert cache_prune(run, **conditions) == f"{cache}: nothing removed"


def test_command_line(run, cache, monkeypatch, capsys):
    config = write_config(run)

    def said(*words):
        code, text = run_main(monkeypatch, capsys, "cache", *words, "--config", config)
        assert code == 0, text
        return text

    assert said("size").startswith(f"{cache}: 9 files")
    assert said("prune", "--older-than-days", 50, "--kind", "first", "--dry-run").endswith(
        "1 file, 0.3 MB would be removed (1 first)\n"
    )
    assert said("prune", "--no-coverage").endswith("2 files, 0.0 MB removed (1 bricks, 1 legacy)\n")
    assert said("prune").endswith(": nothing removed\n")
    assert said("verify").endswith(": 6 good, none damaged\n")
