"""Fetching a shard: every source gets a row, nothing is asked for twice, and trouble stops it in time.

Faults of the list in docs: bad coordinates, ids and tables (10, 11) are refused by tests/fields/test_rows.py and
test_tables.py before any request; sizes that services clamp (9) by the configuration, see below.
"""

import collections
import io
import json
import os
import threading

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from cdshealpix import skycoord_to_healpix
from tests.servers.first import FirstServer
from tests.servers.legacy import LegacyServer
from tests.stages.runs import HTTP, LEGACY, again, make_run, write_table
from tests.surveys.bodies import first_fits, galaxy, legacy_fits

from galgaze.errors import ConfigError, ServiceDown, TransientError
from galgaze.files import read_marker, remove_marker
from galgaze.stages.fetch import fetch
from galgaze.stages.fetch_progress import read_ledger
from galgaze.stages.packs import MANIFEST, read_contents, read_manifest
from galgaze.stages.plan import make_plan
from galgaze.stages.shard import shard
from galgaze.stages.write import _served_by

PLACES = {
    "good": (150.0, 2.0),
    "second": (160.0, 2.0),
    "short": (170.0, 2.0),
    "other": (180.0, 2.0),
    "none": (5.0, -60.0),
}
NAMES = {place: name for name, place in PLACES.items()}
S = {f"s{n}": (150.0 + n, 2.0) for n in range(8)}
COVERED = {name: PLACES[name] for name in ("good", "second", "other")}


@pytest.fixture
def in_turn(monkeypatch):
    """One source after the other: for tests in which the order of the requests counts."""
    monkeypatch.setattr("galgaze.stages.fetcher.THREADS_A_CONNECTION", 1)


def fill(folder, places=PLACES):
    """A file a place, but none for "none", and half of one for "short"."""
    folder.mkdir()
    for name, (ra, dec) in places.items():
        if name != "none":
            body = legacy_fits(galaxy(seed=len(name)), ra, dec)
            (folder / f"{name}.fits").write_bytes(body[:12000] if name == "short" else body)
    return folder


@pytest.fixture
def server(tmp_path):
    """Good images, a truncated one, and nothing elsewhere."""
    with LegacyServer(fill(tmp_path / "sky")) as server:
        yield server


def legacy(server, **changes):
    return {**LEGACY, "url": server.url, "http": HTTP | {"connections": 1}, **changes}


def planned(folder, survey, places=PLACES, **options):
    """A run whose field has these places in one shard, planned."""
    write_table(folder / "table.csv", [(name, *place) for name, place in places.items()])
    run = make_run(folder, survey, **{"shard_size": 8} | options)
    make_plan(run, "field")
    return run


@pytest.fixture
def run(tmp_path, server):
    return planned(tmp_path, legacy(server))


def fetched(run, *retry):
    return fetch(run, "field", "sky", 0, retry)


def statuses(run):
    return dict(manifest(run)["status"])


def manifest(run):
    return read_manifest(run.layout.fetched("field", "sky", 0)).set_index("source_id")


def asked(server, since=0):
    """Names of the places that images were asked for, in order, probes and all."""
    return [NAMES[float(params["ra"]), float(params["dec"])] for _, _, params in server.requests[since:]]


def ledger(run):
    return read_ledger(run.layout.fetch_ledger("field", "sky", 0))


def entries(run):
    return [path for path in (run.layout.results.parent / "cache").rglob("*") if path.is_file()]


def left_behind(run):
    """What stands beside the packs, but for the ledger."""
    folder = run.layout.fetched("field", "sky", 0).parent
    return [path.name for path in folder.iterdir() if not path.name.endswith("ledger.jsonl")]


def test_fault_06_a_mixed_field(run, server, in_turn):
    assert fetched(run) == "field sky shard 0: 1 bad_image, 1 no_coverage, 3 ok"
    assert statuses(run) == {
        "good": "ok", "second": "ok", "short": "bad_image", "other": "ok", "none": "no_coverage",
    }  # fmt: skip
    # what is truncated may be whole at another try; 500 is asked twice, then the probe
    assert asked(server) == ["good", "second", "short", "short", "other", "none", "none", "good"]


