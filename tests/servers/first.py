"""A local server that speaks the FIRST cutout protocol and sends files of a folder, byte for byte.

The file whose map contains the position answers, the one with the nearest centre if several do. It is sent as it is,
and ImageSize and MaxImSize are only noted; or a part of the size asked for is cut from it, blank beyond its edge.

`firstcutout` sends FITS where ImageType says so, `firstimage` where FITS is 1; otherwise a GIF.
"""

import re

import numpy as np

from tests.servers import header
from tests.servers.base import Reply, SurveyServer, arguments, page, serve

PATHS = ("/cgi-bin/firstcutout", "/cgi-bin/firstimage", "/cgi-bin/firstimage/post")
WITHIN = 0.7  # of half a map's side: so far from its centre a position may stand
HEADER_BYTES = 20 * header.BLOCK
PIXEL_SCALE_ARCSEC = 1.8
LARGEST_PX = 1024
GIF = bytes.fromhex("47494638376101000100800000000000ffffff2c00000000010001000002024401003b")


class FirstServer(SurveyServer):
    """`FirstServer(folder)` serves the folder's *.fits and *.fits.gz by position; `cut`: a part of them.

    `blank` is what a part holds beyond its map's edge.
    """

    path = PATHS[0]

    def __init__(self, folder, port: int = 0, delay: float = 0.0, cut: bool = False, blank: float = np.nan):
        super().__init__(port, delay)
        self.cut, self.blank = cut, blank
        self.files = header.fits_files(folder)
        headers = [header.parse_header(header.read_bytes(path, HEADER_BYTES))[0] for path in self.files]
        self.ra, self.dec = np.array([header.centre(values) for values in headers], float).reshape(-1, 2).T
        self.reach = (1 if cut else WITHIN) * np.array([half_side_arcsec(values) for values in headers], float)

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        if path not in PATHS:
            return page("Not found", 404)
        try:
            ra, dec = parse_position(params.get("RA", ""), params.get("Dec", ""))
        except ValueError:
            return page("Error: could not parse coordinates")
        if params.get("Equinox", "J2000") != "J2000":
            return page("Error: this test server knows J2000 only")
        if params.get("FITS") != "1" if "firstimage" in path else not params.get("ImageType", "").startswith("FITS"):
            return Reply(200, GIF, "image/gif")
        distance = header.separations_arcsec(ra, dec, self.ra, self.dec)
        distance[distance > self.reach] = np.inf
        if distance.size == 0 or np.isinf(distance.min()):
            return page("The position is not covered by the FIRST survey; no image was made")
        raw = header.read_bytes(self.files[distance.argmin()])
        if self.cut:
            size = round(float(params.get("ImageSize", "4.5")) * 60 / PIXEL_SCALE_ARCSEC)
            raw = cut_out(raw, ra, dec, min(size, int(params.get("MaxImSize", LARGEST_PX)), LARGEST_PX), self.blank)
        return Reply(200, raw, "image/x-fits")


def cut_out(raw: bytes, ra: float, dec: float, size: int, blank: float) -> bytes:
    """The pixels around a position as they stand in the map, and `blank` beyond its edge."""
    values, whole = header.parse_header(raw)
    width, height = values["NAXIS1"], values["NAXIS2"]
    start = whole - -(-width * height * 4 // header.BLOCK) * header.BLOCK
    pixels = np.frombuffer(raw, ">f4", width * height, start).reshape(height, width)
    [place] = header.celestial_wcs(values).wcs_world2pix([[ra, dec]], 0)
    left, low = (round(coordinate) - size // 2 for coordinate in place)
    padded = np.pad(pixels, size, constant_values=blank)
    data = padded[low + size : low + 2 * size, left + size : left + 2 * size].astype(">f4").tobytes()
    head = raw[:start]
    for axis, first in ((1, left), (2, low)):
        head = header.with_number(head, f"CRPIX{axis}", values[f"CRPIX{axis}"] - first)
        name = f"NAXIS{axis}  = ".encode()
        at = head.index(name)
        head = head[:at] + name + f"{size:20d}".encode() + head[at + 30 :]
    return head + data + bytes(-len(data) % header.BLOCK)


def half_side_arcsec(values: dict) -> float:
    """Half of the shorter side of a map."""
    scale = abs(values["CDELT2"] if "CDELT2" in values else values["CD2_2"]) * 3600
    return min(values["NAXIS1"], values["NAXIS2"]) / 2 * scale


def parse_position(ra: str, dec: str = "") -> tuple[float, float]:
    """RA and Dec in degrees, from one field ("11.59102 46.4961", "11 35 27.7 +46 29 46") or from two.

    RA is in hours. Exponents, NaN and numbers out of range raise ValueError.
    """
    if not dec:
        if signed := re.fullmatch(r"([^+-]+)([+-].*)", ra.strip()):
            ra, dec = signed.groups()
        else:
            words = ra.split()
            half = len(words) // 2
            if not half or len(words) % 2:
                raise ValueError(f"not an RA and a Dec: {ra!r}")
            ra, dec = " ".join(words[:half]), " ".join(words[half:])
    hours, degrees = _sexagesimal(ra), _sexagesimal(dec)
    if not 0 <= hours < 24 or abs(degrees) > 90:
        raise ValueError("position out of range")
    return hours * 15, degrees


def _sexagesimal(text: str) -> float:
    sign, digits = re.fullmatch(r"([+-]?)(.*)", text.strip().rstrip("hdms")).groups()
    parts = re.split(r"\s*[hdm:\s]\s*", digits.strip())
    if len(parts) > 3 or not all(re.fullmatch(r"\d+\.?\d*|\.\d+", part) for part in parts):
        raise ValueError(f"not a number: {text!r}")
    numbers = [float(part) for part in parts]
    if any(number >= 60 for number in numbers[1:]):
        raise ValueError(f"minutes or seconds beyond 60: {text!r}")
    size = sum(number / 60**power for power, number in enumerate(numbers))
    return -size if sign == "-" else size


if __name__ == "__main__":
    options = arguments(__doc__).parse_args()
    serve(FirstServer(options.folder, options.port, options.delay))
