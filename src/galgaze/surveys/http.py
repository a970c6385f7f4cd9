"""HTTP as a guest: identified, slow, patient, and never for ever."""

import email.utils
import time
from typing import NamedTuple

import httpx

from galgaze import __version__
from galgaze.config import HttpSettings
from galgaze.errors import TransientError

RETRIED = {408, 425, 429, 500, 502, 503, 504}
MAX_BYTES = 256 * 2**20  # of one answer
DRIP = 10  # an answer that trickles in may take so many time-outs in all


class Answer(NamedTuple):
    """What a server said in the end."""

    status_code: int
    url: str
    content: bytes


def user_agent(contact: str) -> str:
    """How we introduce ourselves to a survey's server."""
    return f"galgaze/{__version__}" + (f" ({contact})" if contact else "")


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
    """An HTTP client that pauses between requests and retries what may pass.

    Parameters
    ----------
    settings : HttpSettings
        Tries, waits and time-outs.
    contact : str
        For the User-Agent.
    sleep, clock : callable
        To be replaced in tests.
    """

    def __init__(self, settings: HttpSettings, contact: str = "", sleep=time.sleep, clock=time.time):
        self.settings = settings
        self._sleep, self._clock = sleep, clock
        self._last = 0.0
        self._headers = {"User-Agent": user_agent(contact)}
        self._open: httpx.Client | None = None

    def request(self, method: str, url: str, **arguments) -> Answer:
        """Send a request until it gets an answer that is final; the answer's status may be an error.

        Raises
        ------
        TransientError
            If every try failed without any answer, or was told to come back later.
        """
        wait = self.settings.backoff_s
        for attempt in range(1, self.settings.attempts + 1):
            asked = None
            self._pause()
            try:
                response, content = self._read(method, url, arguments)
                answer = Answer(response.status_code, str(response.url), content)
                if response.status_code not in RETRIED:
                    return answer
                trouble = f"HTTP {response.status_code}"
                asked = retry_after_s(response, self._clock())
                if asked is not None and asked > self.settings.backoff_max_s:
                    raise TransientError(f"{url}: the server asks to come back in {asked:.0f} s. Run again then.")
                if attempt == self.settings.attempts and response.status_code == 500:
                    return answer  # some services say 500 for "nothing there": the survey decides
            except httpx.RequestError as error:
                # includes bodies shorter than announced (RemoteProtocolError) and stalls (ReadTimeout)
                trouble = f"{type(error).__name__}: {error}"
            if attempt < self.settings.attempts:
                self._sleep(min(wait if asked is None else asked, self.settings.backoff_max_s))
                wait *= 2
        raise TransientError(f"{url}: {trouble}, after {self.settings.attempts} tries. Run again later to resume.")

    def _read(self, method: str, url: str, arguments: dict) -> tuple[httpx.Response, bytes]:
        """One try: the whole answer, unless it is endless in size or time."""
        deadline = self._clock() + DRIP * self.settings.timeout_s
        content = bytearray()
        with self._http.stream(method, url, **arguments) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MAX_BYTES:
                    raise TransientError(f"{url}: the answer has more than {MAX_BYTES} bytes")
                if self._clock() > deadline:
                    raise httpx.ReadTimeout(f"not whole after {DRIP * self.settings.timeout_s:g} s")
        return response, bytes(content)

    def _pause(self) -> None:
        """Keep the least time between two requests."""
        left = self._last + self.settings.pause_s - self._clock()
        if 0 < left <= self.settings.pause_s:
            self._sleep(left)
        self._last = self._clock()

    @property
    def _http(self) -> httpx.Client:
        if self._open is None:
            timeout = self.settings.timeout_s
            self._open = httpx.Client(timeout=timeout, follow_redirects=True, headers=self._headers)
        return self._open

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._open is not None:
            self._open.close()
            self._open = None