def test_threads_keep_the_order_and_share_the_work(tmp_path):
    places = {f"s{n}": (150.0 + n, 2.0) for n in range(24)}
    with LegacyServer(fill(tmp_path / "sky", places), delay=0.05) as server:
        run = planned(tmp_path, legacy(server, http=HTTP | {"connections": 3}), places, shard_size=24)
        assert fetched(run) == "field sky shard 0: 24 ok"
        assert server.most_at_once == 3
        assert len(server.requests) == 24
    assert list(manifest(run).index) == list(places)
    for body, number in zip(read_contents(run.layout.fetched("field", "sky", 0)), range(24), strict=True):
        assert fits.getheader(io.BytesIO(body.content))["CRVAL1"] == 150.0 + number


def test_manifest(run, server):
    fetched(run)
    path = run.layout.fetched("field", "sky", 0)
    assert pq.read_schema(path).equals(MANIFEST)
    rows = manifest(run)
    assert "content" not in rows
    good, short, none = (rows.loc[name] for name in ("good", "short", "none"))
    assert good["url"].startswith(f"{server.url}/cutout.fits?ra=150.0000000&dec=2.0000000&layer=ls-dr9")
    assert good["fetched_utc"].endswith("+00:00")
    assert (good["bytes"], len(good["sha256"]), good["served_by"]) == (len(legacy_fits()), 64, "sky")
    assert short["status_reason"].startswith("truncated: 12000 bytes of the")
    assert "outside its footprint" in none["status_reason"]
    assert pd.isna(short["sha256"])
    assert pd.isna(short["served_by"])
    contents = {row.source_id: row.content for row in read_contents(path)}
    assert {name for name, body in contents.items() if body} == {"good", "second", "other"}
    assert np.array_equal(fits.getdata(io.BytesIO(contents["good"])), galaxy(seed=4))


def test_what_was_fetched_is_not_fetched_again(run, server):
    fetched(run)
    requests = len(server.requests)
    assert fetched(again(run)) == "field sky shard 0: already fetched"
    assert len(server.requests) == requests


def test_the_cache_serves_a_new_pack(run, server):
    """Images and "nothing there" are not asked for again when the pack must be made anew; failures are never kept."""
    fetched(run)
    remove_marker(run.layout.fetch_marker("field", "sky", 0))
    requests = len(server.requests)
    assert fetched(run).endswith("3 ok")
    assert asked(server, requests) == ["short", "short"]
    assert len(entries(run)) == 4


def test_decay_in_the_cache_costs_one_request(run, server):
    fetched(run)
    remove_marker(run.layout.fetch_marker("field", "sky", 0))
    victim = max(entries(run), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    requests = len(server.requests)
    fetched(run)
    assert len([name for name in asked(server, requests) if name != "short"]) == 1
    assert set(statuses(run).values()) == {"ok", "bad_image", "no_coverage"}


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_pack_is_made_anew(run, server, damage):
    fetched(run)
    path = run.layout.fetched("field", "sky", 0)
    marker = read_marker(run.layout.fetch_marker("field", "sky", 0))
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-100] if damage == "cut" else content[:500] + b"\x00\xff" + content[502:])
    assert "3 ok" in fetched(again(run))
    assert read_marker(run.layout.fetch_marker("field", "sky", 0))["inputs"] == marker["inputs"], "the same content"
    assert fetched(run).endswith("already fetched")


def test_fault_01_an_unknown_layer_stops_at_the_first_source(tmp_path, server):
    run = planned(tmp_path, legacy(server, layer="ls-dr99"))
    with pytest.raises(ConfigError, match="knows no layer 'ls-dr99'"):
        fetched(run)
    assert len(server.requests) == 1
    assert left_behind(run) == []
    assert ledger(run)[0]["ended"] == "ConfigError"


@pytest.mark.parametrize(
    "survey", [LEGACY | {"size_px": 4000}, {"kind": "first", "size_px": 2000}, LEGACY | {"bands": "griz"}]
)
def test_fault_08_and_09_what_the_service_would_change_silently_is_refused_beforehand(tmp_path, survey):
    with pytest.raises(ConfigError, match=r"surveys.sky.*(size_px|bands)"):
        make_run(tmp_path, survey)


