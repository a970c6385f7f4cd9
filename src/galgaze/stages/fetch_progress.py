"""What fetching a shard is doing, and has done: lines for terminal and log, and the shard's ledger."""

import collections
import contextlib
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from galgaze.stages.terminal import say
from galgaze.surveys.base import Survey
from galgaze.words import duration, size

SAY_EVERY_S = 10.0


class Progress:
    """Counts what a job does: lines for terminal and log, and a line in the shard's ledger when it ends, however.

    Parameters
    ----------
    what : str
        Field, survey and shard.
    total : int
        Sources.
    surveys : dict of str to Survey
        Whose requests are counted.
    way : str or None
        See `choose_way`.
    ledger : path
        JSON lines, one a job; none for local surveys.
    """

    def __init__(self, what: str, total: int, surveys: dict[str, Survey], way: str | None, ledger: Path):
        self._what, self._total, self._way, self._ledger = what, total, way, ledger
        self._remote = [survey for survey in surveys.values() if survey.remote]
        self._statuses: collections.Counter[str] = collections.Counter()
        self._ended = threading.Event()
        self._speaker = threading.Thread(target=self._speak, name="progress", daemon=True)

    def __enter__(self):
        self._started, self._began_utc = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        self._before, self._last = self._counts(), (self._started, 0)
        if self._remote:
            self._speaker.start()
        return self

    def __exit__(self, kind, *_):
        self._ended.set()
        if not self._remote:
            return
        self._speaker.join()
        line = self.summary() | {"ended": "whole" if kind is None else kind.__name__}
        with contextlib.suppress(OSError):  # news, no result: it must not hide the error that ended the job
            self._ledger.parent.mkdir(parents=True, exist_ok=True)
            with open(self._ledger, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        say(self._line())

    def note(self, row: dict) -> None:
        """One more source is done."""
        self._statuses[row["status"]] += 1

    def by_status(self) -> str:
        """How many sources ended how."""
        return ", ".join(f"{n} {name}" for name, n in sorted(dict(self._statuses).items())) or "nothing to fetch"

    def summary(self) -> dict:
        """Of the job so far."""
        counts = self._counts() - self._before
        return {
            "began_utc": self._began_utc,
            "seconds": round(time.monotonic() - self._started, 3),
            "way": self._way,
            "sources": dict(self._statuses),
            "requests": counts.pop("requests", 0),
            "bytes": counts.pop("bytes", 0),
            "in_vain": dict(counts),
        }

    def _counts(self) -> collections.Counter:
        # copied at one go: other threads go on counting
        return sum((collections.Counter(dict(survey.counts)) for survey in self._remote), collections.Counter())

    def _speak(self) -> None:
        """In a thread of its own: it is when nothing comes that one wants to know why."""
        while not self._ended.wait(SAY_EVERY_S):
            say(self._line())

    def _line(self) -> str:
        now, done = self.summary(), sum(dict(self._statuses).values())
        vain = "; in vain: " + ", ".join(f"{n} {kind}" for kind, n in sorted(now["in_vain"].items()))
        return (
            f"{self._what}: {done} of {self._total}{f' ({self.by_status()})' if done else ''}, {self._pace(done)}; "
            f"{now['requests']} requests, {size(now['bytes'] / 1e6)}{vain if now['in_vain'] else ''}"
        )

    def _pace(self, done: int) -> str:
        """Sources a second and time left, since the line before (what the cache had says nothing of the rest)."""
        (since, before), now = self._last, time.monotonic()
        self._last = now, done
        if self._ended.is_set():
            since, before = self._started, 0
        rate = (done - before) / max(now - since, 1e-3)
        left = "" if self._ended.is_set() or not rate else f", about {duration((self._total - done) / rate)} left"
        return f"{rate:.1f}/s{left}"


def read_ledger(path: Path) -> list[dict]:
    """What the jobs of a shard did, in order; a line that a kill left half is passed over."""
    lines = []
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    return lines
