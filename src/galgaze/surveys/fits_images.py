"""Reading hostile FITS bytes: everything is checked before a pixel is believed."""

import io
import warnings

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from galgaze.errors import BadImage, NoCoverage
from galgaze.surveys.base import Source

BLOCK = 2880  # bytes of a FITS block
CARD = 80
PRINTABLE = bytes(byte if 32 <= byte < 127 else 32 for byte in range(256))
MOST_HDUS = 8  # that are looked at; nothing that is asked for has more


def read_fits(body: bytes) -> tuple[np.ndarray, fits.Header]:
    """Pixels and header of the primary image.

    Parameters
    ----------
    body : bytes
        The file; what follows the primary image is not looked at.

    Returns
    -------
    pixels : numpy.ndarray
        (H, W) or (C, H, W) float32, in the file's units.
    header : astropy.io.fits.Header
        Of the primary image.

    Raises
    ------
    BadImage
        If the body is not FITS, is cut short, or holds no image; the reason says which.
    NoCoverage
        If it holds no image and says why: ``OVERLAP = F``, as some versions of the Legacy viewer do.
    """
    [(data, header)] = read_hdus(body, most=1)
    if data is None and header.get("OVERLAP") is False:
        raise NoCoverage("the service says that nothing overlaps this position (OVERLAP = F)")
    if data is None or data.ndim not in (2, 3) or 0 in data.shape:
        raise BadImage(f"no image in the FITS file (shape {None if data is None else data.shape})")
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
        return data.astype(np.float32), header


def read_hdus(body: bytes, most: int = MOST_HDUS) -> list[tuple[np.ndarray | None, fits.Header]]:
    """Data (as stored; None where there are none) and header of each HDU, up to `most`; raises `BadImage`."""
    body, headers, end = _walk(body, most)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # compressed images stay tables: they could unpack to any size
            with fits.open(io.BytesIO(body[:end]), memmap=False, disable_image_compression=True) as hdus:
                return [(hdus[number].data, header) for number, header in enumerate(headers)]
    except Exception as error:  # astropy raises many kinds; every one means an unusable file
        raise BadImage(f"unreadable FITS: {in_short(error)}") from error


def whole_headers(body: bytes) -> list[fits.Header]:
    """The headers of all HDUs of a file whose data are there to the last byte; raises `BadImage`.

    Made for bodies that came without a Content-Length: a file cut anywhere inside an HDU is refused, one cut
    between two HDUs has fewer of them.
    """
    return _walk(body)[1]


