"""The layout of CIFAR-10 in which MiraBest and FR-DEEP are published: pickled batches, in a folder or an archive."""

import re
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from galgaze.errors import ConfigError
from galgaze.images.datasets.checks import to_bytes, to_class_indices
from galgaze.images.datasets.pickles import check_published, load_array_pickle

META = "batches.meta"
TRAIN_BATCH = re.compile(r"data_batch_(\d{1,4})")
TEST_BATCH = re.compile(r"test_(batch)")
MAX_BYTES = 512 * 2**20  # of all that an archive unpacks to; MiraBest has 25 MB


@dataclass
class Batches:
    """What the batches of a split hold.

    Attributes
    ----------
    image : numpy.ndarray
        (N, 1, H, W) uint8.
    index : numpy.ndarray
        (N,) int64, into `names`.
    names : list of str
        ``label_names`` of batches.meta.
    files : list of str
        Name of the file that each image was made from, less folder and ending; made up where a batch has none.
    content : dict of str to bytes
        The files read.
    """

    image: np.ndarray
    index: np.ndarray
    names: list[str]
    files: list[str]
    content: dict[str, bytes]


def read_batches(path: Path, split: str, name: str, editions: Sequence[Mapping[str, str]]) -> Batches:
    """Read all batches of a split.

    Parameters
    ----------
    path : Path
        Folder, folder above it, or archive.
    split : {"train", "test"}
        ``data_batch_1`` ... or ``test_batch``; the others are not opened.
    name : str
        The set's name, for messages.
    editions : sequence of dict
        Published MD5 sums by file name.

    Raises
    ------
    ConfigError
        If a file is missing, damaged or no such batch.
    """
    pattern = TRAIN_BATCH if split == "train" else TEST_BATCH
    wanted = "data_batch_*" if split == "train" else "test_batch"
    contents = _from_archive(path, pattern) if path.is_file() else _from_folder(path, pattern)
    if not any(pattern.fullmatch(file) for file in contents):
        raise ConfigError(
            f"{path}: no {wanted} there. Unpack the published {name} batches into this folder, or name their archive."
        )
    if META not in contents:
        raise ConfigError(f"{path / META}: cannot be read (not found). It comes with the batches of {name}.")
    for file, content in contents.items():
        check_published(content, file, editions)
    if split == "train":
        _warn_of_missing(path, contents, editions)
    meta = load_array_pickle(contents[META], str(path / META))
    try:
        names = [_text(label) for label in meta.get("label_names", [])]
    except TypeError as error:
        raise ConfigError(f"{path / META}: label_names is no list.") from error
    parts = [
        _read_batch(content, f"{path / file}", file, name, max(2, len(names)))
        for file, content in contents.items()
        if file != META
    ]
    images, labels, sources = zip(*parts, strict=True)
    if len({image.shape[1:] for image in images}) > 1:
        raise ConfigError(f"{path}: the batches' images have different sizes. Get the published {name} anew.")
    sources = [source for of_batch in sources for source in of_batch]
    return Batches(np.concatenate(images), np.concatenate(labels), names, sources, contents)


def _text(label) -> str:
    return label.decode("latin1") if isinstance(label, bytes) else str(label)


def _warn_of_missing(path: Path, contents: Mapping[str, bytes], editions: Sequence[Mapping[str, str]]) -> None:
    """An archive that was cut between two files is none the less whole to read."""
    missing = [sorted(set(sums) - set(contents), key=lambda name: (len(name), name)) for sums in editions]
    if missing and all(missing):
        names = ", ".join(min(missing, key=len))
        warnings.warn(f"{path} differs from the published files: {names} are missing", stacklevel=4)


def _read_batch(content: bytes, where: str, file: str, name: str, classes: int):
    """Images (N, 1, H, W), labels (N,) and file names of one batch."""
    batch = load_array_pickle(content, where)
    no_batch = f"{where}: not a {name} batch"
    try:
        data, labels = batch["data"], list(batch["labels"] if "labels" in batch else batch["fine_labels"])
        pixels = to_bytes(data, no_batch)
        side = round(np.sqrt(pixels[0].size))
        pixels = pixels.reshape(len(pixels), 1, side, side)
        if len(labels) != len(pixels):
            raise ValueError(f"{len(labels)} labels for {len(pixels)} images")
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise ConfigError(f"{no_batch} (`data` and `labels` that fit {META}).") from error
    given = batch.get("filenames")
    known = isinstance(given, list) and len(given) == len(pixels)
    names = [_stem(str(entry)) for entry in given] if known else [f"{file}-{row:04d}" for row in range(len(pixels))]
    return pixels, to_class_indices(labels, classes, no_batch), names


def _stem(file: str) -> str:
    """Less folder and ending: the numbers in MiraBest's names have full stops of their own."""
    name = PurePosixPath(file.replace("\\", "/")).name
    return re.sub(r"\.(png|jpe?g|fits(\.gz)?)$", "", name, flags=re.IGNORECASE) or file


def _from_folder(path: Path, pattern: re.Pattern) -> dict[str, bytes]:
    """Contents of batches.meta and of the batches that a pattern names, in the order of their numbers."""

    def batches_in(folder: Path) -> list[Path]:
        return [file for file in folder.iterdir() if pattern.fullmatch(file.name) and file.is_file()]

    if not path.is_dir():
        return {}
    try:
        if not batches_in(path):
            below = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and batches_in(folder)]
            if len(below) > 1:
                names = ", ".join(folder.name for folder in below)
                raise ConfigError(f"{path}: there are batches in several folders below it ({names}). Name one of them.")
            path = below[0] if below else path
        files = [path / META, *batches_in(path)]
        return _in_order({file.name: file.read_bytes() for file in files if file.is_file()}, pattern)
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: cannot be read ({error.strerror}).") from error


def _from_archive(path: Path, pattern: re.Pattern) -> dict[str, bytes]:
    """The same from a tar archive: nothing is written, links are not followed, and no path in it is used."""
    found: dict[str, dict[str, bytes]] = {}  # by folder
    total = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                total += member.size
                if total > MAX_BYTES:
                    raise ConfigError(
                        f"{path}: unpacks to more than {MAX_BYTES} bytes. Get the published archive anew."
                    )
                folder, _, name = member.name.rpartition("/")
                if member.isreg() and (name == META or pattern.fullmatch(name)):
                    found.setdefault(folder, {})[name] = archive.extractfile(member).read()
    except ConfigError:
        raise
    except Exception as error:  # a damaged or hostile archive can fail in any way
        detail = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{path}: not a whole tar archive ({detail}). Get it anew, or name the folder of the batches."
        ) from error
    folders = {folder: files for folder, files in found.items() if any(pattern.fullmatch(name) for name in files)}
    if len(folders) > 1:
        raise ConfigError(f"{path}: there are batches in several folders of it ({', '.join(sorted(folders))}).")
    return _in_order(next(iter(folders.values()), {}), pattern)


def _in_order(contents: dict[str, bytes], pattern: re.Pattern) -> dict[str, bytes]:
    def number(name: str) -> int:
        match = pattern.fullmatch(name)
        return int(match.group(1)) if match and match.group(1).isdecimal() else -1

    return {name: contents[name] for name in sorted(contents, key=lambda name: (number(name), name))}
