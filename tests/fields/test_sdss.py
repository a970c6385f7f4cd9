import hashlib
import socket

import numpy as np
import pytest
from astropy.table import Table

from galgaze import fields
from galgaze.config import QuerySource
from galgaze.errors import ConfigError, TransientError
from tests.fields.examples import NAN
from tests.servers.sdss import SdssServer, error_page

FIRST_ID = 1237648720693755918  # as a float64 it would be another object's
# objID, ra, dec, mode, type, petroMag_g, petroMag_r, petroRad_r, specObjID
PHOTO = [
    (FIRST_ID + 2, 180.00, -0.5, 1, 3, 15.2, 14.5, 22.5, 320932083365079040),
    (FIRST_ID, 180.02, -0.5, 1, 3, 17.9, 17.0, 9.0, 0),
    (FIRST_ID + 1, 180.04, -0.5, 1, 3, 20.9, 20.0, -9999.0, 320932083365079041),
    (FIRST_ID + 3, 180.06, -0.5, 2, 3, 15.1, 15.0, 8.0, 0),
    (FIRST_ID + 4, 180.08, -0.5, 1, 6, 15.1, 15.0, 8.0, 0),
    (FIRST_ID + 5, 180.10, -0.5, 1, 3, 15.9, -9999.0, 7.0, 320932083365079042),
]
SPEC = [(320932083365079040, 0.0214, 0), (320932083365079041, 0.5, 4), (320932083365079042, 0.11, 0)]
GALAXIES = [str(FIRST_ID + step) for step in (0, 1, 2, 5)]


@pytest.fixture
def sdss():
    with SdssServer(PHOTO, SPEC) as server:
        yield server


def query(sdss, **changes) -> QuerySource:
    cone = {"ra_deg": 180.0, "dec_deg": -0.5, "radius_deg": 0.5}
    return QuerySource(**{"service": "sdss", "cone": cone, "server": sdss.url, **changes})


def resolved(sdss, tmp_path, **changes):
    question, saved = query(sdss, **changes), tmp_path / "field" / "query.ecsv"
    sha256 = fields.resolve_query(question, saved)
    assert sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert list(saved.parent.iterdir()) == [saved]
    return fields.read_query(saved, question, {}, None)


