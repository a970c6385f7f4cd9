import hashlib
import math
import socket

import pytest
from astropy.table import Table

from galgaze import fields
from galgaze.config import QuerySource
from galgaze.errors import ConfigError, TransientError
from tests.servers.tap import TapServer, document, error_document

# ls_id, ra, dec, type, brick_primary, mag_g, mag_r, shape_r; ids beyond 2^53
SKY = [
    (9906620703212763, 180.00, 30.0, "EXP", 1, 15.2, 14.5, 6.0),
    (9906620703212761, 180.02, 30.0, "SER", 1, 17.9, 17.0, 4.0),
    (9906620703212762, 180.04, 30.0, "REX", 1, 20.9, 20.0, 1.0),
    (9906620703212764, 180.06, 30.0, "PSF", 1, 15.1, 15.0, 0.0),
    (9906620703212765, 180.08, 30.0, "DUP", 1, 15.1, 15.0, 0.0),
    (9906620703212766, 180.10, 30.0, "DEV", 0, 15.9, 15.0, 5.0),
    (9906620703212767, 180.12, 30.0, "DEV", 1, 15.9, math.inf, 5.0),
]
GALAXIES = {"9906620703212761", "9906620703212762", "9906620703212763", "9906620703212767"}


@pytest.fixture
def tap():
    with TapServer(SKY) as server:
        yield server


def query(tap, **changes) -> QuerySource:
    cone = {"ra_deg": 180.0, "dec_deg": 30.0, "radius_deg": 0.5}
    return QuerySource(**{"service": "noirlab", "cone": cone, "server": tap.url, **changes})


def resolved(tap, tmp_path, **changes):
    question, saved = query(tap, **changes), tmp_path / "field" / "query.ecsv"
    sha256 = fields.resolve_query(question, saved)
    assert sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert list(saved.parent.iterdir()) == [saved]
    return fields.read_query(saved, question, {}, None)


def nothing_kept(tap, tmp_path, error, message, **changes):
    with pytest.raises(error, match=message):
        fields.resolve_query(query(tap, **changes), tmp_path / "query.ecsv")
    assert list(tmp_path.iterdir()) == []


def test_primary_galaxies_with_exact_ids(tap, tmp_path):
    frame = resolved(tap, tmp_path)
    assert tuple(frame.columns) == fields.FIELD_COLUMNS
    assert frame["source_id"].tolist() == sorted(GALAXIES)
    assert frame["ra_deg"].tolist() == [180.02, 180.04, 180.0, 180.12]
    assert frame["petrosian_radius_arcsec"].isna().all()
    (asked,) = tap.queries
    assert asked["MAXREC"] == "10001"
    assert tap.user_agents[0].startswith("galgaze/")
    assert asked["QUERY"].startswith("SELECT TOP 10001 ra, dec, ls_id FROM ls_dr9.tractor WHERE dec BETWEEN ")


@pytest.mark.parametrize(
    ("cuts", "ends"),
    [
        ({"magnitude": {"brightest": 14.5, "faintest": 17}}, "31"),
        ({"magnitude": {"faintest": 16.9}}, "3"),
        ({"magnitude": {"brightest": 16}}, "12"),  # the magnitude of a negative flux is no number
        ({"magnitude": {"band": "g", "faintest": 16}}, "37"),
        ({"radius": {"smallest_arcsec": 4}}, "137"),
        ({"radius": {"smallest_arcsec": 1, "largest_arcsec": 5}}, "127"),
        ({"radius": {"largest_arcsec": 5}, "magnitude": {"faintest": 17.77}}, "1"),
    ],
)
def test_cuts(tap, tmp_path, cuts, ends):
    assert sorted(name[-1] for name in resolved(tap, tmp_path, **cuts)["source_id"]) == sorted(ends)
    kept = Table.read(tmp_path / "field" / "query.ecsv")
    assert set(kept.colnames) > ({"shape_r"} if "radius" in cuts else {"ls_id"})
    assert kept.meta["adql"] == tap.queries[0]["QUERY"]


def test_a_column_that_is_cut_by_may_be_wanted_too(tap, tmp_path):
    frame = resolved(tap, tmp_path, columns={"las_arcsec": "shape_r"}, radius={"smallest_arcsec": 5})
    assert frame["las_arcsec"].tolist() == [6.0, 5.0]
    assert tap.queries[0]["QUERY"].count("shape_r") == 2


def test_an_answer_by_way_of_a_redirect(tap, tmp_path):
    tap.redirects = True
    assert set(resolved(tap, tmp_path)["source_id"]) == GALAXIES


def test_the_answer_is_kept_whatever_its_order(tap, tmp_path):
    question, saved = query(tap), tmp_path / "query.ecsv"
    first = fields.resolve_query(question, saved)
    assert fields.resolve_query(question, saved) == first
    assert len(tap.queries) == 1
    rows = list(Table.read(saved)["ls_id"])
    saved.unlink()
    tap.rows.reverse()
    fields.resolve_query(question, saved)
    assert list(Table.read(saved)["ls_id"]) == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"magnitude": {"faintest": 18}}, r"magnitude was None, is \{'band': 'r'.*; columns was \['ls_id'\]"),
        ({"radius": {"largest_arcsec": 18}}, "radius was None, is"),
        ({"catalogue": "ls_dr10.tractor"}, "catalogue was ls_dr9.tractor, is ls_dr10.tractor"),
        ({"service": "vizier", "catalogue": "I/1"}, "service was noirlab, is None|catalogue was ls_dr9"),
    ],
)
def test_the_answer_to_another_query_is_not_taken(tap, tmp_path, change, message):
    saved = tmp_path / "query.ecsv"
    sha256 = fields.resolve_query(query(tap), saved)
    with pytest.raises(ConfigError, match=f"another query .*{message}.*Delete the file"):
        fields.resolve_query(query(tap, **change), saved)
    assert fields.resolve_query(query(tap, row_limit=7, server="elsewhere"), saved) == sha256