def test_fault_12_hostile_ids_stay_inside(tmp_path, server):
    hostile = ["../../x", "a/b", "CON", "é" * 200, "=cmd()", "nul\\..\\y", ".hidden"]
    places = {name: (150.0 + 10 * (n % 2), 2.0) for n, name in enumerate(hostile)}
    inside = {tmp_path / name for name in ("sky", "results", "cache", "hosts", "table.csv")}
    run = planned(tmp_path, legacy(server), places)
    assert fetched(run) == f"field sky shard 0: {len(hostile)} ok"
    assert list(manifest(run).index) == hostile
    assert set(tmp_path.iterdir()) == inside
    assert not [path for path in tmp_path.rglob("*") if any(word in path.name for word in ("x", "CON", "cmd", "é"))]


class TestChanges:
    """Fault 20: exactly what changed is fetched."""

    def test_fault_20_added_sources_are_a_shard_of_their_own(self, tmp_path, server):
        few = {name: PLACES[name] for name in ("good", "second")}
        run = planned(tmp_path, legacy(server), few, shard_size=2)
        fetched(run)
        write_table(tmp_path / "table.csv", [(name, *PLACES[name]) for name in ("good", "second", "other")])
        make_plan(run, "field")
        assert fetched(run).endswith("already fetched")
        assert fetch(run, "field", "sky", 1) == "field sky shard 1: 1 ok"
        assert asked(server, 2) == ["other"]

    def test_fault_20_removed_sources_cost_nothing(self, tmp_path, run, server):
        fetched(run)
        requests = len(server.requests)
        write_table(tmp_path / "table.csv", [("other", *PLACES["other"])])
        make_plan(run, "field")
        assert fetched(run) == "field sky shard 0: 1 ok"
        assert list(statuses(run)) == ["other"]
        assert len(server.requests) == requests

    @pytest.mark.parametrize(
        "change", [{"layer": "ls-dr10"}, {"size_px": 20}, {"pixel_scale_arcsec": 0.3}, {"invvar": True}]
    )
    def test_fault_20_other_images_are_asked_for_and_the_old_ones_kept(self, tmp_path, server, change):
        run = planned(tmp_path, legacy(server), COVERED)
        fetched(run)
        assert fetched(planned(tmp_path, legacy(server, **change), COVERED)).endswith("3 ok")
        assert sorted(asked(server, 3)) == ["good", "other", "second"]
        assert fetched(run).endswith("3 ok"), "back again: from the cache"
        assert len(server.requests) == 6

    def test_fault_20_another_address_or_other_manners_are_not_other_images(self, tmp_path, run, server):
        fetched(run)
        requests = len(server.requests)
        changed = planned(tmp_path, legacy(server, url="http://127.0.0.1:9", http=HTTP | {"pause_s": 1}))
        assert fetched(changed).endswith("already fetched")
        assert len(server.requests) == requests

    def test_a_stand_in_that_is_added_does_not_ask_for_what_was_good(self, tmp_path, run, server):
        fetched(run)
        requests = len(server.requests)
        changed = planned(tmp_path, legacy(server, fallback="two"), others={"two": legacy(server, layer="ls-dr10")})
        fetched(changed)
        layers = collections.Counter((name, params["layer"]) for name, (_, _, params) in zip(
            asked(server, requests), server.requests[requests:], strict=True))  # fmt: skip
        assert layers == {("short", "ls-dr9"): 2, ("short", "ls-dr10"): 2}
        assert statuses(changed) == statuses(run)


