import gzip
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import MaskedColumn

from galgaze import fields
from galgaze.config import Columns
from galgaze.errors import ConfigError
from galgaze.tasks import OPTICAL_MORPHOLOGY
from tests.fields.examples import ENDINGS, NAN, example, expected, read, read_csv, refused, write

# ----------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_frame(tmp_path, ending):
    frame = read(write(example(), tmp_path / f"t{ending}"))
    assert tuple(frame.columns) == fields.FIELD_COLUMNS
    pd.testing.assert_frame_equal(frame, expected(), check_exact=True)
    assert fields.source_list_sha256(frame) == fields.source_list_sha256(expected())


def test_endings_in_capitals(tmp_path):
    assert len(read(write(example(), tmp_path / "t.csv").rename(tmp_path / "T.CSV"))) == 3


def test_columns_that_the_table_lacks_are_absent(tmp_path):
    frame = read_csv(tmp_path, "source_id,ra,dec\na,1,2\n")
    assert frame[["redshift", "las_arcsec", "petrosian_radius_arcsec"]].isna().all(axis=None)
    assert frame["label"].tolist() == [None]
    assert frame.dtypes["redshift"] == np.float64
    assert frame.dtypes["label"] == np.dtype(object)


def test_byte_order_mark_blank_lines_and_quotes(tmp_path):
    frame = read_csv(tmp_path, '\ufeffsource_id,ra,dec\n\n"a, b",1,2\n\n"c",3,4\n')
    assert frame["source_id"].tolist() == ["a, b", "c"]


@pytest.mark.parametrize("ending", [".parquet", ".fits", ".vot"])
def test_integer_ids_become_decimal_integers(tmp_path, ending):
    table = example()
    table["name"] = np.array([1237648720693755918, 9007199254740993, 5])
    ids = read(write(table, tmp_path / f"t{ending}"))["source_id"].tolist()
    assert ids == ["1237648720693755918", "9007199254740993", "5"]


@pytest.mark.parametrize("ending", [".parquet", ".fits", ".vot"])
def test_float_ids_are_refused(tmp_path, ending):
    table = example()
    table["name"] = [1237648720693755918.0, 2.0, 3.0]
    with pytest.raises(ConfigError, match=r"'name' \(columns.source_id\) holds floating-point.*2\^53"):
        read(write(table, tmp_path / f"t{ending}"))


@pytest.mark.parametrize("damaged", ["1237648720693755904.0", "1.23764872069376E+18"])
def test_ids_that_a_spreadsheet_rounded_are_refused(tmp_path, damaged):
    message = refused(tmp_path, f"source_id,ra,dec\n1.5e3,1,1\n{damaged},1,2\n")
    assert f"row 2: the id '{damaged}' is a rounded number" in message
    assert "row 1" not in message.replace("(row 1 is", "")


def test_integer_ids_with_gaps_are_empty_ids(tmp_path):
    table = example()
    table["name"] = MaskedColumn([1, 2, 3], mask=[False, True, False])
    for ending in (".fits", ".vot"):
        with pytest.raises(ConfigError, match="row 2: the id is empty"):
            read(write(table, tmp_path / f"t{ending}"))


@pytest.mark.parametrize("ending", [".fits", ".vot"])
def test_masked_values(tmp_path, ending):
    table = example()
    table["z"] = MaskedColumn([0.1, 0.2, 0.3], mask=[False, True, False])
    frame = read(write(table, tmp_path / f"t{ending}"))
    np.testing.assert_array_equal(frame["redshift"], [0.1, NAN, 0.3])
    table["ra"] = MaskedColumn([1.0, 2.0, 3.0], mask=[True, False, False])
    (tmp_path / f"t{ending}").unlink()
    with pytest.raises(ConfigError, match="row 1: ra is empty"):
        read(write(table, tmp_path / f"t{ending}"))


@pytest.mark.parametrize("ending", [".fits", ".vot"])
def test_units(tmp_path, ending):
    table = example()
    table["ra"].unit = table["dec"].unit = "deg"
    table["las"].unit = "arcsec"
    assert len(read(write(table, tmp_path / f"good{ending}"))) == 3
    table["ra"].unit = "h"
    with pytest.raises(ConfigError, match=r"'ra' \(columns.ra_deg\) has the unit 'h.*galgaze wants deg"):
        read(write(table, tmp_path / f"hours{ending}"))
    table["ra"].unit = "deg"
    table["las"].unit = "arcmin"
    with pytest.raises(ConfigError, match=r"'las' .* has the unit 'arcmin'; galgaze wants arcsec"):
        read(write(table, tmp_path / f"arcmin{ending}"))


