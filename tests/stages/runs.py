"""Runs on a temporary folder, with fields from a table or the simulated sky."""

import csv
import json
import subprocess
import sys
from pathlib import Path

from galgaze.config import check_config
from galgaze.stages.context import Run

WEIGHTS = {"weights": "nowhere.safetensors"}
OPTICAL = {"kind": "optical_composite", "field_of_view_arcsec": 40 * 0.262, "size_px": 16}
RADIO = {"kind": "radio_clip", "size_px": 40}
HTTP = {"attempts": 2, "backoff_s": 0, "pause_s": 0, "timeout_s": 20, "give_up_after": 3, "cool_down_s": 0}
LEGACY = {"kind": "legacy", "size_px": 40, "probe_ra_deg": 150.0, "probe_dec_deg": 2.0, "mode": "cutouts", "http": HTTP}


def write_table(path, rows):
    """Rows of (source_id, ra, dec) or (source_id, ra, dec, label)."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["source_id", "ra", "dec", "label"])
        writer.writerows((*row, "")[:4] for row in rows)


def make_run(
    folder, survey, *, task="optical_morphology", field=None, shard_size=2, others: dict | None = None, **changes
) -> Run:
    """A run with one survey ("sky") that is used, `others` that are not, one field ("field": table.csv), one task."""
    table = {"path": str(folder / "table.csv"), "columns": {"label": "label"}}
    preparation = OPTICAL if task == "optical_morphology" else RADIO
    config = {
        "results": str(folder / "results"),
        "cache": str(folder / "cache"),
        "hosts": str(folder / "hosts"),
        "shard_size": shard_size,
        "surveys": {"sky": survey} | (others or {}),
        "fields": {"field": field or {"table": table, "tasks": [task]}},
        "tasks": {task: {"survey": "sky", "preparation": preparation, "model": WEIGHTS}},
    }
    return Run(check_config(config | changes))


def again(run: Run) -> Run:
    """As a new process would see it."""
    return Run(run.config)


def write_config(run: Run) -> Path:
    """The run's configuration as a file, for the command line."""
    path = Path(run.config.results).parent / "config.json"
    path.write_text(json.dumps(run.config.model_dump()))
    return path


def start(*words: str) -> subprocess.Popen:
    """The command line in a process of its own; both streams are its ``stdout``."""
    command = [sys.executable, "-m", "galgaze.cli", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
