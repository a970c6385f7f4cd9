"""As a guest at a server: who we are, how long we wait, and when we give up."""

import email.utils

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.base import Reply, SurveyServer

from galgaze import __version__
from galgaze.config import HttpSettings
from galgaze.errors import TransientError
from galgaze.surveys import http
from galgaze.surveys.http import PoliteClient, retry_after_s

NOW = 1_800_000_000.0


class Server(SurveyServer):
    """Always has the same good answer."""

    def answer(self, path, params):
        return Reply(200, b"good" * 3000, "image/fits")


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now, self.slept = NOW, []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def ask(server, time):
    clients = []

    def ask(contact="", times=1, **settings):
        settings = HttpSettings(**{"attempts": 4, "backoff_s": 1, "pause_s": 0, "timeout_s": 10} | settings)
        clients.append(PoliteClient(settings, contact, time.sleep, time.clock))
        return [clients[-1].request("GET", server.url, params={"a": "1"}) for _ in range(times)][-1]

    yield ask
    for client in clients:
        client.close()


def test_it_says_who_it_is(server, ask):
    ask("someone@observatory.org")
    ask()
    assert server.user_agents == [f"galgaze/{__version__} (someone@observatory.org)", f"galgaze/{__version__}"]


def test_503_twice_then_good(server, time, ask):
    server.faults += ["503", "503"]
    answer = ask()
    assert (answer.status_code, answer.content) == (200, b"good" * 3000)
    assert answer.url == f"{server.url}?a=1"
    assert (len(server.requests), time.slept) == (3, [1, 2])


def test_attempts_are_bounded_and_waits_too(server, time, ask):
    server.faults += ["502"] * 9
    with pytest.raises(TransientError, match=r"HTTP 502, after 5 tries. Run again later to resume") as error:
        ask(attempts=5, backoff_s=4, backoff_max_s=10)
    assert server.url in str(error.value)
    assert (len(server.requests), time.slept) == (5, [4, 8, 10, 10])


def test_500_is_retried_and_then_left_to_the_survey(server, ask):
    server.faults += ["500"] * 9
    assert ask(attempts=3).status_code == 500
    assert len(server.requests) == 3


@pytest.mark.parametrize("code", ["400", "403", "404", "410"])
def test_what_will_not_pass_is_not_retried(server, time, ask, code):
    server.faults.append(code)
    assert ask().status_code == int(code)
    assert (len(server.requests), time.slept) == (1, [])


@pytest.mark.parametrize(
    ("value", "waits"),
    [
        ("3", [3]),
        (email.utils.formatdate(NOW + 7, usegmt=True), [7]),
        (email.utils.formatdate(NOW - 7, usegmt=True), [0]),
        ("soon", [1]),
        ("-3", [1]),
        ("", [1]),
    ],
)
def test_retry_after(server, time, ask, value, waits):
    server.faults.append(f"429:{value}")
    assert ask().status_code == 200
    assert time.slept == pytest.approx(waits)


@pytest.mark.parametrize("value", ["86400", email.utils.formatdate(NOW + 86400, usegmt=True), "9" * 400])
def test_retry_after_a_day_gives_up_and_says_so(server, time, ask, value):
    server.faults.append(f"503:{value}")
    with pytest.raises(TransientError, match=r"asks to come back in (86400|inf) s. Run again then"):
        ask()
    assert (len(server.requests), time.slept) == (1, [])


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40))
def test_no_retry_after_breaks_it(value):
    asked = retry_after_s(httpx.Response(429, headers=[(b"Retry-After", value.encode("latin-1"))]), NOW)
    assert asked is None or asked >= 0


@pytest.mark.parametrize("value", ["²", "Mon, 01 Jan 0001 00:00:00 -0000", "Fri, 99 Foo 2026 00:00:00 GMT"])
def test_odd_retry_after(value):
    assert not retry_after_s(httpx.Response(429, headers=[(b"Retry-After", value.encode("latin-1"))]), NOW)


@pytest.mark.parametrize("fault", ["reset", "truncate", "truncate:0", "stall:20"])
def test_broken_answers_are_asked_for_again(server, time, ask, fault):
    server.faults.append(fault)
    assert ask(timeout_s=0.3).content == b"good" * 3000
    assert (len(server.requests), time.slept) == (2, [1])


@pytest.mark.parametrize(
    ("fault", "words"),
    [("reset", "ReadError"), ("truncate", "RemoteProtocolError"), ("stall:20", "ReadTimeout")],
)
def test_broken_for_good_says_how(server, ask, fault, words):
    server.faults += [fault] * 2
    with pytest.raises(TransientError, match=rf"{words}.*after 2 tries"):
        ask(attempts=2, timeout_s=0.3)
    assert len(server.requests) == 2


def test_an_answer_that_trickles_in_does_not_last_for_ever(server, monkeypatch):
    monkeypatch.setattr(http, "DRIP", 1)
    server.faults.append("drip:3")
    client = PoliteClient(HttpSettings(attempts=1, pause_s=0, timeout_s=0.5))
    with pytest.raises(TransientError, match=r"ReadTimeout: not whole after 0.5 s"):
        client.request("GET", server.url)
    client.close()


def test_an_endless_answer_is_refused(server, ask, monkeypatch):
    monkeypatch.setattr(http, "MAX_BYTES", 5000)
    with pytest.raises(TransientError, match="more than 5000 bytes"):
        ask()
    assert len(server.requests) == 1


def test_nobody_there(time):
    client = PoliteClient(HttpSettings(attempts=2, pause_s=0), sleep=time.sleep, clock=time.clock)
    with pytest.raises(TransientError, match=r"http://127.0.0.1:9: ConnectError.*after 2 tries"):
        client.request("GET", "http://127.0.0.1:9")


def test_a_broken_encoding_is_a_failed_try(server, ask, monkeypatch):
    reply = Reply(200, b"no gzip", "image/fits", (("Content-Encoding", "gzip"),))
    monkeypatch.setattr(server, "answer", lambda *_: reply)
    with pytest.raises(TransientError, match=r"DecodingError.*after 2 tries"):
        ask(attempts=2)


def test_pause_between_requests(time, ask):
    ask(times=3, pause_s=0.5)
    assert time.slept == pytest.approx([0.5, 0.5])


def test_a_clock_that_jumps_back_costs_no_sleep(server, time):
    client = PoliteClient(HttpSettings(pause_s=0.5), sleep=time.sleep, clock=time.clock)
    client.request("GET", server.url)
    time.now -= 3600
    client.request("GET", server.url)
    client.close()
    assert time.slept == []


def test_it_can_be_closed_and_used_again(server):
    client = PoliteClient(HttpSettings(pause_s=0))
    for _ in range(2):
        assert client.request("GET", server.url).status_code == 200
        client.close()
        client.close()
