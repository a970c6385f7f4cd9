"""Fetching a shard: every source gets a row, nothing is asked for twice, and trouble stops it in time."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from tests.servers.first import FirstServer
from tests.servers.legacy import LegacyServer
from tests.stages.runs import HTTP, LEGACY, make_run, write_table
from tests.surveys.bodies import first_fits, galaxy, legacy_fits

from galgaze.errors import ConfigError, TransientError
from galgaze.files import read_marker, remove_marker
from galgaze.stages.fetch import MANIFEST, fetch, read_contents, read_manifest
from galgaze.stages.plan import make_plan

PLACES = {
    "good": (150.0, 2.0),
    "blank": (160.0, 2.0),
    "short": (170.0, 2.0),
    "other": (180.0, 2.0),
    "none": (5.0, -60.0),
}


@pytest.fixture
def server(tmp_path):
    """A good image, one of zeros, a truncated one, another good one, and nothing elsewhere."""
    folder = tmp_path / "sky"
    folder.mkdir()
    for name, (ra, dec) in PLACES.items():
        if name != "none":
            body = legacy_fits(galaxy(seed=len(name)), ra, dec)
            (folder / f"{name}.fits").write_bytes(body[:12000] if name == "short" else body)
    with LegacyServer(folder) as server:
        yield server


@pytest.fixture
def run(tmp_path, server):
    write_table(tmp_path / "table.csv", [(name, *place) for name, place in PLACES.items()])
    run = make_run(tmp_path, {**LEGACY, "url": server.url}, shard_size=5)
    make_plan(run, "field")
    yield run
    run.survey("sky").close()


def fetched(run):
    return fetch(run, "field", "sky", 0)


def statuses(run):
    manifest = read_manifest(run.layout.fetched("field", "sky", 0))
    return dict(zip(manifest["source_id"], manifest["status"], strict=True))


def again(run):
    """As a new process would see it."""
    from galgaze.stages.context import Run

    return Run(run.config)


def asked(server):
    """Names of the places that images were asked for, in order, probes and all."""
    names = {place: name for name, place in PLACES.items()}
    return [names[float(params["ra"]), float(params["dec"])] for _, _, params in server.requests]


def test_a_mixed_field(run, server):
    line = fetched(run)
    assert line == "field sky shard 0: 1 bad_image, 1 no_coverage, 3 ok"
    assert statuses(run) == {
        "good": "ok", "blank": "ok", "short": "bad_image", "other": "ok", "none": "no_coverage",
    }  # fmt: skip
    assert asked(server) == ["good", "blank", "short", "other", "none", "none", "good"], "500 twice, then the probe"


def test_manifest(run, server):
    fetched(run)
    path = run.layout.fetched("field", "sky", 0)
    assert pq.read_schema(path).equals(MANIFEST)
    manifest = read_manifest(path).set_index("source_id")
    assert "content" not in manifest
    good, short, none = (manifest.loc[name] for name in ("good", "short", "none"))
    assert good["url"].startswith(f"{server.url}/cutout.fits?ra=150.0000000&dec=2.0000000&layer=ls-dr9")
    assert good["fetched_utc"].endswith("+00:00")
    assert (good["bytes"], len(good["sha256"])) == (len(legacy_fits()), 64)
    assert short["status_reason"].startswith("truncated: 12000 bytes of the")
    assert "outside its footprint" in none["status_reason"]
    assert short["sha256"] is None or short["sha256"] != short["sha256"]
    contents = {source_id: body for source_id, _, _, _, body in read_contents(path)}
    assert {name for name, body in contents.items() if body} == {"good", "blank", "other"}
    assert np.array_equal(fits.getdata(io.BytesIO(contents["good"])), galaxy(seed=4))


def test_what_was_fetched_is_not_fetched_again(run, server):
    fetched(run)
    requests = len(server.requests)
    assert fetched(again(run)) == "field sky shard 0: already fetched"
    assert len(server.requests) == requests


def test_the_cache_serves_a_new_pack(run, server):
    """Accepted images are not asked for again when the pack must be made anew; failures never enter the cache."""
    fetched(run)
    remove_marker(run.layout.fetch_marker("field", "sky", 0))
    before = read_marker(run.layout.fetch_marker("field", "sky", 0))
    assert before is None
    requests = len(server.requests)
    assert fetched(run).endswith("3 ok")
    assert asked(server)[requests:] == ["short", "none", "none", "good"]
    assert len([path for path in run.layout.results.parent.joinpath("cache").rglob("*") if path.is_file()]) == 3


def test_decay_in_the_cache_costs_one_request(run, server, tmp_path):
    fetched(run)
    remove_marker(run.layout.fetch_marker("field", "sky", 0))
    victim = sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())[0]
    victim.write_bytes(victim.read_bytes()[:-1])
    requests = len(server.requests)
    fetched(run)
    new = [name for name in asked(server)[requests:] if name in ("blank", "other", "good")]
    assert len(new) == 2, "the decayed one, and the probe"
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


def test_a_changed_layer_fetches_again(run, server):
    fetched(run)
    changed = make_run(run.layout.results.parent, {**LEGACY, "url": server.url, "layer": "ls-dr10"}, shard_size=5)
    requests = len(server.requests)
    assert fetched(changed).endswith("3 ok")
    assert {params["layer"] for _, _, params in server.requests[requests:]} == {"ls-dr10"}
    changed.survey("sky").close()


def test_an_unknown_layer_stops_at_the_first_source(tmp_path, run, server):
    wrong = make_run(tmp_path, {**LEGACY, "url": server.url, "layer": "ls-dr99"}, shard_size=5)
    with pytest.raises(ConfigError, match="knows no layer 'ls-dr99'"):
        fetched(wrong)
    assert len(server.requests) == 1
    assert not run.layout.fetched("field", "sky", 0).exists()
    assert list(run.layout.fetched("field", "sky", 0).parent.iterdir()) == []
    wrong.survey("sky").close()


class TestTrouble:
    NAMES = tuple(f"s{n}" for n in range(8))

    @pytest.fixture
    def server(self, tmp_path):
        folder = tmp_path / "sky"
        folder.mkdir()
        for n in range(len(self.NAMES)):
            (folder / f"{n}.fits").write_bytes(legacy_fits(galaxy(seed=n), 150.0 + n, 2.0))
        with LegacyServer(folder) as server:
            yield server

    @pytest.fixture
    def run(self, tmp_path, server):
        write_table(tmp_path / "table.csv", [(name, 150.0 + n, 2.0) for n, name in enumerate(self.NAMES)])
        run = make_run(tmp_path, {**LEGACY, "url": server.url}, shard_size=8)
        make_plan(run, "field")
        yield run
        run.survey("sky").close()

    def test_the_circuit_breaks_and_the_rerun_goes_on(self, run, server):
        server.faults += ["ok"] * 4 + ["503"] * 2 * 3
        with pytest.raises(TransientError) as error:
            fetched(run)
        text = str(error.value)
        assert text.startswith("3 sources in a row could not be fetched; the last one said: ")
        assert "HTTP 503, after 2 tries" in text
        assert "run the same command again later, and it goes on from here" in text
        assert len(server.requests) == 4 + 6
        folder = run.layout.fetched("field", "sky", 0).parent
        assert list(folder.iterdir()) == [], "no marker, no pack, nothing half written"
        assert fetched(again(run)) == "field sky shard 0: 8 ok"
        assert len(server.requests) == 10 + 4, "the first four came from the cache"

    def test_single_failures_are_recorded_and_tried_again(self, run, server):
        server.faults += ["ok", "503", "503", "ok", "503", "503", "503", "503"]
        assert fetched(run) == "field sky shard 0: 3 fetch_failed, 5 ok"
        failed = {name for name, state in statuses(run).items() if state == "fetch_failed"}
        assert failed == {"s1", "s3", "s4"}
        assert "HTTP 503, after 2 tries" in read_manifest(run.layout.fetched("field", "sky", 0))["status_reason"][1]
        requests = len(server.requests)
        assert fetched(again(run)) == "field sky shard 0: 8 ok"
        assert len(server.requests) == requests + 3
        assert fetched(again(run)).endswith("already fetched")

    def test_told_to_come_back_tomorrow(self, run, server):
        server.faults += ["429:86400"] * 3
        with pytest.raises(TransientError, match="asks to come back in 86400 s"):
            fetched(run)
        assert len(server.requests) == 3

    def test_a_bug_leaves_nothing_behind(self, run, monkeypatch):
        monkeypatch.setattr(run.survey("sky"), "decode", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fetched(run)
        assert list(run.layout.fetched("field", "sky", 0).parent.iterdir()) == []

    def test_two_shards_in_one_process(self, tmp_path, run):
        """The survey can be used again after a shard has closed it."""
        field = {"table": {"path": str(tmp_path / "table.csv")}, "tasks": ["optical_morphology"]}
        run = make_run(tmp_path, run.config.surveys["sky"].model_dump(), field=field, results=str(tmp_path / "two"))
        make_plan(run, "field")
        assert [fetch(run, "field", "sky", shard) for shard in (0, 3)] == [
            "field sky shard 0: 2 ok", "field sky shard 3: 2 ok",
        ]  # fmt: skip
        run.survey("sky").close()


def test_only_what_is_requested(tmp_path, run, server):
    write_table(tmp_path / "table.csv", [("other", *PLACES["other"])])
    make_plan(run, "field")
    assert fetched(run) == "field sky shard 0: 1 ok"
    assert asked(server) == ["other"]
    assert list(statuses(run)) == ["other"]


def test_first(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "a.fits").write_bytes(first_fits(ra=150.0, dec=2.0))
    write_table(tmp_path / "table.csv", [("a", 150.0, 2.0), ("far", 20.0, -60.0)])
    with FirstServer(folder) as server:
        survey = {"kind": "first", "urls": ["http://127.0.0.1:9", server.url], "size_px": 40, "http": HTTP}
        run = make_run(tmp_path, survey, task="radio_fr")
        make_plan(run, "field")
        assert fetched(run) == "field sky shard 0: 1 no_coverage, 1 ok"
    assert read_manifest(run.layout.fetched("field", "sky", 0))["url"][0] == server.url


def test_local_surveys_keep_no_cache(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.fits").write_bytes(legacy_fits())
    write_table(tmp_path / "table.csv", [("a", 150.0, 2.0), ("b", 1.0, 1.0)])
    run = make_run(tmp_path, {"kind": "directory", "path": str(tmp_path / "images")})
    make_plan(run, "field")
    assert fetched(run) == "field sky shard 0: 1 no_coverage, 1 ok"
    assert not (tmp_path / "cache").exists()
    manifest = read_manifest(run.layout.fetched("field", "sky", 0))
    assert manifest["url"][0] == str(tmp_path / "images/a.fits")
    assert manifest["fetched_utc"].isna().all()


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
