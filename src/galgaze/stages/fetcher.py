"""Sources into manifest rows: from the cache, from the survey, or from the one that stands in for it."""

import collections
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from galgaze import status
from galgaze.errors import BadImage, NoCoverage, ServiceDown, TransientError
from galgaze.stages.packs import MANIFEST
from galgaze.surveys.base import Source, Survey
from galgaze.surveys.cache import DownloadCache

# Some threads wait for a server's answer (so many as the gate lets through), others for their next try.
THREADS_A_CONNECTION = 4
AHEAD_BYTES = 64 * 10**6  # of images that may wait for an earlier one, whose server takes its time

Got = tuple[bytes, str, str | None, str | None]  # bytes, who served them, from where, and when


class Fetcher:
    """Turns sources into manifest rows; a context, that its threads end with.

    Parameters
    ----------
    surveys : dict of str to Survey
        By name: the one to ask, then the one that stands in when it fails.
    cache : DownloadCache
        Asked first, for remote surveys.
    ask_again : bool
        Do not believe the cache where it says that there is no coverage.
    """

    def __init__(self, surveys: dict[str, Survey], cache: DownloadCache, ask_again: bool = False):
        self._surveys, self._cache, self._ask_again = surveys, cache, ask_again
        self._first = next(iter(surveys.values()))
        self._pool: ThreadPoolExecutor | None = None
        self._stopped = threading.Event()
        self._one_looks = threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        """Let what is in the works end, and be kept; but whoever interrupts does not want to wait for it."""
        self._stopped.set()
        interrupted = kind is not None and not issubclass(kind, Exception)
        if self._pool:
            self._pool.shutdown(wait=not interrupted, cancel_futures=True)
        if not interrupted:
            for survey in self._surveys.values():
                survey.close()

    def rows(self, sources: list[Source]) -> Iterator[dict]:
        """One row a source, in the sources' order; stops with `TransientError` when too many fail in a row."""
        failures = 0
        for row in self._in_order(sources, self._outside(sources)):
            failures = failures + 1 if row["status"] == status.FETCH_FAILED else 0
            if self._first.remote and failures >= self._first.settings.http.give_up_after:
                raise TransientError(
                    f"{failures} sources in a row could not be fetched; the last one said: {row['status_reason']} What "
                    "was fetched before is kept: run the same command again later, and it goes on from here."
                )
            yield row

    def _in_order(self, sources: list[Source], outside: np.ndarray) -> Iterator[dict]:
        """Their rows: of a remote survey several at a time, and few ahead of their turn."""
        if not self._first.remote:
            yield from map(self._row, sources, outside)
            return
        before, alone = self._first.counts["requests"], 0
        while alone < len(sources) and self._first.counts["requests"] == before:
            # the first request goes alone: where none can succeed, or the host is only just being tried again, one is
            # enough to tell
            yield self._row(sources[alone], outside[alone])
            alone += 1
        threads = THREADS_A_CONNECTION * self._first.settings.http.connections
        ahead = threads + AHEAD_BYTES // self._first.bytes_a_source()
        self._pool = ThreadPoolExecutor(threads, "fetch")
        waiting: collections.deque[Future] = collections.deque()
        for one in zip(sources[alone:], outside[alone:], strict=True):
            waiting.append(self._pool.submit(self._row_unless_stopped, *one))
            if len(waiting) >= ahead:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    @staticmethod
    def _next(waiting: collections.deque[Future]) -> dict:
        """The row whose turn it is, or the error because of which it was not begun: a later source's."""
        while True:
            row = waiting.popleft().result()
            if row is not None:
                return row

    def _outside(self, sources: list[Source]) -> np.ndarray:
        """(N,) bool: not worth a request."""
        if not self._first.remote:
            return np.zeros(len(sources), bool)
        return _outside(self._first, sources)

    def _row_unless_stopped(self, source: Source, outside: bool) -> dict | None:
        """In a thread. After an error nothing more is begun: the rows behind it will not be written."""
        if self._stopped.is_set():
            return None
        try:
            return self._row(source, outside)
        except BaseException:
            self._stopped.set()
            raise

    def _row(self, source: Source, outside: bool) -> dict:
        """One manifest row; whatever goes wrong with one source becomes its status."""
        row = dict.fromkeys(MANIFEST.names) | {"source_id": source.source_id, "status": status.OK}
        try:
            if outside:
                raise _not_covered(self._first)
            body, row["served_by"], row["url"], row["fetched_utc"] = self._get(source)
            row |= {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body), "content": body}
        except NoCoverage as error:
            row |= {"status": status.NO_COVERAGE, "status_reason": error.reason}
        except BadImage as error:
            row |= {"status": status.BAD_IMAGE, "status_reason": error.reason}
        except ServiceDown:
            raise
        except TransientError as error:
            row |= {"status": status.FETCH_FAILED, "status_reason": str(error)}
        return row

    def _get(self, source: Source) -> Got:
        """From the first survey; where it fails (not: has nothing there) from the one that stands in."""
        first, *others = self._surveys
        try:
            return self._get_from(first, source)
        except (TransientError, BadImage) as error:
            if not others:
                raise
            return self._get_instead(others[0], source, first, error)

    def _get_instead(self, name: str, source: Source, first: str, error: Exception) -> Got:
        """From the survey that stands in; where that is in vain too the error says it of both."""
        try:
            with self._one_looks:  # the footprint may have to be loaded
                if self._surveys[name].remote and _outside(self._surveys[name], [source])[0]:
                    raise _not_covered(self._surveys[name])
            return self._get_from(name, source)
        except (TransientError, NoCoverage, BadImage) as second:
            if isinstance(error, BadImage) and not isinstance(second, TransientError):
                raise error from None  # no other try would help
            # one of them may answer for the next source
            both_down = isinstance(error, ServiceDown) and isinstance(second, ServiceDown)
            kind = ServiceDown if both_down else TransientError
            raise kind(f"{first}: {error} And {name}: {second}") from error

    def _get_from(self, name: str, source: Source) -> Got:
        survey = self._surveys[name]
        if not survey.remote:
            body, url = survey.download(source)
            return body, name, url, None
        identity = survey.identity()
        entry = self._cache.get(identity, source)
        if entry and entry.body is not None:
            return entry.body, name, entry.url, entry.fetched_utc
        if entry and not self._ask_again:
            raise NoCoverage(entry.reason)
        try:
            body, url = survey.download(source)
        except NoCoverage as error:
            self._cache.put_no_coverage(identity, source, error.reason)
            raise
        if survey.keeps_itself:
            return body, name, url, datetime.now(UTC).isoformat(timespec="seconds")
        return body, name, url, self._cache.put(identity, source, body, url).fetched_utc


def _outside(survey: Survey, sources: list[Source]) -> np.ndarray:
    ra_deg, dec_deg = (np.array([getattr(s, name) for s in sources], float) for name in ("ra_deg", "dec_deg"))
    return survey.outside(ra_deg, dec_deg)


def _not_covered(survey: Survey) -> NoCoverage:
    return NoCoverage(f"outside of the footprint {Path(survey.settings.footprint).name}")
