"""How well, and at what cost, images are fetched from a server that is slow to please.

    python -m benchmarks.fetch soak [--sources 20000] [--rate 60] [--kills 2] [--folder DIR]
    python -m benchmarks.fetch speed [--sources 400] [--rounds 7]

`soak` fetches from a local FIRST server that fails one request of ten in every known way (`tests/servers/soak.py`), by
the command line, two fields side by side in two processes; these are killed (SIGKILL, the whole process group) at
random moments and started again, as often as it takes. What is checked, and printed:

* Every source has one row, with its true status and, where there is an image, its true bytes.
* Nothing that was sent whole is asked for again, but for what a kill met on its way into the cache: at most what the
  threads of the killed processes had in hand, `THREADS_A_CONNECTION` x connections a process and kill. (An image that
  is bad is not kept, and is asked for again by a job that begins its shard anew.)
* No more than `connections` requests are in the works at a time, of both processes together.
* No window of 1, 10 or 60 s sees more requests than the rate allows, one more for its edge, and `connections` for those
  that were under way when it began: the server sees arrivals, the limit is on departures.
* Peak memory when a quarter of the sources had an answer, and at the end.
* The time over what the rate limit alone asks for the requests that were made; connections and the server's delay are
  such that it is the limit that binds.

`speed` fetches from the same server, unspoilt and without a rate limit: through the stage, and in a plain loop over
astroquery's client, by turns in one process. Compare figures of one run only.
"""

import argparse
import contextlib
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from tests.servers import soak as server_side

from galgaze import status
from galgaze.config import check_config
from galgaze.files import write_json
from galgaze.stages.context import Run
from galgaze.stages.fetch import fetch
from galgaze.stages.fetcher import THREADS_A_CONNECTION
from galgaze.stages.packs import read_manifest
from galgaze.stages.plan import make_plan, read_record

ROOT = Path(__file__).parents[1]
FIELDS = ("left", "right")
SHARD_SIZE = 500
CONNECTIONS = 8
DELAY_S = 0.03  # of the soak's server
LOOK_EVERY_S = 0.25
MOST_LIVES = 12  # beside those that end by a kill
WINDOWS_S = (1, 10, 60)
SOAK_HTTP = {"attempts": 4, "backoff_s": 0.2, "backoff_max_s": 5.0, "timeout_s": 2.0, "connections": CONNECTIONS}
TRUE_STATUS = {
    "ok": status.OK,
    "no_coverage": status.NO_COVERAGE,
    "constant": status.BAD_IMAGE,
    "large": status.BAD_IMAGE,
}


def positions(count: int) -> list[server_side.Key]:
    """So many places, well apart, in degrees."""
    return [server_side.key_of(120 + 0.25 * (number % 400), 0.25 * (number // 400)) for number in range(count)]


def make_run(folder: Path, url: str, sources: dict[str, list[server_side.Key]], http: dict, shard_size: int) -> Run:
    """A run with a planned field for each list of positions; its configuration stands in ``config.json``."""
    config = {
        "results": str(folder / "results"),
        "cache": str(folder / "cache"),
        "hosts": str(folder / "hosts"),
        "shard_size": shard_size,
        "surveys": {"first": {"kind": "first", "urls": [url], "size_px": server_side.SIDE_PX, "http": http}},
        "fields": {name: {"table": {"path": str(folder / f"{name}.csv")}, "tasks": ["radio_fr"]} for name in sources},
        "tasks": {
            "radio_fr": {
                "survey": "first",
                "preparation": {"kind": "radio_clip", "size_px": server_side.SIDE_PX},
                "model": {"weights": "none.safetensors"},
            }
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    run = Run(check_config(config))
    for name, places in sources.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("source_id", "ra", "dec"), *((f"{ra}_{dec}", ra, dec) for ra, dec in places)])
        make_plan(run, name)
    return run


class Server:
    """The server, in a process of its own, while the `with` block lasts."""

    def __init__(self, delay: float = 0.0, failing: float = 0.0):
        self._options = ["--delay", str(delay), "--failing", str(failing)]

    def __enter__(self):
        command = [sys.executable, "-m", "tests.servers.soak", *self._options]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.url = self._process.stdout.readline().strip()
        self._client = httpx.Client(base_url=httpx.URL(self.url).join("/"), timeout=60)
        return self

    def __exit__(self, *_):
        self._client.close()
        self._process.kill()
        self._process.communicate()

    def answered(self) -> int:
        """Requests answered whole so far."""
        return self._client.get("/soak/count").json()[1]

    def log(self) -> dict:
        """See `SoakServer.log`."""
        return self._client.get("/soak/log").json()


# ------------------------------------------------------------------------------------------------- soak


@dataclass
class Life:
    """The processes from one start to their end.

    Attributes
    ----------
    started, ended : float
        Of this machine's monotonic clock.
    killed : bool
        Whether that was the end.
    memory : list of tuple
        Requests answered whole (of all lives), process, and its peak memory in bytes so far.
    codes : list of int
        How the processes ended.
    """

    started: float
    ended: float = 0.0
    killed: bool = False
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)


def live(folder: Path, server: Server, kill_at: float) -> Life:
    """Run one process a field until they end, or are killed once so many requests were answered."""
    life = Life(time.monotonic())
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "jobs.log", "a", encoding="utf-8"))
        processes = [_start(folder, name, log) for name in FIELDS]
        stack.callback(_kill, processes)
        while any(process.poll() is None for process in processes):
            answered = server.answered()
            life.memory += [(answered, process.pid, peak) for process in processes if (peak := _peak_bytes(process))]
            if answered >= kill_at:
                time.sleep(random.uniform(0, LOOK_EVERY_S))
                life.killed = True
                break
            time.sleep(LOOK_EVERY_S)
    life.ended = time.monotonic()
    life.codes = [process.returncode for process in processes]
    return life