def nothing_kept(sdss, tmp_path, error, message, **changes):
    with pytest.raises(error, match=message):
        fields.resolve_query(query(sdss, **changes), tmp_path / "query.ecsv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("catalogue", ["Galaxy", "PhotoObj"])
def test_primary_galaxies_with_exact_ids_sizes_and_redshifts(sdss, tmp_path, catalogue):
    frame = resolved(sdss, tmp_path, catalogue=catalogue)
    assert tuple(frame.columns) == fields.FIELD_COLUMNS
    assert frame["source_id"].tolist() == GALAXIES
    assert frame["ra_deg"].tolist() == [180.02, 180.04, 180.0, 180.1]
    np.testing.assert_array_equal(frame["petrosian_radius_arcsec"], [9.0, NAN, 22.5, 7.0])
    np.testing.assert_array_equal(frame["redshift"], [NAN, NAN, 0.0214, 0.11])
    (asked,) = sdss.queries
    assert asked.startswith("SELECT TOP 10001 ")
    assert "dbo.fGetNearbyObjEq(180.0, -0.5, 30.0)" in asked


def test_the_kept_answer_has_units_and_its_query(sdss, tmp_path):
    resolved(sdss, tmp_path, magnitude={"faintest": 17.77})
    kept = Table.read(tmp_path / "field" / "query.ecsv")
    assert {name: str(kept[name].unit) for name in ("ra", "dec", "petroRad_r", "petroMag_r")} == {
        "ra": "deg",
        "dec": "deg",
        "petroRad_r": "arcsec",
        "petroMag_r": "mag",
    }
    assert kept["objID"].dtype.kind == "U"
    assert kept.meta["sql"] == sdss.queries[0]
    assert kept.meta["query"]["release"] == 17
    assert sdss.requests[0][1] == "/dr17/en/tools/search/x_results.aspx"


@pytest.mark.parametrize(
    ("cuts", "steps"),
    [
        ({"magnitude": {"brightest": 14.5, "faintest": 17}}, [0, 2]),
        ({"magnitude": {"faintest": 17.77}}, [0, 2]),  # -9999 is no magnitude
        ({"magnitude": {"brightest": 17.0}}, [0, 1]),
        ({"magnitude": {"band": "g", "faintest": 16}}, [2, 5]),
        ({"radius": {"smallest_arcsec": 9.0}}, [0, 2]),
        ({"radius": {"largest_arcsec": 9.0}}, [0, 5]),  # -9999 is no radius
        ({"radius": {"smallest_arcsec": 3}, "magnitude": {"faintest": 15}}, [2]),
    ],
)
def test_cuts(sdss, tmp_path, cuts, steps):
    assert resolved(sdss, tmp_path, **cuts)["source_id"].tolist() == [str(FIRST_ID + step) for step in steps]


def test_without_redshifts_no_spectra_are_joined(sdss, tmp_path):
    frame = resolved(sdss, tmp_path, columns={"redshift": None, "petrosian_radius_arcsec": None})
    assert frame["redshift"].isna().all()
    assert frame["petrosian_radius_arcsec"].isna().all()
    assert "SpecObj AS" not in sdss.queries[0]


def test_the_answer_is_kept(sdss, tmp_path):
    question, saved = query(sdss), tmp_path / "query.ecsv"
    first = fields.resolve_query(question, saved)
    assert fields.resolve_query(question, saved) == first
    assert len(sdss.queries) == 1
    with pytest.raises(ConfigError, match=r"another query .*radius was None, is .*Delete the file"):
        fields.resolve_query(query(sdss, radius={"largest_arcsec": 9}), saved)
    with pytest.raises(ConfigError, match=r"another query .*service was sdss, is noirlab"):
        fields.resolve_query(query(sdss, service="noirlab"), saved)
    assert fields.resolve_query(query(sdss, row_limit=7, server="elsewhere"), saved) == first


def test_cut_short(sdss, tmp_path):
    nothing_kept(sdss, tmp_path, ConfigError, r"SDSS Galaxy: .*cut short at 3 rows \(4 match\)", row_limit=3)
    assert "TOP 4 " in sdss.queries[0]
    sdss.hard_limit = 3
    nothing_kept(sdss, tmp_path, TransientError, "sent 3 of 4 rows.*limit of its own: narrow the region")
    sdss.hard_limit = 500_000
    assert len(resolved(sdss, tmp_path, row_limit=4)) == 4


def test_nothing_found(sdss, tmp_path):
    nowhere = {"ra_deg": 10, "dec_deg": -80, "radius_deg": 0.1}
    nothing_kept(sdss, tmp_path, ConfigError, "SDSS Galaxy: no rows. .*does the survey reach there", cone=nowhere)
    sdss.body = b"No objects have been found"
    nothing_kept(sdss, tmp_path, ConfigError, "SDSS Galaxy: no rows")


@pytest.mark.parametrize("fault", ["503", "429", "reset", "truncate", "truncate_no_length", "truncate:10", "html"])
def test_trouble_on_the_way_can_be_rerun(sdss, tmp_path, fault):
    sdss.faults.append(fault)
    nothing_kept(sdss, tmp_path, TransientError, "[rR]un the same command again")
    assert len(resolved(sdss, tmp_path)) == 4


def test_no_cut_of_an_answer_is_taken(sdss, tmp_path):
    resolved(sdss, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    names, rows = sdss._select(sdss.queries[0])
    lines = ["#Table1", ",".join(names), *(",".join(map(str, row)) for row in rows)]
    for text in ("\n".join(lines[:4]) + "\n", "\n".join(lines[:5]) + "\n", "\n".join(lines), lines[1][:20]):
        sdss.body = text.replace("None", "null").encode()
        nothing_kept(sdss, tmp_path / "cut", TransientError, "not a whole CSV|sent . of 4 rows")


@pytest.mark.parametrize("body", [b"", b"\n\n", b"\xff\xfe\x00", b"ra,dec\n1,2\n", b'{"message": "down"}', b"<html/>"])
def test_answers_that_are_no_table(sdss, tmp_path, body):
    sdss.body = body
    nothing_kept(sdss, tmp_path, TransientError, "not a whole CSV table.*another query.server")


def test_numbers_that_are_none(sdss, tmp_path):
    sdss.body = b"ra,dec,objID,z,petroRad_r,matching_rows\n1,2x,3,null,5,1\n"
    nothing_kept(sdss, tmp_path, TransientError, "not a whole CSV table .dec: could not convert")


def test_silence(sdss, tmp_path, monkeypatch):
    monkeypatch.setattr("galgaze.fields.sdss.TIMEOUT_S", 0.2)
    sdss.faults.append("stall:2")
    nothing_kept(sdss, tmp_path, TransientError, "run the same command again")


@pytest.mark.parametrize("status", [200, 400, 500])
def test_errors_of_the_query(sdss, tmp_path, status):
    sdss.status, sdss.body = status, error_page("Invalid object name 'Galxy'.").body
    nothing_kept(sdss, tmp_path, ConfigError, "refused the query: .*Invalid object name 'Galxy'.*Correct query.catal")
    if status != 400:
        sdss.body = error_page("Timeout expired.").body
        nothing_kept(sdss, tmp_path, TransientError, "Timeout expired|HTTP status 500")


def test_unknown_columns(sdss, tmp_path):
    nothing_kept(sdss, tmp_path, ConfigError, "refused the query: .*Invalid column name g.id", columns={"label": "id"})


def test_servers_that_cannot_be(sdss, tmp_path):
    nothing_kept(sdss, tmp_path, ConfigError, "HTTP status 404. Is query.server a SkyS", server=sdss.url + "/x")
    nothing_kept(sdss, tmp_path, ConfigError, "is not an address", server="gopher://x")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
        nothing_kept(sdss, tmp_path, TransientError, "could not be asked at", server=closed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"catalogue": "Galaxy; DROP TABLE x"}, "is not a table of SDSS"),
        ({"columns": {"source_id": "objID, 1"}}, "query.columns.source_id: 'objID, 1' is not a column's name"),
        ({"columns": {"redshift": "z AS z --"}}, "query.columns.redshift: .* is not a column's name"),
        ({"columns": {"dec_deg": "b"}}, "query.columns.dec_deg: sdss gives positions in 'dec', not in 'b'"),
    ],
)
def test_queries_that_are_refused_unasked(sdss, tmp_path, changes, message):
    nothing_kept(sdss, tmp_path, ConfigError, message, **changes)
    assert sdss.queries == []
