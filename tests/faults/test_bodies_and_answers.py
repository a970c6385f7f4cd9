"""Faults 1 to 6, 8 and 9: whatever a service answers, what is kept is an image, or that there is none."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest

from galgaze.stages.plan import make_plan
from tests.faults.zoo import ALWAYS, FAR, PLACES, PROBE, Bench
from tests.servers import first, legacy
from tests.servers.base import Reply, page
from tests.surveys.bodies import SCALE, first_fits, galaxy, legacy_fits

KINDS = pytest.mark.parametrize("kind", ["legacy", "first"])
B = PLACES["b"]


@pytest.fixture(params=["legacy", "first"])
def bench(request, tmp_path):
    with Bench(tmp_path, request.param) as bench:
        yield bench


@pytest.fixture
def viewer(tmp_path):
    with Bench(tmp_path, "legacy") as bench:
        yield bench


def places_of(*names):
    """So many sources, one behind the other, and a good one."""
    return {name: (150.0 + n, 2.0) for n, name in enumerate([*names, "good"])}


def all_good(bench):
    """Every source has the image that the server has of it, in the pack and in the cache."""
    assert bench.statuses() == bench.kept() == dict.fromkeys(bench.places, "ok")
    assert bench.bodies() == {name: bench.good(name) for name in bench.places}


def failed(bench, reasons, status="fetch_failed"):
    """The rows of these sources say why they have no image; the others have theirs, and nothing else was kept."""
    states = {name: status if name in reasons else "ok" for name in bench.places}
    assert bench.statuses() == states
    assert bench.kept() == {name: state for name, state in states.items() if state == "ok"}
    rows, bodies = bench.rows(), bench.bodies()
    assert {name for name, body in bodies.items() if body is not None} == bench.kept().keys()
    for name, reason in reasons.items():
        assert re.search(reason, rows["status_reason"][name])
        assert rows.loc[name, ["sha256", "bytes", "url", "fetched_utc", "served_by"]].isna().all()


def a_rerun_mends(bench, names, **options):
    """The same command asks for these once, and for nothing else."""
    assert bench.asks(lambda: bench.fetch(**options)) == dict.fromkeys(names, 1)
    all_good(bench)
    assert bench.asks(lambda: bench.fetch(**options)) == {}


# ------------------------------------------------------------------------ 1: 200, and no image


def test_fault_01_an_unknown_layer_stops_the_run(tmp_path):
    """By the real command, as a user sees it."""
    names = [f"s{n}" for n in range(40)]
    with Bench(tmp_path, places=places_of(*names), survey={"layer": "ls-dr99"}, shard_size=41) as bench:
        make_plan(bench.run(), "field")
        command = [sys.executable, "-m", "galgaze.cli", "fetch", "--field", "field", "-c", tmp_path / "config.yaml"]
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        assert done.returncode == 2
        assert "knows no layer 'ls-dr99'. Correct `layer` of the survey; valid are" in done.stderr
        assert "ls-dr9, ls-dr10" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(bench.server.requests) <= 8, "no more than were in the works when the first answer came"
        assert bench.kept() == {}
        assert bench.left_nothing()
        bench.configure(layer="ls-dr9")
        assert bench.fetch() == "41 ok"


def test_fault_01_cutouts_switched_off(viewer):
    viewer.server.answers = {place: [Reply(200, b"No cutouts enabled")] for place in PLACES.values()}
    code, said = viewer.cli_fetch()
    assert code == 75
    assert "the service has its cutouts switched off. Run again later to resume" in said
    assert set(viewer.asked().values()) == {1}, "another try is of no use"
    assert viewer.kept() == {}
    assert viewer.left_nothing()
    viewer.server.answers.clear()
    assert viewer.cli_fetch()[0] == 0
    all_good(viewer)


MAINTENANCE = b"<html><body>We are down for maintenance</body></html>"
PAGES = {
    "html": (Reply(200, MAINTENANCE), "down for maintenance"),
    "html that calls itself FITS": (Reply(200, MAINTENANCE, "image/x-fits"), "down for maintenance"),
    "text": (Reply(200, b"An error occurred", "text/plain"), "An error occurred"),
    "nothing": (Reply(200, b"", "image/fits"), ""),
    "a picture": (Reply(200, bytes.fromhex("ffd8ffe000104a464946"), "image/fits"), "JFIF"),
    "bad gateway": (Reply(200, b"<html><h1>502 Bad Gateway</h1></html>"), "502 Bad Gateway"),
    "404": (page("It is not here", 404), "HTTP 404.*It is not here"),
    "403": (page("It is not for you", 403), "HTTP 403.*It is not for you"),
}


@KINDS
def test_fault_01_a_page_for_ever_is_a_failure_and_no_image(tmp_path, kind):
    with Bench(tmp_path, kind, places_of(*PAGES)) as bench:
        bench.server.answers = {bench.places[name]: [reply] for name, (reply, _) in PAGES.items()}
        assert bench.fetch() == f"{len(PAGES)} fetch_failed, 1 ok"
        failed(bench, {name: reason for name, (_, reason) in PAGES.items()})
        bench.server.answers.clear()
        a_rerun_mends(bench, PAGES)


@KINDS
def test_fault_01_a_page_once_is_asked_for_again(tmp_path, kind):
    names = ["html", "html that calls itself FITS", "text", "nothing", "a picture"]
    with Bench(tmp_path, kind, places_of(*names)) as bench:
        bench.server.answers = {bench.places[name]: [PAGES[name][0], None] for name in names}
        assert bench.fetch() == f"{len(names) + 1} ok"
        assert bench.asked() == {**dict.fromkeys(names, 2), "good": 1}
        all_good(bench)


def test_fault_01_a_page_of_one_first_host_sends_it_to_the_next(tmp_path):
    with Bench(tmp_path, "first") as bench, first.FirstServer(tmp_path / "sky") as second:
        bench.server.answers[B] = [PAGES["html"][0]]
        bench.configure(urls=[bench.server.url, second.url])
        assert bench.fetch() == "4 ok"
        assert bench.rows()["url"].to_dict() == {**dict.fromkeys("acd", bench.server.url), "b": second.url}
        assert len(second.requests) == 1


def test_fault_01_maintenance_of_everything_stops_the_run(bench):
    bench.configure(http={"give_up_after": 3, "cool_down_s": 3600})
    bench.server.answers = {place: [PAGES["html"][0]] for place in PLACES.values()}
    code, said = bench.cli_fetch()
    assert code == 75
    assert re.search("run the same command again later, and it goes on from here", said)
    assert bench.kept() == {}
    assert bench.left_nothing()
    bench.server.answers.clear()
    assert bench.asks(lambda: bench.cli_fetch()) == {}, "the host is left alone for an hour"
    bench.forget_hosts()
    assert bench.cli_fetch()[0] == 0
    all_good(bench)


# ------------------------------------------------------------------------ 2, 3: cut short


def cuts(body: bytes) -> dict[str, int]:
    """Places to cut an image of one HDU at, in bytes; without the last two all the data are there."""
    end = next(card for card in range(0, len(body), 80) if body.startswith(b"END     ", card))
    head = math.ceil((end + 80) / 2880) * 2880
    axes = [int(value) for value in re.findall(rb"NAXIS[123] *= +(\d+)", body[:head])]
    data = head + 4 * math.prod(axes)
    assert data % 2880, "there is padding"
    return {
        "first byte": 1,
        "in the header": head - 2880 + 800,
        "after the header": head,
        "at a block of the data": head + 2880,
        "half": len(body) // 2,
        "a byte before the end of the data": data - 1,
        "before the padding": data,
        "in the padding": len(body) - 1,
    }


CUTS = list(cuts(legacy_fits()))
PADDING = CUTS[-2:]


@KINDS
def test_fault_02_shorter_than_announced_is_asked_for_again(tmp_path, kind):
    with Bench(tmp_path, kind, places_of(*CUTS)) as bench:
        for name, size in cuts(bench.good("good")).items():
            bench.server.faults_at[bench.places[name]] += [f"truncate:{size}"]
        assert bench.fetch() == f"{len(CUTS) + 1} ok"
        assert bench.asked() == {**dict.fromkeys(CUTS, 2), "good": 1}
        all_good(bench)


def test_fault_02_shorter_than_announced_for_ever(bench):
    bench.server.faults_at[B] += ["truncate"] * 2
    assert bench.fetch() == "1 fetch_failed, 3 ok"
    failed(bench, {"b": "RemoteProtocolError.*after 2 tries. Run again later to resume"})
    a_rerun_mends(bench, "b")


@KINDS
@pytest.mark.parametrize("announced", ["nothing", "what came"])
def test_fault_03_shorter_than_its_header_says_is_asked_for_again(tmp_path, kind, announced):
    """Without a Content-Length, or with that of the part, as a proxy that kept it sends."""
    names = CUTS[:-2]
    with Bench(tmp_path, kind, places_of(*names)) as bench:
        for name, size in list(cuts(bench.good("good")).items())[:-2]:
            if announced == "nothing":
                bench.server.faults_at[bench.places[name]] += [f"truncate_no_length:{size}"]
            else:
                bench.server.answers[bench.places[name]] = [Reply(200, bench.good(name)[:size], "image/fits"), None]
        assert bench.fetch() == f"{len(names) + 1} ok"
        assert bench.asked() == {**dict.fromkeys(names, 2), "good": 1}
        all_good(bench)


@KINDS
def test_fault_03_wherever_it_is_cut(tmp_path, kind):
    """Each source's first answer ends elsewhere; the second one is whole."""
    names = [f"s{n:02}" for n in range(24)]
    with Bench(tmp_path, kind, places_of(*names)) as bench:
        limit = cuts(bench.good("good"))["before the padding"]
        for name, size in zip(names, np.random.default_rng(3).integers(0, limit, len(names)), strict=True):
            bench.server.faults_at[bench.places[name]] += [f"truncate_no_length:{size}"]
        assert bench.fetch() == f"{len(names) + 1} ok"
        assert bench.asked() == {**dict.fromkeys(names, 2), "good": 1}
        all_good(bench)


