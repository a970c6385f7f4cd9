import contextlib
import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from galgaze import fields
from galgaze.config import Columns
from galgaze.errors import ConfigError
from galgaze.fields.rows import ROUNDED_ID
from galgaze.tasks import OPTICAL_MORPHOLOGY
from tests.fields.examples import NAN, example, expected, read, read_csv, refused, write

# ----------------------------------------------------------------------------------------------- positions


@pytest.mark.parametrize(
    ("ra", "dec", "message"),
    [
        ("360", "0", "row 1: ra = 360.0 is outside 0 <= RA < 360"),
        ("-0.1", "0", "row 1: ra = -0.1 is outside 0 <= RA < 360"),
        ("0", "90.0001", "row 1: dec = 90.0001 is outside -90 <= Dec <= 90"),
        ("200", "91", "row 1: dec = 91.0 is outside -90 <= Dec <= 90\n"),
        ("-40", "183.5", "row 1: dec = 183.5 is outside -90 <= Dec <= 90; the columns of RA and Dec look sw"),
        ("12:34:56", "0", "row 1: ra = '12:34:56' looks sexagesimal; galgaze wants decimal degrees"),
        ("11h 35m", "0", "row 1: ra = '11h 35m' looks sexagesimal"),
        ("11h", "0", "row 1: ra = '11h' looks sexagesimal"),
        ("0", "-00 12 34.5", "row 1: dec = '-00 12 34.5' looks sexagesimal"),
        ("0", "+12°34'", "looks sexagesimal"),
        ('"12,5"', "0", "row 1: ra = '12,5' has a decimal comma; write 12.5"),
        ("", "0", "row 1: ra is empty"),
        ("0", "NaN", "row 1: dec is empty"),
        ("inf", "0", "row 1: ra = 'inf' is not a number"),
        ("1e999", "0", "row 1: ra = '1e999' is not finite"),
        ("1_0", "0", "row 1: ra = '1_0' is not a number"),
        ("0x10", "0", "row 1: ra = '0x10' is not a number"),
        ("\u0663", "0", "is not a number"),
        ("\x1b[2J", "0", r"ra = '\x1b[2J' is not a number"),
    ],
)
def test_a_bad_position(tmp_path, ra, dec, message):
    assert message in refused(tmp_path, f"source_id,ra,dec\na,{ra},{dec}\n") + "\n"


def test_all_bad_rows_are_counted_and_the_first_ten_listed(tmp_path):
    rows = ["good,1,1"] + [f"s{row},12:00:00,99" for row in range(2, 9)] + ["a,,0", "a,1,0"]
    message = refused(tmp_path, "source_id,ra,dec\n" + "\n".join(rows))
    assert message.count("\n  - row ") == 10
    assert message.index("row 2: ra = '12:00:00'") < message.index("row 2: dec = 99.0") < message.index("row 3:")
    assert message.endswith("and 6 more")


def test_optional_numbers(tmp_path):
    head = "source_id,ra,dec,z,las,petro\n"
    columns = {"redshift": "z", "las_arcsec": "las", "petrosian_radius_arcsec": "petro"}
    frame = read_csv(tmp_path, head + "a,1,2,null,N/A,\nb,1,2, 0.5 ,--,+1e1\n", **columns)
    np.testing.assert_array_equal(frame["redshift"], [NAN, 0.5])
    np.testing.assert_array_equal(frame["petrosian_radius_arcsec"], [NAN, 10.0])
    message = refused(tmp_path, head + "a,1,2,high,-99,inf\n", **columns)
    assert "z = 'high' is not a number" in message
    assert "las = -99.0 is negative; leave it empty" in message
    assert "petro = 'inf' is not a number" in message


@pytest.mark.parametrize("name", ["ra_hours", "RA [h]", "ra_hms"])
def test_a_header_that_says_hours(tmp_path, name):
    assert "to be in hours" in refused(tmp_path, f"source_id,{name},dec\na,11.5,2\n", ra_deg=name)


def test_small_right_ascensions_are_no_hours(tmp_path):
    assert len(read_csv(tmp_path, "source_id,ra,dec\na,1,2\nb,23.9,3\n")) == 2


