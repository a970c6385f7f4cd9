"""The Radio Galaxy Dataset (Griese, Kummer, Connor, Brueggen & Rustige 2023, Data in Brief 47, 108974)."""

from pathlib import Path

import numpy as np

from galgaze.errors import ConfigError
from galgaze.files import sha256_file
from galgaze.images.datasets.checks import describe, to_bytes, to_class_indices, to_positions, unique_ids
from galgaze.images.datasets.hdf5 import SLICE, datasets, open_hdf5, text
from galgaze.images.datasets.labelled import RADIO_SIDE_PX, LabelledSet
from galgaze.tasks import Task

# In the order of its labels. Compact sources show no Fanaroff-Riley class; bent ones are FRI to most (MiraBest's
# wide-angle tails are in it as bent), but the set does not say so: both are left out.
CLASSES = ("FRI", "FRII", "compact", "bent")
ORIGIN = (
    "It is the Radio Galaxy Dataset, as one table (image, label, ra_deg, dec_deg) or as published: galaxy_data_h5.h5, "
    "unpacked from galaxy_data_h5.zip of https://github.com/floriangriese/RadioGalaxyDataset."
)
TERMS = (
    "labels MIT (github.com/floriangriese/RadioGalaxyDataset); FIRST images (VLA FIRST survey, Becker, White & "
    "Helfand 1995): publication and reproduction permitted for scholarly, educational and private non-commercial use"
)


def read_radio_galaxy_dataset(path: Path, task: Task, split: str = "train") -> LabelledSet:
    """FRI and FRII of the set: the central 150 px of its images, scaled anew by their own minimum and maximum.

    Its maps were clipped at three times the local noise as MiraBest's, but what is below the threshold was set to it
    and became 0: the threshold itself is lost, and the faintest pixels that are kept are nearly 0, while MiraBest's
    start at the threshold. Its maps were also resampled (SkyView), by up to a pixel against FIRST's own.

    Parameters
    ----------
    path : Path
        The HDF5 file: ``image`` (N, 300, 300), ``label``, ``ra_deg``, ``dec_deg``, perhaps ``split``; or as published,
        a group a source with ``Img`` (attributes RA, DEC), ``Label_literature`` and ``Split_literature``.
    task : Task
        With the classes FRI and FRII.
    split : {"train", "test"}
        train: all that is not marked as test.

    Returns
    -------
    LabelledSet
        Images (N, 1, 150, 150), rows from south to north.

    Raises
    ------
    ConfigError
        If the file is missing, damaged or another one, or has nothing of this split.
    """
    with open_hdf5(path, ORIGIN) as file:
        published = "image" not in file and any(key.startswith("data_") for key in file)
        columns = _read_groups(file) if published else _read_columns(file)
        label, ra_deg, dec_deg, splits, read_image = columns
        label = to_class_indices(label, len(CLASSES), str(path))
        ra_deg, dec_deg = to_positions(ra_deg, dec_deg, str(path))
        if not len(label) == len(ra_deg) == len(splits):
            raise ConfigError(f"{path}: label, positions and split differ in length. {ORIGIN}")
        of_split = np.array([(name == "test") == (split == "test") for name in splits], bool)
        if not of_split.any():
            raise ConfigError(f"{path}: no row of it is of the split {split!r}.")
        kept = np.flatnonzero(of_split & (label < len(task.classes)))
        image = np.zeros((len(kept), 1, RADIO_SIDE_PX, RADIO_SIDE_PX), np.uint8)
        for position, row in enumerate(kept):
            image[position, 0] = scaled_centre(read_image(row), f"{path}, image {row}")
    left_out = {name: int((of_split & (label == index)).sum()) for index, name in enumerate(CLASSES) if index > 1}
    ids = _ids(ra_deg, dec_deg)[kept]
    signal = image.max(axis=(1, 2, 3)) > 0
    left_out["no_signal"] = int((~signal).sum())
    kept, image, ids = kept[signal], image[signal], ids[signal]
    hashes = {path.name: sha256_file(path)}
    name = f"Radio Galaxy Dataset, {split}"
    return LabelledSet(
        image=image,
        label=label[kept],
        source_id=unique_ids(ids.tolist()),
        ra_deg=ra_deg[kept],
        dec_deg=dec_deg[kept],
        votes=None,
        description=describe(name, TERMS, hashes, label[kept], task, left_out=left_out),
    )


def scaled_centre(pixels, where: str) -> np.ndarray:
    """The central 150 px, their minimum to 0 and maximum to 255, truncated as in the preparation; constant: all 0."""
    pixels = to_bytes(pixels, where)
    if pixels.ndim != 2 or min(pixels.shape) < RADIO_SIDE_PX:
        raise ConfigError(f"{where}: expected at least {RADIO_SIDE_PX} px a side, found the shape {pixels.shape}.")
    row, column = ((side - RADIO_SIDE_PX) // 2 for side in pixels.shape)
    centre = pixels[row : row + RADIO_SIDE_PX, column : column + RADIO_SIDE_PX].astype(np.float64)
    low, high = centre.min(), centre.max()
    return ((centre - low) / max(high - low, 1) * 255).astype(np.uint8)


def _read_columns(file):
    """Label, RA, Dec, split, and a function that gives the image of a row: from one table."""
    image, *columns = datasets(file, ("image", "label", "ra_deg", "dec_deg"), ORIGIN)
    label, ra_deg, dec_deg = (column[()] for column in columns)
    if image.ndim != 3 or label.shape != image.shape[:1]:
        raise ConfigError(f"{file.filename}: labels {label.shape}, but images of shape {image.shape}. {ORIGIN}")
    splits = text(datasets(file, ("split",), ORIGIN)[0][()]) if "split" in file else [""] * len(label)
    cache = {}

    def read_image(row: int) -> np.ndarray:
        first = row - row % SLICE
        if first not in cache:
            cache.clear()
            cache[first] = image[first : first + SLICE]
        return cache[first][row - first]

    return label, ra_deg, dec_deg, splits, read_image


def _read_groups(file):
    """The same from the published layout, a group a source."""
    keys = sorted((key for key in file if key.startswith("data_")), key=lambda key: (len(key), key))
    entries = [datasets(file[key], ("Img", "Label_literature", "Split_literature"), ORIGIN) for key in keys]
    label = np.array([int(entry[1][()]) for entry in entries])
    positions = [[entry[0].attrs.get(name, np.nan) for entry in entries] for name in ("RA", "DEC")]
    splits = text(entry[2][()] for entry in entries)
    return label, *positions, splits, lambda row: entries[row][0][()]


def _ids(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Ids from positions; those of no known position have their row's number."""
    pairs = zip(ra_deg, dec_deg, strict=True)
    return np.array(
        [f"rgd_{ra:010.6f}{dec:+010.6f}" if ra == ra else f"rgd_{row}" for row, (ra, dec) in enumerate(pairs)]
    )
