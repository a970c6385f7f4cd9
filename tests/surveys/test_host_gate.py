"""One limit a host: for threads, clients and processes; and when nobody may ask."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time as real_time

import pytest
from tests.servers.base import Reply, SurveyServer

from galgaze.config import HttpSettings
from galgaze.errors import ConfigError, ServiceDown
from galgaze.surveys.host_gate import HostGate, default_folder
from galgaze.surveys.http import PoliteClient

NOW = 1_800_000_000.0
URL = "http://somewhere.org/cutout"

# A process like those of a run: threads that share a client, or that hold turns until they are killed.
ASKS = """
import json, sys, threading
from galgaze.config import HttpSettings
from galgaze.surveys.http import PoliteClient
url, hosts, settings, threads, requests = json.loads(sys.argv[1])
client = PoliteClient(HttpSettings(**settings), hosts=hosts)
def ask():
    for _ in range(requests):
        try:
            said = str(client.request("GET", url).status_code)
        except Exception as error:
            said = type(error).__name__
        sys.stdout.write(said + "\\n")
together = [threading.Thread(target=ask) for _ in range(threads)]
for thread in together: thread.start()
for thread in together: thread.join()
"""
HOLDS = """
import json, sys, threading, time
from galgaze.config import HttpSettings
from galgaze.surveys.host_gate import HostGate
url, hosts, settings, threads, hold_s = json.loads(sys.argv[1])
gate = HostGate(url, HttpSettings(**settings), hosts)
def hold():
    while True:
        with gate.turn():
            print("in", flush=True)
            time.sleep(hold_s)
