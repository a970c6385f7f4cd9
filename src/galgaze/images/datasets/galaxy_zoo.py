"""Pictures of a folder, and a table of what Galaxy Zoo's volunteers voted."""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from galgaze.config import GalaxyZooDataset, PreparationSettings
from galgaze.errors import ConfigError
from galgaze.files import sha256_file
from galgaze.images.datasets.checks import describe, to_positions, unique_ids
from galgaze.images.datasets.folder_images import FolderReader
from galgaze.images.datasets.labelled import LabelledSet
from galgaze.tasks import NO_CLASS, Task

TERMS = "those of the pictures and of the votes: see their publishers (Galaxy Zoo DECaLS: Walmsley et al. 2022)"
POSITION_COLUMNS = (("ra_deg", "dec_deg"), ("ra", "dec"))
ENDINGS = (".jpg", ".jpeg", ".png")


def read_galaxy_zoo(settings: GalaxyZooDataset, task: Task, preparation: PreparationSettings) -> LabelledSet:
    """Pictures with vote fractions; no classes.

    Parameters
    ----------
    settings : GalaxyZooDataset
        Folder, table of votes (`galgaze.images.datasets.votes.read_votes`), its column of files, and the pixel scale.
    task : Task
        An optical one.
    preparation : OpticalPreparation
        From picture to network input.

    Returns
    -------
    LabelledSet
        Labels are -1, votes (N, A). Ids are the files' names without folder and ending; positions from the columns ra
        and dec, or ra_deg and dec_deg, where the table has them. Pictures that cannot be used and rows without any
        vote are left out.

    Raises
    ------
    ConfigError
        If folder or table are missing or damaged, or no picture with votes can be used.
    """
    from galgaze.images.datasets.votes import read_votes

    folder = Path(settings.path)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder. It must hold the pictures of a galaxy_zoo set.")
    path = folder / settings.table
    votes = read_votes(path, settings.file)
    votes = votes[votes.notna().any(axis=1)]
    reader = FolderReader(folder, preparation, settings.pixel_scale_arcsec)
    images = [reader.read(file) for file in votes.index]
    usable = np.array([image is not None for image in images], bool)
    if not usable.any():
        raise ConfigError(
            f"{folder}: none of the {len(votes)} files with votes in {settings.table} is a usable picture. "
            f"{reader.left_out[:3]}"
        )
    votes = votes[usable]
    ra_deg, dec_deg = _positions(path, settings.file, votes.index)
    label = np.full(len(votes), NO_CLASS, np.int64)
    sha256 = {settings.table: sha256_file(path), "files": reader.digest.hexdigest()}
    left_out = {"unusable": len(reader.left_out)}
    return LabelledSet(
        image=np.stack([image for image in images if image is not None]),
        label=label,
        source_id=unique_ids([_name(file) for file in votes.index]),
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        votes=votes.to_numpy(np.float32),
        description=describe(f"Galaxy Zoo pictures, {folder.name}", TERMS, sha256, label, task, left_out=left_out),
    )


def _name(file: str) -> str:
    path = PurePosixPath(file)
    return path.stem if path.suffix.lower() in ENDINGS else path.name


def _positions(path: Path, file_column: str, files: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """RA and Dec, degrees, of the files; NaN where the table has none."""
    parquet = path.name.endswith(".parquet")
    table = pd.read_parquet(path) if parquet else pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table.set_axis(table[file_column].astype(str)).loc[files]
    for columns in POSITION_COLUMNS:
        if set(columns) <= set(table.columns):
            return to_positions(*(pd.to_numeric(table[name], errors="coerce") for name in columns), str(path))
    return (np.full(len(files), np.nan),) * 2
