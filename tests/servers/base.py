"""What the survey servers share: HTTP on a thread, a log of the requests, and faults on demand.

A fault stands in `server.faults` as a name, with an argument after a colon where one makes sense; the next
request consumes it:

    "ok"                    a good answer, to place between faults
    "503", "429:86400"      any status, with Retry-After ("429" says 1, "429:" none, the others none)
    "reset"                 the connection is reset before an answer
    "html"                  200 with a page of HTML
    "truncate:N"            Content-Length of the whole, the first N bytes (half)
    "truncate_no_length:N"  the same without Content-Length; the connection closes
    "stall:S"               headers and half the body, S seconds (5) of silence, the rest
    "drip:S"                the body in twenty pieces spread over S seconds (5)
"""

import argparse
import contextlib
import os
import socket
import struct
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Reply(NamedTuple):
    """An answer before it is sent, or damaged on the way."""

    status: int
    body: bytes
    content_type: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def page(text: str, status: int = 200) -> Reply:
    """A small HTML page."""
    html = f"<html><head><title>{text}</title></head><body><p>{text}</p></body></html>\n"
    return Reply(status, html.encode())


class SurveyServer:
    """A survey's server on 127.0.0.1 while the `with` block lasts.

    `requests` lists (method, path, params) of every request, `times` and `user_agents` the same requests'
    arrival (time.monotonic) and User-Agent, `most_at_once` the highest number in the works together. `faults`
    may be filled at any moment. `delay` seconds pass before each answer. Bugs of a server itself, and unknown
    faults, answer 500 and raise when the block ends.
    """

    path = "/"

    def __init__(self, port: int = 0, delay: float = 0.0):
        self.faults: list[str] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.times: list[float] = []
        self.user_agents: list[str] = []
        self.most_at_once = 0
        self.delay = delay
        self.bugs: list[str] = []
        self.stopping = threading.Event()
        self._port, self._lock, self._at_once = port, threading.Lock(), 0

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        """What the survey says to a request."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}{self.path}"

    def __enter__(self):
        self._http = _Http(("127.0.0.1", self._port), _Handler)
        self._http.survey = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.close_connections()
        self._http.server_close()
        if kind is None:
            self.raise_bugs()

    def raise_bugs(self):
        if self.bugs:
            raise RuntimeError("the test server itself failed:\n" + "\n".join(self.bugs))

    @contextlib.contextmanager
    def logged(self, method: str, path: str, params: dict[str, str], user_agent: str):
        """Note a request, and yield the fault it meets."""
        with self._lock:
            self.requests.append((method, path, params))
            self.times.append(time.monotonic())
            self.user_agents.append(user_agent)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            fault = self.faults.pop(0) if self.faults else "ok"
        try:
            yield fault
        finally:
            with self._lock:
                self._at_once -= 1


class _Http(ThreadingHTTPServer):
    """Remembers its connections, so that stopping does not wait for a client's idle pool."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, *args):
        self.connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self):
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """A client that hangs up is no news; anything else is our bug."""
        if not isinstance(sys.exception(), OSError):
            self.survey.bugs.append(traceback.format_exc())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Quiet."""

    def do_GET(self):
        self._serve()

    def do_POST(self):
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _serve(self, form: bytes = b""):
        survey, url = self.server.survey, urlsplit(self.path)
        params = dict(parse_qsl(url.query, keep_blank_values=True))
        params |= dict(parse_qsl(form.decode("latin-1"), keep_blank_values=True))
        with survey.logged(self.command, url.path, params, self.headers.get("User-Agent", "")) as fault:
            survey.stopping.wait(survey.delay)
            try:
                reply, send = self._spoil(fault, lambda: survey.answer(url.path, params))
            except Exception:
                survey.bugs.append(traceback.format_exc())
                reply, send = page("The test server itself failed", 500), self._send
            send(reply)

    def _spoil(self, fault, good):
        """The reply under a fault, and the way to send it."""
        name, colon, argument = fault.partition(":")
        if name == "ok":
            return good(), self._send
        if name.isdigit():
            retry_after = argument if colon else "1" if name == "429" else ""
            headers = (("Retry-After", retry_after),) if retry_after else ()
            return page(f"Status {name}", int(name))._replace(headers=headers), self._send
        if name == "html":
            return page("Something that is no image"), self._send
        if name == "reset":
            return None, self._reset
        if name in ("truncate", "truncate_no_length"):
            keep, length = int(argument) if argument else None, name == "truncate"
            return good(), lambda reply: self._truncate(reply, keep, length)
        if name in ("stall", "drip"):
            pieces, seconds = 2 if name == "stall" else 20, float(argument or 5)
            return good(), lambda reply: self._slowly(reply, pieces, seconds)
        raise ValueError(f"unknown fault {fault!r}")

    def _send_headers(self, reply, length=True):
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        if length:
            self.send_header("Content-Length", str(len(reply.body)))
        else:
            self.send_header("Connection", "close")
        for name, value in reply.headers:
            self.send_header(name, value)
        self.end_headers()

    def _send(self, reply):
        self._send_headers(reply)
        self.wfile.write(reply.body)

    def _truncate(self, reply, keep, length):
        self._send_headers(reply, length)
        self.wfile.write(reply.body[: len(reply.body) // 2 if keep is None else keep])
        self.close_connection = True

    def _slowly(self, reply, pieces, seconds):
        self._send_headers(reply)
        step = max(1, -(-len(reply.body) // pieces))
        for start in range(0, len(reply.body), step):
            if start and self.server.survey.stopping.wait(seconds / (pieces - 1)):
                break
            self.wfile.write(reply.body[start : start + step])

    def _reset(self, _):
        """Close at once and unsaid: with no time to linger, TCP sends RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
        self.close_connection = True


def arguments(description: str) -> argparse.ArgumentParser:
    """Command line options of every server."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--folder", required=True, help="folder of FITS files to serve")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    return parser


def serve(server: SurveyServer) -> None:
    """Print the server's URL and serve until killed."""
    with contextlib.suppress(KeyboardInterrupt), server:
        print(server.url, flush=True)
        threading.Event().wait()