def _walk(body: bytes, most: int = MOST_HDUS) -> tuple[bytes, list[fits.Header], int]:
    """The body with readable headers, the headers of its HDUs (up to `most`), and where the last one ends."""
    if not is_fits(body):
        start = " ".join(body[:60].decode("latin-1").split())
        raise BadImage(f"not a FITS file, it starts with: {start!r}")
    headers, start = [], 0
    while not headers or (body.startswith(b"XTENSION=", start) and len(headers) < most):
        length = _header_length(body, start)
        body = _repair_header(body, start, length)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                header = fits.Header.fromstring(body[start : start + length])
                expected = start + length + _data_length(header)
        except Exception as error:  # as above
            raise BadImage(f"unreadable FITS: {in_short(error)}") from error
        if len(body) < expected:
            raise BadImage(f"truncated: {len(body)} bytes of the {expected} that the header announces")
        headers.append(header)
        start = -(-expected // BLOCK) * BLOCK
    return body, headers, start


def is_fits(body: bytes) -> bool:
    """Whether a body begins as every FITS file does."""
    return body.startswith(b"SIMPLE  =")


def _header_length(body: bytes, start: int) -> int:
    """Bytes of the header that starts there, END and padding included."""
    for card in range(start, len(body) - CARD + 1, CARD):
        if body[card : card + 8] == b"END     ":
            return -(-(card + CARD - start) // BLOCK) * BLOCK
    raise BadImage("truncated: the FITS header has no end")


def _repair_header(body: bytes, start: int, length: int) -> bytes:
    """Blank control characters (SkyView's FIRST files hold tabs) in a header, never in the data."""
    head = body[start : start + length].translate(PRINTABLE)
    return body if body.startswith(head, start) else body[:start] + head + body[start + length :]


def _data_length(header: fits.Header) -> int:
    """Bytes that an HDU's data need, without padding (FITS standard 4.0, equations 1 and 2)."""
    axes = int(header.get("NAXIS", 0))
    values = int(np.prod([int(header[f"NAXIS{axis + 1}"]) for axis in range(axes)], dtype=object)) if axes else 0
    if "XTENSION" in header:
        values = int(header.get("GCOUNT", 1)) * (int(header.get("PCOUNT", 0)) + values)
    length = abs(int(header["BITPIX"])) // 8 * values
    if length < 0:
        raise BadImage("the FITS header announces a negative size")
    return length


def in_short(error: Exception) -> str:
    """An error's words in one line that fits into a catalogue."""
    return " ".join(str(error).split())[:200]


def card_text(header: fits.Header, name: str) -> str:
    """A card's value as text, empty where there is none; raises `BadImage` where it cannot be read."""
    try:
        return str(header.get(name, "")).strip()
    except fits.VerifyError as error:
        raise BadImage(f"unreadable FITS card {name}: {in_short(error)}") from error


def locate(header: fits.Header, source: Source) -> tuple[tuple[float, float], np.ndarray]:
    """Where the source stands in the image, and how the sky lies there.

    Returns
    -------
    centre_px : tuple of float
        Column and row, 0-based.
    jacobian_arcsec : numpy.ndarray
        (2, 2): d(east, north) / d(column, row) on the plane tangent at the source, in arcsec.

    Raises
    ------
    BadImage
        If the header has no celestial coordinates, or the source lies outside of them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(header, naxis=2).celestial
        if not wcs.has_celestial:
            raise BadImage("the FITS header has no celestial coordinates (WCS)")
        column, row = (float(value) for value in wcs.all_world2pix(source.ra_deg, source.dec_deg, 0))
        # a step of one pixel each way, around the source
        columns = column + np.array([-0.5, 0.5, 0.0, 0.0])
        rows = row + np.array([0.0, 0.0, -0.5, 0.5])
        east, north = _tangent_plane_arcsec(*wcs.all_pix2world(columns, rows, 0), source)
    except BadImage:
        raise
    except Exception as error:  # astropy.wcs raises many kinds; every one means an unusable header
        raise BadImage(f"unusable coordinates (WCS) in the FITS header: {in_short(error)}") from error
    jacobian = np.array([[east[1] - east[0], east[3] - east[2]], [north[1] - north[0], north[3] - north[2]]])
    if not (np.isfinite([column, row]).all() and np.isfinite(jacobian).all() and np.linalg.det(jacobian) != 0):
        raise BadImage("unusable coordinates (WCS) in the FITS header: the source is not on the image's plane")
    return (column, row), jacobian


def _tangent_plane_arcsec(ra_deg, dec_deg, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Gnomonic projection of positions around the source: arcsec east and north of it."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    ra0, dec0 = np.radians(source.ra_deg), np.radians(source.dec_deg)
    cosine = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    east = np.cos(dec) * np.sin(ra - ra0) / cosine
    north = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / cosine
    return np.degrees(east) * 3600, np.degrees(north) * 3600


def check_finite(pixels: np.ndarray, observed: np.ndarray) -> None:
    """Refuse images that carry no information: infinite, or constant in a band."""
    values = pixels[:, observed]
    if values.size == 0:
        return  # nothing observed: the coverage says so
    if np.isinf(values).any() or np.abs(values).max() > 1e20:
        raise BadImage("the image holds infinite or absurd values")
    constant = values.min(axis=1) == values.max(axis=1)
    if values.shape[1] > 1 and constant.any():
        level = values[constant][0, 0]
        raise BadImage(f"the image, or a band of it, is constant ({level:g})")