class TestTombstones:
    def test_another_run_with_the_same_cache_asks_nothing(self, tmp_path, run, server):
        fetched(run)
        requests = len(server.requests)
        few = {name: PLACES[name] for name in ("good", "none")}
        other = planned(tmp_path, legacy(server), few, results=str(tmp_path / "other"))
        assert fetched(other) == "field sky shard 0: 1 no_coverage, 1 ok"
        assert len(server.requests) == requests
        assert manifest(other).loc["none", "status_reason"] == manifest(run).loc["none", "status_reason"]

    def test_retry_asks_again_for_that_alone(self, tmp_path, run, server):
        fetched(run)
        requests = len(server.requests)
        fetched(again(run), "bad_image")
        assert asked(server, requests) == ["short", "short"]
        (tmp_path / "sky/none.fits").write_bytes(legacy_fits(galaxy(), *PLACES["none"]))
        with LegacyServer(tmp_path / "sky") as grown:
            changed = planned(tmp_path, legacy(grown))
            assert fetched(changed).endswith("already fetched")
            assert fetched(changed, "no_coverage") == "field sky shard 0: 1 bad_image, 4 ok"
            assert sorted(asked(grown)) == ["none", "short", "short"]
            assert fetched(changed, "no_coverage").endswith("already fetched")

    def test_in_time_they_are_asked_for_again(self, tmp_path, run, server):
        fetched(run)
        requests = len(server.requests)
        later = planned(tmp_path, legacy(server), {"none": PLACES["none"]}, results=str(tmp_path / "late"),
                        no_coverage_days=0)  # fmt: skip
        assert fetched(later) == "field sky shard 0: 1 no_coverage"
        assert asked(server, requests) == ["none", "none", "good"]


class TestFootprint:
    def test_fault_06_outside_of_the_footprint_nothing_is_asked(self, tmp_path, server):
        write_moc(tmp_path / "dr9.moc", [PLACES["good"], PLACES["other"]])
        run = planned(tmp_path, legacy(server, footprint=str(tmp_path / "dr9.moc")))
        assert fetched(run) == "field sky shard 0: 3 no_coverage, 2 ok"
        assert sorted(asked(server)) == ["good", "other"]
        assert manifest(run).loc["none", "status_reason"] == "outside of the footprint dr9.moc"
        assert len(entries(run)) == 2, "the footprint may change: it is no answer of the survey"


def write_moc(path, places, order=8):
    """A footprint of small cells around the places."""
    ra, dec = np.array(places).T
    cells = skycoord_to_healpix(SkyCoord(ra, dec, unit=units.deg), order)
    path.write_text(json.dumps({str(order): sorted({int(cell) for cell in cells})}))


