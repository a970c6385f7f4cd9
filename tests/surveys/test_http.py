"""As a guest at a server: who we are, how long we wait, and when we give up."""

import email.utils
import os
import random
import signal
import tracemalloc
from contextlib import closing

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.base import Reply, SurveyServer
from tests.surveys.test_host_gate import ASKS, NOW, Time, said, start

from galgaze import __version__
from galgaze.config import HttpSettings
from galgaze.errors import BadImage, ConfigError, NoCoverage, ServiceDown, TransientError
from galgaze.surveys import http
from galgaze.surveys.http import PoliteClient, retry_after_s


class Server(SurveyServer):
    """Always has the same good answer."""

    def answer(self, path, params):
        return Reply(200, b"good" * 3000, "image/fits")


@pytest.fixture(autouse=True)
def no_chance(monkeypatch):
    """The longest waits that chance allows."""
    monkeypatch.setattr(random, "uniform", lambda least, most: most)


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def hosts(tmp_path):
    return tmp_path / "hosts"


@pytest.fixture
def client(time, hosts):
    """Clients of one folder of hosts: each is like another job."""
    clients = []

    def make(contact="", **settings):
        settings = {"attempts": 4, "backoff_s": 1, "pause_s": 0, "timeout_s": 10} | settings
        clients.append(PoliteClient(HttpSettings(**settings), contact, hosts, time.sleep, time.clock))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def ask(server, client):
    def ask(contact="", times=1, check=None, **settings):
        asking = client(contact, **settings)
        return [asking.request("GET", server.url, check, params={"a": "1"}) for _ in range(times)][-1]

    return ask


def test_it_says_who_it_is(server, ask):
    ask("someone@observatory.org")
    ask()
    assert server.user_agents == [f"galgaze/{__version__} (someone@observatory.org)", f"galgaze/{__version__}"]


# ---- tries and waits


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


def test_half_of_the_wait_is_chance(server, time, ask, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda least, most: least)
    server.faults += ["503", "503"]
    ask(backoff_s=4)
    assert time.slept == [2, 4]


def test_the_deadline_holds_for_all_tries_and_waits(server, time, ask):
    server.faults += ["503:50"] * 9
    with pytest.raises(TransientError, match="HTTP 503, after 3 tries"):
        ask(attempts=10, deadline_s=120)
    assert (len(server.requests), time.slept) == (3, [50, 50])


def test_500_is_retried_once_and_then_left_to_the_survey(server, ask):
    server.faults += ["500"] * 9
    assert ask(attempts=4).status_code == 500
    assert len(server.requests) == 2


def test_500_amid_other_trouble_is_retried_as_well(server, ask):
    server.faults += ["503", "500"]
    assert ask(attempts=4).status_code == 200
    server.faults += ["500", "503", "500"]
    assert ask(attempts=4).status_code == 500


@pytest.mark.parametrize("code", ["400", "401", "403", "404", "405", "410", "414", "422", "501"])
def test_what_will_not_pass_is_not_retried(server, time, ask, code):
    server.faults.append(code)
    assert ask().status_code == int(code)
    assert (len(server.requests), time.slept) == (1, [])


@pytest.mark.parametrize("code", ["408", "425", "429:", "500", "502", "503", "504"])
def test_what_may_pass_is_retried(server, time, ask, code):
    server.faults.append(code)
    assert ask().status_code == 200
    assert (len(server.requests), time.slept) == (2, [1])


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


@pytest.mark.parametrize(("drip", "settings"), [(1, {"timeout_s": 0.5}), (10, {"timeout_s": 5, "deadline_s": 0.5})])
def test_an_answer_that_trickles_in_does_not_last_for_ever(server, hosts, monkeypatch, drip, settings):
    monkeypatch.setattr(http, "DRIP", drip)
    server.faults.append("drip:5")
    with (
        closing(PoliteClient(HttpSettings(attempts=1, pause_s=0, **settings), hosts=hosts)) as client,
        pytest.raises(TransientError, match=r"ReadTimeout: not whole after 0.5 s"),
    ):
        client.request("GET", server.url)
    assert 0 < client.counts["bytes"] < 12_000


def test_an_endless_answer_is_refused(server, ask, monkeypatch):
    monkeypatch.setattr(http, "MAX_BYTES", 5000)
    with pytest.raises(TransientError, match="more than 5000 bytes"):
        ask()
    assert len(server.requests) == 1


def test_nobody_there(client):
    with pytest.raises(TransientError, match=r"http://127.0.0.1:9: ConnectError.*after 2 tries"):
        client(attempts=2).request("GET", "http://127.0.0.1:9")


