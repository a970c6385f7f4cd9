"""A folder of accepted downloads, addressed by the request; Snakemake knows nothing of it.

Fields, runs and users may share it. An entry is one file: a line of JSON that says what was asked for, what came and
when, then the body. Its SHA-256 is checked on every read, so that decay, and what a crash left half, is noticed. Where
a survey has no image of a position the entry is that line alone, a tombstone, believed for so many days. Failures are
never kept.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from galgaze import status
from galgaze.files import atomic_path, sha256_json
from galgaze.surveys.base import Source

ENTRIES = "cutouts"  # below the cache's folder; `bricks` and `footprints` stand beside it
POSITION_DIGITS = 7  # of degrees: as finely as surveys are asked
HEAD = {"request", "status", "reason", "url", "fetched_utc", "bytes", "sha256"}
HEAD_BYTES = 2**16  # more than any head is long


class Entry(NamedTuple):
    """What is known of a request: a body, or (None) that there is no coverage, for this reason."""

    body: bytes | None
    reason: str | None
    url: str | None
    fetched_utc: str


class DownloadCache:
    """Answers by request.

    Parameters
    ----------
    folder : path
        Made when first written to; whoever may write into it may share it: new folders get its permissions.
    no_coverage_days : float
        Age at which a tombstone is no longer believed.
    now : callable
        Gives the time with its zone; to be replaced in tests.
    """

    def __init__(self, folder: str | Path, no_coverage_days: float = 90.0, now=lambda: datetime.now(UTC)):
        self.folder = Path(folder)
        self._no_coverage = timedelta(days=no_coverage_days)
        self._now = now

    def path(self, identity: dict, source: Source) -> Path:
        """Where the answer for this survey identity and position stands."""
        address = sha256_json(_request(identity, source))
        return self.folder / ENTRIES / address[:2] / address

    def get(self, identity: dict, source: Source) -> Entry | None:
        """The entry, or None where there is none, or none that can be believed (then it is removed)."""
        path = self.path(identity, source)
        try:
            entry = read_entry(path)
        except FileNotFoundError:
            return None
        except OSError:
            return None  # it cannot be read now; that is no damage
        except ValueError:
            entry = None
        if entry is None or (entry.body is None and self._too_old(entry.fetched_utc)):
            with contextlib.suppress(OSError):  # another user's, perhaps; it will be replaced
                path.unlink(missing_ok=True)
            return None
        return entry

    def known(self, identity: dict, source: Source) -> str | None:
        """The status that an entry gives a source, without reading its body; None where it is to be asked for."""
        try:
            with open(self.path(identity, source), "rb") as file:
                head = _read_head(file.readline(HEAD_BYTES))
        except (OSError, ValueError):
            return None
        if head["status"] == status.NO_COVERAGE and self._too_old(head["fetched_utc"]):
            return None
        return head["status"]

    def put(self, identity: dict, source: Source, body: bytes, url: str | None = None) -> Entry:
        """Keep an accepted body."""
        entry = Entry(body, None, url, self._now().isoformat(timespec="seconds"))
        self._write(identity, source, entry)
        return entry

    def put_no_coverage(self, identity: dict, source: Source, reason: str) -> None:
        """Keep that the survey has nothing there."""
        self._write(identity, source, Entry(None, reason, None, self._now().isoformat(timespec="seconds")))

    def _write(self, identity: dict, source: Source, entry: Entry) -> None:
        path = self.path(identity, source)
        make_folder(path.parent, self.folder)
        body = entry.body or b""
        head = {
            "request": _request(identity, source),
            "status": status.NO_COVERAGE if entry.body is None else status.OK,
            "reason": entry.reason,
            "url": entry.url,
            "fetched_utc": entry.fetched_utc,
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        try:
            # not flushed to the disk one by one: what a power failure left half is noticed when it is read
            with atomic_path(path, durable=False) as temporary:
                temporary.write_bytes(json.dumps(head).encode() + b"\n" + body)
        except OSError as error:
            error.filename = error.filename or str(path)
            raise

    def _too_old(self, fetched_utc: str) -> bool:
        return self._now() - datetime.fromisoformat(fetched_utc) > self._no_coverage

    def entries(self) -> Iterator[Path]:
        """Every entry's file, damaged ones too."""
        for folder in sorted(self.folder.joinpath(ENTRIES).glob("[0-9a-f][0-9a-f]")):
            yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def read_entry(path: Path) -> Entry:
    """Read and verify an entry; raises `OSError`, or `ValueError` where it is damaged or is not what its name says."""
    content = path.read_bytes()
    line, newline, body = content.partition(b"\n")
    head = _read_head(line + newline)
    if path.name != sha256_json(head["request"]):
        raise ValueError("the entry does not stand under its request's address")
    if len(body) != head["bytes"] or hashlib.sha256(body).hexdigest() != head["sha256"]:
        raise ValueError("the body is not the one that was kept")
    return Entry(body if head["status"] == status.OK else None, head["reason"], head["url"], head["fetched_utc"])


def read_head(path: Path) -> dict:
    """What an entry says of itself, without its body; raises as `read_entry`."""
    with open(path, "rb") as file:
        return _read_head(file.readline(HEAD_BYTES))


def _read_head(line: bytes) -> dict:
    if not line.endswith(b"\n"):
        raise ValueError("the entry has no head")
    try:
        head = json.loads(line)
    except ValueError as error:
        raise ValueError("the entry's head cannot be read") from error
    if not (isinstance(head, dict) and head.keys() >= HEAD and isinstance(head["request"], dict)):
        raise ValueError("the entry's head is not ours")
    if head["status"] not in (status.OK, status.NO_COVERAGE):
        raise ValueError("the entry's head has no status of ours")
    if datetime.fromisoformat(str(head["fetched_utc"])).tzinfo is None:
        raise ValueError("the entry's head has a time without its zone")
    return head


def _request(identity: dict, source: Source) -> dict:
    """What is asked for: not who asks, nor under which id."""
    ra_deg, dec_deg = (round(float(value), POSITION_DIGITS) for value in (source.ra_deg, source.dec_deg))
    return {**identity, "ra_deg": ra_deg % 360, "dec_deg": dec_deg + 0.0}  # -0.0 is 0.0


def make_folder(path: Path, root: Path) -> None:
    """Make a folder below the root, with the root's permissions, so that those who share the root can write there."""
    if path.is_dir():
        return
    root.mkdir(parents=True, exist_ok=True)
    mode = root.stat().st_mode & 0o7777
    for folder in [*reversed([parent for parent in path.parents if root in parent.parents]), path]:
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        if folder.stat().st_uid == os.getuid():
            folder.chmod(mode)