class TestStandIn:
    """`fallback`: the same sky from another address, in pixels of its own."""

    @pytest.fixture
    def two(self, tmp_path, server):
        with LegacyServer(tmp_path / "sky") as two:
            yield two

    def both(self, tmp_path, server, two, **changes):
        sky = legacy(server, fallback="two", **changes)
        others = {"two": legacy(two, size_px=50, pixel_scale_arcsec=0.3)}
        return planned(tmp_path, sky, COVERED | {"none": PLACES["none"]}, others=others)

    def test_it_serves_what_the_first_one_fails_at(self, tmp_path, server, two, in_turn):
        server.faults += ["ok", "503", "503"]
        run = self.both(tmp_path, server, two)
        assert fetched(run) == "field sky shard 0: 1 no_coverage, 3 ok"
        assert asked(two) == ["second"], "'nothing there' is an answer, and not passed on"
        rows = manifest(run)
        assert rows["served_by"].fillna("").to_dict() == {"good": "sky", "second": "two", "other": "sky", "none": ""}
        assert rows.loc["second", "url"].startswith(two.url)
        assert ledger(run)[0]["requests"] == len(server.requests) + len(two.requests)
        served = _served_by(run, "field", "sky", pd.Series(["none", "second", "good", "other"]))
        assert list(served) == ["sky", "two", "sky", "sky"]

    def test_each_image_is_read_as_what_it_is(self, tmp_path, server, two, in_turn):
        """Two sizes and scales stand in one pack; either survey would refuse the other's."""
        server.faults += ["ok", "503", "503"]
        run = self.both(tmp_path, server, two)
        fetched(run)
        assert shard(run, "field", "optical_morphology", 0).endswith("3 of 4 images usable")

    def test_the_first_one_is_down(self, tmp_path, server, two):
        server.faults += ["503"] * 100
        run = self.both(tmp_path, server, two)
        assert fetched(run).endswith("fetch_failed, 3 ok"), "that 'none' is not covered only the first one can say"
        assert set(manifest(run)["served_by"].dropna()) == {"two"}
        reason = manifest(run).loc["none", "status_reason"]
        assert "sky: " in reason
        assert "And two: HTTP 500 here" in reason
        server.faults.clear()
        assert fetched(again(run)) == "field sky shard 0: 1 no_coverage, 3 ok"

    def test_both_are_down(self, tmp_path, server, two):
        server.faults += ["429:86400"]
        two.faults += ["429:86400"]
        run = self.both(tmp_path, server, two)
        with pytest.raises(ServiceDown) as error:
            fetched(run)
        assert str(error.value).startswith("sky: 127.0.0.1")
        assert str(error.value).count("asks to come back in 86400 s") == 2
        assert "And two: 127.0.0.1" in str(error.value)
        assert (len(server.requests), len(two.requests)) == (1, 1)

    def test_one_failure_is_not_the_end_where_only_the_stand_in_is_down(self, tmp_path, server, two, in_turn):
        server.faults += ["503", "503"]
        two.faults += ["429:86400"]
        run = self.both(tmp_path, server, two)
        assert fetched(run) == "field sky shard 0: 1 fetch_failed, 1 no_coverage, 2 ok"
        reason = manifest(run).loc["good", "status_reason"]
        assert "HTTP 503" in reason
        assert "asks to come back" in reason

    def test_its_footprint_counts_too(self, tmp_path, server, two):
        write_moc(tmp_path / "two.moc", [PLACES["good"], PLACES["other"]])
        server.faults += ["503"] * 100
        survey = legacy(server, fallback="two")
        others = {"two": legacy(two, footprint=str(tmp_path / "two.moc"))}
        run = planned(tmp_path, survey, COVERED | {"none": PLACES["none"]}, others=others)
        assert fetched(run) == "field sky shard 0: 2 fetch_failed, 2 ok"
        assert sorted(asked(two)) == ["good", "other"]
        assert "outside of the footprint two.moc" in manifest(run).loc["second", "status_reason"]

    def test_a_folder_may_stand_in(self, tmp_path, server):
        server.faults += ["503"] * 100
        others = {"two": {"kind": "directory", "path": str(tmp_path / "sky")}}
        places = {"good": PLACES["good"], "other": PLACES["other"]}
        run = planned(tmp_path, legacy(server, fallback="two"), places, others=others)
        assert fetched(run) == "field sky shard 0: 2 ok"
        assert manifest(run).loc["good", "url"] == str(tmp_path / "sky/good.fits")
        assert entries(run) == []


class TestTrouble:
    @pytest.fixture
    def server(self, tmp_path):
        with LegacyServer(fill(tmp_path / "sky", S)) as server:
            yield server

    @pytest.fixture
    def run(self, tmp_path, server):
        return planned(tmp_path, legacy(server), S)

    def test_the_circuit_breaks_and_the_rerun_goes_on(self, run, server, in_turn):
        server.faults += ["ok"] * 4 + ["503"] * 2 * 3
        with pytest.raises(TransientError) as error:
            fetched(run)
        text = str(error.value)
        assert text.startswith("3 sources in a row could not be fetched; the last one said: ")
        assert "HTTP 503, after 2 tries" in text
        assert "run the same command again later, and it goes on from here" in text
        requests = len(server.requests)
        assert requests in (4 + 6, 4 + 7), "one more may have begun"
        assert left_behind(run) == [], "no marker, no pack, nothing half written"
        assert ledger(run)[0]["sources"] == {"ok": 4, "fetch_failed": 2}
        kept = len(entries(run))
        assert kept >= 4
        assert fetched(again(run)) == "field sky shard 0: 8 ok"
        assert len(server.requests) == requests + 8 - kept, "the first four came from the cache"

    def test_single_failures_are_recorded_and_tried_again(self, run, server, in_turn):
        server.faults += ["ok", "503", "503", "ok", "503", "503", "503", "503"]
        assert fetched(run) == "field sky shard 0: 3 fetch_failed, 5 ok"
        assert {name for name, state in statuses(run).items() if state == "fetch_failed"} == {"s1", "s3", "s4"}
        assert "HTTP 503, after 2 tries" in manifest(run)["status_reason"].iloc[1]
        requests = len(server.requests)
        assert fetched(again(run)) == "field sky shard 0: 8 ok"
        assert len(server.requests) == requests + 3
        assert fetched(again(run)).endswith("already fetched")

    def test_fault_04_told_to_come_back_tomorrow(self, run, server):
        server.faults += ["ok", "ok", "429:86400"]
        with pytest.raises(ServiceDown, match="asks to come back in 86400 s"):
            fetched(run)
        assert len(server.requests) == 3
        assert left_behind(run) == []
        [line] = ledger(run)
        assert (line["ended"], line["requests"], line["in_vain"]) == ("ServiceDown", 3, {"HTTP 429": 1})

    def test_a_bug_leaves_nothing_behind(self, run, monkeypatch):
        monkeypatch.setattr(run.survey("sky"), "decode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fetched(run)
        assert left_behind(run) == []
        assert no_threads()

    def test_an_error_in_a_thread_ends_all(self, run, server, monkeypatch):
        """What is in the works is finished and kept; nothing more is begun."""
        survey, real = run.survey("sky"), run.survey("sky").download

        def download(source):
            if source.source_id == "s2":
                raise ZeroDivisionError
            return real(source)

        monkeypatch.setattr(survey, "download", download)
        with pytest.raises(ZeroDivisionError):
            fetched(run)
        assert left_behind(run) == []
        assert no_threads()
        assert len(entries(run)) == len(server.requests) < 8
        files = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
                 if os.path.exists(f"/proc/self/fd/{number}")]  # fmt: skip
        assert not [name for name in files if "partial" in name]

    def test_two_shards_in_one_process(self, tmp_path, server):
        """The survey can be used again after a shard has closed it."""
        run = planned(tmp_path, legacy(server), S, shard_size=2)
        assert [fetch(run, "field", "sky", number) for number in (0, 3)] == [
            "field sky shard 0: 2 ok", "field sky shard 3: 2 ok",
        ]  # fmt: skip


