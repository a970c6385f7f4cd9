import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galgaze.catalogue.columns import attention_column, catalogue_columns
from galgaze.catalogue.documentation import columns_page
from galgaze.catalogue.writer import healpix_29, read_provenance, to_arrow, write_catalogue
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_FR, TASKS

ROOT = Path(__file__).parents[2]


def one_row(task) -> pd.DataFrame:
    """A value in every column that is never null."""
    values = {}
    for column in catalogue_columns(task):
        if not column.null:
            values[column.name] = ["x"] if pa.types.is_string(column.dtype) else [1]
    return pd.DataFrame(values)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_names_are_lower_snake_case_and_unique(task):
    names = [column.name for column in catalogue_columns(task)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"_?[a-z][a-z0-9_]*", name) for name in names)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_units_in_names_agree_with_units(task):
    for column in catalogue_columns(task):
        for ending, unit in (("_arcsec", "arcsec"), ("_arcsec2", "arcsec2"), ("_deg", "deg"), ("_px", "pix")):
            if column.name.endswith(ending):
                assert column.unit == unit, column.name


def test_every_column_is_described():
    for column in catalogue_columns(OPTICAL_MORPHOLOGY):
        assert len(column.description) > 8
        assert column.ucd


def test_only_tasks_with_bars_have_bar_columns():
    assert not any("bar" in column.name for column in catalogue_columns(RADIO_FR))
    assert any(column.name == "bar_length_arcsec" for column in catalogue_columns(OPTICAL_MORPHOLOGY))


def test_attention_names():
    assert attention_column("effective_area_arcsec2", 2) == "attention_effective_area_gate2_arcsec2"
    assert attention_column("entropy", 1) == "attention_entropy_gate1"


def test_missing_columns_and_nan_become_null_and_dtypes_are_fixed():
    frame = one_row(OPTICAL_MORPHOLOGY).assign(bar_length_px=np.nan, redshift=0.1)
    table = to_arrow(frame, catalogue_columns(OPTICAL_MORPHOLOGY))
    assert table["bar_length_px"].null_count == 1
    assert table["class_label"].null_count == 1
    assert table["redshift"].to_pylist() == [0.1]
    assert table.schema.field("bar_flag").type == pa.int8()


def test_an_empty_catalogue_has_the_full_schema(tmp_path):
    table = to_arrow(one_row(RADIO_FR).iloc[:0], catalogue_columns(RADIO_FR))
    write_catalogue(tmp_path / "c.parquet", table, {})
    assert list(pd.read_parquet(tmp_path / "c.parquet").columns) == [c.name for c in catalogue_columns(RADIO_FR)]


def test_a_null_where_none_may_be_and_an_unknown_column_are_bugs():
    with pytest.raises(ValueError, match="status has 1 nulls"):
        to_arrow(one_row(RADIO_FR).assign(status=None), catalogue_columns(RADIO_FR))
    with pytest.raises(ValueError, match="does not know: \\['surprise'\\]"):
        to_arrow(one_row(RADIO_FR).assign(surprise=1), catalogue_columns(RADIO_FR))


def test_metadata_survives_the_file(tmp_path):
    path = tmp_path / "c.parquet"
    write_catalogue(path, to_arrow(one_row(RADIO_FR), catalogue_columns(RADIO_FR)), {"field": "f"})
    assert read_provenance(path) == {"field": "f"}
    field = pq.read_schema(path).field("ra_deg")
    assert field.metadata[b"unit"] == b"deg"
    assert field.metadata[b"ucd"] == b"pos.eq.ra;meta.main"
    assert json.loads(pq.read_schema(path).metadata[b"galgaze"]) == {"field": "f"}


def test_healpix_keeps_neighbours_together():
    index = healpix_29(np.array([10.0, 10.00001, 200.0]), np.array([20.0, 20.0, -40.0]))
    assert index.dtype == np.int64
    assert index[0] >> 36 == index[1] >> 36 != index[2] >> 36  # the same pixel of order 11


def test_the_page_of_columns_is_the_table():
    assert (ROOT / "docs/columns.md").read_text() == columns_page(), "run: galgaze columns > docs/columns.md"
