"""FITS headers read from raw bytes, as forgiving as the survey servers are with what they send.

The FIRST files hold tab characters in comment cards, and downloads may be cut short; strict readers refuse
both.
"""

import gzip
import math
import re
from pathlib import Path

import numpy as np
from astropy.wcs import WCS

BLOCK = 2880


def read_bytes(path: Path, size: int = -1) -> bytes:
    """The file's (first `size`) bytes, decompressed when its name ends in .gz."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
        return stream.read(size)


def fits_files(folder: str | Path) -> list[Path]:
    """Every FITS file of a folder, plain or gzipped, by name."""
    return sorted(path for path in Path(folder).iterdir() if path.name.endswith((".fits", ".fits.gz")))


def parse_header(raw: bytes) -> tuple[dict, int]:
    """Values of the primary header, by keyword, and the number of bytes the whole file should have."""
    values = {}
    for start in range(0, len(raw), 80):
        card = raw[start : start + 80].decode("latin-1")
        keyword = card[:8].rstrip()
        if keyword == "END":
            header_size = math.ceil((start + 80) / BLOCK) * BLOCK
            return values, header_size + math.ceil(_data_size(values) / BLOCK) * BLOCK
        if card[8:10] == "= ":
            values[keyword] = _value(card[10:])
    raise ValueError("no END card: not a FITS header")


def _data_size(values: dict) -> int:
    axes = [values[f"NAXIS{n}"] for n in range(1, values["NAXIS"] + 1)]
    return abs(values["BITPIX"]) // 8 * math.prod(axes) if axes else 0


def _value(text: str) -> str | bool | int | float:
    if quoted := re.match(r"\s*'((?:[^']|'')*)'", text):
        return quoted[1].replace("''", "'").rstrip()
    text = text.split("/")[0].strip()
    if text in ("T", "F"):
        return text == "T"
    for kind in (int, float):
        try:
            return kind(text.replace("D", "E"))
        except ValueError:
            continue
    return text


def with_number(raw: bytes, keyword: str, number: float) -> bytes:
    """The same bytes with another number in the header's card `keyword`."""
    name = f"{keyword:8}= ".encode()
    start = next(n for n in range(0, len(raw), 80) if raw[n : n + 10] == name)
    return raw[:start] + name + f"{number:20.12f}".encode() + raw[start + 30 :]


def celestial_wcs(values: dict) -> WCS:
    """WCS of axes 1 and 2 alone: FIRST's cutouts have two axes, but cards for a third and fourth."""
    wcs = WCS(naxis=2)
    for attribute in ("ctype", "crval", "crpix"):
        setattr(wcs.wcs, attribute, [values[f"{attribute.upper()}{axis}"] for axis in (1, 2)])
    if "CD1_1" in values:
        wcs.wcs.cd = [[values.get(f"CD{i}_{j}", 0.0) for j in (1, 2)] for i in (1, 2)]
    else:
        wcs.wcs.cdelt = [values["CDELT1"], values["CDELT2"]]
    return wcs


def centre(values: dict) -> tuple[float, float]:
    """RA and Dec (deg) of the image's centre."""
    middle = [(values["NAXIS1"] + 1) / 2, (values["NAXIS2"] + 1) / 2]
    if [values["CRPIX1"], values["CRPIX2"]] == middle:
        return values["CRVAL1"], values["CRVAL2"]
    ra, dec = celestial_wcs(values).wcs_pix2world([middle], 1)[0]
    return float(ra), float(dec)


def separations_arcsec(ra: float, dec: float, ras: np.ndarray, decs: np.ndarray) -> np.ndarray:
    """Distances on the sky from one position to many (haversine; deg in, arcsec out)."""
    ra, dec, ras, decs = map(np.radians, (ra, dec, ras, decs))
    chord = np.sin((decs - dec) / 2) ** 2 + np.cos(dec) * np.cos(decs) * np.sin((ras - ra) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.minimum(chord, 1)))) * 3600
