"""The real labelled images at hand, prepared as the networks see them, each set split once and for all in two halves.

One half is to steer by: what is seen there may change the simulated sky. The other half is for the numbers that are
reported, and nothing is to be decided by it. The folder DATA holds ``decals/galaxy10_sample``, ``decals/sdss_r_band``
and ``first/mirabest``; none of it is in the repository.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from galgaze.config import DirectorySurvey, OpticalPreparation, RadioPreparation
from galgaze.errors import BadImage, ConfigError
from galgaze.images.preparation import prepare
from galgaze.models.splits import sky_groups
from galgaze.surveys.base import Cutout, Source
from galgaze.surveys.directory import Directory, read_file
from galgaze.surveys.first import decode_first

HALVES = ("steer", "report", "both")
REPORT_SHARE, SPLIT_SEED = 0.5, 0
GALAXY10_PIXEL_SCALE_ARCSEC = 0.262
RIM_PX = 2  # from the border of a picture: its sky
LEAST_BARRED_VOTE, LARGEST_UNBARRED_VOTE = 0.5, 0.2  # of Galaxy Zoo's debiased bar votes; between them nobody knows
FR_CLASS = {"1": 0, "2": 1}  # first digit of MiraBest's labels: FRI, FRII; 3 is a hybrid


@dataclass(frozen=True)
class RealImages:
    """A labelled set.

    Attributes
    ----------
    name : list of str
        File or source id.
    image : numpy.ndarray
        (N, C, H, W) uint8, rows from south to north.
    label : numpy.ndarray
        (N,) int64: index of the class.
    report : numpy.ndarray
        (N,) bool: True the half to report on, False the half to steer by.
    """

    name: list[str]
    image: np.ndarray
    label: np.ndarray
    report: np.ndarray

    def half(self, which: str) -> "RealImages":
        """One half of it: ``steer`` or ``report``, or ``both``."""
        keep = half_mask(self.report, which)
        names = [name for name, kept in zip(self.name, keep, strict=True) if kept]
        return RealImages(names, self.image[keep], self.label[keep], self.report[keep])


def half_mask(report: np.ndarray, which: str) -> np.ndarray:
    """Which rows belong to a half, (N,) bool."""
    if which not in HALVES:
        raise ConfigError(f"The half {which!r} is not one of {', '.join(HALVES)}.")
    return np.ones_like(report) if which == "both" else report == (which == "report")


# --------------------------------------------------------------------------------------------- optical


def galaxy10_sample(data: Path, preparation: OpticalPreparation) -> RealImages:
    """Fifty colour images of Galaxy10 DECaLS, five of each of its ten classes."""
    folder = data / "decals/galaxy10_sample"
    table = _read_table(folder / "labels.csv", ("file", "galaxy10_class"))
    images = [_picture(folder / "images" / name, GALAXY10_PIXEL_SCALE_ARCSEC, preparation) for name in table["file"]]
    label = table["galaxy10_class"].to_numpy(np.int64)
    return RealImages(table["file"].tolist(), np.stack(images), label, galaxy10_report_half(table["file"], label))


def galaxy10_report_half(file: pd.Series, label: np.ndarray) -> np.ndarray:
    """Every second file, class by class, in the order of their names' hashes: the sample has no positions."""
    digest = [hashlib.sha256(name.encode()).hexdigest() for name in file]
    order = sorted(range(len(digest)), key=lambda row: (label[row], digest[row]))
    report = np.zeros(len(digest), bool)
    report[order[1::2]] = True
    return report


def sdss_bars(data: Path, preparation: OpticalPreparation) -> RealImages:
    """Discs of SDSS, r band: 1 barred, 0 unbarred by the volunteers' votes; the undecided are left out.

    Many pictures are narrower than the field of view: pixels of their own rim stand around them.
    """
    folder = data / "decals/sdss_r_band"
    columns = ("name", "png", "ra", "dec", "hart_p_bar", "png_arcsec_per_px")
    table = _read_table(folder / "labels.csv", columns)
    vote = table["hart_p_bar"].astype(float)
    table = pd.concat([table[vote > LEAST_BARRED_VOTE], table[vote < LARGEST_UNBARRED_VOTE]])
    rows = table[["png", "png_arcsec_per_px"]].itertuples(index=False)
    images = [_picture(folder / png, float(scale), preparation) for png, scale in rows]
    label = (table["hart_p_bar"].astype(float) > LEAST_BARRED_VOTE).to_numpy(np.int64)
    report = report_half(table["name"], table["ra"], table["dec"])
    return RealImages(table["name"].tolist(), np.stack(images), label, report)


