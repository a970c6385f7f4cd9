"""A local FIRST server that needs no files, fails a known share of requests in every known way, and remembers.

What it holds for a position (`fate_of`, `body_at`) and whether a request fails (`fault_of`: position and number of the
request for it) follow from hashes alone, so that a test knows beforehand what must come out. Its log is asked for at
``/soak/log`` (JSON, see `SoakServer.log`) and, in short, at ``/soak/count``; neither is counted as a request.
"""

import argparse
import contextlib
import email.utils
import hashlib
import json
import socket
import threading
import time
from collections import Counter
from functools import lru_cache

import numpy as np
from astropy.io import fits

from tests.servers import base, header
from tests.servers.first import PATHS, PIXEL_SCALE_ARCSEC, parse_position

SIDE_PX = 64  # 16 KiB of pixels, six FITS blocks
NOT_COVERED, BAD = 0.02, 0.01  # shares of the positions
FAILING = 0.1  # share of the requests
STALL_S = 60.0
# Ways to fail, and how often beside each other. Those that hold up everybody (Retry-After) or a slot (a stall) are
# rare, so that a soak measures the client and not the server's wishes.
FAULTS = {
    "503": 3,
    "503:0": 3,
    "503:1": 0.03,
    "429:0": 3,
    "429:date": 3,
    "429:date+1": 0.03,
    "429:soon, please": 3,
    "429:": 3,
    "500": 3,
    "reset": 3,
    "truncate": 3,
    "truncate_no_length": 3,
    f"truncate_no_length:{3 * header.BLOCK}": 3,
    "html": 3,
    "stall": 0.5,
}

Key = tuple[float, float]  # RA and Dec, degrees, four digits