def test_cut_short(tap, tmp_path):
    nothing_kept(tap, tmp_path, ConfigError, "noirlab ls_dr9.tractor: .*cut short at 3 rows", row_limit=3)
    assert "TOP 4 " in tap.queries[0]["QUERY"]
    assert len(resolved(tap, tmp_path, row_limit=4)) == 4


def test_the_limit_of_the_service_itself(tap, tmp_path):
    tap.hard_limit = 2
    nothing_kept(tap, tmp_path, ConfigError, "the service cut the answer short at 2 rows. Narrow the region")


def test_nothing_found(tap, tmp_path):
    nowhere = {"ra_deg": 10, "dec_deg": -80, "radius_deg": 0.1}
    nothing_kept(tap, tmp_path, ConfigError, "ls_dr9.tractor: no rows. .*does the survey reach there", cone=nowhere)


@pytest.mark.parametrize("fault", ["503", "429", "reset", "truncate", "truncate_no_length", "truncate:10", "html"])
def test_trouble_on_the_way_can_be_rerun(tap, tmp_path, fault):
    tap.faults.append(fault)
    nothing_kept(tap, tmp_path, TransientError, "[rR]un the same command again")
    assert len(resolved(tap, tmp_path)) == 4


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.95])
def test_no_cut_of_an_answer_is_taken(tap, tmp_path, share):
    whole = document(["ra", "dec", "ls_id"], [(row[1], row[2], row[0]) for row in SKY]).encode()
    tap.body = whole[: int(len(whole) * share)]
    nothing_kept(tap, tmp_path, TransientError, "not a whole VOTable")


def test_silence(tap, tmp_path, monkeypatch):
    monkeypatch.setattr("galgaze.fields.noirlab.TIMEOUT_S", 0.2)
    tap.faults.append("stall:2")
    nothing_kept(tap, tmp_path, TransientError, "run the same command again")


@pytest.mark.parametrize("status", [200, 400, 500])
def test_errors_of_the_query(tap, tmp_path, status):
    tap.status = status
    tap.body = error_document("Table [ ls_dr9.tractor ] is not found in TapSchema").encode()
    nothing_kept(tap, tmp_path, ConfigError, "refused the query: Table .* is not found.*Correct query.catalogue")
    tap.body = error_document("canceling statement due to statement timeout").encode()
    nothing_kept(tap, tmp_path, TransientError, "canceling statement.* narrow the region")
    tap.body = tap.body.replace(b'name="QUERY_STATUS" value="ERROR"', b'QUERY_STATUS="ERROR"')
    nothing_kept(tap, tmp_path, TransientError, "canceling statement.* narrow the region")


def test_an_error_behind_some_rows(tap, tmp_path):
    rows = document(["ra", "dec", "ls_id"], [(180.0, 30.0, 1)])
    tap.body = rows.replace("</TABLE>", '</TABLE><INFO name="QUERY_STATUS" value="ERROR">lost</INFO>').encode()
    nothing_kept(tap, tmp_path, TransientError, "could not answer the query: lost")


def test_unknown_columns(tap, tmp_path):
    nothing_kept(
        tap, tmp_path, ConfigError, "refused the query: Column is not found .*: ls_ID2", columns={"source_id": "ls_ID2"}
    )
    tap.body = document(["ra", "dec"], [(180.0, 30.0)]).encode()
    nothing_kept(tap, tmp_path, ConfigError, "the answer lacks the columns 'ls_id'")


def test_servers_that_cannot_be(tap, tmp_path):
    nothing_kept(tap, tmp_path, ConfigError, "HTTP status 404. Is query.server a TAP", server=tap.url + "/x")
    nothing_kept(tap, tmp_path, ConfigError, "is not an address", server="gopher://x")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/tap"
        nothing_kept(tap, tmp_path, TransientError, "could not be asked at", server=closed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"catalogue": "ls_dr9.tractor; DROP TABLE x"}, "is not a table of the Legacy Surveys"),
        ({"catalogue": "gaia_dr3.gaia_source"}, "is not a table of the Legacy Surveys"),
        ({"columns": {"source_id": "ls_id, 1"}}, "query.columns.source_id: 'ls_id, 1' is not a column's name"),
        ({"columns": {"label": "type' OR '1'='1"}}, "query.columns.label: .* is not a column's name"),
        ({"columns": {"redshift": "z\n--"}}, "query.columns.redshift: .* is not a column's name"),
        ({"columns": {"ra_deg": "ra_ivar"}}, "query.columns.ra_deg: noirlab gives positions in 'ra'"),
        ({"magnitude": {"band": "u", "faintest": 18}}, "query.magnitude.band: ls_dr9.tractor has the bands g, r, z"),
        ({"magnitude": {"band": "i", "faintest": 18}}, "query.magnitude.band: ls_dr9.tractor has the bands g, r, z"),
    ],
)
def test_queries_that_are_refused_unasked(tap, tmp_path, changes, message):
    nothing_kept(tap, tmp_path, ConfigError, message, **changes)
    assert tap.queries == []