for _ in range(threads): threading.Thread(target=hold).start()
"""


class Server(SurveyServer):
    """Counts the requests together in the works, strictly between a question and the first byte of its answer."""

    most, _now, _counting = 0, 0, threading.Lock()
    takes_s = 0.0

    def answer(self, path, params):
        with self._counting:
            self._now += 1
            self.most = max(self.most, self._now)
        real_time.sleep(self.takes_s)
        with self._counting:
            self._now -= 1
        return Reply(200, b"good", "image/fits")


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
def gate(tmp_path, time):
    """Gates of one folder: each is like another process."""

    def make(url=URL, **settings):
        settings = {"pause_s": 0, "connections": 1, "give_up_after": 3, "cool_down_s": 60} | settings
        return HostGate(url, HttpSettings(**settings), tmp_path / "hosts", time.sleep, time.clock)

    return make


def start(script, *arguments):
    command = [sys.executable, "-c", script, json.dumps(arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process):
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.split()


@contextlib.contextmanager
def killed(process):
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def in_thread(work):
    """Run elsewhere; gives what it returned or raised. One that hangs is a failure."""
    found = []

    def run():
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert found, "hangs"
    return found[0]


def pass_through(gate):
    with gate.turn():
        return "in"


def is_open(gate):
    try:
        return pass_through(gate) == "in"
    except ServiceDown:
        return False


# ---- one limit


def test_one_limit_for_threads_and_processes(server, tmp_path):
    server.takes_s = 0.05
    settings, began = {"connections": 2, "pause_s": 0.02}, real_time.monotonic()
    processes = [start(ASKS, server.url, str(tmp_path), settings, 4, 3) for _ in range(3)]
    assert [answer for process in processes for answer in said(process)] == ["200"] * 36
    assert server.most == 2
    for number, moment in enumerate(sorted(server.times)):
        assert moment - began >= number * 0.02 - 1e-3


def test_one_limit_for_clients_of_one_process(server, tmp_path):
    server.takes_s = 0.02
    clients = [PoliteClient(HttpSettings(connections=3, pause_s=0), hosts=tmp_path) for _ in range(3)]
    threads = [threading.Thread(target=client.request, args=("GET", server.url)) for client in clients * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for client in clients:
        client.close()
    assert (len(server.requests), server.most) == (24, 3)


def test_many_threads_for_one_slot_all_get_through(gate):
    gate, through = gate(), []

    def ask(number):
        for _ in range(5):
            with gate.turn():
                through.append(number)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(through) == sorted(list(range(30)) * 5)


def test_a_busy_process_does_not_keep_others_out(tmp_path):
    """The other has a thread ready whenever the slot gets free, and holds it all but a moment."""
    settings = {"connections": 1, "pause_s": 0}
    with killed(start(HOLDS, URL, str(tmp_path), settings, 4, 0.02)) as busy:
        assert busy.stdout.readline() == "in\n"
        gate = HostGate(URL, HttpSettings(**settings), tmp_path)
        assert in_thread(lambda: [pass_through(gate) for _ in range(10)]) == ["in"] * 10


def is_locked(path):
    with open(path, "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_who_waits_is_not_overtaken(gate, tmp_path):
    mine, other, order = gate(), gate(), []

    def wait():
        with other.turn():
            order.append("waited")

    with mine.turn():
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        patience = real_time.monotonic() + 30
        while not is_locked(tmp_path / "hosts/somewhere.org/door"):
            assert real_time.monotonic() < patience, "nobody stands at the door"
            real_time.sleep(0.001)
    with mine.turn():
        order.append("came again")
    waiting.join(30)
    assert order == ["waited", "came again"]


def test_a_killed_process_frees_its_slot(tmp_path):
    settings = {"connections": 1, "pause_s": 0}
    gate, entered = HostGate(URL, HttpSettings(**settings), tmp_path), threading.Event()

    def enter():
        with gate.turn():
            entered.set()

    with killed(start(HOLDS, URL, str(tmp_path), settings, 1, 600)) as holder:
        assert holder.stdout.readline() == "in\n"
        waiting = threading.Thread(target=enter, daemon=True)
        waiting.start()
        assert not entered.wait(0.2)
        holder.kill()
        assert entered.wait(30)
        waiting.join()


def test_two_hosts_do_not_wait_for_each_other(gate):
    with gate("http://a.org").turn(), gate("http://a.org:8080").turn():
        assert in_thread(lambda: pass_through(gate("http://b.org"))) == "in"


@pytest.mark.parametrize(
    "url", ["http://Somewhere.org", "http://somewhere.org:80/x", "http://me:secret@somewhere.org/"]
)
def test_one_host_by_other_addresses(gate, time, url):
    pass_through(gate(pause_s=2))
    pass_through(gate(url, pause_s=2))
    assert time.slept == [2]


@pytest.mark.parametrize("url", ["http://[::1]:80/", "http://../x", "http:///x", "https://a_b.org:8443"])
def test_folders_of_odd_hosts_stay_below(gate, tmp_path, url):
    pass_through(gate(url))
    assert [path.name for path in tmp_path.iterdir()] == ["hosts"]
    assert len(list((tmp_path / "hosts").iterdir())) == 1


def test_pause_between_starts_however_many_clients(gate, time):
    for _ in range(4):
        pass_through(gate(pause_s=0.5))
    assert time.slept == pytest.approx([0.5] * 3)


def test_an_error_in_a_turn_gives_it_back(gate):
    gate = gate()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.turn():
            raise ZeroDivisionError
    assert in_thread(lambda: pass_through(gate)) == "in"


def test_no_descriptors_are_left_open(gate):
    gate = gate(connections=4)
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else pytest.skip("no /proc")
    for _ in range(20):
        pass_through(gate)
        gate.succeeded()
    assert len(os.listdir("/proc/self/fd")) == before


# ---- what the host says


def test_closed_for_a_while_all_wait(gate, time):
    gate().close_for(30)
    for _ in range(3):
        pass_through(gate(pause_s=1))
    assert time.slept == pytest.approx([30, 1, 1])


def test_closed_while_one_waits_for_its_start(gate, time):
    pass_through(gate(pause_s=5))
    one, other = gate(pause_s=5), gate()
    sleep = time.sleep

    def closed_meanwhile(seconds):
        if not time.slept:
            other.close_for(20)
        sleep(seconds)

    one._sleep = closed_meanwhile
    pass_through(one)
    assert time.slept == pytest.approx([5, 15])


def test_closed_for_long_nobody_waits(gate, time):
    with pytest.raises(
        ServiceDown, match=r"somewhere.org asks to come back in 7200 s, at 20\d\d-.*Run the same command"
    ):
        gate(backoff_max_s=60).close_for(7200)
    time.now += 200
    with pytest.raises(ServiceDown, match="in 7000 s"):
        pass_through(gate(backoff_max_s=60))
    time.now += 7000
    assert (pass_through(gate()), time.slept) == ("in", [])


def test_closed_for_a_day_at_most(gate, time):
    with pytest.raises(ServiceDown, match="in 86400 s"):
        gate().close_for(1e300)
    time.now += 86_401
    assert is_open(gate())


# ---- what the host does not say


def test_failures_in_a_row_close_it_for_all(gate, time):
    one, other = gate(), gate()
    for _ in range(3):
        pass_through(other)
        one.failed()
    with pytest.raises(
        ServiceDown, match=r"somewhere.org has failed 3 times in a row, and is left alone until 20\d\d-"
    ):
        pass_through(other)
    assert not is_open(one)
    time.now += 59
    assert not is_open(gate())


def test_a_success_in_between_starts_the_count_anew(gate):
    gate = gate()
    for _ in range(5):
        gate.failed()
        gate.failed()
        gate.succeeded()
    assert is_open(gate)


@pytest.fixture
def cooled(gate, time):
    """A gate that was closed, at the moment when one may try."""
    closed = gate()
    for _ in range(3):
        closed.failed()
    time.now += 61
    return gate()


def test_after_the_cool_down_one_may_try(cooled, gate):
    assert is_open(cooled)
    assert not is_open(gate())
    assert not in_thread(lambda: is_open(cooled))
    assert is_open(cooled)  # another try of the same request
    cooled.succeeded()
    assert is_open(gate())


def test_the_one_that_tries_in_vain_closes_it_again(cooled, gate, time):
    assert is_open(cooled)
    time.now += 10
    cooled.failed()
    for wait, opened in [(0, False), (59, False), (2, True)]:
        time.now += wait
        assert is_open(cooled) is opened


def test_the_one_that_tries_may_die(cooled, gate, time):
    assert is_open(cooled)
    time.now += 61
    assert [is_open(gate()) for _ in range(3)] == [True, False, False]


def test_a_field_beyond_the_edge_does_not_close_it(gate):
    """HTTP 500 may mean "nothing there": eight threads get one each, then ask a place that is surely covered."""
    gate, together = gate(connections=8), threading.Barrier(8, timeout=30)

    def ask():
        for _ in range(3):
            gate.failed(certain=False)
            together.wait()
            assert is_open(gate)
            gate.succeeded()
            together.wait()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken


def test_nothing_but_500_closes_it(gate):
    gate = gate()
    for _ in range(4):
        assert is_open(gate)
        gate.failed(certain=False)
    assert not is_open(gate)


def test_a_first_500_after_the_cool_down_is_no_verdict(cooled, gate):
    """Else a source beyond the edge, first in the row, would close the gate for ever."""
    assert is_open(cooled)
    cooled.failed(certain=False)
    assert is_open(cooled)  # asks elsewhere
    assert not is_open(gate())
    cooled.failed(certain=False)
    assert not is_open(cooled)


# ---- the files


LATER = NOW + 9e6
FAR = json.dumps({"next_start": LATER, "closed_until": LATER, "failures": 9, "failed_at": LATER, "trial_at": LATER})
ODD = json.dumps({"next_start": 1e999, "closed_until": float("nan"), "failures": -9, "failed_at": 0, "trial_at": 0})


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", "[" * 4000, "\xff\x00", FAR, ODD, FAR[:50], FAR + "}", ODD.replace("9", "9" * 400)],
)
def test_a_damaged_state_does_not_block(gate, tmp_path, time, content):
    (tmp_path / "hosts/somewhere.org").mkdir(parents=True)
    state = tmp_path / "hosts/somewhere.org/state.json"
    state.write_bytes(content.encode("latin-1"))
    gate = gate(pause_s=1)
    pass_through(gate)
    assert time.slept == []
    pass_through(gate)
    assert time.slept == [1]
    assert json.loads(state.read_text())["failures"] in (0, 9)


def test_a_clock_that_jumps_back_costs_no_sleep(gate, time):
    pass_through(gate(pause_s=0.5))
    time.now -= 3600
    pass_through(gate(pause_s=0.5))
    assert time.slept == []


def test_a_clock_that_jumps_back_while_one_waits(gate, time):
    pass_through(gate(pause_s=5))
    gate = gate(pause_s=5)

    def sleep(seconds):
        time.slept.append(seconds)
        time.now -= 1000

    gate._sleep = sleep
    pass_through(gate)
    assert time.slept == [5]


def test_a_folder_removed_in_between_comes_back(gate, tmp_path):
    gate = gate()
    shutil.rmtree(tmp_path / "hosts")
    pass_through(gate)
    assert (tmp_path / "hosts/somewhere.org/state.json").exists()


@pytest.mark.parametrize("hosts", ["a_file", "a_file/below", "/proc/nothing/can/be/made"])
def test_a_folder_that_cannot_be_used(tmp_path, hosts):
    (tmp_path / "a_file").touch()
    with pytest.raises(ConfigError, match=r"^hosts: files in .* cannot be locked .*Name a folder in the key `hosts`"):
        HostGate(URL, HttpSettings(), tmp_path / hosts)


def test_a_file_system_without_locks(gate, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ConfigError, match=r"^hosts: .*Function not implemented.*on a file system with locks"):
        gate()


@pytest.mark.parametrize(("hosts", "file"), [(0o777, 0o666), (0o770, 0o660), (0o755, 0o644)])
def test_as_open_to_others_as_the_folder_whatever_the_umask(gate, tmp_path, hosts, file):
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts").chmod(hosts)
    umask = os.umask(0o077)
    try:
        pass_through(gate())
    finally:
        os.umask(umask)
    made = tmp_path / "hosts/somewhere.org"
    assert stat.S_IMODE(made.stat().st_mode) == hosts
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == dict.fromkeys(
        ("state.json", "slot-0", "door"), file
    )


def test_the_default_is_with_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "galgaze/hosts"