def chance(*what) -> float:
    """A number of [0, 1) that is always the same for the same words."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def key_of(ra_deg: float, dec_deg: float) -> Key:
    """A position as the log names it."""
    return round(ra_deg % 360, 4), round(dec_deg, 4)


def fate_of(key: Key) -> str:
    """What the survey has there: ``ok``, ``no_coverage`` or, as a kind of bad image, ``constant`` or ``large``."""
    value = chance("fate", key)
    if value < NOT_COVERED:
        return "no_coverage"
    if value < NOT_COVERED + BAD:
        return "constant" if value < NOT_COVERED + BAD / 2 else "large"
    return "ok"


def fault_of(key: Key, number: int, failing: float = FAILING) -> str:
    """The fault, as `tests.servers.base` names them, that request `number` (from 0) for a position meets."""
    if chance("whether", key, number) >= failing:
        return "ok"
    names, weights = list(FAULTS), np.cumsum(list(FAULTS.values()))
    return names[int(np.searchsorted(weights, chance("which", key, number) * weights[-1], side="right"))]


def body_at(key: Key) -> bytes:
    """The map there: noise of its own, and a source in its middle; or what is wrong with it."""
    fate = fate_of(key)
    head, pixels = _template(80 if fate == "large" else SIDE_PX)
    for card, value in zip(("CRVAL1", "CRVAL2"), key, strict=True):
        head = header.with_number(head, card, value)
    turned = np.roll(pixels, int(chance("noise", key) * pixels.size)).copy()
    if fate == "constant":
        turned[:] = 1e-3
    data = turned.tobytes()
    return head + data + bytes(-len(data) % header.BLOCK)


@lru_cache
def _template(side: int) -> tuple[bytes, np.ndarray]:
    pixels = np.random.default_rng(side).normal(0, 1.5e-4, side * side).astype(">f4")
    cards = {"BUNIT": "JY/BEAM", "EQUINOX": 2000.0, "COMMENT": "R. L. White"}
    for axis, (kind, step) in enumerate((("RA---SIN", -PIXEL_SCALE_ARCSEC), ("DEC--SIN", PIXEL_SCALE_ARCSEC)), 1):
        cards |= {
            f"CTYPE{axis}": kind,
            f"CRVAL{axis}": 0.0,
            f"CRPIX{axis}": (side + 1) / 2,
            f"CDELT{axis}": step / 3600,
        }
    hdu = fits.PrimaryHDU(pixels.reshape(side, side))
    hdu.header.update(cards)
    return hdu.header.tostring().encode(), pixels


class SoakServer(base.SurveyServer):
    """`SoakServer()` answers every position; `failing` is the share of requests that fail.

    A request is in the works from its arrival until its answer begins or, where it stalls, until either side ends it.
    """

    path = PATHS[0]

    def __init__(self, port: int = 0, delay: float = 0.0, failing: float = FAILING):
        super().__init__(port, delay)
        self.failing = failing
        self.now = threading.local()  # the request that a thread is at
        self._asked: Counter[Key] = Counter()
        self._log: list[list] = []
        self._in_works: dict[int, socket.socket] = {}
        self._final = 0
        self._closed_until, self._closed_s = 0.0, 0.0

    def __enter__(self):
        super().__enter__()
        self._http.RequestHandlerClass = _SoakHandler
        return self

    def log(self) -> dict:
        """Everything, as plain data.

        ``requests`` lists [ra, dec, fault, arrived, sent whole] in the order of arrival: seconds of this machine's
        monotonic clock, the last one null where the answer was spoilt or nobody took it. ``closed_s`` are the seconds
        in which Retry-After asked everybody to wait.
        """
        with self._lock:
            return {"requests": self._log, "most_at_once": self.most_at_once, "closed_s": self._closed_s}

    def answer(self, path: str, params: dict[str, str]) -> base.Reply:
        """The map, or the words that there is none."""
        if path == "/soak/log":
            return base.Reply(200, json.dumps(self.log()).encode(), "application/json")
        if path == "/soak/count":
            return base.Reply(200, json.dumps([len(self._log), self._final]).encode(), "application/json")
        key = _asked_for(params)
        if fate_of(key) == "no_coverage":
            return base.page("The position is not covered by the FIRST survey; no image was made")
        return base.Reply(200, body_at(key), "image/x-fits")

    @contextlib.contextmanager
    def logged(self, method: str, path: str, params: dict[str, str], user_agent: str):
        """As of every survey server; the fault follows from position and number of the request."""
        if path.startswith("/soak/"):
            self.now.number = None
            yield "ok"
            return
        key = _asked_for(params)
        fault = self._arrive(key)
        number = self.now.number
        try:
            yield self._dated(fault)
            if fault == "ok":
                with self._lock:
                    self._log[number][4] = time.monotonic()
                    self._final += 1
        finally:
            self.leave()

    def _arrive(self, key: Key) -> str:
        with self._lock:
            fault = fault_of(key, self._asked[key], self.failing)
            self._asked[key] += 1
            self.now.number = len(self._log)
            self._log.append([*key, fault, time.monotonic(), None])
            # those whose client has hung up are not in the works any more, though their thread may not know yet
            at_once = 1 + sum(not hung_up(connection) for connection in self._in_works.values())
            self._in_works[self.now.number] = self.now.connection
            self.most_at_once = max(self.most_at_once, at_once)
        return fault

    def leave(self) -> None:
        """The request of this thread is not in the works any more."""
        with self._lock:
            self._in_works.pop(self.now.number, None)

    def _dated(self, fault: str) -> str:
        """With the date that is meant, and the time that all have to wait noted."""
        name, _, argument = fault.partition(":")
        if argument.startswith("date"):
            moment = int(time.time()) + (2 if argument.endswith("+1") else 0)
            argument, wait_s = email.utils.formatdate(moment, usegmt=True), max(0.0, moment - time.time())
            fault = f"{name}:{argument}"
        else:
            wait_s = float(argument) if name in ("429", "503") and argument.isdecimal() else 0.0
        with self._lock:
            now = time.monotonic()
            self._closed_s += max(0.0, now + wait_s - max(now, self._closed_until))
            self._closed_until = max(self._closed_until, now + wait_s)
        return fault


class _SoakHandler(base._Handler):
    """Tells the server which connection a request came by, and when its answer begins."""

    def _serve(self, form: bytes = b""):
        self.server.survey.now.connection = self.connection
        super()._serve(form)

    def _spoil(self, fault, good):
        reply, send = super()._spoil(fault, good)
        return reply, lambda reply: self._answer(fault, reply, send)

    def _answer(self, fault, reply, send):
        if fault.startswith("stall"):
            self._stall(reply)
            return
        self.server.survey.leave()
        send(reply)

    def _stall(self, reply):
        """Half, and then silence until the client has had enough."""
        self._send_headers(reply)
        self.wfile.write(reply.body[: len(reply.body) // 2])
        ends = time.monotonic() + STALL_S
        while time.monotonic() < ends and not hung_up(self.connection):
            if self.server.survey.stopping.wait(0.05):
                break
        self.close_connection = True


def hung_up(connection: socket.socket) -> bool:
    """Whether the other side has closed, as far as the kernel knows."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _asked_for(params: dict[str, str]) -> Key:
    return key_of(*parse_position(params["RA"], params.get("Dec", "")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--failing", type=float, default=FAILING, help="share of the requests that fail")
    options = parser.parse_args()
    base.serve(SoakServer(options.port, options.delay, options.failing))
