import hashlib
import socket

import numpy as np
import pytest

from galgaze import fields
from galgaze.config import Columns, QuerySource
from galgaze.errors import ConfigError, TransientError
from galgaze.fields.vizier import _vizier
from tests.fields.examples import NAN, read
from tests.servers.vizier import VizierServer

SKY = [
    ("J115900.0+300000", 179.75, 30.0, 25.0, 8.0),
    ("J120000.0+300000", 180.0, 30.0, 12.5, None),
    ("J120000.0+293000", 180.0, 29.5, 3.0, 6.0),
    ("J120200.0+310000", 180.5, 31.0, 50.0, 6.0),
]


@pytest.fixture
def vizier():
    with VizierServer(SKY) as server:
        yield server


def query(vizier, **changes) -> QuerySource:
    cone = {"ra_deg": 180.0, "dec_deg": 30.0, "radius_deg": 0.6}
    return QuerySource(**{"cone": cone, "server": vizier.url, **changes})


def resolved(vizier, tmp_path, **changes):
    question, saved = query(vizier, **changes), tmp_path / "field" / "answer.ecsv"
    sha256 = fields.resolve_query(question, saved)
    assert sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    assert list(saved.parent.iterdir()) == [saved]
    return fields.read_query(saved, question, {}, None)


def test_cone(vizier, tmp_path):
    frame = resolved(vizier, tmp_path)
    assert tuple(frame.columns) == fields.FIELD_COLUMNS
    assert frame["source_id"].tolist() == [row[0] for row in SKY[:3]]
    assert frame["ra_deg"].tolist() == [row[1] for row in SKY[:3]]
    assert frame["dec_deg"].tolist() == [row[2] for row in SKY[:3]]
    (asked,) = vizier.queries
    assert asked["-source"] == "VIII/92/first14"
    assert asked["-out"] == "FIRST"
    assert asked["-out.add"] == "_RAJ2000,_DEJ2000"
    assert asked["-out.max"] == "10001"
    assert asked["-oc.form"] == "d"
    assert asked["-c"] == "180.00000000+30.00000000"
    assert asked["-c.rd"] == "0.6"


def test_box_constraints_and_more_columns(vizier, tmp_path):
    frame = resolved(
        vizier,
        tmp_path,
        cone=None,
        box={"ra_deg": 180, "dec_deg": 30, "width_deg": 1, "height_deg": 0.5},
        constraints={"Fint": ">10"},
        columns={"source_id": "FIRST", "las_arcsec": "Maj"},
    )
    assert frame["source_id"].tolist() == [row[0] for row in SKY[:2]]
    np.testing.assert_array_equal(frame["las_arcsec"], [8.0, NAN])
    (asked,) = vizier.queries
    assert asked["-c.bd"] == "1.0x0.5"
    assert asked["Fint"] == ">10"
    assert asked["-out"] == "FIRST,Maj,Fint"


def test_first_by_cone_across_ra_0_with_a_cut_in_flux(tmp_path):
    sky = [
        ("J235948.0-010000", 359.95, -1.0, 25.0, 8.0),
        ("J000012.0-010000", 0.05, -1.0, 10.5, 7.0),
        ("J000024.0-010000", 0.10, -1.0, 9.5, 7.0),
        ("J000400.0-010000", 1.0, -1.0, 25.0, 7.0),
    ]
    region = {"ra_deg": 0.0, "dec_deg": -1.0, "radius_deg": 0.2}
    with VizierServer(sky) as server:
        frame = resolved(server, tmp_path, cone=region, constraints={"Fint": ">10"})
        (asked,) = server.queries
    assert frame["source_id"].tolist() == [row[0] for row in sky[:2]]
    assert frame[["ra_deg", "dec_deg"]].to_numpy().tolist() == [[359.95, -1.0], [0.05, -1.0]]
    assert (asked["-source"], asked["Fint"], asked["-out"]) == ("VIII/92/first14", ">10", "FIRST,Fint")
    assert asked["-c"] == "0.00000000-1.00000000"


