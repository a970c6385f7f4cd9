"""Images of a folder, one after the other, prepared; the folder is not left."""

import hashlib
from pathlib import Path

import numpy as np

from galgaze import status
from galgaze.config import DirectorySurvey, PreparationSettings
from galgaze.errors import BadImage, NoCoverage
from galgaze.images.preparation import prepare
from galgaze.surveys.base import Source


class FolderReader:
    """Reads and prepares the images of a folder; one that cannot be used is left out with the reason.

    Attributes
    ----------
    left_out : list of str
        Files that could not be used, with reasons.
    digest : hashlib hash
        SHA-256 over the names and contents of the files read, in their order.
    """

    def __init__(self, folder: Path, preparation: PreparationSettings, pixel_scale_arcsec: float | None):
        from galgaze.surveys.directory import Directory

        self.left_out: list[str] = []
        self.digest = hashlib.sha256()
        self._folder, self._preparation = folder, preparation
        self._survey = Directory(
            DirectorySurvey(kind="directory", path=str(folder), pixel_scale_arcsec=pixel_scale_arcsec)
        )

    def read(self, file: str, ra_deg: float = np.nan, dec_deg: float = np.nan) -> np.ndarray | None:
        """The prepared pixels (C, H, W) of a file, or None, and a line in `left_out`."""
        try:
            body = read_inside(self._folder, file)
            self.digest.update(f"{file}\0".encode() + hashlib.sha256(body).digest())
            prepared = prepare(self._survey.decode(body, Source(file, ra_deg, dec_deg)), self._preparation)
        except (BadImage, NoCoverage) as error:
            self.left_out.append(f"{file}: {error.reason}")
            return None
        if prepared.status != status.OK:
            self.left_out.append(f"{file}: {prepared.status_reason}")
            return None
        return prepared.pixels


def read_inside(folder: Path, name: str) -> bytes:
    """A file's bytes; a name without an ending, such as a source's id, is completed. Raises `BadImage`."""
    from galgaze.surveys.directory import SUFFIXES, read_file

    path = _inside(folder, name)
    completed = [path.with_name(path.name + suffix) for suffix in SUFFIXES]
    if not path.exists():
        path = next((other for other in completed if other.is_file()), path)
    return read_file(path)


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder; a name that leads out of it is refused."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BadImage("the file's name leads out of the folder")
    return path
