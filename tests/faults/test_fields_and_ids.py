"""Faults 10, 11, 12 and 22: what a table may hold, and what comes of a shard with nothing in it."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import zarr

from galgaze.files import read_marker
from galgaze.images.store import ARRAYS
from galgaze.stages.packs import MANIFEST, read_contents
from tests.faults.zoo import ALWAYS, FAR, PLACES, Bench
from tests.surveys.bodies import DEC, RA, galaxy, legacy_fits

BOTH = pytest.mark.parametrize("kind", ["legacy", "first"])


@pytest.fixture
def bench(tmp_path):
    with Bench(tmp_path) as bench:
        yield bench


def refused(bench) -> str:
    """What is said to a table that cannot be used: exit code 2, nothing asked, nothing written."""
    for words in (["plan"], ["fetch", "--dry-run", "--field", "field"]):
        code, said = bench.cli(*words)
        assert code == 2
        assert said.startswith("galgaze: ")
    assert bench.server.requests == []
    assert {path.name for path in bench.folder.iterdir()} - {"results"} == {"config.yaml", "sky", "table.csv"}
    assert not list(bench.folder.glob("results/field/**/*.parquet"))
    return said


# ------------------------------------------------------------------------ 10: positions


BAD_ROWS = {
    "360,2": "ra = 360.0 is outside 0 <= RA < 360",
    "-0.1,2": "ra = -0.1 is outside 0 <= RA < 360",
    "10,91": "dec = 91.0 is outside -90 <= Dec <= 90",
    "2,150": "dec = 150.0 is outside -90 <= Dec <= 90; the columns of RA and Dec look swapped",
    "nan,2": "ra is empty",
    ",2": "ra is empty",
    "11 35 27.7,2": "ra = '11 35 27.7' looks sexagesimal; galgaze wants decimal degrees",
    "11h,2": "ra = '11h' looks sexagesimal",
    '"150,5",2': "ra = '150,5' has a decimal comma; write 150.5",
}


def test_fault_10_all_bad_rows_in_one_error_before_any_request(bench):
    bench.write_table([("good", "150.0,2.0"), *((f"s{n}", row) for n, row in enumerate(BAD_ROWS))])
    said = refused(bench)
    assert "these rows cannot be used (row 1 is the first data row)" in said
    for row, reason in enumerate(BAD_ROWS.values(), start=2):
        assert f"  - row {row}: {reason}" in said
    assert "row 1:" not in said


def test_fault_10_hours(bench):
    bench.write_table([("a", 10.0, 2.0)], head="source_id,ra_hours,dec")
    table = {"path": str(bench.folder / "table.csv"), "columns": {"ra_deg": "ra_hours"}}
    bench.configure(top={"fields": bench.fields({"table": table})})
    assert "seems by its name to be in hours; galgaze wants decimal degrees" in refused(bench)


EDGES = {
    "just below 360": (359.9999, 2.0),
    "nearly 360": (359.99999996, -2.0),
    "zero": (0.0, 2.5),
    "north pole": (10.0, 90.0),
    "south pole": (200.0, -90.0),
    "beside a pole": (350.0, 89.9995),
    "equator": (75.0, 0.0),
}
SEAM = {name: (180.0, 32.375 + off * 0.262 / 3600) for name, off in {"seam": 0, "above": 25, "below": -25}.items()}


def test_fault_10_edges_of_the_sky_and_the_seam(tmp_path):
    """From the table to the store, each with its own image; on the seam the north is above, the south below."""
    places = EDGES | SEAM
    files = {f"{n}.fits": legacy_fits(galaxy(seed=n), *place) for n, place in enumerate(EDGES.values())}
    sides = {"north": galaxy(120, seed=41), "south": galaxy(120, seed=42)}
    files |= {f"{side}-a.fits": legacy_fits(pixels, 180.0, 32.375) for side, pixels in sides.items()}
    with Bench(tmp_path, places=places, files=files) as bench:
        assert bench.fetch() == f"{len(places)} ok"
        assert set(bench.asked().values()) == {1}
        assert max(float(params["ra"]) for _, _, params in bench.server.requests) < 360
        rows = bench.shard()
        assert {row.status for row in rows.values()} == {"ok"}
        assert {float(row.coverage) for row in rows.values()} == {1.0}
        for row in rows.values():
            assert row.centre_px.tolist() == [7.5, 7.5]
            step = 40 * 0.262 / 16
            # which way is up at a pole itself is for the header to say, and it says it otherwise than elsewhere
            assert np.abs(row.jacobian_arcsec) == pytest.approx(np.diag([step, step]), abs=1e-4)
        for n, name in enumerate(EDGES):
            assert bench.decoded(name).pixels == pytest.approx(galaxy(seed=n), abs=1e-3)
        for name, off in {"seam": 0, "above": 25, "below": -25}.items():
            north, south = (pixels[:, 40 + off : 80 + off, 40:80] for pixels in sides.values())
            is_north = np.arange(40)[:, None] + off >= 20
            assert bench.decoded(name).pixels == pytest.approx(np.where(is_north, north, south), abs=2e-4)


def test_fault_10_first_at_right_ascension_0(tmp_path):
    """Its servers want hours, and there is no hour 24."""
    places = {"below": (359.99999, 1.0), "nearly": (359.99999996, 0.5), "zero": (0.0, 0.0), "minus": (0.0001, -0.5)}
    with Bench(tmp_path, "first", places) as bench:
        assert bench.fetch() == "4 ok"
        assert {row.status for row in bench.shard().values()} == {"ok"}
        assert bench.bodies() == {name: bench.good(name) for name in places}


# ------------------------------------------------------------------------ 11: which source is which


def test_fault_11_ids_that_are_there_twice(bench):
    rows = [("a", 150, 2), ("b", 151, 2), ("a", 150.0, 2), ("b", 151, 2.5), ("c", 150, 2)]
    bench.write_table(rows)
    said = refused(bench)
    assert "row 3: the id 'a' stands already in row 1, at the same position" in said
    assert "row 4: the id 'b' stands already in row 2, at a different position" in said
    assert "row 5" not in said


@BOTH
def test_fault_11_two_ids_at_one_position_have_an_image_each(tmp_path, kind):
    with Bench(tmp_path, kind) as bench:
        bench.configure(http={"connections": 1})
        bench.write_table([("one", *PLACES["a"]), ("other", *PLACES["a"]), ("b", *PLACES["b"])])
        assert bench.fetch() == "3 ok"
        bodies = bench.bodies()
        assert bodies["one"] == bodies["other"] == bench.good("a") != bodies["b"]
        assert list(bench.kept()) in (["a", "b"], ["b", "a"])
        rows = bench.shard()
        assert np.array_equal(rows["one"].image, rows["other"].image)
        assert not np.array_equal(rows["one"].image, rows["b"].image)


def write_parquet(bench, ids):
    frame = pd.DataFrame({"source_id": ids, "ra": [150.0, 151.0], "dec": [2.0, 2.0]})
    frame.to_parquet(bench.folder / "table.csv.parquet")
    bench.configure(table="table.csv.parquet")


def test_fault_11_integers_beyond_2_53_are_exact(bench):
    write_parquet(bench, np.array([2**53, 2**53 + 1]))
    assert bench.fetch() == "2 ok"
    assert list(bench.rows().index) == list(bench.shard()) == ["9007199254740992", "9007199254740993"]
    assert bench.bodies() == {"9007199254740992": bench.good("a"), "9007199254740993": bench.good("b")}


@pytest.mark.parametrize("ids", [np.array([2.0**53, 2.0**53 + 2]), ["9.007199254740993e+15", "9007199254740994.0"]])
def test_fault_11_integers_that_were_rounded_on_the_way(bench, ids):
    write_parquet(bench, ids)
    code, said = bench.cli("plan")
    assert code == 2
    assert (
        "holds floating-point numbers, which round integers above 2^53" in said or said.count("a rounded number") == 2
    )
    assert bench.server.requests == []


def test_fault_11_leading_zeros_are_part_of_an_id(bench):
    bench.write_table([("007", *PLACES["a"]), ("7", *PLACES["b"]), ("0", *PLACES["c"]), ("1e3", *PLACES["d"])])
    assert bench.fetch() == "4 ok"
    assert list(bench.shard()) == ["007", "7", "0", "1e3"]
    assert list(bench.bodies().values()) == [bench.good(name) for name in "abcd"]


# ------------------------------------------------------------------------ 12: hostile ids


HOSTILE = [
    "../../x", "/etc/passwd", "a/b", "a\\b", "CON", "nul.txt", ".hidden", "-rf", "~", "naïve ☉ 星", "=cmd()", "%2e%2e",
    "shard-00000", "{field}", "$HOME", "'; DROP TABLE x", "<script>alert(1)</script>", "x" * 200, "A", "a",
]  # fmt: skip


def test_fault_12_hostile_ids_are_text_and_no_paths(tmp_path):
    """The files of a run are those of a run with harmless ids; what the ids are stands within them."""
    trees, around = [], set()
    for number, names in enumerate([HOSTILE, [f"s{n}" for n in range(len(HOSTILE))]]):
        folder = tmp_path / "deep" / "down" / str(number)
        folder.mkdir(parents=True)
        with Bench(folder, places={name: (150.0 + n, 2.0) for n, name in enumerate(names)}) as bench:
            assert bench.cli_fetch()[0] == 0
            assert set(bench.statuses()) == set(bench.shard()) == set(names)
            assert set(bench.statuses().values()) == {"ok"}
            assert bench.bodies() == {name: bench.good(name) for name in names}
        expected = {"cache", "config.yaml", "hosts", "results", "sky", "table.csv"}
        assert {path.name for path in folder.iterdir()} == expected
        trees.append({path.relative_to(folder) for path in (folder / "results").rglob("*")})
        around |= {path.name for parent in folder.parents[:3] for path in parent.iterdir()}
    assert trees[0] == trees[1]
    assert around == {"deep", "down", "0", "1"}


@pytest.mark.parametrize("source_id", ["x" * 300, "a\u202eb", "a\u200bb"])
def test_fault_12_ids_that_are_refused(bench, source_id):
    bench.write_table([("good", *PLACES["a"]), (source_id, *PLACES["b"])])
    said = refused(bench)
    assert "row 2: the id" in said
    assert "at most 200 are allowed" in said or "control or invisible characters" in said
    assert source_id not in said


def test_fault_12_no_file_outside_of_the_folder_is_read(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("x.fits", "images/inside.fits"):
        (tmp_path / name).write_bytes(legacy_fits())
    places = {"../x": (RA, DEC), str(tmp_path / "x"): (RA, DEC), "images/../../x": (RA, DEC), "inside": (RA, DEC)}
    with Bench(tmp_path, places=places) as bench:
        bench.configure(top={"surveys": bench.surveys(sky={"kind": "directory", "path": str(tmp_path / "images")})})
        assert bench.fetch() == "3 no_coverage, 1 ok"
        assert bench.statuses()["inside"] == "ok"


# ------------------------------------------------------------------------ 22: nothing, or next to it


def whole(bench, number=0) -> dict:
    """The statuses of a shard's pack and store, once both have been found complete in form."""
    layout = bench.run().layout
    pack = layout.fetched("field", "sky", number)
    assert pq.read_schema(pack).equals(MANIFEST)
    marker = read_marker(layout.fetch_marker("field", "sky", number))
    assert list(marker["outputs"]) == [pack.name]
    assert {row.source_id: row.status for row in read_contents(pack)} == bench.statuses(number)
    rows = bench.shard(number)
    run = bench.run()
    group = zarr.open_group(run.layout.store("field", run.images("field", bench.task).store), mode="r")
    assert set(group.array_keys()) == set(ARRAYS)
    assert {name: row.status for name, row in rows.items()} == bench.statuses(number)
    assert all(row.is_blank or row.status == "ok" for row in rows.values())
    return bench.statuses(number)