@KINDS
def test_fault_03_padding_alone_is_no_loss(tmp_path, kind):
    """All pixels are there: what is made of them is what the whole file gives."""
    with Bench(tmp_path, kind, dict(zip(PADDING, PLACES.values(), strict=False))) as bench:
        for name in PADDING:
            size = cuts(bench.good(name))[name]
            bench.server.faults_at[bench.places[name]] += [f"truncate_no_length:{size}"]
        assert bench.fetch() == "2 ok"
        images = {name: row.image for name, row in bench.shard().items()}
        bench.configure(results="whole", top={"cache": str(tmp_path / "other")})
        assert bench.fetch() == "2 ok"
        all_good(bench)
        for name, row in bench.shard().items():
            assert row.valid
            assert np.array_equal(row.image, images[name])


def test_fault_03_cut_for_ever_is_a_bad_image(bench):
    """Another run asks again where it is told to."""
    size = cuts(bench.good("b"))["at a block of the data"]
    bench.server.faults_at[B] += [f"truncate_no_length:{size}"] * 2
    assert bench.fetch() == "1 bad_image, 3 ok"
    failed(bench, {"b": f"truncated: {size} bytes of the [0-9]+ that the header announces"}, "bad_image")
    assert bench.asks(bench.fetch) == {}
    a_rerun_mends(bench, "b", retry=("bad_image",))


