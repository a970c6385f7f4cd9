"""The Zarr store of prepared images of one field, survey and preparation.

A row of the arrays is ``shard * shard_size + position in the shard``; the last rows of a shard may be
empty (`source_id` is ""). One storage object holds one shard of one array, written whole by one job.

==================  ======================  ==================================================================
array               shape, dtype            content
==================  ======================  ==================================================================
image               (N, C, H, W) uint8      the network's input before scaling; rows from south to north
valid               (N,) bool               whether there is an image to predict on
status              (N,) str                one of `galgaze.status.STATUSES`; "" in empty rows
status_reason       (N,) str                in words
coverage            (N,) float32            observed fraction of the field of view
pixel_scale_arcsec  (N,) float32            side of a pixel; NaN where unknown
centre_px           (N, 2) float32          column and row of the source
jacobian_arcsec     (N, 2, 2) float32       d(east, north) / d(column, row)
image_sha256        (N,) str                of the bytes as served
source_id           (N,) str                as in the field
==================  ======================  ==================================================================
"""

import contextlib
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import zarr
from zarr.errors import ContainsArrayError, ContainsGroupError

from galgaze.errors import ConfigError

INNER_CHUNK = 10  # images; one image is then as quick to read as with 1, and bulk reading stays quick


def _text(size: int) -> np.ndarray:
    return np.full(size, "", dtype=object)


@dataclass
class ShardImages:
    """The rows of one shard, all arrays together."""

    image: np.ndarray  # (S, C, H, W)
    valid: np.ndarray = field(default=None)
    status: np.ndarray = field(default=None)
    status_reason: np.ndarray = field(default=None)
    coverage: np.ndarray = field(default=None)
    pixel_scale_arcsec: np.ndarray = field(default=None)
    centre_px: np.ndarray = field(default=None)
    jacobian_arcsec: np.ndarray = field(default=None)
    image_sha256: np.ndarray = field(default=None)
    source_id: np.ndarray = field(default=None)

    @classmethod
    def empty(cls, size: int, image_shape: tuple[int, int, int]) -> "ShardImages":
        """As many rows, all without an image."""
        return cls(
            image=np.zeros((size, *image_shape), np.uint8),
            valid=np.zeros(size, bool),
            status=_text(size),
            status_reason=_text(size),
            coverage=np.zeros(size, np.float32),
            pixel_scale_arcsec=np.full(size, np.nan, np.float32),
            centre_px=np.full((size, 2), np.nan, np.float32),
            jacobian_arcsec=np.full((size, 2, 2), np.nan, np.float32),
            image_sha256=_text(size),
            source_id=_text(size),
        )


ARRAYS = tuple(column.name for column in fields(ShardImages))


def ensure_store(path: Path, shards: int, shard_size: int, image_shape: tuple[int, int, int], attributes: dict) -> None:
    """Make the store if it is not there, and let it grow if it is too short.

    Safe where several jobs do it at once: they write the same few metadata files, each atomically.

    Raises
    ------
    ConfigError
        If a store of another shape stands there.
    """
    rows = shards * shard_size
    sample = ShardImages.empty(0, image_shape)
    group = _open_or_make(path, attributes)
    for name in ARRAYS:
        like = getattr(sample, name)
        shape = (rows, *like.shape[1:])
        if name not in group:
            _create(group, name, shape, like.dtype, shard_size)
        array = group[name]
        if array.shape[1:] != shape[1:] or array.shards[0] != shard_size:
            raise ConfigError(
                f"{path}: this store was made with another shape or shard size. Remove it, or give the field "
                "another name."
            )
        if array.shape[0] < rows:
            array.resize(shape)


def _open_or_make(path: Path, attributes: dict) -> zarr.Group:
    try:
        return zarr.open_group(path, mode="a", attributes=attributes)
    except ContainsGroupError:  # another job has made it between Zarr's look and its making
        return zarr.open_group(path, mode="r+")


def _create(group: zarr.Group, name: str, shape: tuple, dtype: np.dtype, shard_size: int) -> None:
    inner = max(size for size in range(1, INNER_CHUNK + 1) if shard_size % size == 0)
    chunk = inner if name == "image" else shard_size
    with warnings.catch_warnings(), contextlib.suppress(ContainsArrayError):  # another job was quicker
        warnings.simplefilter("ignore")  # strings in Zarr 3 are settled in practice, not yet in the letter
        group.create_array(
            name,
            shape=shape,
            dtype=str if dtype.kind == "O" else dtype,
            chunks=(chunk, *shape[1:]),
            shards=(shard_size, *shape[1:]),
            overwrite=False,
            # a shard that was written always has its object, even when it is all zeros
            config={"write_empty_chunks": True},
        )


def write_shard(path: Path, shard: int, images: ShardImages) -> list[Path]:
    """Write all rows of a shard, each array in one piece; gives the files written."""
    group = zarr.open_group(path, mode="r+")
    size = len(images.image)
    rows = slice(shard * size, (shard + 1) * size)
    for old in shard_files(path, shard):
        old.unlink(missing_ok=True)  # Zarr reads what stands there first, and stops where that is damaged
    with zarr.config.set({"array.write_empty_chunks": True}):
        for name in ARRAYS:
            group[name][rows] = getattr(images, name)
    return shard_files(path, shard)


def shard_files(path: Path, shard: int) -> list[Path]:
    """The storage objects of one shard."""
    group = zarr.open_group(path, mode="r")
    return [path / name / "c" / "/".join([str(shard)] + ["0"] * (group[name].ndim - 1)) for name in ARRAYS]


def read_shard(path: Path, shard: int, names: tuple[str, ...] = ARRAYS) -> ShardImages:
    """Read the rows of one shard; whether they are whole is for the caller to check by the marker's hashes."""
    group = zarr.open_group(path, mode="r")
    size = group["image"].shards[0]
    rows = slice(shard * size, (shard + 1) * size)
    values = {name: group[name][rows] if name in names else None for name in ARRAYS}
    return ShardImages(**values)
