"""MiraBest and FR-DEEP: radio images in pickled batches, laid out as CIFAR-10 is."""

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from galgaze.errors import ConfigError
from galgaze.files import sha256_file
from galgaze.images.datasets.batch_files import META, Batches, read_batches
from galgaze.images.datasets.checks import describe, to_positions, unique_ids
from galgaze.images.datasets.labelled import LabelledSet
from galgaze.images.datasets.pickles import FRDEEP_FIRST_MD5, FRDEEP_NVSS_MD5, MIRABEST_MD5
from galgaze.tasks import RADIO_FR, Task

# MiraBest's file names: code, RA and Dec in degrees, redshift, largest angular size in arcsec.
MIRABEST_NAME = re.compile(r"\d{3}_(\d{3}\.\d+)([+-]\d{2,3}\.\d+)_\d+\.\d+_\d+\.\d+")
MIRABEST_CODE = re.compile(r"[123][01]\d")
# What may stand for the classes in FR-DEEP's label_names, less case and punctuation.
FR_NAMES = {"FRI": re.compile(r"FR(I|1)|1[01]\d"), "FRII": re.compile(r"FR(II|2)|2[01]\d")}
FIRST_TERMS = (
    "FIRST images (VLA FIRST survey, Becker, White & Helfand 1995): publication and reproduction permitted for "
    "scholarly, educational and private non-commercial use"
)


def read_mirabest(folder: Path, split: str, subset: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and FR classes of the published MiraBest batches.

    Parameters
    ----------
    folder : Path
        Holds ``data_batch_*``, ``test_batch`` (for the split ``test``) and ``batches.meta``; or their archive.
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
    labelled = read_mirabest_set(folder, RADIO_FR, subset, split)
    return labelled.image, labelled.label


def read_mirabest_set(path: Path, task: Task, subset: str = "all", split: str = "train") -> LabelledSet:
    """MiraBest (Porter & Scaife 2023; labels of Miraghaei & Best 2017), less its hybrids.

    Parameters
    ----------
    path : Path
        The folder of the batches, the folder above it, or the archive (``batches.tar.gz``), which is not unpacked.
    task : Task
        With the classes FRI and FRII.
    subset : {"all", "confident"}
        Whether uncertain labels (second digit 1) count.
    split : {"train", "test"}
        Which batches.

    Returns
    -------
    LabelledSet
        Images (N, 1, 150, 150); ids are MiraBest's file names, which hold the positions; `confident` from the labels'
        second digit.

    Raises
    ------
    ConfigError
        If there is no such set, or it is damaged or hostile.
    """
    batches = read_batches(path, split, "MiraBest", (MIRABEST_MD5,))
    if not batches.names or not all(MIRABEST_CODE.fullmatch(name) for name in batches.names):
        raise ConfigError(
            f"{path}: {META} names the labels {batches.names[:12]}, which are not MiraBest's three-digit codes. "
            "FR-DEEP has the same layout: that is kind frdeep."
        )
    codes = np.array(batches.names)[batches.index]
    confident = np.char.endswith(codes.astype("U2"), "0")
    label = np.array([int(code[0]) - 1 for code in codes])
    keep = (label < len(task.classes)) & (confident | (subset == "all"))
    positions = _positions(batches.files, str(path))
    return LabelledSet(
        image=batches.image[keep],
        label=label[keep],
        source_id=unique_ids(batches.files)[keep],
        ra_deg=positions[0][keep],
        dec_deg=positions[1][keep],
        votes=None,
        confident=confident[keep],
        description=describe(
            f"MiraBest, {split}, {subset} labels",
            FIRST_TERMS,
            _hashes(path, batches),
            label[keep],
            task,
            left_out={"hybrid": int((label >= len(task.classes)).sum())},
        ),
    )


def read_frdeep_set(path: Path, task: Task, split: str = "train") -> LabelledSet:
    """FR-DEEP (Tang, Scaife & Leahy 2019, arXiv:1903.11921): labels 0 FRI and 1 FRII, of FIRST or of NVSS images.

    Parameters
    ----------
    path : Path
        The folder of the batches, the folder above it, or their archive, which is not unpacked.
    task : Task
        With the classes FRI and FRII.
    split : {"train", "test"}
        Which batches.

    Returns
    -------
    LabelledSet
        Images (N, 1, 150, 150); positions only where file names hold them.

    Raises
    ------
    ConfigError
        If there is no such set, it is damaged or hostile, or its label names are in another order.
    """
    batches = read_batches(path, split, "FR-DEEP", (FRDEEP_FIRST_MD5, FRDEEP_NVSS_MD5))
    if len(batches.names) > len(task.classes):
        raise ConfigError(
            f"{path}: {META} names {len(batches.names)} labels, {batches.names[:12]}; FR-DEEP has two, FRI and FRII. "
            "MiraBest has the same layout: that is kind mirabest."
        )
    _check_order(path, batches.names, task)
    edition, terms = "FR-DEEP", "see the set's publishers (arXiv:1903.11921)"
    if _is_edition(batches.content, FRDEEP_FIRST_MD5):
        edition, terms = "FR-DEEP-F", FIRST_TERMS
    elif _is_edition(batches.content, FRDEEP_NVSS_MD5):
        edition = "FR-DEEP-N"
        warnings.warn(
            f"{path}: these are NVSS images of 15 arcsec a pixel: what is trained on them fits NVSS, not FIRST",
            stacklevel=2,
        )
    ra_deg, dec_deg = _positions(batches.files, str(path))
    return LabelledSet(
        image=batches.image,
        label=batches.index,
        source_id=unique_ids(batches.files),
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        votes=None,
        description=describe(f"{edition}, {split}", terms, _hashes(path, batches), batches.index, task),
    )


def _check_order(path: Path, names: Sequence[str], task: Task) -> None:
    """Refuse label names that say of a number another class than the task does; other words say nothing of it."""
    for index, name in enumerate(names):
        bare = re.sub(r"[^A-Z0-9]", "", name.upper())
        meant = [known for known, pattern in FR_NAMES.items() if pattern.fullmatch(bare)]
        if meant and meant[0] != task.classes[index]:
            raise ConfigError(
                f"{path}: {META} names the labels {list(names)}, so that {index} is {meant[0]}; FR-DEEP's labels are 0 "
                "FRI and 1 FRII. Get the published batches anew, or bring label_names and labels to this order."
            )


def _positions(names: Sequence[str], where: str) -> tuple[np.ndarray, np.ndarray]:
    found = [MIRABEST_NAME.fullmatch(name) for name in names]
    degrees = np.array([match.groups() if match else ("nan", "nan") for match in found], np.float64).reshape(-1, 2)
    return to_positions(degrees[:, 0], degrees[:, 1], where)


def _hashes(path: Path, batches: Batches) -> dict[str, str]:
    if path.is_file():
        return {path.name: sha256_file(path)}
    return {name: hashlib.sha256(content).hexdigest() for name, content in batches.content.items()}


def _is_edition(contents: Mapping[str, bytes], sums: Mapping[str, str]) -> bool:
    """Whether a batch is of this edition; both editions have the same batches.meta."""
    batches = {name: content for name, content in contents.items() if name != META}
    return any(hashlib.md5(content, usedforsecurity=False).hexdigest() == sums.get(n) for n, content in batches.items())