ids = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=30)
ra_degrees = st.floats(0, 360, exclude_max=True)
dec_degrees = st.floats(-90, 90)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(ids, ra_degrees, dec_degrees), min_size=1, max_size=5, unique_by=lambda row: row[0]))
def test_ids_and_positions_survive_every_format(tmp_path_factory, rows):
    rows = [row for row in rows if not ROUNDED_ID.fullmatch(row[0])] or [("a", 1.0, 2.0)]
    columns = Columns(source_id="name")
    folder, table = tmp_path_factory.mktemp("t"), Table(rows=rows, names=("name", "ra", "dec"))
    for ending in (".csv", ".parquet", ".vot"):
        frame = read(write(table, folder / f"t{ending}"), columns)
        assert frame["source_id"].tolist() == [row[0] for row in rows]
        assert frame["ra_deg"].tolist() == [row[1] for row in rows]
        assert frame["dec_deg"].tolist() == [row[2] for row in rows]


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=12), st.floats().map(str)), st.text("0123456789:,.eE+- hmd", max_size=9))
def test_any_text_as_a_position_is_taken_whole_or_refused(tmp_path_factory, ra, dec):
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    with contextlib.suppress(UnicodeEncodeError):  # lone surrogates fit in no file
        pd.DataFrame({"source_id": ["a"], "ra": [ra], "dec": [dec]}).to_parquet(path)
    if not path.exists() or not path.stat().st_size:
        return
    try:
        frame = read(path, Columns())
    except ConfigError:
        return
    assert frame["ra_deg"].tolist() == [float(ra)]
    assert frame["dec_deg"].tolist() == [float(dec)]
    assert 0 <= frame["ra_deg"][0] < 360
    assert -90 <= frame["dec_deg"][0] <= 90


# ----------------------------------------------------------------------------------------------------- ids


@pytest.mark.parametrize(
    ("source_id", "message"),
    [
        ("", "the id is empty"),
        ("x" * 300, "has 300 characters; at most 200 are allowed"),
        (" a", "the id ' a' begins or ends with white space"),
        ("a\t", "begins or ends with white space"),
        ("a\nb", r"the id 'a\nb' has control or invisible characters"),
        ("a\x00b", "control or invisible"),
        ("a\u202eb", "control or invisible"),
        ("a\u200bb", "control or invisible"),
    ],
)
def test_refused_ids(source_id, message):
    with pytest.raises(ConfigError, match=re.escape(f"row 2: {message}") + "|" + re.escape(message)):
        fields.check_ids(["good", source_id])


@pytest.mark.parametrize("source_id", ["../../x", "a/b", "CON", "naïve é", "=cmd()", "星", "x" * 200, "007", "A b"])
def test_hostile_ids_are_kept_as_they_are(tmp_path, source_id):
    assert read_csv(tmp_path, f"source_id,ra,dec\n{source_id},1,2\n")["source_id"].tolist() == [source_id]


def test_duplicates(tmp_path):
    message = refused(tmp_path, "source_id,ra,dec\na,1,2\nb,1,2\na,1.0,2\nb,1,3\n007,1,2\n7,1,2\n")
    assert "row 3: the id 'a' stands already in row 1, at the same position" in message
    assert "row 4: the id 'b' stands already in row 2, at a different position" in message
    assert message.count("\n  - ") == 2  # two ids at one position, and 007 beside 7, are no problem
    with pytest.raises(ConfigError, match=r"row 1: the id is empty\n  - row 2: the id is empty$"):
        fields.check_ids(["", ""])
    with pytest.raises(ConfigError, match=r"sources: .*\n  - row 2: the id 'a' stands already in row 1$"):
        fields.check_ids(["a", "a"])
    fields.check_ids(["a", "A"], [1.0, 1.0], [2.0, 2.0])


@pytest.mark.parametrize("source_id", ["J0001+0002", "100_162.947+055.386_0.0739_0250.34", "0", "A" * 100])
def test_harmless_ids_are_their_file_names(source_id):
    assert fields.safe_name(source_id) == source_id


