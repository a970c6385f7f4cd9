"""Small tables, and the ways to write and read them."""

from pathlib import Path

import pandas as pd
import pytest
from astropy.table import Table

from galgaze import fields
from galgaze.config import Columns, TableSource
from galgaze.errors import ConfigError
from galgaze.tasks import RADIO_FR

ALL_COLUMNS = Columns(
    source_id="name",
    ra_deg="ra",
    dec_deg="dec",
    redshift="z",
    las_arcsec="las",
    petrosian_radius_arcsec="petro",
    label="class",
)
ENDINGS = [".csv", ".csv.gz", ".parquet", ".fits", ".fits.gz", ".vot", ".votable", ".xml"]
NAN = float("nan")


def example() -> Table:
    """Ids with leading zeros, the seam of RA, a pole, absent numbers and labels."""
    return Table(
        {
            "name": ["007", "J0001+0002", "NA"],
            "ra": [0.0, 359.99999999999994, 32.375],
            "dec": [90.0, -90.0, -0.1234567890123456],
            "other": [1, 2, 3],
            "z": [0.1, NAN, -0.001],
            "las": [12.5, 0.0, NAN],
            "petro": [NAN, NAN, NAN],
            "class": ["FRI", "", "FRII"],
        }
    )


def expected() -> pd.DataFrame:
    table = example()
    columns = {ours: table[theirs].tolist() for ours, theirs in ALL_COLUMNS.model_dump().items()}
    frame = pd.DataFrame(columns)[list(fields.FIELD_COLUMNS)]
    return frame.assign(
        source_id=frame["source_id"].astype("str"), label=pd.Series(["FRI", None, "FRII"], dtype=object)
    )


def write(table: Table, path: Path) -> Path:
    name = path.name
    if name.endswith((".csv", ".csv.gz")):
        table.to_pandas().to_csv(path, index=False)
    elif name.endswith(".parquet"):
        table.to_pandas().to_parquet(path)
    elif ".fits" in name:
        table.write(path, format="fits")
    else:
        table.write(path, format="votable")
    return path


def read(path, columns=ALL_COLUMNS, labels=None, classes=RADIO_FR.classes):
    return fields.read_table(TableSource(path=str(path), columns=columns), labels or {}, classes)


def read_csv(tmp_path, text, labels=None, classes=RADIO_FR.classes, **columns):
    """Read a CSV text; the columns are source_id, ra, dec unless named otherwise."""
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, Columns(**columns), labels, classes)


def refused(tmp_path, text, **options) -> str:
    """The message that a CSV text is refused with."""
    with pytest.raises(ConfigError) as caught:
        read_csv(tmp_path, text, **options)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "t.csv"))
    return message