def test_fault_22_a_table_without_rows(bench):
    bench.write_table([])
    assert "the table has no rows. A field needs at least one source" in refused(bench)


def test_fault_22_a_field_without_sources(bench):
    """Simulated fields may have none: there is a plan with all columns, and no shard to fetch."""
    bench.configure(top={"fields": bench.fields(field={"simulated": {"survey": "twin", "count": 0}})})
    assert bench.cli_fetch()[0] == 0
    assert bench.server.requests == []
    assert bench.left_nothing()
    bench.fetch(0)
    assert pq.read_table(bench.run().layout.fetched("field", "sky", 0)).equals(MANIFEST.empty_table())


@BOTH
def test_fault_22_a_shard_whose_sources_have_all_left(tmp_path, kind):
    with Bench(tmp_path, kind, shard_size=2) as bench:
        assert bench.fetch() == "2 ok"
        bench.write_table([(name, *PLACES[name]) for name in "cd"])
        assert bench.asks(lambda: bench.fetch(0)) == {}
        assert whole(bench, 0) == {}
        assert bench.fetch(1) == "2 ok"
        assert whole(bench, 1) == {"c": "ok", "d": "ok"}


@BOTH
def test_fault_22_one_source(tmp_path, kind):
    with Bench(tmp_path, kind, {"a": PLACES["a"]}, shard_size=1) as bench:
        assert bench.cli_fetch()[0] == 0
        assert whole(bench) == {"a": "ok"}
        assert bench.asked() == {"a": 1}


@BOTH
@pytest.mark.parametrize("status", ["fetch_failed", "bad_image", "no_coverage"])
def test_fault_22_a_shard_without_one_image(tmp_path, kind, status):
    places = {name: (FAR[0] + n, FAR[1]) for n, name in enumerate("abcd")} if status == "no_coverage" else PLACES
    with Bench(tmp_path, kind, places, files={} if status == "no_coverage" else None) as bench:
        if kind == "legacy" and status == "no_coverage":
            (bench.sky / "probe.fits").write_bytes(bench.image(9, (200.0, 10.0)))
            bench.server.sources = type(bench.server)(bench.sky).sources
        fault = {"fetch_failed": "503", "bad_image": "truncate_no_length", "no_coverage": "ok"}[status]
        bench.server.faults += [fault] * ALWAYS
        code, said = bench.cli_fetch()
        assert code == 0
        assert f"4 {status}" in said
        assert whole(bench) == dict.fromkeys("abcd", status)
        assert bench.rows()["status_reason"].str.len().min() > 20
        assert bench.kept() == (dict.fromkeys("abcd", status) if status == "no_coverage" else {})