def test_a_broken_encoding_is_a_failed_try(server, ask, monkeypatch):
    reply = Reply(200, b"no gzip", "image/fits", (("Content-Encoding", "gzip"),))
    monkeypatch.setattr(server, "answer", lambda *_: reply)
    with pytest.raises(TransientError, match=r"DecodingError.*after 2 tries"):
        ask(attempts=2)


def test_counts_by_kind(server, client):
    server.faults += ["503", "reset", "truncate", "ok", "429:2", "500", "stall:20", "ok"]
    client = client(timeout_s=0.3)
    for _ in range(2):
        assert client.request("GET", server.url).status_code == 200
    kinds = ("HTTP 503", "ReadError", "RemoteProtocolError", "HTTP 429", "HTTP 500", "ReadTimeout")
    assert {kind: client.counts[kind] for kind in kinds} == dict.fromkeys(kinds, 1)
    assert client.counts["requests"] == len(server.requests) == 8
    assert client.counts["bytes"] > 24_000
    assert set(client.counts) == {*kinds, "requests", "bytes"}


def test_pause_between_requests(time, ask):
    ask(times=3, pause_s=0.5)
    assert time.slept == pytest.approx([0.5, 0.5])


def test_it_can_be_closed_and_used_again(server, client):
    client = client()
    for _ in range(2):
        assert client.request("GET", server.url).status_code == 200
        client.close()
        client.close()


# ---- Retry-After


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
def test_retry_after_a_day_gives_up_for_everybody(server, time, client, value):
    server.faults.append(f"503:{value}")
    for _ in range(3):
        with pytest.raises(ServiceDown, match=r"asks to come back in 86400 s, at 20\d\d-\d\d-\d\d .* Run the same"):
            client().request("GET", server.url)
    assert (len(server.requests), time.slept) == (1, [])
    time.now += 86_400
    assert client().request("GET", server.url).status_code == 200


def test_retry_after_a_day_holds_in_another_process(server, hosts):
    server.faults.append("429:86400")
    for _ in range(2):
        assert said(start(ASKS, server.url, str(hosts), {"pause_s": 0}, 1, 2)) == ["ServiceDown"] * 2
    assert len(server.requests) == 1


def test_retry_after_a_moment_is_meant_for_everybody(server, time, client):
    server.faults.append("429:7")
    with pytest.raises(TransientError, match="HTTP 429, after 1 try"):
        client(attempts=1).request("GET", server.url)
    assert client().request("GET", server.url).status_code == 200
    assert time.slept == [7]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40))
def test_no_retry_after_breaks_it(value):
    asked = retry_after_s(httpx.Response(429, headers=[(b"Retry-After", value.encode("latin-1"))]), NOW)
    assert asked is None or asked >= 0


@pytest.mark.parametrize("value", ["²", "Mon, 01 Jan 0001 00:00:00 -0000", "Fri, 99 Foo 2026 00:00:00 GMT"])
def test_odd_retry_after(value):
    assert not retry_after_s(httpx.Response(429, headers=[(b"Retry-After", value.encode("latin-1"))]), NOW)


# ---- checks


def whole(answer):
    if answer.content != b"good" * 3000:
        raise BadImage(f"{len(answer.content)} bytes")


def no_page(answer):
    if b"<html>" in answer.content:
        raise TransientError("a page of HTML")


@pytest.mark.parametrize("fault", ["truncate:4000", "truncate_no_length:4000", "truncate_no_length:0"])
def test_truncated_is_asked_for_again(server, time, ask, fault):
    server.faults += [fault] * 2
    assert ask(check=whole).content == b"good" * 3000
    assert (len(server.requests), time.slept) == (3, [1, 2])


def test_a_bad_image_for_good_is_raised_as_it_is(server, client):
    server.faults += ["truncate_no_length:4000"] * 9
    client = client(attempts=3, give_up_after=1)
    for _ in range(3):  # the host is well: its gate stays open
        with pytest.raises(BadImage, match=r"^4000 bytes$"):
            client.request("GET", server.url, whole)
    assert (len(server.requests), client.counts["bad image"]) == (9, 9)


def test_no_image_for_good_is_raised_as_it_is_and_counts_as_failed(server, client):
    server.faults += ["html"] * 9
    client = client(attempts=2, give_up_after=2)
    for _ in range(2):
        with pytest.raises(TransientError, match=r"^a page of HTML$"):
            client.request("GET", server.url, no_page)
    with pytest.raises(ServiceDown, match="failed 2 times in a row"):
        client.request("GET", server.url, no_page)
    assert (len(server.requests), client.counts["not an image"]) == (4, 4)


