"""Seconds a stage for 1,000 simulated sources, and peak memory.

    python -m benchmarks.stages [--sources 1000] [--task optical_morphology] [--workers 2]

Every stage runs in a process of its own, as Snakemake runs it, on one field in shards of 250; the model is a small
one, trained for one epoch on the field itself (its time is per epoch). Peak memory is the largest of a stage's
processes, and of all its processes together where it has Dask workers. Times depend on the machine; compare stages
with each other, and commits on one machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

SHARD_SIZE = 250
SURVEYS = {"optical_morphology": "simulated_legacy", "radio_fr": "simulated_first"}


def configuration(task: str, sources: int, folder: Path) -> dict:
    """One simulated field, one task."""
    survey = SURVEYS[task]
    optical = task == "optical_morphology"
    settings = {
        "survey": survey,
        "preparation": {"kind": "optical_composite" if optical else "radio_clip"},
        "model": {"train": {"field": "field", "epochs": 1}},
    }
    if optical:
        settings["bars"] = {"probability_threshold": 0.1, "samples": 30}
    return {
        "results": str(folder / "results"),
        "cache": str(folder / "cache"),
        "shard_size": SHARD_SIZE,
        "surveys": {survey: {"kind": survey}},
        "fields": {"field": {"simulated": {"survey": survey, "count": sources}, "tasks": [task]}},
        "tasks": {task: settings},
    }


def stages(task: str, sources: int, config: str, workers: int) -> dict[str, list[list[str]]]:
    """The commands of each stage."""
    common = ["--config", config, "--field", "field"]
    shards = [["--shard", str(shard)] for shard in range(-(-sources // SHARD_SIZE))]
    dask = ["--task", task, "--workers", str(workers)]
    commands = {
        "plan": [["plan", *common]],
        "fetch": [["fetch", *common, "--survey", SURVEYS[task], *shard] for shard in shards],
        "shard": [["shard", *common, "--task", task, *shard] for shard in shards],
        "train": [["train", "--config", config, "--task", task]],
        "predict": [["predict", *common, *dask]],
        "measure": [["measure", *common, *dask]],
        "write": [["write", *common, "--task", task]],
        "report": [["report", *common]],
    }
    return {name: words for name, words in commands.items() if name != "measure" or task == "optical_morphology"}


class PeakMemory(threading.Thread):
    """Watches a process and its children, ten times a second."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.process, self.largest, self.together, self.done = psutil.Process(pid), 0, 0, False

    def run(self):
        """Watch until told that it is done."""
        while not self.done:
            sizes = []
            try:
                for process in [self.process, *self.process.children(recursive=True)]:
                    sizes.append(process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
            self.largest = max(self.largest, *sizes)
            self.together = max(self.together, sum(sizes))
            time.sleep(0.1)


def run(words: list[str]) -> tuple[float, int, int]:
    """Run one command; seconds, and the peak memory in bytes of the largest process and of all together."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "galgaze.cli", *words], stderr=subprocess.PIPE, text=True)
    memory = PeakMemory(process.pid)
    memory.start()
    _, said = process.communicate()
    memory.done = True
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}\n{said}")
    return time.monotonic() - started, memory.largest, memory.together


def main() -> None:
    """Print a row a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=1000)
    parser.add_argument("--task", choices=SURVEYS, default="optical_morphology")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    print(f"{options.task}: {options.sources} sources, {options.workers} Dask workers")
    print(f"{'stage':<8} {'jobs':>4} {'seconds':>8} {'sources/s':>10} {'largest process':>16} {'all together':>13}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(configuration(options.task, options.sources, Path(folder))))
        for name, commands in stages(options.task, options.sources, str(path), options.workers).items():
            results = [run(words) for words in commands]
            seconds = sum(result[0] for result in results)
            largest, together = (max(result[i] for result in results) / 2**20 for i in (1, 2))
            print(
                f"{name:<8} {len(commands):>4} {seconds:>8.1f} {options.sources / seconds:>10.1f} "
                f"{largest:>12.0f} MiB {together:>9.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
