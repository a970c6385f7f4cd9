"""Labelled sets of images to evaluate on: MiraBest's published batches, and a folder with ``labels.csv``."""

import hashlib
import io
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from galgaze import status
from galgaze.config import DirectorySurvey, PreparationSettings
from galgaze.errors import BadImage, ConfigError, NoCoverage
from galgaze.images.preparation import prepare
from galgaze.surveys.base import Source
from galgaze.tasks import Task

# Published sums (MiraBest, Porter & Scaife 2023); a file that differs is read all the same, with a warning.
MIRABEST_MD5 = {
    "data_batch_1": "b15ae155301f316fc0b51af16b3c540d",
    "data_batch_2": "0bf52cc1b47da591ed64127bab6df49e",
    "data_batch_3": "98908045de6695c7b586d0bd90d78893",
    "data_batch_4": "ec9b9b77dc019710faf1ad23f1a58a60",
    "data_batch_5": "5190632a50830e5ec30de2973cc6b2e1",
    "data_batch_6": "b7113d89ddd33dd179bf64cb578be78e",
    "data_batch_7": "626c866b7610bfd08ac94ca3a17d02a1",
    "batches.meta": "e1b5450577209e583bc43fbf8e851965",
}
# What such pickles need to name; anything else in one is refused, so that no code of theirs runs.
PICKLE_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Knows arrays, and no code to call beyond making them."""

    def find_class(self, module: str, name: str):
        """Only what arrays need."""
        if (module, name) in PICKLE_GLOBALS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core has become numpy._core
                return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it wants {module}.{name}, which is no array")


def read_array_pickle(path: Path) -> dict:
    """Read a pickled dictionary of arrays, lists and text; raises `ConfigError` for anything else."""
    try:
        content = path.read_bytes()
        value = _RestrictedUnpickler(io.BytesIO(content), encoding="latin1").load()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # a hostile pickle can fail in any way
        raise ConfigError(f"{path}: not a pickle of plain arrays ({error}); it was not executed.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a dictionary, found {type(value).__name__}.")
    expected = MIRABEST_MD5.get(path.name)
    if expected and hashlib.md5(content).hexdigest() != expected:
        warnings.warn(f"{path.name} differs from the published file (MD5 sum)", stacklevel=2)
    return value


def read_mirabest(folder: Path, split: str, subset: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and FR classes of the published MiraBest batches.

    Parameters
    ----------
    folder : Path
        Holds ``data_batch_*``, ``test_batch`` (for the split ``test``) and ``batches.meta``.
    split : {"train", "test"}
        Which batches.
    subset : {"all", "confident"}
        Whether uncertain labels (second digit 1) count.

    Returns
    -------
    image : numpy.ndarray
        (N, 1, 150, 150) uint8, rows from south to north as in our stores, and as published.
    label : numpy.ndarray
        (N,) int64: 0 FRI (codes 1xx), 1 FRII (2xx); hybrids (3xx) are left out.

    Raises
    ------
    ConfigError
        If the folder is not such a set.
    """
    paths = sorted(folder.glob("data_batch_*")) if split == "train" else [folder / "test_batch"]
    if not paths or not all(path.is_file() for path in paths):
        wanted = "data_batch_*" if split == "train" else "test_batch"
        raise ConfigError(f"{folder}: no {wanted} there. Unpack the published MiraBest batches into this folder.")
    codes = [str(name) for name in read_array_pickle(folder / "batches.meta").get("label_names", [])]
    images, labels = [], []
    for path in paths:
        batch = read_array_pickle(path)
        try:
            pixels = np.asarray(batch["data"], np.uint8)
            pixels = pixels.reshape(len(pixels), 1, *[round(np.sqrt(pixels[0].size))] * 2)
            names = [codes[int(index)] for index in batch["labels"]]
            assert len(names) == len(pixels)
        except (KeyError, ValueError, IndexError, TypeError, AssertionError) as error:
            raise ConfigError(f"{path}: not a MiraBest batch (`data` and `labels` that fit batches.meta).") from error
        images.append(pixels)
        labels += names
    keep = np.array([code[0] in "12" and (subset == "all" or code[1] == "0") for code in labels], bool)
    return np.concatenate(images)[keep], np.array([int(code[0]) - 1 for code in labels])[keep]


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
    image : numpy.ndarray
        (N, C, H, W) uint8.
    label : numpy.ndarray
        (N,) int64.
    left_out : list of str
        Files that could not be used, with reasons.

    Raises
    ------
    ConfigError
        If there is no such table, or a label is not one of the task's.
    """
    from galgaze.surveys.directory import Directory

    table = _read_labels(folder, listing)
    survey = Directory(DirectorySurvey(kind="directory", path=str(folder), pixel_scale_arcsec=pixel_scale_arcsec))
    images, labels, left_out = [], [], []
    for row in table.itertuples():
        label = _class_index(row.label, task, folder / listing.path)
        if per_class is not None and labels.count(label) >= per_class:
            continue
        try:
            body = _read_image(folder, row.file)
            prepared = prepare(survey.decode(body, Source(row.file, row.ra_deg, row.dec_deg)), preparation)
        except (BadImage, NoCoverage) as error:
            left_out.append(f"{row.file}: {error.reason}")
            continue
        if prepared.status != status.OK:
            left_out.append(f"{row.file}: {prepared.status_reason}")
            continue
        images.append(prepared.pixels)
        labels.append(label)
    if not images:
        raise ConfigError(
            f"{folder}: none of the {len(table)} files in {listing.path} is a usable image. {left_out[:3]}"
        )
    return np.stack(images), np.array(labels), left_out


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


def _read_image(folder: Path, name: str) -> bytes:
    """A file's bytes; a name without an ending, such as a source's id, is completed."""
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
