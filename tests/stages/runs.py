"""Runs on a temporary folder, with fields from a table or the simulated sky."""

import csv

from galgaze.config import check_config
from galgaze.stages.context import Run

WEIGHTS = {"weights": "nowhere.safetensors"}
OPTICAL = {"kind": "optical_composite", "field_of_view_arcsec": 40 * 0.262, "size_px": 16}
RADIO = {"kind": "radio_clip", "size_px": 40}
HTTP = {"attempts": 2, "backoff_s": 0, "pause_s": 0, "timeout_s": 20, "give_up_after": 3}
LEGACY = {"kind": "legacy", "size_px": 40, "probe_ra_deg": 150.0, "probe_dec_deg": 2.0, "http": HTTP}


def write_table(path, rows):
    """Rows of (source_id, ra, dec) or (source_id, ra, dec, label)."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["source_id", "ra", "dec", "label"])
        writer.writerows((*row, "")[:4] for row in rows)


def make_run(folder, survey, *, task="optical_morphology", field=None, shard_size=2, **changes) -> Run:
    """A run with one survey ("sky"), one field ("field": table.csv) and one task."""
    table = {"path": str(folder / "table.csv"), "columns": {"label": "label"}}
    preparation = OPTICAL if task == "optical_morphology" else RADIO
    config = {
        "results": str(folder / "results"),
        "cache": str(folder / "cache"),
        "shard_size": shard_size,
        "surveys": {"sky": survey},
        "fields": {"field": field or {"table": table, "tasks": [task]}},
        "tasks": {task: {"survey": "sky", "preparation": preparation, "model": WEIGHTS}},
    }
    return Run(check_config(config | changes))
