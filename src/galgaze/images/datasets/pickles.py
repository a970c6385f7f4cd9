"""Pickles of published sets: read, never run, and compared with the published sums."""

import hashlib
import io
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from galgaze.errors import ConfigError

# Published MD5 sums; a file that differs is read all the same, with a warning.
# MiraBest: Porter & Scaife 2023.
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
# FR-DEEP of FIRST and of NVSS images: Tang et al. 2019.
FRDEEP_FIRST_MD5 = {
    "data_batch_1": "f34da44757c7fa3f6e6cd3d0839a4634",
    "data_batch_2": "f56cda0d9a99305fee2bad7de0560f95",
    "data_batch_3": "93265dd849331af4e1b092f74b06450b",
    "data_batch_4": "0de8f4c18b775251f4e553e2990cd446",
    "data_batch_5": "c6aa87400a1be6007da7cfcefd2c3e5c",
    "data_batch_6": "cebd3fdea93abbc048a3a4d5e58528e0",
    "data_batch_7": "49497445e9380f157e78cf8d74fca1eb",
    "data_batch_8": "88e298eed2d87bbdddad83fef1482723",
    "data_batch_9": "8c40117dbf4d456e63a8a665b245aa63",
    "data_batch_10": "f24d110cc5811ba4651630b9ee9b2989",
    "data_batch_11": "b843dc3b7f48606235029f135d41c85e",
    "batches.meta": "655493bdee948954f3939727b3f9e735",
}
FRDEEP_NVSS_MD5 = {
    "data_batch_1": "3a2a15d88756ba61c796378fc8574540",
    "data_batch_2": "6a04e3985397e1f67f0ad42153dca64e",
    "data_batch_3": "d852c8200f3bbb63beacf31f3e954f9a",
    "data_batch_4": "a5739996ca44a1a1841f2d0e6b844dd6",
    "data_batch_5": "8e2fdb3f60bf7541ca135fc8e2407f7a",
    "data_batch_6": "9e5a82500bd9742f8fefe412ada95336",
    "data_batch_7": "f66af7795265fbe24376f669200412c4",
    "data_batch_8": "75982afc09bf480ecc521acdb39cbe46",
    "data_batch_9": "72aee306fef9acee21a0e5537bb681e4",
    "data_batch_10": "7a039ce8062a533b23b401a612c5f9b7",
    "data_batch_11": "c0013314098c96ca4c7c20c0f17abcd3",
    "batches.meta": "655493bdee948954f3939727b3f9e735",
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


def load_array_pickle(content: bytes, where: str) -> dict:
    """Unpickle a dictionary of arrays, lists and text.

    Parameters
    ----------
    content : bytes
        The pickle.
    where : str
        What to call it in messages.

    Raises
    ------
    ConfigError
        For anything else; nothing that a pickle names is run.
    """
    try:
        value = _RestrictedUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a hostile pickle can fail in any way
        raise ConfigError(f"{where}: not a pickle of plain arrays ({error}); it was not executed.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a dictionary, found {type(value).__name__}.")
    return value


def check_published(content: bytes, name: str, editions: Sequence[Mapping[str, str]]) -> None:
    """Warn of a file that is in none of the published editions (MD5 sums by file name)."""
    expected = [sums[name] for sums in editions if name in sums]
    if expected and hashlib.md5(content, usedforsecurity=False).hexdigest() not in expected:
        warnings.warn(f"{name} differs from the published file (MD5 sum)", stacklevel=3)


def read_array_pickle(path: Path, editions: Sequence[Mapping[str, str]] = (MIRABEST_MD5,)) -> dict:
    """Read a pickled dictionary of arrays, lists and text; raises `ConfigError` for anything else.

    Parameters
    ----------
    path : Path
        The file.
    editions : sequence of dict
        Published MD5 sums by file name; a file that fits none is read with a warning.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    value = load_array_pickle(content, str(path))
    check_published(content, path.name, editions)
    return value
