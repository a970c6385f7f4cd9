"""Real data for tests: in the folder that GALGAZE_TEST_DATA names, never in the repository."""

import os
import tarfile
from pathlib import Path

import pytest

FOLDER = os.environ.get("GALGAZE_TEST_DATA", "")
needs_data = pytest.mark.skipif(not FOLDER, reason="GALGAZE_TEST_DATA names no folder of real data")


def unpacked_mirabest(data_folder: Path, target: Path) -> Path:
    """Unpack the published MiraBest batches; gives their folder."""
    folder = target / "batches"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(data_folder / "first/mirabest/batches.tar.gz") as archive:
        for member in archive:  # by hand: Python 3.11.2, which is Debian's, knows no filter in extractall
            if member.isfile():
                (folder / Path(member.name).name).write_bytes(archive.extractfile(member).read())
    return folder
