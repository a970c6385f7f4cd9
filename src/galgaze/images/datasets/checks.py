"""What the readers of the labelled sets share: values are checked, ids made unique, sets described."""

import collections

import numpy as np

from galgaze.errors import ConfigError
from galgaze.tasks import NO_CLASS, Task


def to_bytes(pixels, where: str) -> np.ndarray:
    """Pixel values as uint8; raises `ConfigError` unless they are finite whole numbers from 0 to 255."""
    try:
        pixels = np.asarray(pixels)
        numbers = pixels.dtype.kind in "uif"
    except ValueError as error:
        raise ConfigError(f"{where}: the images do not all have one shape.") from error
    if not numbers:
        raise ConfigError(f"{where}: the images are no numbers (found {pixels.dtype}).")
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all():
        raise ConfigError(f"{where}: an image holds NaN or infinite pixels. The published set has none: get it anew.")
    as_bytes = np.clip(pixels, 0, 255).astype(np.uint8)
    if not (as_bytes == pixels).all():
        raise ConfigError(f"{where}: the images must hold whole numbers from 0 to 255 (found {pixels.dtype}).")
    return as_bytes


def to_class_indices(labels, count: int, where: str) -> np.ndarray:
    """Labels as int64; raises `ConfigError` unless they are whole numbers from 0 to count - 1."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "uif":
        raise ConfigError(f"{where}: expected a number a source, found {labels.dtype} of shape {labels.shape}.")
    wrong = ~np.isin(labels, np.arange(count))
    if wrong.any():
        raise ConfigError(
            f"{where}: {int(wrong.sum())} labels are none of the classes 0 to {count - 1}, the first of them "
            f"{labels[wrong][0]} (row {int(np.flatnonzero(wrong)[0])}). Is this the right file?"
        )
    return labels.astype(np.int64)


def to_positions(ra_deg, dec_deg, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions as float64, NaN where unknown; raises `ConfigError` for such as are on no sky."""
    try:
        ra, dec = (np.array(values, np.float64).reshape(-1) for values in (ra_deg, dec_deg))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: positions must be numbers, in degrees ({error}).") from error
    if ra.shape != dec.shape:
        raise ConfigError(
            f"{where}: {len(ra)} right ascensions and {len(dec)} declinations; expected one each a source."
        )
    known = np.isfinite(ra) & np.isfinite(dec)
    ra[~known] = dec[~known] = np.nan
    off = known & ~((np.abs(dec) <= 90) & (ra >= -360) & (ra <= 360))
    if off.any():
        row = int(np.flatnonzero(off)[0])
        raise ConfigError(f"{where}: the position in row {row} is on no sky: RA {ra[row]}, Dec {dec[row]} degrees.")
    return ra % 360, dec


def unique_ids(names) -> np.ndarray:
    """Ids as they are, the second and later ones of a name with a number behind: ``name#2``; (N,) str."""
    taken, seen, unique = set(names), collections.Counter(), []
    for name in names:
        seen[name] += 1
        candidate, number = name, seen[name]
        while number > 1 and (candidate := f"{name}#{number}") in taken:
            number += 1
        taken.add(candidate)
        unique.append(candidate)
    return np.array(unique, dtype=np.str_)


def count_by_class(label: np.ndarray, task: Task) -> dict[str, int]:
    """Number of images a class, 0 too; unlabelled images only where there are any, and alone where all are."""
    unlabelled = int((label == NO_CLASS).sum())
    if unlabelled and unlabelled == len(label):
        return {"unlabelled": unlabelled}
    counts = {name: int((label == index).sum()) for index, name in enumerate(task.classes)}
    return counts | ({"unlabelled": unlabelled} if unlabelled else {})


def describe(name: str, licence: str, sha256: dict[str, str], label: np.ndarray, task: Task, **more) -> dict:
    """A set's description; refuses an empty one (`ConfigError`)."""
    if not len(label):
        raise ConfigError(f"{name}: no image of it can be used for {task.name} ({', '.join(task.classes)}).")
    counts = {"images": len(label), "by_class": count_by_class(label, task)}
    return {"name": name, "licence": licence, "sha256": sha256, **counts, **more}
