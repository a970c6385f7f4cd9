"""HTTP as a guest: identified, slow, patient, and never for ever."""

import collections
import email.utils
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import httpx

from galgaze.config import HttpSettings
from galgaze.errors import BadImage, GalgazeError, ServiceDown, TransientError
from galgaze.files import atomic_path
from galgaze.surveys.host_gate import HostGate, default_folder
from galgaze.words import user_agent

RETRIED = {408, 425, 429, 500, 502, 503, 504}
TRIES_OF_500 = 2  # some services say 500 for "nothing there": the survey decides
MAX_BYTES = 256 * 2**20  # of one answer
DRIP = 10  # an answer that trickles in may take so many time-outs in all
LONGEST_DRIP_S = 3600.0


class Answer(NamedTuple):
    """What a server said in the end; `content` is empty where the body went to a file."""

    status_code: int
    url: str
    content: bytes


Check = Callable[[Answer], None]


class _Failed(Exception):
    """One try was in vain.

    Parameters
    ----------
    kind : str
        In a word, to be counted.
    error : Exception
        To be raised if it was the last try.
    wait_s : float, optional
        What the server asks for.
    """

    def __init__(self, kind: str, error: Exception, wait_s: float | None = None):
        super().__init__(kind)
        self.kind, self.error, self.wait_s = kind, error, wait_s