def test_fault_03_cut_between_two_hdus(tmp_path):
    """What was asked for beside the image lacks, though the file ends where a file may end."""
    with Bench(tmp_path, survey={"invvar": True}) as bench:
        image = len(bench.good("b"))
        bench.server.faults_at[B] += [f"truncate_no_length:{image}"]
        assert bench.fetch() == "4 ok"
        assert bench.asked() == {**dict.fromkeys("acd", 1), "b": 2}
        assert all(len(body) > 1.9 * image for body in bench.bodies().values())


# ------------------------------------------------------------------------ 4, 5: too busy, out of order


@KINDS
def test_fault_04_sources_refused_for_being_too_many(tmp_path, kind):
    """Whatever Retry-After says, and be it rubbish; the waits themselves are tested in tests/surveys/test_http.py."""
    waits = {"none": "", "at once": "0", "soon": "soon", "before": "-5", "in 2015": "Wed, 21 Oct 2015 07:28:00 GMT"}
    with Bench(tmp_path, kind, places_of(*waits)) as bench:
        for name, wait in waits.items():
            bench.server.faults_at[bench.places[name]] += [f"429:{wait}"] * 2
        assert bench.fetch() == f"{len(waits)} fetch_failed, 1 ok"
        failed(bench, dict.fromkeys(waits, "HTTP 429, after 2 tries. Run again later to resume"))
        a_rerun_mends(bench, waits)


def test_fault_04_come_back_tomorrow(bench):
    """The run stops, others do not even ask, and who removes the host's state goes on where it was."""
    bench.configure(http={"connections": 1})
    bench.server.faults += ["ok", "ok", "429:86400"]
    code, said = bench.cli_fetch()
    assert code == 75
    assert "asks to come back in 86400 s" in said
    assert "Run the same command again then; what was fetched is kept" in said
    assert bench.left_nothing()
    kept = bench.kept()
    assert list(kept.values()) == ["ok", "ok"]
    assert len(bench.server.requests) == 3
    assert bench.asks(lambda: bench.cli_fetch()) == {}, "another run knows it without asking"
    assert str(bench.folder / "hosts") in bench.cli_fetch()[1]
    bench.forget_hosts()
    assert bench.asks(bench.fetch) == {name: 1 for name in PLACES if name not in kept}
    all_good(bench)