def test_the_answer_is_kept(vizier, tmp_path):
    question, saved = query(vizier), tmp_path / "answer.ecsv"
    first = fields.resolve_query(question, saved)
    vizier.rows.clear()
    assert fields.resolve_query(question, saved) == first
    assert len(vizier.queries) == 1
    assert "radius_deg: 0.6" in saved.read_text()
    assert f"{vizier.url}viz-bin/votable" in saved.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cone": {"ra_deg": 180, "dec_deg": 30, "radius_deg": 0.7}}, "cone was .*0.6.*, is .*0.7"),
        ({"constraints": {"Fint": ">10"}}, r"constraints was \{\}, is \{'Fint': '>10'\}"),
        ({"columns": {"source_id": "FIRST", "las_arcsec": "Maj"}}, r"columns was \['FIRST'\]"),
    ],
)
def test_the_answer_to_another_query_is_not_taken(vizier, tmp_path, change, message):
    saved = tmp_path / "answer.ecsv"
    sha256 = fields.resolve_query(query(vizier), saved)
    with pytest.raises(ConfigError, match=f"answer is to another query .*{message}.* Delete the file"):
        fields.resolve_query(query(vizier, **change), saved)
    with pytest.raises(ConfigError, match="another query"):
        fields.read_query(saved, query(vizier, **change), {}, None)
    assert fields.resolve_query(query(vizier, row_limit=7, server="elsewhere"), saved) == sha256


def test_a_damaged_kept_answer(vizier, tmp_path):
    saved = tmp_path / "answer.ecsv"
    saved.write_text("# %ECSV 1.0\n# ---\n# datatype: [\n")
    with pytest.raises(ConfigError, match="delete it to ask again"):
        fields.resolve_query(query(vizier), saved)


def nothing_kept(vizier, tmp_path, error, message, **changes):
    with pytest.raises(error, match=message):
        fields.resolve_query(query(vizier, **changes), tmp_path / "answer.ecsv")
    assert list(tmp_path.iterdir()) == []


def test_nothing_found(vizier, tmp_path):
    nowhere = {"ra_deg": 10, "dec_deg": -80, "radius_deg": 0.1}
    nothing_kept(vizier, tmp_path, ConfigError, "VIII/92/first14: no rows", cone=nowhere)
    nothing_kept(vizier, tmp_path, ConfigError, "VIII/1: no rows. Check the catalogue", catalogue="VIII/1")


def test_an_answer_saved_by_hand_has_sexagesimal_positions(vizier, tmp_path):
    asked = {"-source": vizier.catalogue, "-out": "FIRST,RAJ2000,DEJ2000", "-c": "180+30", "-c.rd": "1"}
    path = tmp_path / "first.vot"
    path.write_text(vizier._votable(asked | {"-out.max": "9"}))
    assert "<TD>11 59 00.000</TD><TD>+30 00 00.00</TD>" in path.read_text()
    with pytest.raises(ConfigError, match=r"'RAJ2000' .* has the unit '\"h:m:s\"'; galgaze wants deg"):
        read(path, Columns(source_id="FIRST", ra_deg="RAJ2000", dec_deg="DEJ2000"))


@pytest.mark.parametrize("limit", [1, 2])
def test_cut_short(vizier, tmp_path, limit):
    nothing_kept(vizier, tmp_path, ConfigError, f"cut short at {limit} rows. Raise row_limit", row_limit=limit)


def test_unknown_columns_of_a_query(vizier, tmp_path):
    message = r"lacks the columns 'Name', 'fint' \(did you mean 'Fint'\?\).*VizieR says: Column 'Name' unknown"
    vizier.body = vizier._votable(
        {"-source": vizier.catalogue, "-out": "Name,fint,Fint", "-out.add": "_RAJ2000,_DEJ2000"}
        | {"-c": "180+30", "-c.rd": "1", "-out.max": "9"}
    ).encode()
    changes = {"columns": {"source_id": "Name"}, "constraints": {"fint": ">1"}}
    nothing_kept(vizier, tmp_path, ConfigError, message, **changes)


def test_several_tables(vizier, tmp_path):
    body = vizier._votable({"-source": vizier.catalogue, "-c": "180+30", "-c.rd": "1", "-out.max": "9"} | OUT)
    resource = body[body.index("<RESOURCE") : body.index("</VOTABLE>")]
    vizier.body = body.replace(resource, resource + resource.replace("first14", "other").replace("yCat", "y")).encode()
    nothing_kept(vizier, tmp_path, ConfigError, "several tables.*: VIII/92/first14, VIII/92/other")


