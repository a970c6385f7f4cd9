"""The verbs of `galgaze cache`: how large it is, whether it is whole, and less of it."""

import collections
import contextlib
import itertools
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from galgaze import status
from galgaze.files import sha256_file
from galgaze.stages.context import Run
from galgaze.stages.fetch import open_cache
from galgaze.surveys.brick_files import ABSENT, CHECKSUM
from galgaze.surveys.cache import read_entry, read_head
from galgaze.words import size

DAY_S = 86_400.0
STALE_S = DAY_S  # what a kill left half, and no job can still be writing
FOLDERS = ("bricks", "footprints")  # of files that are kept as they came, below the cache
IMAGES, NOTHING, FILES = "images", "no coverage", "files"
DAMAGED = "damaged"


class Kept(NamedTuple):
    """One file of the cache.

    Attributes
    ----------
    path : Path
        Where.
    kind : str
        Of the survey (``legacy``, ``first`` ...), ``bricks``, ``footprints`` or ``damaged``.
    what : str
        `IMAGES`, `NOTHING` or `FILES`.
    since : float
        Seconds since 1970: when it came.
    size : int
        Bytes.
    """

    path: Path
    kind: str
    what: str
    since: float
    size: int


def cache_size(run: Run) -> str:
    """Files and megabytes by kind of survey, for the terminal."""
    kinds: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for kept in _kept(run):
        kinds[kept.kind] += collections.Counter({kept.what: 1, "bytes": kept.size})
    files = sum(counts.total() - counts["bytes"] for counts in kinds.values())
    lines = [f"{run.config.cache}: {_amount(files, sum(counts['bytes'] for counts in kinds.values()))}"]
    for kind, counts in sorted(kinds.items()):
        parts = [f"{counts[what]} {what}" for what in (IMAGES, NOTHING, FILES) if counts[what]]
        lines.append(f"  {kind}: {', '.join(parts)}, {size(counts['bytes'] / 1e6)}")
    return "\n".join(lines)


def cache_verify(run: Run) -> str:
    """Read everything; what is damaged is removed, so that it will be fetched again."""
    good, damaged = 0, []
    for kept in _kept(run):
        if kept.kind in FOLDERS and kept.path.name.endswith((CHECKSUM, ABSENT)):
            continue
        try:
            _verify_file(kept.path) if kept.kind in FOLDERS else read_entry(kept.path)
            good += 1
        except FileNotFoundError:
            continue  # another job has just removed it
        except ValueError as error:
            damaged.append(f"  {kept.path}: {error}")
            _remove(kept.path)
    verdict = f"{len(damaged)} damaged, removed: they will be fetched again" if damaged else "none damaged"
    return "\n".join([f"{run.config.cache}: {good} good, {verdict}", *damaged])


def cache_prune(
    run: Run,
    older_than_days: float | None = None,
    no_coverage: bool = False,
    kind: str | None = None,
    dry_run: bool = False,
) -> str:
    """Remove what all of the conditions hold for; gives lines that say how much.

    What can be of no use any more (damaged entries, what kills left half) goes in any case; nothing else does where
    there is no condition.

    Parameters
    ----------
    run : Run
        Whose cache.
    older_than_days : float, optional
        It came longer ago.
    no_coverage : bool
        It says that nothing is there.
    kind : str, optional
        It is of this kind, as `cache_size` names them.
    dry_run : bool
        Remove nothing.
    """
    conditions = older_than_days is not None or no_coverage or kind is not None
    before = time.time() - DAY_S * (older_than_days or 0)
    counts: collections.Counter[str] = collections.Counter()
    removed_bytes = 0
    for kept in itertools.chain(_kept(run), _left_half(run)):
        meant = kept.since <= before and (kept.what == NOTHING or not no_coverage) and kind in (None, kept.kind)
        if kept.kind == DAMAGED or (conditions and meant):
            counts[kept.kind] += 1
            removed_bytes += kept.size
            if not dry_run:
                _remove(kept.path)
    by_kind = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    line = f"{run.config.cache}: {_amount(counts.total(), removed_bytes)} {'would be ' if dry_run else ''}removed"
    return f"{line} ({by_kind})" if counts else line


def _kept(run: Run) -> Iterator[Kept]:
    """Everything that is kept; what another job removes meanwhile is passed over."""
    for path in open_cache(run).entries():
        with contextlib.suppress(FileNotFoundError):
            yield _entry(path)
    for folder in FOLDERS:
        for path in sorted(Path(run.config.cache, folder).rglob("*")):
            if path.is_file() and not path.name.startswith(".") and path.suffix != ".lock":
                with contextlib.suppress(FileNotFoundError):
                    what = NOTHING if path.suffix == ABSENT else FILES
                    yield Kept(path, folder, what, path.stat().st_mtime, path.stat().st_size)


def _remove(path: Path) -> None:
    with contextlib.suppress(PermissionError):  # another user's, in a folder where only owners may remove
        path.unlink(missing_ok=True)


def _entry(path: Path) -> Kept:
    length = path.stat().st_size
    try:
        head = read_head(path)
    except ValueError:
        return Kept(path, DAMAGED, FILES, 0.0, length)
    what = NOTHING if head["status"] == status.NO_COVERAGE else IMAGES
    since = datetime.fromisoformat(head["fetched_utc"]).timestamp()
    return Kept(path, head["request"].get("kind", "unknown"), what, since, length)


def _left_half(run: Run) -> Iterator[Kept]:
    for path in Path(run.config.cache).rglob(".*.partial"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_S:
                yield Kept(path, DAMAGED, FILES, path.stat().st_mtime, path.stat().st_size)


def _verify_file(path: Path) -> None:
    """Compare a file that is kept as it came with its checksum, where it has one."""
    checksum = path.with_name(path.name + CHECKSUM)
    if checksum.exists() and checksum.read_text().split()[:1] != [sha256_file(path)]:
        raise ValueError("not the file that was kept")


def _amount(files: int, size_bytes: int) -> str:
    return f"{files} file{'' if files == 1 else 's'}, {size(size_bytes / 1e6)}" if files else "nothing"