@KINDS
def test_fault_05_trouble_with_some_sources(tmp_path, kind):
    """The fake clock is in tests/surveys/test_http.py; this is what it comes to."""
    words = {"503": "HTTP 503", "503:0": "HTTP 503", "504": "HTTP 504", "408": "HTTP 408", "reset": "ReadError"}
    with Bench(tmp_path, kind, places_of(*words)) as bench:
        for fault in words:
            bench.server.faults_at[bench.places[fault]] += [fault] * 2
        assert bench.fetch() == f"{len(words)} fetch_failed, 1 ok"
        failed(bench, {name: f"{said}.*after 2 tries" for name, said in words.items()})
        a_rerun_mends(bench, words)


def test_fault_05_a_stalled_answer(bench):
    bench.configure(http={"timeout_s": 0.6})
    bench.server.faults_at[B] += ["stall:9"] * 2
    assert bench.fetch() == "1 fetch_failed, 3 ok"
    failed(bench, {"b": "ReadTimeout.*after 2 tries"})
    bench.configure()
    a_rerun_mends(bench, "b")


def test_fault_05_twice_503_then_good(bench):
    bench.configure(http={"attempts": 3})
    bench.server.faults_at[B] += ["503", "503"]
    assert bench.fetch() == "4 ok"
    assert bench.asked() == {**dict.fromkeys("acd", 1), "b": 3}
    all_good(bench)


# ------------------------------------------------------------------------ 6: nothing there


@pytest.fixture(params=["legacy", "first"])
def outside(request, tmp_path):
    """Of two sources one lies outside of the survey."""
    with Bench(tmp_path, request.param, {"a": PLACES["a"]}) as bench:
        bench.places["far"] = FAR
        bench.write_table([("a", *PLACES["a"]), ("far", *FAR)])
        yield bench


def test_fault_06_outside_of_the_survey(outside):
    code, said = outside.cli_fetch()
    assert code == 0
    assert "1 no_coverage, 1 ok" in said
    row = outside.rows().loc["far"]
    assert row["status"] == "no_coverage"
    if outside.kind == "legacy":
        assert "outside its footprint" in row["status_reason"]
        assert outside.asked() == {"a": 1, "far": 2, "probe": 1}, "500 means two things"
    else:
        assert "not covered by the FIRST survey" in row["status_reason"]
        assert outside.asked() == {"a": 1, "far": 1}
    assert outside.bodies()["far"] is None
    assert outside.kept() == {"a": "ok", "far": "no_coverage"}


def test_fault_06_is_not_asked_for_again(outside):
    outside.fetch()
    assert outside.asks(outside.fetch) == {}
    outside.configure(results="another")
    assert outside.asks(outside.fetch) == {}, "the tombstone is of the cache, not of the run"
    assert outside.statuses() == {"a": "ok", "far": "no_coverage"}
    asked = outside.asks(lambda: outside.fetch(retry=("no_coverage",)))
    assert asked == ({"far": 2, "probe": 1} if outside.kind == "legacy" else {"far": 1}), "unless it is told to"
    outside.configure(results="old", top={"no_coverage_days": 0})
    assert "far" in outside.asks(outside.fetch), "or the tombstone is too old"


def test_fault_06_an_image_that_comes_later_replaces_the_tombstone(outside):
    outside.fetch()
    outside.server.answers[FAR] = [Reply(200, outside.image(5, FAR), "image/fits")]
    assert outside.fetch(retry=("no_coverage",)) == "2 ok"
    assert outside.kept() == {"a": "ok", "far": "ok"}


def test_fault_06_an_outage_is_no_edge_of_the_survey(viewer):
    """500 at the source, and 500 at a place that is surely covered."""
    viewer.server.faults_at[B] += ["500"] * 2
    viewer.server.faults_at[PROBE] += ["500"] * ALWAYS
    assert viewer.fetch() == "1 fetch_failed, 3 ok"
    failed(viewer, {"b": "no image of the probe position.*the service is down"})
    a_rerun_mends(viewer, "b")