@pytest.mark.parametrize(
    "source_id",
    [
        *(
            "../../x",
            "a/b",
            "a\\b",
            "..",
            "a..b",
            "a.",
            ".hidden",
            "-rf",
            "~",
            "C:",
            "%2e%2e",
            "=cmd()",
            "星",
        ),
        *("CON", "nul.txt", "Com1", "A" * 101, "a b", "a\n", "id-" + "0" * 32),
    ],
)
def test_other_ids_get_the_name_of_their_hash(source_id):
    name = fields.safe_name(source_id)
    assert name == "id-" + hashlib.sha256(source_id.encode()).hexdigest()[:32]


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_a_name_never_leaves_its_folder(source_id):
    path = Path("folder") / fields.safe_name(source_id)
    assert path.parent == Path("folder")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", path.name)


# -------------------------------------------------------------------------------------------------- labels


def labelled(*values) -> str:
    return "source_id,ra,dec,class\n" + "".join(f"s{i},1,2,{value}\n" for i, value in enumerate(values))


def test_labels_are_mapped(tmp_path):
    labels = {"100": "FRI", "200": "FRII", "300": None}
    text = labelled("100", "200.0", "300", "", "NaN", "FRII", " FRI ")
    frame = read_csv(tmp_path, text, labels, label="class")
    assert frame["label"].tolist() == ["FRI", "FRII", None, None, None, "FRII", "FRI"]


@pytest.mark.parametrize("ending", [".parquet", ".fits", ".vot"])
@pytest.mark.parametrize("values", [[100, 200, 300], [100.0, 200.0, NAN], ["100", "200.0", ""]])
def test_labels_of_every_type(tmp_path, ending, values):
    table = example()
    table["class"] = values
    labels = {"100": "FRI", "200.0": "FRII", "300": None}
    frame = read(write(table, tmp_path / f"t{ending}"), labels=labels)
    assert frame["label"].tolist() == ["FRI", "FRII", None]


def test_unknown_labels(tmp_path):
    message = refused(tmp_path, labelled("FR1", "FR1", "fri", "FRI"), label="class")
    assert "column 'class': these labels are no classes: 'FR1' (2 rows), 'fri' (1 rows)." in message
    assert 'Map them under labels:, for example {"FR1": "FRI"}' in message
    assert message.endswith("The classes are: FRI, FRII")


def test_class_indices_are_not_guessed(tmp_path):
    message = refused(tmp_path, labelled(0, 9, 0), label="class", classes=OPTICAL_MORPHOLOGY.classes)
    assert "'0' (2 rows), '9' (1 rows). A number is not taken for a class index." in message


def test_a_target_that_is_no_class(tmp_path):
    message = refused(tmp_path, labelled("1"), labels={"1": "FR1"}, label="class")
    assert "labels: '1' is mapped to 'FR1', which is no class (did you mean 'FRI'?)" in message


def test_labels_without_classes_are_text(tmp_path):
    frame = read_csv(tmp_path, labelled("x", "1", ""), {"1": "y"}, None, label="class")
    assert frame["label"].tolist() == ["x", "y", None]


def test_labels_without_a_column(tmp_path):
    assert "columns.label names no column" in refused(tmp_path, "source_id,ra,dec\na,1,2\n", labels={"1": "FRI"})


# ---------------------------------------------------------------------------------------------------- hash


def test_source_list_hash():
    frame = expected()
    reference = fields.source_list_sha256(frame)
    assert re.fullmatch("[0-9a-f]{64}", reference)
    assert fields.source_list_sha256(frame.copy()) == reference
    assert fields.source_list_sha256(frame.replace({"ra_deg": {0.0: -0.0}})) == reference
    assert fields.source_list_sha256(frame[::-1].reset_index(drop=True)) != reference
    for name, value in [("ra_deg", 1e-9), ("label", "FRII"), ("redshift", 0.2), ("source_id", "7")]:
        changed = frame.copy()
        changed.loc[0, name] = value
        assert fields.source_list_sha256(changed) != reference