def _start(folder: Path, name: str, log) -> subprocess.Popen:
    words = ["fetch", "--field", name, "--survey", "first", "--config", str(folder / "config.json")]
    return subprocess.Popen(
        [sys.executable, "-m", "galgaze.cli", *words], start_new_session=True, stdout=log, stderr=log
    )


def _kill(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.wait()


def _peak_bytes(process: subprocess.Popen) -> int:
    """Largest resident memory so far; 0 where the process has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def soak(options) -> bool:
    """Run it all; whether every check held."""
    places = positions(options.sources)
    half = len(places) // 2
    sources = {"left": places[:half], "right": places[half:]}
    http = SOAK_HTTP | {"pause_s": 1 / options.rate}
    with _folder(options.folder) as folder, Server(DELAY_S, server_side.FAILING) as server:
        run = make_run(folder, server.url, sources, http, options.shard_size)
        lives = _lives(run, server, folder, sources, options.kills, options.seed)
        statuses = check_rows(run, sources)
        log = server.log()
    checks = [statuses, *check_log(log, lives, http), *check_effort(log, lives, http), *memory_lines(lives)]
    print("\n".join(checks))
    return not any(line.startswith("FAILED") for line in checks)


def _lives(run: Run, server: Server, folder: Path, sources: dict, kills: int, seed: int) -> list[Life]:
    """Start again until everything is there."""
    count = sum(map(len, sources.values()))
    chance = random.Random(seed)
    shares = sorted(chance.uniform(0.03, 0.6) for _ in range(kills))
    lives = []
    while len(lives) < kills + MOST_LIVES:
        killed = sum(life.killed for life in lives)
        life = live(folder, server, count * shares[killed] if killed < kills else np.inf)
        lives.append(life)
        how = "killed" if life.killed else f"ended with {life.codes}"
        print(
            f"life {len(lives)}: {how} after {life.ended - life.started:.1f} s, {server.answered()} answers", flush=True
        )
        if not life.killed:
            if not set(life.codes) <= {0, 75}:
                raise SystemExit(f"A job ended with {life.codes}; see {folder / 'jobs.log'}")
            if not any(life.codes) and status.FETCH_FAILED not in _found(run, sources)["status"].unique():
                break
    return lives


def _found(run: Run, sources: dict):
    """The manifests of all shards, as one table."""
    import pandas as pd

    shards = [(name, shard) for name in sources for shard in range(read_record(run, name)["shards"])]
    return pd.concat([read_manifest(run.layout.fetched(name, "first", shard)) for name, shard in shards])


def check_rows(run: Run, sources: dict) -> str:
    """One row a source, the true status, the true bytes."""
    found = _found(run, sources)
    keys = {f"{ra}_{dec}": (ra, dec) for places in sources.values() for ra, dec in places}
    wrong = sorted(set(keys) ^ set(found["source_id"])) + found["source_id"][found["source_id"].duplicated()].tolist()
    for row in found.itertuples():
        fate = server_side.fate_of(keys[row.source_id])
        if row.status != TRUE_STATUS[fate]:
            wrong.append(f"{row.source_id} is {row.status} ({row.status_reason}), in truth {fate}")
        elif fate == "ok" and row.sha256 != hashlib.sha256(server_side.body_at(keys[row.source_id])).hexdigest():
            wrong.append(f"{row.source_id} has other bytes")
    counts = ", ".join(f"{count} {name}" for name, count in found["status"].value_counts().sort_index().items())
    return _verdict(not wrong, f"rows: {len(found)} for {len(keys)} sources ({counts}); {len(wrong)} wrong {wrong[:3]}")


def check_log(log: dict, lives: list[Life], http: dict) -> list[str]:
    """What the server saw: nothing twice, never too many at once, never too fast."""
    faults = Counter(fault for _, _, fault, _, _ in log["requests"])
    spoilt = {name: count for name, count in sorted(faults.items()) if name != "ok"}
    kills = [life.ended for life in lives if life.killed]
    unexcused, lost, bad = repeats(log["requests"], kills)
    most = THREADS_A_CONNECTION * http["connections"] * len(FIELDS)
    at_once = log["most_at_once"]
    return [
        f"the server: {len(log['requests'])} requests, {sum(spoilt.values())} spoilt: {spoilt}",
        _verdict(not unexcused, f"asked for again though sent whole, without a kill in between: {unexcused}"),
        _verdict(max(lost, default=0) <= most, f"asked for again after each kill: {lost} (at most {most} each)"),
        f"bad images asked for again by a job that began its shard anew: {bad}",
        _verdict(at_once <= http["connections"], f"at once: {at_once} of {http['connections']}"),
        *check_rate([arrived for _, _, _, arrived, _ in log["requests"]], http),
    ]


def repeats(requests: list, kills: list[float]) -> tuple[int, list[int], int]:
    """Requests for what had been sent whole: without a kill in between, after each kill, and of bad images."""
    whole: dict[tuple, float] = {}
    unexcused, bad, lost = 0, 0, [0] * len(kills)
    for ra, dec, _, arrived, sent in sorted(requests, key=lambda request: request[3]):
        key = (ra, dec)
        if key in whole:
            between = [number for number, moment in enumerate(kills) if whole[key] <= moment <= arrived]
            if TRUE_STATUS[server_side.fate_of(key)] == status.BAD_IMAGE:
                bad += 1
            elif between:
                lost[between[0]] += 1
            else:
                unexcused += 1
        if sent is not None:
            whole[key] = sent
    return unexcused, lost, bad


def check_rate(arrivals: list[float], http: dict) -> list[str]:
    """The fullest window of each length beside what the limit allows."""
    times = np.sort(arrivals)
    lines = []
    for seconds in WINDOWS_S:
        most = int((np.searchsorted(times, times + seconds) - np.arange(len(times))).max())
        allowed = int(seconds / http["pause_s"]) + 1 + http["connections"]
        lines.append(_verdict(most <= allowed, f"requests in the fullest {seconds} s: {most} (allowed {allowed})"))
    return lines


def check_effort(log: dict, lives: list[Life], http: dict) -> list[str]:
    """Time over what the limit alone asks for."""
    times = np.sort([arrived for _, _, _, arrived, _ in log["requests"]])
    wall = sum(life.ended - life.started for life in lives)
    begun = [times[(times >= life.started) & (times <= life.ended)] for life in lives]
    start_up = sum(found[0] - life.started for found, life in zip(begun, lives, strict=True) if len(found))
    limit = (len(times) - 1) * http["pause_s"]
    asked = limit + log["closed_s"]
    return [
        f"time: {wall:.1f} s in {len(lives)} lives, {start_up:.1f} s of them before a life's first request",
        f"the limit alone: {limit:.1f} s; with what Retry-After asked for ({log['closed_s']:.1f} s): {asked:.1f} s",
        f"time over the limit: {wall / limit:.3f}; over both {wall / asked:.3f}; without start-up "
        f"{(wall - start_up) / limit:.3f} and {(wall - start_up) / asked:.3f}",
    ]


def memory_lines(lives: list[Life]) -> list[str]:
    """Peak of the largest process when a quarter was done, and in the end: of all lives, and of the longest."""
    lives = [life for life in lives if life.memory]
    longest = max(lives, key=lambda life: life.memory[-1][0] - life.memory[0][0])
    lines = []
    for what, samples in (
        ("all lives", [sample for life in lives for sample in life.memory]),
        ("longest life", longest.memory),
    ):
        first, last = samples[0][0], max(answered for answered, _, _ in samples)
        early = max(peak for answered, _, peak in samples if answered <= first + (last - first) / 4)
        late = max(peak for _, _, peak in samples)
        lines.append(
            f"peak memory, {what}: {early / 2**20:.1f} MiB at 25 % of {last - first} answers, {late / 2**20:.1f} MiB "
            f"at 100 % (ratio {late / early:.3f})"
        )
    return lines


def _verdict(good: bool, line: str) -> str:
    return f"{'ok    ' if good else 'FAILED'} {line}"


@contextlib.contextmanager
def _folder(path: Path | None):
    if path is not None:
        path.mkdir(parents=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


# ------------------------------------------------------------------------------------------------ speed


def speed(options) -> dict[str, list[tuple[float, float]]]:
    """Print cutouts a second and CPU milliseconds a cutout; gives (seconds, CPU seconds) by way and round."""
    places = [key for key in positions(2 * options.sources) if server_side.fate_of(key) == "ok"][: options.sources]
    results: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        ways = {
            "ours, 1 connection": lambda places: _ours(Path(folder), server.url, places, 1),
            "ours, 4 connections": lambda places: _ours(Path(folder), server.url, places, 4),
            "astroquery, kept in memory": lambda places: _astroquery(server.url, places),
            "astroquery, written to files": lambda places: _astroquery(server.url, places, Path(folder)),
        }
        for way in ways.values():
            way(places[:5])  # imports
        for turn in range(options.rounds):
            names = list(ways)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                results.setdefault(name, []).append(ways[name](places))
    _print_speeds({name: results[name] for name in ways}, len(places))
    return results


def _ours(folder: Path, url: str, places: list, connections: int) -> tuple[float, float]:
    """Through the stage, with nothing in the cache; the plan is there."""
    folder = folder / "ours"
    http = {"connections": connections, "pause_s": 0}
    run = make_run(folder, url, {"field": places}, http, len(places))
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        taken = _timed(lambda: fetch(run, "field", "first", 0))
    assert (read_manifest(run.layout.fetched("field", "first", 0))["status"] == status.OK).all()
    shutil.rmtree(folder)
    return taken


def _astroquery(url: str, places: list, folder: Path | None = None) -> tuple[float, float]:
    """A loop as its documentation shows it; with a folder, each image is written to a file."""
    from astropy import units
    from astropy.coordinates import SkyCoord
    from astroquery import cache_conf
    from astroquery.image_cutouts.first import First

    First.URL = url
    size = server_side.SIDE_PX * server_side.PIXEL_SCALE_ARCSEC * units.arcsec
    coordinates = SkyCoord(*np.transpose(places), unit="deg")

    def loop():
        for number, position in enumerate(coordinates):
            images = First.get_images(position, image_size=size)
            assert images[0].data.shape == (server_side.SIDE_PX, server_side.SIDE_PX)
            if folder:
                images.writeto(folder / f"{number}.fits", overwrite=True)

    with cache_conf.set_temp("cache_active", False):
        return _timed(loop)


def _timed(work) -> tuple[float, float]:
    """Seconds of time and of CPU, of all threads of this process."""
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - cpu


def _print_speeds(results: dict[str, list[tuple[float, float]]], count: int) -> None:
    print(f"{count} cutouts of {server_side.SIDE_PX} px, {len(next(iter(results.values())))} rounds: median (range)")
    for name, rounds in results.items():
        rates, cpu = [count / wall for wall, _ in rounds], [1e3 * used / count for _, used in rounds]
        print(f"{name:<30} {_spread(rates):>24} cutouts/s {_spread(cpu):>22} CPU ms/cutout")
    for ours in [name for name in results if name.startswith("ours")]:
        for theirs in [name for name in results if name.startswith("astroquery")]:
            pairs = list(zip(results[ours], results[theirs], strict=True))
            rate = _spread([b[0] / a[0] for a, b in pairs])
            print(f"{ours} over {theirs}: speed {rate}, CPU {_spread([a[1] / b[1] for a, b in pairs])}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(words: list[str] | None = None) -> None:
    """Print the figures; the exit code is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    soaking = verbs.add_parser("soak", help="fetch from a server that fails, and be killed")
    soaking.add_argument("--sources", type=int, default=20_000)
    soaking.add_argument("--rate", type=float, default=60.0, help="requests a second that the limit allows")
    soaking.add_argument("--kills", type=int, default=2)
    soaking.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    soaking.add_argument("--shard-size", type=int, default=SHARD_SIZE)
    soaking.add_argument("--folder", type=Path, help="new folder for the run, kept; default: a temporary one")
    speeding = verbs.add_parser("speed", help="beside astroquery's client")
    speeding.add_argument("--sources", type=int, default=400)
    speeding.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(words)
    print(json.dumps({name: str(value) for name, value in vars(options).items()}), flush=True)
    if options.verb == "speed":
        speed(options)
    elif not soak(options):
        sys.exit(1)


if __name__ == "__main__":
    main()
