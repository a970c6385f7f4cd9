"""Galaxy10 DECaLS (Leung & Bovy, https://astronn.readthedocs.io/en/latest/galaxy10.html): one HDF5 file."""

from pathlib import Path

import numpy as np

from galgaze import status
from galgaze.config import PreparationSettings
from galgaze.errors import ConfigError
from galgaze.files import sha256_file
from galgaze.images.datasets.checks import describe, to_bytes, to_class_indices, to_positions
from galgaze.images.datasets.hdf5 import SLICE, datasets, open_hdf5
from galgaze.images.datasets.labelled import LabelledSet
from galgaze.images.preparation import channels, prepare
from galgaze.surveys.base import Cutout
from galgaze.tasks import Task

ORIGIN = (
    "It is Galaxy10_DECals.h5 of Galaxy10 DECaLS, 17736 colour images with ans, ra, dec and pxscale: "
    "https://zenodo.org/records/10845026."
)
TERMS = (
    "Galaxy10 (github.com/henrysky/Galaxy10) MIT; images from the DESI Legacy Imaging Surveys, labels from Galaxy Zoo: "
    "see their terms"
)


def read_galaxy10(path: Path, task: Task, preparation: PreparationSettings) -> LabelledSet:
    """All of Galaxy10 DECaLS, each image prepared with its own pixel scale.

    Parameters
    ----------
    path : Path
        The HDF5 file: ``images`` (N, 256, 256, 3) uint8, red, green and blue, north up; ``ans`` (N,) class 0 to 9;
        ``ra``, ``dec`` (N,) degrees; ``pxscale`` (N,) arcsec a pixel.
    task : Task
        With Galaxy10's ten classes in its order.
    preparation : OpticalPreparation
        From picture to network input.

    Returns
    -------
    LabelledSet
        Images (N, 3, H, W); ids are ``galaxy10_`` and the row in the file, from 0. What the preparation refuses is left
        out: constant pictures, and such as do not cover the field of view (set min_coverage to keep them).

    Raises
    ------
    ConfigError
        If the file is missing, damaged or another one.
    """
    with open_hdf5(path, ORIGIN) as file:
        images, *columns = datasets(file, ("images", "ans", "ra", "dec", "pxscale"), ORIGIN)
        ans, ra, dec, scale = (column[()] for column in columns)
        if images.ndim != 4 or images.shape[3] != 3 or {c.shape for c in (ans, ra, dec, scale)} != {images.shape[:1]}:
            shapes = f"images {images.shape}, ans {ans.shape}, ra {ra.shape}, dec {dec.shape}, pxscale {scale.shape}"
            raise ConfigError(
                f"{path}: expected images (N, 256, 256, 3) and a value for each; found {shapes}. {ORIGIN}"
            )
        label = to_class_indices(ans, len(task.classes), f"{path}, ans")
        ra_deg, dec_deg = to_positions(ra, dec, str(path))
        side = preparation.size_px
        prepared = np.zeros((len(label), channels(preparation), side, side), np.uint8)
        states = np.empty(len(label), object)
        for first in range(0, len(label), SLICE):
            pictures = to_bytes(images[first : first + SLICE], f"{path}, images from {first}")
            for row, picture in enumerate(pictures, first):
                result = prepare(picture_cutout(picture, float(scale[row])), preparation)
                prepared[row], states[row] = result.pixels, result.status
    rows = np.flatnonzero(states == status.OK)
    left_out = {state: int((states == state).sum()) for state in sorted(set(states) - {status.OK})}
    hashes = {path.name: sha256_file(path)}
    return LabelledSet(
        image=prepared if len(rows) == len(prepared) else prepared[rows],  # a copy would be as large again
        label=label[rows],
        source_id=np.array([f"galaxy10_{row:05d}" for row in rows], dtype=np.str_),
        ra_deg=ra_deg[rows],
        dec_deg=dec_deg[rows],
        votes=None,
        description=describe("Galaxy10 DECaLS", TERMS, hashes, label[rows], task, left_out=left_out),
    )


def picture_cutout(picture: np.ndarray, pixel_scale_arcsec: float) -> Cutout:
    """A colour picture (H, W, 3), north up, as a cutout, which runs from the south; a scale of 0 or NaN is unknown."""
    pixels = np.ascontiguousarray(picture[::-1].transpose(2, 0, 1))  # (3, H, W)
    height, width = pixels.shape[1:]
    scale = pixel_scale_arcsec if pixel_scale_arcsec > 0 else np.nan
    jacobian = np.array([[-scale, 0], [0, scale]]) if scale == scale else np.full((2, 2), np.nan)
    observed = np.ones((height, width), bool)
    return Cutout(pixels, "rgb", True, observed, ((width - 1) / 2, (height - 1) / 2), jacobian)