def retry_after_s(response: httpx.Response, now: float) -> float | None:
    """Seconds that the server asks to wait (RFC 9110: seconds or an HTTP date), or None."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


class PoliteClient:
    """An HTTP client that takes turns at each host and retries what may pass; threads may share it.

    Parameters
    ----------
    settings : HttpSettings
        Tries, waits, time-outs, and the limits of each host.
    contact : str
        For the User-Agent.
    hosts : path, optional
        Folder of the hosts' gates; the user's own by default.
    sleep, clock : callable
        To be replaced in tests.

    Attributes
    ----------
    counts : collections.Counter
        ``requests``, ``bytes``, and tries in vain by kind (``HTTP 503``, ``ReadTimeout``, ``bad image`` ...).
    """

    def __init__(
        self,
        settings: HttpSettings,
        contact: str = "",
        hosts: str | Path | None = None,
        sleep=time.sleep,
        clock=time.time,
    ):
        self.settings = settings
        self.counts: collections.Counter[str] = collections.Counter()
        self._hosts = Path(hosts) if hosts else default_folder()
        self._sleep, self._clock = sleep, clock
        self._headers = {"User-Agent": user_agent(contact)}
        self._gates: dict[str, HostGate] = {}
        self._open: httpx.Client | None = None
        self._lock = threading.Lock()

    def request(self, method: str, url: str, check: Check | None = None, **arguments) -> Answer:
        """Send a request until it gets an answer that is final; the answer's status may be an error.

        Parameters
        ----------
        method, url, arguments
            As httpx takes them.
        check : callable, optional
            Looks at each answer that the status does not condemn. If it raises `TransientError` or `BadImage` the
            request is tried again, and after the last try that is what the caller gets; other errors pass at once,
            and all errors where the status is a 4xx, which another try does not mend. No slot of the host is held
            meanwhile, so it may send requests of its own.

        Raises
        ------
        TransientError
            If every try failed without any answer.
        ServiceDown
            If the host is not to be asked any more for now: it failed too often, or said when to come back.
        ConfigError
            If the limits of the hosts cannot be kept in their folder.
        """
        gate = self._gate(url)

        def once() -> Answer:
            with gate.turn():
                answer = self._once(method, url, arguments)
            _look(check, answer, gate, answer)
            return answer

        return self._try(once, gate, url)

    def download(self, url: str, target: Path, check: Callable[[Path], None] | None = None) -> Answer:
        """Get a large file onto disk, whole or not at all; what is raised as with `request`.

        Parameters
        ----------
        url : str
            Its address.
        target : path
            Written only where the status is 200.
        check : callable, optional
            Looks at the file before it gets its name; as in `request`.
        """
        gate = self._gate(url)

        def once() -> Answer:
            with atomic_path(target) as temporary:
                with gate.turn(), open(temporary, "wb") as file:
                    answer = self._once("GET", url, {}, file)
                if answer.status_code != 200:
                    raise _Refused(answer)
                _look(check, temporary, gate, answer)
            return answer

        def without_file() -> Answer:
            try:
                return once()
            except _Refused as refused:
                return refused.answer

        return self._try(without_file, gate, url)

    def _try(self, once: Callable[[], Answer], gate: HostGate, url: str) -> Answer:
        """Again and again, within the number of tries and the deadline; a try that has begun is let finish."""
        deadline, wait, refusals = self._clock() + self.settings.deadline_s, self.settings.backoff_s, 0
        troubles: set[str] = set()
        for attempt in range(1, self.settings.attempts + 1):
            try:
                answer = once()
            except _Failed as failed:
                self._count(failed.kind)
                troubles.add(str(failed.error))
                if failed.wait_s is not None:
                    gate.close_for(failed.wait_s)  # meant for all of us, not for this request alone
                # half of the wait is chance: those who failed together do not come back together
                pause = wait * random.uniform(0.5, 1.0) if failed.wait_s is None else failed.wait_s
                pause = min(pause, self.settings.backoff_max_s)
                refusals += failed.kind == "HTTP 500"
                out_of_tries = attempt == self.settings.attempts or refusals == TRIES_OF_500
                if out_of_tries or self._clock() + pause > deadline:
                    least = min(TRIES_OF_500, self.settings.attempts)
                    again = refusals >= least or (len(troubles) == 1 and attempt >= least)
                    return self._final(failed, gate, url, attempt, again)
                self._sleep(pause)
                wait *= 2
            else:
                # to be sent away is no sign of health: a host that has banned us says so to everything
                gate.failed() if answer.status_code in (401, 403) else gate.succeeded()
                return answer
        raise AssertionError("attempts is at least 1")

    @staticmethod
    def _final(failed: _Failed, gate: HostGate, url: str, attempts: int, again: bool) -> Answer:
        if not isinstance(failed.error, BadImage):  # the host is well, its image is not
            gate.failed(certain=not isinstance(failed.error, _Refused))
        if isinstance(failed.error, _Refused) and again:
            return failed.error.answer
        if isinstance(failed.error, _NoAnswer):
            tries = f"{attempts} tries" if attempts > 1 else "1 try"
            raise TransientError(f"{url}: {failed.error}, after {tries}. Run again later to resume.") from failed.error
        if isinstance(failed.error, BadImage | _Refused) and not again:  # what is true of a place comes again
            ways = "tries that failed in different ways" if attempts > 1 else "try"
            raise TransientError(f"{url}: {failed.error}, after {attempts} {ways}. Run again later.") from failed.error
        raise failed.error

    def _once(self, method: str, url: str, arguments: dict, file: BinaryIO | None = None) -> Answer:
        """One try; raises `_Failed` where another may help."""
        self._count("requests")
        try:
            response, content = self._read(method, url, arguments, file)
        except httpx.RequestError as error:
            # includes bodies shorter than announced (RemoteProtocolError) and stalls (ReadTimeout)
            kind = type(error).__name__
            raise _Failed(kind, _NoAnswer(f"{kind}: {error}")) from error
        answer = Answer(response.status_code, str(response.url), content)
        if answer.status_code in RETRIED:
            wait_s = retry_after_s(response, self._clock())
            kind = f"HTTP {answer.status_code}"
            error = _Refused(answer) if answer.status_code == 500 else _NoAnswer(kind)
            raise _Failed(kind, error, wait_s)
        return answer

    def _read(self, method: str, url: str, arguments: dict, file: BinaryIO | None) -> tuple[httpx.Response, bytes]:
        """The whole answer, unless it is endless in size or time; into the file, if there is one."""
        patience_s = LONGEST_DRIP_S if file else min(DRIP * self.settings.timeout_s, self.settings.deadline_s)
        deadline = self._clock() + patience_s
        content, size = bytearray(), 0
        with self._http.stream(method, url, **arguments) as response:
            to_file = file is not None and response.status_code == 200
            for piece in response.iter_bytes():  # as they come: pieces of one size are waited for
                size += len(piece)
                self._count("bytes", len(piece))
                file.write(piece) if to_file else content.extend(piece)
                if size > MAX_BYTES:
                    raise TransientError(f"{url}: the answer has more than {MAX_BYTES} bytes")
                if self._clock() > deadline:
                    raise httpx.ReadTimeout(f"not whole after {patience_s:g} s")
        return response, bytes(content)

    def _count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self.counts[name] += number

    def _gate(self, url: str) -> HostGate:
        host = httpx.URL(url).netloc.decode()
        with self._lock:
            if host not in self._gates:
                self._gates[host] = HostGate(url, self.settings, self._hosts, self._sleep, self._clock)
            return self._gates[host]

    @property
    def _http(self) -> httpx.Client:
        with self._lock:
            if self._open is None:
                self._open = httpx.Client(
                    timeout=self.settings.timeout_s,
                    follow_redirects=True,
                    headers=self._headers,
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.settings.connections),
                )
            return self._open

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None


class _NoAnswer(Exception):
    """No try brought an answer that a survey could judge."""


class _Refused(Exception):
    """An answer, but not one with content."""

    def __init__(self, answer: Answer):
        super().__init__(f"HTTP {answer.status_code}")
        self.answer = answer


def _look(check, found, gate: HostGate, answer: Answer) -> None:
    """Have what was found checked: what another try may mend becomes `_Failed`. An image, though bad, is an answer."""
    if check is None:
        return
    try:
        check(found)
    except ServiceDown:
        raise
    except GalgazeError as error:
        hopeless = not isinstance(error, BadImage | TransientError) or 400 <= answer.status_code < 500
        if hopeless or isinstance(error, BadImage):
            gate.succeeded()
        if hopeless:
            raise
        raise _Failed("bad image" if isinstance(error, BadImage) else "not an image", error) from error