def no_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("fetch", "progress"))] == []


def test_first(tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.fits").write_bytes(first_fits(ra=150.0, dec=2.0))
    with FirstServer(tmp_path / "maps") as server:
        survey = {"kind": "first", "urls": ["http://127.0.0.1:9", server.url], "size_px": 40, "http": HTTP}
        run = planned(tmp_path, survey, {"a": (150.0, 2.0), "far": (20.0, -60.0)}, task="radio_fr")
        assert fetched(run) == "field sky shard 0: 1 no_coverage, 1 ok"
    assert manifest(run).loc["a", "url"] == server.url


def test_local_surveys_keep_no_cache(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.fits").write_bytes(legacy_fits())
    survey = {"kind": "directory", "path": str(tmp_path / "images")}
    run = planned(tmp_path, survey, {"a": (150.0, 2.0), "b": (1.0, 1.0)})
    assert fetched(run) == "field sky shard 0: 1 no_coverage, 1 ok"
    assert not (tmp_path / "cache").exists()
    assert manifest(run).loc["a", "url"] == str(tmp_path / "images/a.fits")
    assert manifest(run)["fetched_utc"].isna().all()
    assert ledger(run) == []


def test_simulated_packs_are_the_same_every_time(tmp_path):
    field = {"simulated": {"survey": "sky", "count": 2}, "tasks": ["optical_morphology"]}
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run = make_run(tmp_path / name, {"kind": "simulated_legacy", "size_px": 40}, field=field)
        make_plan(run, "field")
        assert fetched(run) == "field sky shard 0: 2 ok"
        digests.add(run.layout.fetched("field", "sky", 0).read_bytes())
    assert len(digests) == 1


def test_a_field_without_sources(tmp_path, server):
    others = {"twin": {"kind": "simulated_legacy"}}
    field = {"simulated": {"survey": "twin", "count": 0}, "tasks": ["optical_morphology"]}
    run = planned(tmp_path, legacy(server), others=others, field=field)
    assert fetched(run) == "field sky shard 0: nothing to fetch"
    assert server.requests == []


def test_half_packs_of_long_ago_are_cleared_away(run, server):
    """What a kill left; but not what another run may be writing at this moment."""
    folder = run.layout.fetched("field", "sky", 0).parent
    folder.mkdir(parents=True)
    old, new = (folder / f".shard-00000.parquet.{name}.partial" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    fetched(run)
    assert (old.exists(), new.exists()) == (False, True)