OUT = {"-out": "FIRST", "-out.add": "_RAJ2000,_DEJ2000"}


def test_duplicate_names_in_an_answer(vizier, tmp_path):
    vizier.rows.append(vizier.rows[0] | {"_RAJ2000": 180.1})
    with pytest.raises(ConfigError, match=r"row 4: the id 'J115900.0\+300000' stands already in row 1, at a diff"):
        resolved(vizier, tmp_path)


@pytest.mark.parametrize("fault", ["503", "429", "reset", "truncate", "truncate_no_length", "html"])
def test_trouble_on_the_way_can_be_rerun(vizier, tmp_path, fault):
    vizier.faults.append(fault)
    nothing_kept(vizier, tmp_path, TransientError, "[rR]un the same command again")
    assert len(resolved(vizier, tmp_path)) == 3


def test_silence(vizier, tmp_path, monkeypatch):
    monkeypatch.setattr("galgaze.fields.vizier.VIZIER_TIMEOUT_S", 0.2)
    vizier.faults.append("stall:2")
    nothing_kept(vizier, tmp_path, TransientError, "run the same command again")


def test_an_error_that_vizier_reports(vizier, tmp_path):
    info = '<INFO name="QUERY_STATUS" value="ERROR">no database</INFO>'
    vizier.body = f'<?xml version="1.0"?><VOTABLE version="1.4">{info}</VOTABLE>'.encode()
    nothing_kept(vizier, tmp_path, TransientError, "VizieR failed .VizieR says: ERROR no database")


def test_servers_that_cannot_be(vizier, tmp_path):
    nothing_kept(vizier, tmp_path, ConfigError, "HTTP status 404. Is query.server", server=vizier.url + "x")
    nothing_kept(vizier, tmp_path, ConfigError, "is not an address", server="gopher://x")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
        nothing_kept(vizier, tmp_path, TransientError, "could not be asked at", server=closed)


def test_a_mirror_is_a_host_or_an_address(vizier):
    assert _vizier(query(vizier))._server_to_url() == f"{vizier.url}viz-bin/votable"
    named = query(vizier, server="vizier.cfa.harvard.edu")
    assert _vizier(named)._server_to_url() == "https://vizier.cfa.harvard.edu/viz-bin/votable"
    standard = query(vizier, server=None)
    assert _vizier(standard)._server_to_url() == "https://vizier.cds.unistra.fr/viz-bin/votable"


@pytest.mark.parametrize(
    "changes",
    [
        {"constraints": {"-out.max": "1"}},
        {"constraints": {"Fint": ">1\n-out.max=1"}},
        {"constraints": {"Fint": " "}},
        {"columns": {"source_id": "FIRST", "ra_deg": "RAopt"}},
    ],
)
def test_queries_that_are_refused_unasked(vizier, tmp_path, changes):
    nothing_kept(vizier, tmp_path, ConfigError, "not a column and a condition|computed _RAJ2000", **changes)
    assert vizier.queries == []


def test_integer_names_and_padding(vizier, tmp_path):
    body = vizier._votable({"-source": vizier.catalogue, "-c": "180+30", "-c.rd": "0.6", "-out.max": "9"} | OUT)
    vizier.body = body.replace("<TD>J1159", "<TD>  J1159").encode()
    assert resolved(vizier, tmp_path / "a")["source_id"][0] == "J115900.0+300000"
    vizier.body = body.replace('arraysize="16"', 'arraysize="*"').encode()
    assert resolved(vizier, tmp_path / "c")["source_id"].tolist() == [row[0] for row in SKY[:3]]
    assert "json" not in (tmp_path / "c" / "field" / "answer.ecsv").read_text()
    numbers = body.replace('datatype="char" arraysize="16"', 'datatype="long"')
    for number, row in enumerate(SKY):
        numbers = numbers.replace(row[0], str(1237648720693755918 + number))
    vizier.body = numbers.encode()
    assert resolved(vizier, tmp_path / "b")["source_id"][1] == "1237648720693755919"
