"""The user's own cutouts on disk, one file a source, named after its id."""

import gzip
import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from galgaze.config import DirectorySurvey
from galgaze.errors import BadImage, ConfigError, NoCoverage
from galgaze.fields import safe_name
from galgaze.surveys.base import Cutout, Source, Survey
from galgaze.surveys.first import decode_first
from galgaze.surveys.fits_images import in_short
from galgaze.surveys.legacy import decode_grz

SUFFIXES = (".fits", ".fits.gz", ".jpg", ".jpeg", ".png")
MAX_BYTES = 256 * 2**20  # of a file, unpacked
BANDS_OF_PICTURES = "rgb"
NO_BANDS = "bands ''"  # how `decode_grz` begins about a file that names no bands: a radio map, perhaps
Image.MAX_IMAGE_PIXELS = 100_000_000


class Directory(Survey):
    """FITS (with coordinates), gzipped FITS, JPEG and PNG."""

    settings: DirectorySurvey

    def __init__(self, settings: DirectorySurvey):
        super().__init__(settings)
        self._folder = Path(settings.path)
        if not self._folder.is_dir():
            raise ConfigError(
                f"surveys: the folder {settings.path!r} of a `directory` survey does not exist. Make it, or correct "
                "`path`; it is looked up from where the run is started."
            )

    def identity(self) -> dict:
        """Path and scale. A file changed in place is not noticed: fetch again by hand then."""
        return {
            "kind": "directory",
            "path": self.settings.path,
            "pixel_scale_arcsec": self.settings.pixel_scale_arcsec,
        }

    def download(self, source: Source) -> tuple[bytes, str]:
        """Read the source's file; see `Survey.download`."""
        # ids that cannot be file names stand under their safe name
        for suffix in SUFFIXES:
            path = self._folder / f"{safe_name(source.source_id)}{suffix}"
            if path.is_file():
                body = read_file(path)
                self.decode(body, source)
                return body, str(path)
        raise NoCoverage(f"no file {safe_name(source.source_id)} with ending {', '.join(SUFFIXES)} in the folder")

    def decode(self, body: bytes, source: Source) -> Cutout:
        """Tell FITS from pictures by their first bytes."""
        if not body.startswith(b"SIMPLE"):
            return self._decode_picture(body)
        try:
            return decode_grz(body, source)
        except BadImage as not_grz:
            if NO_BANDS not in not_grz.reason:
                raise
            return decode_first(body, source)

    def _decode_picture(self, body: bytes) -> Cutout:
        try:
            # of the formats that Pillow knows, some run programs
            picture = Image.open(io.BytesIO(body), formats=("JPEG", "PNG"))
            if picture.mode.startswith(("I", "F")):
                raise BadImage(f"a picture of more than 8 bits a channel (mode {picture.mode})")
            picture = np.asarray(picture.convert("RGB"))
        except BadImage:
            raise
        except Exception as error:  # Pillow raises many kinds; every one means an unusable picture
            raise BadImage(f"unreadable picture: {in_short(error)}") from error
        pixels = np.ascontiguousarray(picture[::-1].transpose(2, 0, 1))  # north up -> rows from the south
        height, width = pixels.shape[1:]
        scale = self.settings.pixel_scale_arcsec
        jacobian = np.diag([-scale, scale]) if scale else np.full((2, 2), np.nan)
        centre = ((width - 1) / 2, (height - 1) / 2)
        return Cutout(pixels, BANDS_OF_PICTURES, True, np.ones((height, width), bool), centre, jacobian)


def read_file(path: Path) -> bytes:
    """A file's bytes, unpacked if its name says gzip; raises `BadImage`."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as content:
            body = content.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadImage(f"{path.name}: cannot be read: {error}") from error
    if len(body) > MAX_BYTES:
        raise BadImage(f"{path.name}: has more than {MAX_BYTES} bytes")
    return body