@pytest.mark.parametrize("kind", [NoCoverage, ConfigError, ServiceDown, ZeroDivisionError])
def test_other_errors_of_a_check_pass_at_once(server, time, ask, kind):
    def check(_):
        raise kind("as it is")

    with pytest.raises(kind, match=r"^as it is$"):
        ask(check=check)
    assert (len(server.requests), time.slept) == (1, [])


@pytest.mark.parametrize("kind", [BadImage, TransientError])
def test_a_check_does_not_have_a_hopeless_status_retried(server, time, ask, kind):
    def check(answer):
        raise kind(f"HTTP {answer.status_code}")

    server.faults.append("404")
    with pytest.raises(kind, match=r"^HTTP 404$"):
        ask(check=check)
    assert (len(server.requests), time.slept) == (1, [])


def test_a_check_does_not_see_what_is_retried(server, ask):
    seen = []
    server.faults += ["503", "500", "429"]
    ask(check=lambda answer: seen.append(answer.status_code))
    assert seen == [200]


def test_a_check_may_ask_the_same_host(server, client):
    client = client(connections=1)

    def check(_):
        assert client.request("GET", server.url, params={"probe": "1"}).status_code == 200

    assert client.request("GET", server.url, check).status_code == 200
    assert len(server.requests) == 2


# ---- when a host is left alone


def test_a_host_in_trouble_is_left_alone_by_all(server, time, client):
    server.faults += ["503"] * 99
    first = client(attempts=2, give_up_after=3)
    for _ in range(3):
        with pytest.raises(TransientError, match="HTTP 503, after 2 tries"):
            first.request("GET", server.url)
    for other in (first, client(give_up_after=3)):
        with pytest.raises(ServiceDown, match=r"127.0.0.1:\d+ has failed 3 times in a row.* goes on from here"):
            other.request("GET", server.url)
    assert len(server.requests) == 6
    time.now += 61
    with pytest.raises(TransientError, match="HTTP 503, after 2 tries"):  # one tries, in vain
        first.request("GET", server.url)
    with pytest.raises(ServiceDown, match="failed 4 times"):
        client(give_up_after=3).request("GET", server.url)
    assert len(server.requests) == 8
    time.now += 61
    server.faults.clear()
    for _ in range(3):
        assert client(give_up_after=3).request("GET", server.url).status_code == 200


def test_a_host_in_trouble_is_left_alone_by_other_processes(server, hosts):
    server.faults += ["503"] * 99
    settings = {"attempts": 2, "backoff_s": 0, "pause_s": 0, "give_up_after": 3}
    answers = said(start(ASKS, server.url, str(hosts), settings, 1, 5))
    assert answers == ["TransientError"] * 3 + ["ServiceDown"] * 2
    assert said(start(ASKS, server.url, str(hosts), settings, 3, 1)) == ["ServiceDown"] * 3
    assert len(server.requests) == 6


def test_tries_stop_when_the_host_is_given_up(server, client):
    """Others have failed while this one waited for its next try."""
    other = client(attempts=1, give_up_after=2)
    asking = client(attempts=9, give_up_after=2)
    sleep = asking._sleep

    def meanwhile(seconds):
        with pytest.raises(TransientError):
            other.request("GET", server.url)
        sleep(seconds)

    asking._sleep = meanwhile
    server.faults += ["503"] * 99
    with pytest.raises(ServiceDown, match="failed 2 times"):
        asking.request("GET", server.url)
    assert len(server.requests) == 4


def test_500_after_500_is_trouble(server, client):
    server.faults += ["500"] * 99
    client = client(give_up_after=3)
    for _ in range(4):  # the first may mean "nothing there"
        assert client.request("GET", server.url).status_code == 500
    with pytest.raises(ServiceDown, match="failed 3 times in a row"):
        client.request("GET", server.url)
    assert len(server.requests) == 8


def test_500_with_answers_between_is_none(server, client):
    client = client(give_up_after=1)
    for _ in range(5):
        server.faults += ["500", "500"]
        assert [client.request("GET", server.url).status_code for _ in range(2)] == [500, 200]


@pytest.mark.parametrize("kind", [NoCoverage, BadImage])
def test_an_answer_that_says_no_is_an_answer(server, client, kind):
    def check(_):
        raise kind("no")

    client = client(attempts=1, give_up_after=2)
    for _ in range(3):
        server.faults.append("503")
        with pytest.raises(TransientError, match="HTTP 503"):
            client.request("GET", server.url)
        with pytest.raises(kind):
            client.request("GET", server.url, check)


