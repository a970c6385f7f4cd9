"""`galgaze fetch` as a process: kills, neighbours, interruptions, full disks; and what it says meanwhile."""

import collections
import errno
import json
import os
import shutil
import signal
import time
import tracemalloc

import pytest
from tests.servers.base import page
from tests.servers.soak import SoakServer, fate_of, key_of
from tests.stages.runs import HTTP, make_run, start, write_config, write_table

from galgaze import cli
from galgaze.errors import ConfigError, ServiceDown
from galgaze.stages.fetch import fetch, fetch_field
from galgaze.stages.fetch_progress import Progress, read_ledger
from galgaze.stages.fetcher import THREADS_A_CONNECTION, Fetcher
from galgaze.stages.packs import read_manifest, write_pack
from galgaze.stages.plan import make_plan
from galgaze.surveys.base import RemoteSurvey, Source
from galgaze.surveys.cache import DownloadCache
from galgaze.words import duration

PLACES = [(150.0 + n / 10, 2.0) for n in range(80)]
OK = [place for place in PLACES if fate_of(key_of(*place)) == "ok"]


@pytest.fixture
def server():
    with SoakServer(failing=0.0) as server:
        yield server


def planned(folder, server, count, shard_size=100, **http):
    """A run whose field has `count` sources with good images."""
    write_table(folder / "table.csv", [(f"s{n:02d}", *place) for n, place in enumerate(OK[:count])])
    survey = {"kind": "first", "urls": [server.url], "size_px": 64, "http": HTTP | http}
    run = make_run(folder, survey, task="radio_fr", shard_size=shard_size)
    make_plan(run, "field")
    return run


def times_asked(server):
    """How often each position was asked for."""
    return collections.Counter((ra, dec) for ra, dec, *_ in server.log()["requests"])