def test_padding_of_fixed_widths_is_no_part_of_a_text(tmp_path):
    table = example()
    table["name"], table["class"] = ["a  ", "b", "c d"], ["FRI  ", "     ", "FRII "]
    table.write(tmp_path / "binary.vot", format="votable", tabledata_format="binary")
    for path in (
        tmp_path / "binary.vot",
        write(table, tmp_path / "t.vot"),
        write(table, tmp_path / "t.fits"),
    ):
        frame = read(path)
        assert frame["source_id"].tolist() == ["a", "b", "c d"]
        assert frame["label"].tolist() == ["FRI", None, "FRII"]


def test_units_of_parquet_columns(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    names = ["source_id", "ra", "dec"]
    schema = pa.schema(
        [
            pa.field("source_id", pa.string()),
            pa.field("ra", pa.float32(), metadata={"unit": "rad"}),
            pa.field("dec", pa.int16()),
        ]
    )
    parquet.write_table(pa.table([["a"], [1.5], [2]], schema=schema), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=r"'ra' .* has the unit 'rad'"):
        read(tmp_path / "t.parquet", Columns())
    parquet.write_table(pa.table([["a"], [1.5], [2]], names), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", Columns()).loc[0, ["ra_deg", "dec_deg"]].tolist() == [1.5, 2.0]


def test_parquet_categories_and_nulls(tmp_path):
    frame = pd.DataFrame({"source_id": ["a", "b"], "ra": [1.0, 2.0], "dec": [1, 2], "class": ["FRI", None]})
    frame.astype({"class": "category"}).to_parquet(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", Columns(label="class"))["label"].tolist() == ["FRI", None]


# -------------------------------------------------------------------------------------- files gone wrong


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=rf"no such file \(paths count from {re.escape(os.getcwd())}\)"):
        read(tmp_path / "t.csv")


def test_a_folder_and_an_unknown_ending(tmp_path):
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "d.csv")
    with pytest.raises(ConfigError, match=r"does not know this kind of file. It reads \.csv, .*\.parquet"):
        read(tmp_path / "t.xlsx")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_web_page_or_nothing_under_a_tables_name(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.write_text("\n<!DOCTYPE html><html><body>Not found</body></html>")
    with pytest.raises(ConfigError, match=r"web page \(HTML\)"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="is empty"):
        read(path)


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != ".csv"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_files_cut_short(tmp_path, ending, share):
    path = write(example(), tmp_path / f"t{ending}")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ConfigError, match=r"damaged, cut short|readable CSV"):
        read(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_noise(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(ConfigError):
        read(path)


def test_numbers_that_a_votable_reader_would_mask(tmp_path):
    path = write(example(), tmp_path / "t.vot")
    text = path.read_text()
    path.write_text(text.replace("<TD>12.5</TD>", "<TD>12,5</TD>"))
    with pytest.raises(ConfigError, match="'12,5'"):
        read(path)


def test_votables_with_a_link_or_two_tables(tmp_path):
    path = write(example(), tmp_path / "t.vot")
    text = path.read_text()
    table = text[text.index("<TABLE") : text.index("</TABLE>") + len("</TABLE>")]
    path.write_text(text.replace(table, table + table.replace('ID="', 'ID="x')))
    with pytest.raises(ConfigError, match="holds 2 tables"):
        read(path)
    data = text[text.index("<TABLEDATA") : text.index("</TABLEDATA>") + len("</TABLEDATA>")]
    path.write_text(text.replace(data, '<BINARY><STREAM href="file:///etc/passwd"/></BINARY>'))
    with pytest.raises(ConfigError, match="only a link"):
        read(path)


def test_columns_of_arrays_are_refused(tmp_path):
    table = example()
    table["z"] = np.ones((3, 2))
    for ending in (".fits", ".vot"):
        with pytest.raises(ConfigError, match=r"row 1 holds .* where one number or text is needed"):
            read(write(table, tmp_path / f"t{ending}"))


def test_csv_that_is_not_quite(tmp_path):
    assert "not UTF-8" in refused(tmp_path, "source_id,ra,dec\né,1,2\n".encode("latin-1"))
    assert "decimal commas" in refused(tmp_path, "source_id,ra,dec\na,1,5,2\n")
    assert "row 2: Expected 3 columns, got 2" in refused(tmp_path, "source_id,ra,dec\na,1,5\nb,1\n")
    message = refused(tmp_path, "source_id;ra;dec\na;1,5;2,5\n".replace(",", "."))
    assert "separated by something else than commas" in message


def test_no_rows(tmp_path):
    assert "the table has no rows" in refused(tmp_path, "source_id,ra,dec\n")
    for ending in (".parquet", ".fits", ".vot"):
        with pytest.raises(ConfigError, match="the table has no rows"):
            read(write(example()[:0], tmp_path / f"t{ending}"))


def test_line_breaks_in_a_text_of_a_csv(tmp_path):
    text = "x\n\n" * 500_000  # longer than what pyarrow reads at once
    frame = read_csv(tmp_path, f'source_id,ra,dec,note\na,1,2,"{text}"\nb,3,4,\n')
    assert frame["source_id"].tolist() == ["a", "b"]


def test_missing_columns(tmp_path):
    message = refused(tmp_path, "SOURCE_ID,ra_deg,Dec,redshft\na,1,2,3\n", redshift="redshift", label="kind")
    assert "there is no column 'source_id' (did you mean 'SOURCE_ID'?); set columns.source_id" in message
    assert "there is no column 'ra' (did you mean 'ra_deg'?); set columns.ra_deg" in message
    assert "there is no column 'dec' (did you mean 'Dec'?)" in message
    assert "'redshift' (did you mean 'redshft'?); set columns.redshift" in message
    assert "there is no column 'kind'; set columns.label" in message
    assert "The table has: 'SOURCE_ID', 'ra_deg', 'Dec', 'redshft'" in message


def test_a_column_twice(tmp_path):
    assert "'ra' (columns.ra_deg) stands 2 times" in refused(tmp_path, "source_id,ra,ra,dec\na,1,2,3\n")


# ----------------------------------------------------------------------------------------------- real data


@pytest.fixture
def test_data() -> Path:
    if "GALGAZE_TEST_DATA" not in os.environ:
        pytest.skip("GALGAZE_TEST_DATA does not name the folder of real data")
    return Path(os.environ["GALGAZE_TEST_DATA"])


def test_mirabest(test_data, tmp_path):
    columns = Columns(ra_deg="ra_deg", dec_deg="dec_deg", redshift="redshift", las_arcsec="las_arcsec", label="label")
    labels = {str(code): {1: "FRI", 2: "FRII", 3: None}[code // 100] for code in range(100, 400)}
    path = test_data / "first" / "mirabest" / "sources.csv"
    frame = read(path, columns, labels)
    assert len(frame) == 1099
    assert frame["label"].value_counts(dropna=False).to_dict() == {"FRII": 552, "FRI": 517, None: 30}
    assert frame["source_id"][0] == "100_162.947+055.386_0.0739_0250.34"
    assert frame["source_id"].map(fields.safe_name).equals(frame["source_id"])
    assert frame["redshift"].between(0, 1).all()
    with pytest.raises(ConfigError, match=r"'200' \(378 rows\), '100' \(297 rows\)"):
        read(path, columns)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    again = read(tmp_path / "t.csv.gz", columns, labels)
    assert fields.source_list_sha256(again) == fields.source_list_sha256(frame)


def test_galaxy10(test_data):
    columns = Columns(
        source_id="g10_index",
        redshift="hart_z",
        petrosian_radius_arcsec="nsa_petro_theta",
        label="galaxy10_class",
    )
    classes = OPTICAL_MORPHOLOGY.classes
    path = test_data / "decals" / "galaxy10_positions.csv"
    frame = read(path, columns, {str(index): name for index, name in enumerate(classes)}, classes)
    assert len(frame) == 17538
    assert frame["label"].nunique() == 10
    assert frame["petrosian_radius_arcsec"].count() == 727
    assert frame["ra_deg"][0] == 331.66405522483547
