"""A folder of images with a table of labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from galgaze.config import PreparationSettings
from galgaze.errors import ConfigError
from galgaze.files import sha256_file
from galgaze.images.datasets.checks import describe, to_positions, unique_ids
from galgaze.images.datasets.folder_images import FolderReader
from galgaze.images.datasets.labelled import LabelledSet
from galgaze.tasks import Task

TERMS = "those of the folder's owner"


@dataclass(frozen=True)
class LabelTable:
    """How the table of a labelled folder is named and laid out.

    Attributes
    ----------
    path : str
        Looked up from the folder.
    file, label : str
        Columns: the file, from the folder, with or without its ending; and its class.
    classes : dict of str, or None
        From labels as they stand in the table to class names; rows with other labels are not used.
    """

    path: str = "labels.csv"
    file: str = "file"
    label: str = "label"
    classes: dict[str, str] | None = None


def read_labelled_directory(
    folder: Path,
    task: Task,
    preparation: PreparationSettings,
    pixel_scale_arcsec: float | None = None,
    listing: LabelTable = LabelTable(),
    per_class: int | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images, labels and what was left out of `read_labelled_folder`, which has the same parameters and errors.

    Returns
    -------
    image : numpy.ndarray
        (N, C, H, W) uint8.
    label : numpy.ndarray
        (N,) int64.
    left_out : list of str
        Files that could not be used, with reasons.
    """
    labelled, left_out = read_labelled_folder(folder, task, preparation, pixel_scale_arcsec, listing, per_class)
    return labelled.image, labelled.label, left_out


def read_labelled_folder(
    folder: Path,
    task: Task,
    preparation: PreparationSettings,
    pixel_scale_arcsec: float | None = None,
    listing: LabelTable = LabelTable(),
    per_class: int | None = None,
) -> tuple[LabelledSet, list[str]]:
    """Images of a folder with a table of labels (``labels.csv``: file, label), prepared for a model.

    Labels are class names, in any case, or their numbers. Pictures of unknown scale are taken whole. FITS
    files need the source's position: columns ``ra_deg`` and ``dec_deg`` of the table.

    Parameters
    ----------
    folder : Path
        Holds the images and the table.
    task : Task
        Whose classes the labels are.
    preparation : PreparationSettings
        As the model saw its images.
    pixel_scale_arcsec : float or None
        Of pictures; None: unknown.
    listing : LabelTable
        Names of the table and of its columns.
    per_class : int or None
        Read only the first so many usable images of each class.

    Returns
    -------
    LabelledSet
        Ids are the files as the table names them; positions where it has them.
    left_out : list of str
        Files that could not be used, with reasons.

    Raises
    ------
    ConfigError
        If there is no such table, a label is not one of the task's, or no image can be used.
    """
    table = _read_labels(folder, listing)
    to_positions(table["ra_deg"], table["dec_deg"], str(folder / listing.path))
    reader = FolderReader(folder, preparation, pixel_scale_arcsec)
    images, labels, rows = [], [], []
    for row in table.itertuples():
        label = _class_index(row.label, task, folder / listing.path)
        if per_class is not None and labels.count(label) >= per_class:
            continue
        pixels = reader.read(row.file, row.ra_deg, row.dec_deg)
        if pixels is not None:
            images.append(pixels)
            labels.append(label)
            rows.append(row.Index)
    if not images:
        raise ConfigError(
            f"{folder}: none of the {len(table)} files in {listing.path} is a usable image. {reader.left_out[:3]}"
        )
    used, label = table.loc[rows], np.array(labels, np.int64)
    ra_deg, dec_deg = to_positions(used["ra_deg"], used["dec_deg"], str(folder / listing.path))
    left_out = {"unusable": len(reader.left_out)}
    sha256 = {listing.path: sha256_file(folder / listing.path), "files": reader.digest.hexdigest()}
    labelled = LabelledSet(
        image=np.stack(images),
        label=label,
        source_id=unique_ids(used["file"].tolist()),
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        votes=None,
        description=describe(f"folder {folder.name}", TERMS, sha256, label, task, left_out=left_out),
    )
    return labelled, reader.left_out


def _read_labels(folder: Path, listing: LabelTable) -> pd.DataFrame:
    """Rows with the columns file, label, ra_deg, dec_deg (NaN where the table has none)."""
    path = folder / listing.path
    wanted = {"file": listing.file, "label": listing.label}
    named = " and ".join(wanted.values())
    try:
        table = pd.read_csv(path, dtype=str)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: not found. It must list the images: columns {listing.file}, {listing.label}."
        ) from error
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as CSV ({error}).") from error
    if not set(wanted.values()) <= set(table.columns) or table.empty:
        raise ConfigError(f"{path}: needs rows with the columns {named}; it has {', '.join(table.columns)}.")
    rows = pd.DataFrame({name: table[column] for name, column in wanted.items()})
    for name in ("ra_deg", "dec_deg"):
        rows[name] = pd.to_numeric(table[name], errors="coerce") if name in table else np.nan
    rows = rows.dropna(subset=["file", "label"])
    if listing.classes is not None:
        rows = rows.assign(label=rows["label"].str.strip().map(listing.classes)).dropna(subset=["label"])
        if rows.empty:
            raise ConfigError(
                f"{path}: no row has one of the labels {', '.join(listing.classes)} in its column {listing.label}."
            )
    return rows


def _class_index(label: str, task: Task, path: Path) -> int:
    names = [name.lower() for name in task.classes]
    text = label.strip().lower()
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise ConfigError(
        f"{path}: the label {label!r} is no class of {task.name}. Use {', '.join(task.classes)}, or their "
        f"numbers 0 to {len(names) - 1}."
    )