def wait_until(happened, process):
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finish(*processes):
    """What they said; they must have ended well."""
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def run_main(monkeypatch, capsys, *words):
    """The command line in this process: its exit code and what it said."""
    monkeypatch.setattr("sys.argv", ["galgaze", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    output = capsys.readouterr()
    return end.value.code, output.out + output.err


# ---- processes


def test_fault_13_after_kill_9_no_position_is_asked_for_again(tmp_path, server):
    server.delay = 0.1
    run = planned(tmp_path, server, 40, connections=2)
    words = "fetch", "--config", write_config(run), "--field", "field"
    process = start(*words)
    wait_until(lambda: len(server.log()["requests"]) >= 12, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    asked_before, kept = len(server.log()["requests"]), len(list((tmp_path / "cache/cutouts").glob("*/[0-9a-f]*")))
    pack = run.layout.fetched("field", "sky", 0)
    assert not pack.exists()
    server.delay = 0.0
    [said] = finish(start(*words))
    assert "field sky shard 0: 40 ok" in said
    asked = times_asked(server)
    assert len(asked) == 40
    assert asked.total() == 40 + asked_before - kept, "twice only what was in the works"
    assert asked_before - kept <= 2 * THREADS_A_CONNECTION
    assert max(asked.values()) <= 2
    assert set(read_manifest(pack)["status"]) == {"ok"}
    [line] = read_ledger(run.layout.fetch_ledger("field", "sky", 0))
    assert line["requests"] == 40 - kept
    assert not [path for path in pack.parent.iterdir() if path.stat().st_size == 0]


def test_fault_24_two_jobs_side_by_side(tmp_path, server):
    """Of two shards: one limit for both. Of one shard: no corrupt state."""
    server.delay = 0.05
    run = planned(tmp_path, server, 30, shard_size=15, connections=2)
    words = "fetch", "--config", write_config(run), "--field", "field", "--shard"
    finish(start(*words, 0), start(*words, 1), start(*words, 1))
    assert server.most_at_once == 2
    asked = times_asked(server)
    assert len(asked) == 30
    assert max(asked.values()) <= 2
    assert list(fetch_field(run, "field", None, None)) == [
        "field sky shard 0: already fetched", "field sky shard 1: already fetched",
    ]  # fmt: skip


def test_ctrl_c_ends_at_once_and_loses_nothing(tmp_path, server, monkeypatch):
    """Though all threads wait: for an answer that does not come, or for their next try."""
    run = planned(tmp_path, server, 20, connections=2, timeout_s=600, backoff_s=300, backoff_max_s=300, pause_s=0)
    # the first answer is good, then comes a refusal, and then nothing more
    faults, answers = iter(["ok", "503"]), iter([server.answer])
    monkeypatch.setattr("tests.servers.soak.fault_of", lambda *_: next(faults, "ok"))

    def silence(*_):
        server.stopping.wait(100)
        return page("too late")

    server.answer = lambda *words: next(answers, silence)(*words)
    process = start("fetch", "--config", write_config(run), "--field", "field")
    wait_until(lambda: len(server.log()["requests"]) >= 3, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "galgaze: interrupted. What was fetched is kept" in said
    assert "Traceback" not in said
    folder = run.layout.fetched("field", "sky", 0).parent
    assert [path.name for path in folder.iterdir()] == ["shard-00000.ledger.jsonl"]
    assert read_ledger(folder / "shard-00000.ledger.jsonl")[0]["ended"] == "KeyboardInterrupt"
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 1


# ---- disks


class TestDisk:
    """Fault 15, and a cache that cannot be written."""

    def words(self, run):
        return "fetch", "--config", write_config(run), "--field", "field"

    def full(self, part):
        """Writing fails below a folder of this name."""
        from galgaze import files

        real = files.os.replace

        def replace(source, target):
            if part in str(target):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            real(source, target)

        return replace

    @pytest.mark.parametrize("part", ["/cache/", "/cutouts/sky/"])
    def test_fault_15_no_room(self, tmp_path, server, monkeypatch, capsys, part):
        run = planned(tmp_path, server, 6)
        with monkeypatch.context() as patch:
            patch.setattr("galgaze.files.os.replace", self.full(part))
            code, said = run_main(patch, capsys, *self.words(run))
        assert code == 1
        assert "galgaze: cannot write (" in said
        assert "No space left on device. No half file was left" in said
        assert "Traceback" not in said
        folder = run.layout.fetched("field", "sky", 0).parent
        assert [path.name for path in folder.iterdir()] == ["shard-00000.ledger.jsonl"]
        assert not list(tmp_path.rglob("*.partial"))
        before = len(server.log()["requests"])
        assert fetch(run, "field", "sky", 0) == "field sky shard 0: 6 ok"
        if part == "/cutouts/sky/":
            assert len(server.log()["requests"]) == before, "the cache has them"

    def test_fault_15_no_room_while_writing(self, tmp_path):
        """The Parquet library's own error names the file."""

        def rows():
            raise OSError(errno.ENOSPC, "No space left on device")
            yield

        with pytest.raises(OSError, match="No space left") as error:
            write_pack(tmp_path / "pack.parquet", rows(), print)
        assert error.value.filename == str(tmp_path / "pack.parquet")
        assert list(tmp_path.iterdir()) == []

    def test_a_cache_that_can_only_be_read(self, tmp_path, server, monkeypatch, capsys):
        run = planned(tmp_path, server, 4)
        fetch(run, "field", "sky", 0)
        shutil.rmtree(run.layout.results / "field/cutouts")

        def refused(*_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), "cache")

        with monkeypatch.context() as patch:
            patch.setattr("galgaze.surveys.cache.atomic_path", refused)
            assert fetch(run, "field", "sky", 0) == "field sky shard 0: 4 ok", "whoever only reads may"
            shutil.rmtree(tmp_path / "cache")
            run = planned(tmp_path, server, 6)
            code, said = run_main(patch, capsys, *self.words(run))
        assert code == 1
        assert "galgaze: cannot write (cache): Read-only file system" in said

    def test_fault_24_nothing_is_written_beside_the_sources(self, tmp_path):
        from tests.surveys.bodies import legacy_fits

        images = tmp_path / "images"
        images.mkdir()
        (images / "a.fits").write_bytes(legacy_fits())
        write_table(images / "table.csv", [("a", 150.0, 2.0)])
        before = {path.name: path.stat().st_mtime_ns for path in [images, *images.iterdir()]}
        images.chmod(0o555)
        field = {"table": {"path": str(images / "table.csv")}, "tasks": ["optical_morphology"]}
        run = make_run(tmp_path, {"kind": "directory", "path": str(images)}, field=field)
        make_plan(run, "field")
        assert fetch(run, "field", "sky", 0) == "field sky shard 0: 1 ok"
        assert {path.name: path.stat().st_mtime_ns for path in [images, *images.iterdir()]} == before


# ---- what is said


class TestWords:
    def test_lines_come_though_nothing_else_does(self, tmp_path, server, monkeypatch, capsys):
        monkeypatch.setattr("galgaze.stages.fetch_progress.SAY_EVERY_S", 0.05)
        monkeypatch.setattr("galgaze.stages.fetcher.THREADS_A_CONNECTION", 1)
        server.delay = 0.2
        faults = iter(["ok", "503", "503"])
        monkeypatch.setattr("tests.servers.soak.fault_of", lambda *_: next(faults, "ok"))
        run = planned(tmp_path, server, 5, connections=1)
        assert fetch(run, "field", "sky", 0) == "field sky shard 0: 1 fetch_failed, 4 ok"
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) > 5
        assert lines[0].startswith("field sky shard 0: 0 of 5, 0.0/s; ")
        assert any(" left; " in line and "/s, about " in line for line in lines)
        assert lines[-1].startswith("field sky shard 0: 5 of 5 (1 fetch_failed, 4 ok), ")
        assert lines[-1].endswith("; 6 requests, 0.1 MB; in vain: 2 HTTP 503")
        [line] = read_ledger(run.layout.fetch_ledger("field", "sky", 0))
        assert line["seconds"] > 0
        assert line["bytes"] > 4 * 64**2 * 4
        assert {name: line[name] for name in ("way", "sources", "requests", "in_vain", "ended")} == {
            "way": "cutouts", "sources": {"fetch_failed": 1, "ok": 4}, "requests": 6, "in_vain": {"HTTP 503": 2},
            "ended": "whole",
        }  # fmt: skip

    def test_a_ledger_has_a_line_a_job_and_survives_half_a_line(self, tmp_path, server):
        run = planned(tmp_path, server, 2)
        path = run.layout.fetch_ledger("field", "sky", 0)
        assert read_ledger(path) == []
        for error in (ServiceDown("down"), ConfigError("wrong")):
            with pytest.raises(type(error)), Progress("w", 1, {"sky": run.survey("sky")}, None, path):
                raise error
        with open(path, "a") as file:
            file.write('{"began_utc": "2026-')
        assert [line["ended"] for line in read_ledger(path)] == ["ServiceDown", "ConfigError"]
        assert json.loads(path.read_text().splitlines()[0])["requests"] == 0

    def test_a_ledger_that_cannot_be_written_hides_no_error(self, tmp_path, server):
        run = planned(tmp_path, server, 2)
        (tmp_path / "file").touch()
        progress = Progress("w", 1, {"sky": run.survey("sky")}, None, tmp_path / "file/ledger.jsonl")
        with pytest.raises(ServiceDown), progress:
            raise ServiceDown("down")

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h"), (400_000, "4.6 days")]
    )
    def test_duration(self, seconds, text):
        assert duration(seconds) == text

    def test_what_is_asked_for_must_exist(self, tmp_path, server, monkeypatch, capsys):
        run = planned(tmp_path, server, 2)
        config = write_config(run)
        for words, said in (
            (["--field", "feild"], "The field 'feild' is not in the configuration (field)"),
            (["--field", "field", "--survey", "sea"], "The survey 'sea' is not in the configuration (sky)"),
            (["--field", "field", "--shard", 7], "shard-00007.parquet: there is no plan of the field"),
            ([], "Name a field with --field (field), or use --dry-run for all"),
        ):
            code, text = run_main(monkeypatch, capsys, "fetch", "--config", config, *words)
            assert code == 2, text
            assert said in text
        assert server.log()["requests"] == []


# ---- memory


class Endless(RemoteSurvey):
    """Images from nowhere."""

    BYTES = 100_000

    def identity(self):
        return {"kind": "endless"}

    def download(self, source):
        return os.urandom(self.BYTES), "here"

    def decode(self, body, source):
        raise NotImplementedError

    def bytes_a_source(self):
        return self.BYTES


def test_memory_does_not_grow_with_the_shard(tmp_path, server, monkeypatch):
    monkeypatch.setattr("galgaze.stages.fetcher.AHEAD_BYTES", 10 * Endless.BYTES)
    settings = planned(tmp_path, server, 1).config.surveys["sky"]
    survey = Endless(settings, planned(tmp_path, server, 1).survey("sky")._client, tmp_path)
    peaks = []
    for count in (150, 600):
        tracemalloc.start()
        sources = [Source(str(n), n / 10, count / 100) for n in range(count)]
        with Fetcher({"endless": survey}, DownloadCache(tmp_path / "cache")) as fetcher:
            write_pack(tmp_path / f"{count}.parquet", fetcher.rows(sources), lambda row: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(read_manifest(tmp_path / f"{count}.parquet")) == count
    assert peaks[1] < 1.3 * peaks[0]
    assert peaks[1] < 100 * Endless.BYTES