def _picture(path: Path, pixel_scale_arcsec: float, preparation: OpticalPreparation) -> np.ndarray:
    """A JPEG or PNG as galgaze reads and prepares it, (3, H, W) uint8."""
    survey = Directory(DirectorySurvey(kind="directory", path=str(path.parent), pixel_scale_arcsec=pixel_scale_arcsec))
    cutout = survey.decode(_read(path), Source(path.name, np.nan, np.nan))
    return prepare(_as_wide_as(cutout, preparation.field_of_view_arcsec), preparation).pixels


def _as_wide_as(cutout: Cutout, field_of_view_arcsec: float) -> Cutout:
    """A picture that is narrower than the field of view, with pixels of its own rim strewn around it."""
    narrow = field_of_view_arcsec / cutout.pixel_scale_arcsec - min(cutout.pixels.shape[1:])
    if narrow <= 0:
        return cutout
    margin = int(np.ceil(narrow / 2)) + 1
    _, height, width = cutout.pixels.shape
    rim = np.concatenate([cutout.pixels[:, RIM_PX], cutout.pixels[:, -RIM_PX]], axis=1)  # (3, 2 W)
    strewn = np.random.default_rng(0).integers(rim.shape[1], size=(height + 2 * margin, width + 2 * margin))
    pixels = rim[:, strewn]
    pixels[:, margin:-margin, margin:-margin] = cutout.pixels
    centre_px = tuple(place + margin for place in cutout.centre_px)
    return replace(cutout, pixels=pixels, observed=np.ones(strewn.shape, bool), centre_px=centre_px)


# ----------------------------------------------------------------------------------------------- radio


def mirabest(data: Path, preparation: RadioPreparation, confident_only: bool = True) -> RealImages:
    """FRI (0) and FRII (1) of the training part of MiraBest, from the survey's FITS; no hybrids."""
    rows = mirabest_rows(data, confident_only)
    images = [prepare(cutout, preparation, source.las_arcsec).pixels for source, cutout in mirabest_cutouts(data, rows)]
    label = rows["label"].str[0].map(FR_CLASS).to_numpy(np.int64)
    return RealImages(rows["source_id"].tolist(), np.stack(images), label, rows["report"].to_numpy(bool))


def mirabest_rows(data: Path, confident_only: bool = True) -> pd.DataFrame:
    """The table's usable rows, with the half of each in the column ``report``.

    The halves are drawn over the whole table, so that a source's half does not depend on what else is used.
    """
    columns = ("source_id", "ra_deg", "dec_deg", "las_arcsec", "label", "fits")
    table = _read_table(data / "first/mirabest/sources.csv", columns)
    table = table.assign(report=report_half(table["source_id"], table["ra_deg"], table["dec_deg"]))
    keep = (table["fits"] == "1") & table["label"].str[0].isin(list(FR_CLASS))
    if confident_only:
        keep &= table["label"].str[1] == "0"
    return table[keep].reset_index(drop=True)


def mirabest_cutouts(data: Path, rows: pd.DataFrame) -> Iterator[tuple[Source, Cutout]]:
    """The maps in Jy/beam of some rows, one after the other."""
    for row in rows.itertuples():
        path = data / f"first/mirabest/fits/{row.source_id}.fits.gz"
        source = Source(row.source_id, float(row.ra_deg), float(row.dec_deg), float(row.las_arcsec))
        yield source, decode_first(_read(path), source)


# ---------------------------------------------------------------------------------------------- common


def report_half(source_id: pd.Series, ra_deg: pd.Series, dec_deg: pd.Series) -> np.ndarray:
    """Which sources to report on, (N,) bool: by id alone, neighbours on the sky together."""
    # 30 arcsec, and a draw of its own: another split would lead sources steered by into the reported half
    group = sky_groups(ra_deg.to_numpy(float), dec_deg.to_numpy(float), radius_arcsec=30.0)
    first = source_id.astype(str).groupby(group).transform("min")
    return np.array([_draw(name) < REPORT_SHARE for name in first])


def _draw(name: str) -> float:
    """A number from 0 to 1 that hangs on the name alone."""
    return int.from_bytes(hashlib.sha256(f"{SPLIT_SEED}:{name}".encode()).digest()[:8], "big") / 2**64


def _read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table as text; raises `ConfigError` where it or a column is missing."""
    if not path.is_file():
        raise ConfigError(
            f"{path}: not found. DATA must be the folder of real data that holds decals/galaxy10_sample, "
            "decals/sdss_r_band and first/mirabest (docs/architecture.md, Test data)."
        )
    table = pd.read_csv(path, dtype=str)
    missing = [name for name in columns if name not in table]
    if missing:
        raise ConfigError(f"{path}: has no column {', '.join(missing)}; expected are {', '.join(columns)}.")
    return table


def _read(path: Path) -> bytes:
    try:
        return read_file(path)
    except BadImage as error:
        raise ConfigError(f"{path}: expected an image of the set here ({error.reason}).") from error
