"""One limit a host, kept in files: it holds across threads, jobs, runs, and users who share the folder.

A request takes a turn: one of so many slots (a file lock, which dies with its process), and a time to start that
stands so far behind the last one given out. What the host says, or does not say, closes the gate for everybody:
Retry-After until the time that it names, failures in a row for a while (a circuit breaker; after it one may try).

    state.json       the next start, and what closes the gate; whoever locks it reads and writes it
    slot-0 ...       locked by a request in the works
    door             locked by the one who looks for a free slot; the others stand behind, so nobody is overtaken
                     for ever by a process that always has another thread ready

The locks are flock(2). They are tried, not waited for in the kernel: a network file system would look again after
seconds only. The state stands in the file that is locked, because that is what makes network file systems read it
anew. (The package filelock takes 40 times as long a lock, and where flock is missing falls back to files that outlive
a killed process.)
"""

import contextlib
import fcntl
import json
import math
import os
import random
import re
import stat
import threading
import time
from datetime import datetime
from pathlib import Path

import httpx

from galgaze.config import HttpSettings
from galgaze.errors import ConfigError, ServiceDown

SLOT_AGAIN_S = 0.02  # between two looks for a free slot, about; such are held for a request
STATE_AGAIN_S = 0.001  # for the state, which is held for microseconds
LONGEST_CLOSED_S = 86_400.0  # whatever a host asks for
OTHER_CLOCK_S = 60.0  # a time so far ahead, that nobody can have set, was set by another clock
NEW = {"next_start": 0.0, "closed_until": 0.0, "failures": 0.0, "failed_at": 0.0, "trial_at": 0.0}
STATE_BYTES = 4096  # more than it ever has