def test_a_folder_of_hosts_that_cannot_be_written(server, hosts, client):
    hosts.touch()
    with pytest.raises(ConfigError, match=r"^hosts: "):
        client().request("GET", server.url)
    assert server.requests == []


# ---- large files


def test_download(server, client, tmp_path):
    target = tmp_path / "bricks/a.fits"
    server.faults += ["503", "truncate"]
    answer = client().download(server.url, target)
    assert (answer.status_code, answer.content, answer.url) == (200, b"", server.url)
    assert target.read_bytes() == b"good" * 3000
    assert (len(server.requests), list(target.parent.iterdir())) == (3, [target])


@pytest.mark.parametrize(
    ("fault", "error"), [("truncate", TransientError), ("reset", TransientError), ("truncate_no_length", BadImage)]
)
def test_a_download_is_whole_or_not_there(server, client, tmp_path, fault, error):
    target = tmp_path / "bricks/a.fits"

    def check(path):
        assert not target.exists()
        if path.stat().st_size != 12_000:
            raise BadImage("cut short")

    server.faults += [fault] * 3
    with pytest.raises(error):
        client(attempts=3).download(server.url, target, check)
    assert (len(server.requests), list(target.parent.iterdir())) == (3, [])
    assert client().download(server.url, target, check).status_code == 200
    assert target.stat().st_size == 12_000


@pytest.mark.parametrize("status", [404, 500])
def test_a_download_of_what_is_not_there(server, client, tmp_path, status):
    (tmp_path / "a.fits").write_bytes(b"old")
    server.faults += [str(status)] * 2
    for name in ("a.fits", "b.fits"):
        answer = client().download(server.url, tmp_path / name, check=pytest.fail)
        assert answer.status_code == status
        assert f"Status {status}".encode() in answer.content
        server.faults += [str(status)] * 2
    assert (tmp_path / "a.fits").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"a.fits", "hosts"}


def test_an_endless_download_is_refused(server, client, tmp_path, monkeypatch):
    monkeypatch.setattr(http, "MAX_BYTES", 5000)
    with pytest.raises(TransientError, match="more than 5000 bytes"):
        client().download(server.url, tmp_path / "bricks/a.fits")
    assert list((tmp_path / "bricks").iterdir()) == []


DOWNLOADS = """
import json, sys
from galgaze.config import HttpSettings
from galgaze.surveys.http import PoliteClient
url, hosts, target = json.loads(sys.argv[1])
PoliteClient(HttpSettings(), hosts=hosts).download(url, target)
"""


def test_a_killed_download_leaves_no_file(server, hosts, tmp_path):
    server.faults.append("stall:30")
    target = tmp_path / "bricks/a.fits"
    process = start(DOWNLOADS, server.url, str(hosts), str(target))
    while not list(target.parent.glob(".a.fits.*.partial")) or not server.requests:
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not target.exists()


def test_a_download_needs_no_memory(server, client, tmp_path, monkeypatch):
    body = bytes(64 * 2**20)
    monkeypatch.setattr(server, "answer", lambda *_: Reply(200, body))
    tracemalloc.start()
    client().download(server.url, tmp_path / "a.fits")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "a.fits").stat().st_size == len(body)
    assert most < 8 * 2**20


def test_one_500_after_other_trouble_proves_nothing(server, ask):
    """The survey would take it for 'nothing there', and keep that for months."""
    server.faults += ["503", "503", "503", "500"]
    with pytest.raises(TransientError, match="HTTP 500, after 4 tries that failed in different ways"):
        ask()


def test_to_be_sent_away_is_no_sign_of_health(server, client):
    """Who is banned is told 403 at every request: that must end."""
    server.faults += ["403"] * 10
    asking = client(give_up_after=3, cool_down_s=60)
    for _ in range(3):
        assert asking.request("GET", server.url).status_code == 403
    with pytest.raises(ServiceDown, match="failed 3 times in a row"):
        asking.request("GET", server.url)
    assert len(server.requests) == 3


def test_a_bad_image_comes_the_same_every_time(server, ask):
    """One that failed otherwise in between may be good: it must not be given up for ever."""

    def cut_short(answer):
        if len(answer.content) < 12_000:
            raise BadImage(f"truncated: {len(answer.content)} bytes")

    server.faults += ["truncate_no_length:5000"] * 4
    with pytest.raises(BadImage, match="truncated: 5000 bytes"):
        ask(check=cut_short)
    server.faults += ["truncate_no_length:5000", "503", "reset", "truncate_no_length:5000"]
    with pytest.raises(TransientError, match="truncated: 5000 bytes, after 4 tries that failed in different ways"):
        ask(check=cut_short)
