"""Running Snakemake in a folder of its own, as a user would."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

# Both tasks on small simulated images: a run takes half a minute.
SMALL = {
    "results": "results",
    "cache": "results/cache",
    "shard_size": 8,
    "surveys": {
        "optical": {"kind": "simulated_legacy", "size_px": 64, "pixel_scale_arcsec": 1.048, "artefact_fraction": 0},
        "radio": {"kind": "simulated_first", "size_px": 100, "mix": {"fri": 1, "frii": 1}},
    },
    "fields": {
        "galaxies": {
            "simulated": {"survey": "optical", "count": 30, "prefix": "g"},
            "tasks": ["optical_morphology"],
        },
        "jets": {"simulated": {"survey": "radio", "count": 20, "prefix": "j"}, "tasks": ["radio_fr"]},
        "training_galaxies": {
            "simulated": {"survey": "optical", "count": 120, "prefix": "t"},
            "shard_size": 60,
        },
    },
    "tasks": {
        "optical_morphology": {
            "survey": "optical",
            "preparation": {"kind": "optical_composite", "size_px": 64},
            "model": {"train": {"field": "training_galaxies", "epochs": 2, "batch_size": 16}},
            "bars": {"probability_threshold": 0.0, "samples": 4},
        },
        "radio_fr": {
            "survey": "radio",
            "preparation": {"kind": "radio_clip", "size_px": 100},
            "model": {"train": {"field": "jets", "epochs": 2, "batch_size": 8}},
        },
    },
}


def write_config(folder: Path, config: dict) -> Path:
    """Write a configuration; paths in it are relative to the folder, where everything is run."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def command(config: Path, *options: str, cores: int = 2) -> list[str]:
    return [
        *("snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(config.parent)),
        *("--configfile", str(config), "--cores", str(cores), "--scheduler", "greedy", "--rerun-incomplete"),
        *options,
    ]


def run(words: list[str], folder: Path = ROOT, timeout: float = 900) -> subprocess.CompletedProcess:
    """Run a command; its output, both streams together, is in ``stdout``."""
    return subprocess.run(
        words, cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout
    )


def snakemake(config: Path, *options: str, cores: int = 2) -> str:
    """Run Snakemake to its end; gives its output."""
    result = run(command(config, *options, cores=cores))
    assert result.returncode == 0, result.stdout
    return result.stdout


def galgaze(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run the command line in a folder."""
    return run(["galgaze", *words], folder)


def kill_when(config: Path, happened, timeout: float = 300) -> None:
    """Start Snakemake, and kill it and all its jobs with kill -9 as soon as something has happened."""
    process = subprocess.Popen(
        command(config),
        cwd=ROOT,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + timeout
    while not happened():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "what the test waits for never happened"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def copy_results(source: Path, target: Path) -> None:
    """Copy a finished run, with what Snakemake remembers of it, times kept."""
    for name in ("results", ".snakemake"):
        shutil.copytree(source / name, target / name)


def catalogue(folder: Path, field: str, task: str) -> pd.DataFrame:
    return pd.read_parquet(folder / "results" / field / task / "catalogue.parquet")


def assert_same_catalogues(
    first: Path, second: Path, fields=(("galaxies", "optical_morphology"), ("jets", "radio_fr"))
):
    """Equal by value, floats to 1e-5."""
    for field, task in fields:
        pd.testing.assert_frame_equal(
            catalogue(first, field, task), catalogue(second, field, task), rtol=1e-5, atol=1e-5, check_exact=False
        )