def test_fault_06_a_black_picture_is_no_image(viewer):
    """What the viewer's JPEG would be there: zeros all over, whatever they come as."""
    blank = legacy_fits(np.zeros((3, 40, 40), np.float32), *B)
    viewer.server.answers[B] = [Reply(200, blank, "image/fits")]
    assert viewer.fetch() == "4 ok"
    row = viewer.shard()["b"]
    assert (row.status, row.coverage) == ("no_coverage", 0)
    assert row.is_blank


# ------------------------------------------------------------------------ 8, 9: something else than asked for


def refused(bench, replies: dict):
    """Whole files of something else: asked for once, never kept, and not asked for again by themselves.

    `replies` are the body that comes for each source, and the reason of its refusal.
    """
    for name, (body, _) in replies.items():
        bench.server.answers[bench.places[name]] = [Reply(200, body, "image/fits")]
    assert bench.fetch() == f"{len(replies)} bad_image, 1 ok"
    failed(bench, {name: reason for name, (_, reason) in replies.items()}, "bad_image")
    assert set(bench.asked().values()) == {1}
    assert bench.asks(bench.fetch) == {}
    bench.server.answers.clear()
    a_rerun_mends(bench, replies, retry=("bad_image",))


def test_fault_08_other_bands_or_another_order(tmp_path):
    bands = ["zrg", "rgz", "grr", "gri"]
    with Bench(tmp_path, places=places_of(*bands, "two")) as bench:
        replies = {
            name: (legacy_fits(galaxy(), *bench.places[name], bands=name), f"bands '{name}' came, 'grz' were asked for")
            for name in bands
        }
        two = legacy_fits(galaxy(bands=2), *bench.places["two"], bands="grz")
        refused(bench, replies | {"two": (two, r"shape \(2, 40, 40\) does not fit the bands 'grz'")})


def test_fault_08_the_layers_default_bands_come_without_a_word(tmp_path, monkeypatch):
    """The real service does so for a band that its layer lacks; which these are is known of today's layers only."""
    monkeypatch.setitem(legacy.LAYERS, "ls-dr10", "grz")
    with Bench(tmp_path, survey={"layer": "ls-dr10", "bands": "griz"}) as bench:
        assert bench.fetch() == "4 bad_image"
        assert set(bench.rows()["status_reason"]) == {"bands 'grz' came, 'griz' were asked for"}
        assert bench.kept() == {}


def test_fault_09_a_size_that_the_service_clamps(tmp_path, monkeypatch):
    monkeypatch.setattr(legacy, "LARGEST_PX", 24)
    with Bench(tmp_path) as bench:
        assert bench.fetch() == "4 bad_image"
        assert set(bench.rows()["status_reason"]) == {"(24, 24) pixels came, (40, 40) were asked for"}
        assert bench.kept() == {}
        assert set(bench.asked().values()) == {1}


def test_fault_09_other_sizes_and_other_pixels(tmp_path):
    shapes = {"row less": (39, 40), "one more": (41, 41), "long": (3000, 3)}
    scales = {"twice": 2 * SCALE, "nearly": 1.05 * SCALE}
    with Bench(tmp_path, places=places_of(*shapes, *scales)) as bench:
        replies = {}
        for name, shape in shapes.items():
            pixels = np.random.default_rng(1).normal(1, 0.1, (3, *shape)).astype(np.float32)
            said = re.escape(f"{shape} pixels came, (40, 40) were asked for")
            replies[name] = (legacy_fits(pixels, *bench.places[name]), said)
        for name, scale in scales.items():
            said = f"{scale:.4f} arcsec a pixel came, 0.262 were asked for"
            replies[name] = (legacy_fits(galaxy(), *bench.places[name], scale=scale), said)
        refused(bench, replies)


def test_fault_09_a_larger_map_of_first(tmp_path):
    with Bench(tmp_path, "first", places_of("large")) as bench:
        body = first_fits(galaxy(60, bands=1)[0] * 0.01, *bench.places["large"])
        refused(bench, {"large": (body, r"\(60, 60\) pixels came, 40 were asked for")})


def test_fault_09_first_clamps_and_the_coverage_tells(tmp_path, monkeypatch):
    """A smaller map is one at the edge of the survey's maps as well; what lacks of it counts as not observed."""
    monkeypatch.setattr(first, "LARGEST_PX", 34)
    with Bench(tmp_path, "first", server={"cut": True}) as bench:
        assert bench.fetch() == "4 ok"
        for row in bench.shard().values():
            assert row.status == "partial_coverage"
            assert row.coverage == pytest.approx(34**2 / 40**2, abs=1e-6)
            assert row.is_blank