def default_folder() -> Path:
    """Where the state of the hosts stands unless the configuration says otherwise: with the user, not the run."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "galgaze" / "hosts"


class HostGate:
    """The way to one host; threads may share it.

    Parameters
    ----------
    url : str
        Any address of the host; host name and port count.
    settings : HttpSettings
        Slots, pause, and when to give up. Requests of other settings to the same host keep to their own.
    folder : path
        Shared by all who are to keep to one limit. What is made in it is as open to other users as the folder is.
    sleep, clock : callable
        To be replaced in tests.

    Raises
    ------
    ConfigError
        If files in the folder cannot be locked.
    """

    def __init__(self, url: str, settings: HttpSettings, folder: str | Path, sleep=time.sleep, clock=time.time):
        self.host = httpx.URL(url).netloc.decode().lower() or "unknown"  # without a user's name, or a default port
        self.settings = settings
        self._folder = Path(folder).expanduser() / (re.sub(r"[^a-z0-9.-]", "_", self.host).strip(".") or "_")
        self._sleep, self._clock = sleep, clock
        # threads of one process wait for each other without looking again and again
        self._threads = threading.Semaphore(settings.connections)
        self._at_door, self._at_state = threading.Lock(), threading.Lock()
        self._mine = _Mine()
        with self._state():
            pass

    @contextlib.contextmanager
    def turn(self):
        """Wait for one's turn, and hold the slot while the block lasts.

        A turn within a turn of the same thread waits for itself where there is one slot: whoever holds a turn
        must not ask for another.

        Raises
        ------
        ServiceDown
            If the host has failed too often, or asked not to be asked for longer than ``backoff_max_s``.
        """
        with self._threads:
            with self._at_door, self._locked("door", SLOT_AGAIN_S):
                slot = self._take_slot()
            try:
                self._await_start()
                yield
            finally:
                _let_go(slot)

    def succeeded(self) -> None:
        """Note that the host answers."""
        self._mine.trial = self._mine.doubt = False
        with self._state() as state:
            state["failures"] = 0.0

    def failed(self, certain: bool = True) -> None:
        """Note that a request has failed for good.

        Parameters
        ----------
        certain : bool
            False for an answer that may mean "nothing there" as well (HTTP 500). The first one of a thread does not
            count, so that its survey can ask elsewhere: else a field beyond the survey's edge would close the gate.
        """
        if not certain and not self._mine.doubt:
            self._mine.doubt = True
            return
        self._mine.trial = False
        with self._state() as state:
            state["failures"] += 1
            state["failed_at"] = self._clock()

    def close_for(self, seconds: float) -> None:
        """Ask nothing of the host for so long, whoever wants to: it said so.

        Raises
        ------
        ServiceDown
            If that is longer than ``backoff_max_s``, with the time to come back.
        """
        with self._state() as state:
            now = self._clock()
            state["closed_until"] = max(state["closed_until"], now + min(seconds, LONGEST_CLOSED_S))
        self._require_not_closed(state, now)

    def _await_start(self) -> None:
        """Wait for a time to start; what closes the gate meanwhile counts too."""
        start = None
        while True:
            reserved, (start, wait) = start, self._reserve(start)
            if wait <= 0 or start == reserved:
                return
            self._sleep(wait)

    def _reserve(self, reserved: float | None) -> tuple[float, float]:
        """Take the next time to start, or keep the one reserved; with the seconds until then."""
        with self._state() as state:
            now = self._clock()
            self._require_not_closed(state, now)
            self._require_well(state, now)
            start = reserved
            if start is None or start < state["closed_until"]:
                start = max(now, state["next_start"], state["closed_until"])
                state["next_start"] = start + self.settings.pause_s
            return start, start - now

    def _require_not_closed(self, state: dict, now: float) -> None:
        if state["closed_until"] - now > self.settings.backoff_max_s:
            raise ServiceDown(
                f"{self.host} asks to come back in {state['closed_until'] - now:.0f} s, at "
                f"{_date(state['closed_until'])}. Run the same command again then; what was fetched is kept. (To ask "
                f"earlier all the same: remove {self._folder}.)"
            )

    def _require_well(self, state: dict, now: float) -> None:
        """The circuit breaker. Once the cool-down is over one thread may try, until its request has an end."""
        if state["failures"] < self.settings.give_up_after or self._mine.trial:
            return
        again = max(state["failed_at"], state["trial_at"]) + self.settings.cool_down_s
        if now < again:
            raise ServiceDown(
                f"{self.host} has failed {state['failures']:.0f} times in a row, and is left alone until "
                f"{_date(again)}. What was fetched is kept: run the same command again later, and it goes on from here."
            )
        state["trial_at"] = now
        self._mine.trial, self._mine.doubt = True, False

    @contextlib.contextmanager
    def _state(self):
        """The host's state, alone with it; changes are kept unless the block raises."""
        with self._at_state, self._locked("state.json", STATE_AGAIN_S) as file:
            state = self._read(file)
            before = dict(state)
            yield state
            if state != before:
                # in place, not fsynced: after a crash an old or empty state is good enough
                content = json.dumps(state).encode()
                os.pwrite(file, content, 0)
                os.ftruncate(file, len(content))

    def _read(self, file: int) -> dict:
        """The state as kept; a fresh one where there is none, a kill has left half of it, or nobody can have set it."""
        try:
            kept = json.loads(os.pread(file, STATE_BYTES, 0))
            state = {name: float(kept[name]) for name in NEW}
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return dict(NEW)
        now = self._clock()
        soon = now + max(OTHER_CLOCK_S, 20 * self.settings.pause_s)  # each of 16 slots may have reserved a start
        latest = dict.fromkeys(NEW, soon) | {"closed_until": now + LONGEST_CLOSED_S, "failures": math.inf}
        latest["next_start"] += self.settings.backoff_max_s  # starts are reserved for when the gate opens, too
        return {name: value if 0 <= value <= latest[name] else NEW[name] for name, value in state.items()}

    @contextlib.contextmanager
    def _locked(self, name: str, look_again_s: float):
        """Hold the lock of a file, which is made if it is not there; gives its descriptor."""
        file = self._open(name)
        try:
            while not self._take(file):
                time.sleep(look_again_s * random.uniform(0.5, 1.5))
            yield file
        finally:
            _let_go(file)

    def _take_slot(self) -> int:
        """Wait for a free slot; gives its descriptor, locked."""
        while True:
            for number in range(self.settings.connections):
                file = self._open(f"slot-{number}")
                if self._take(file):
                    return file
                os.close(file)
            time.sleep(SLOT_AGAIN_S * random.uniform(0.5, 1.5))

    def _open(self, name: str) -> int:
        path = self._folder / name
        try:
            with contextlib.suppress(FileNotFoundError):
                # first without O_CREAT, which in folders like /tmp is refused for files of others
                return os.open(path, os.O_RDWR)
            return self._make(path)
        except OSError as error:
            raise self._unusable(error) from error

    def _make(self, path: Path) -> int:
        """As open to others as the folder of all hosts, whatever the umask; a folder removed meanwhile comes back."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(self._folder.parent.stat().st_mode)
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir()
            self._folder.chmod(mode & 0o2777 | 0o700)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with contextlib.suppress(PermissionError):  # another user was quicker
            os.fchmod(file, mode & 0o666 | 0o600)
        return file

    def _take(self, file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # EAGAIN, EACCES: another has it
            return False
        except OSError as error:
            raise self._unusable(error) from error
        return True

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"hosts: files in {self._folder} cannot be locked ({error}). Name a folder in the key `hosts` that can be "
            "written, on a file system with locks, and is the same for all jobs of the run."
        )


class _Mine(threading.local):
    """What a thread knows of its own requests: it makes them one after the other.

    Attributes
    ----------
    trial : bool
        It is the one that may try after a cool-down.
    doubt : bool
        Its last request ended with what may mean "nothing there".
    """

    trial = False
    doubt = False


def _let_go(file: int) -> None:
    """Unlock and close; to close alone would not do where a fork has a copy."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
