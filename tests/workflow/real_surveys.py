"""Real images through the whole pipeline, served by local servers that speak the surveys' protocols.

    python -m tests.workflow.real_surveys --data FOLDER [--output results/real] [--cores 2]

``FOLDER`` is the folder of test data. MiraBest's radio galaxies come from a FIRST cutout server, Legacy Surveys
cutouts (a truncated and a damaged file among them) from a viewer; the configuration that is run is left in the
output folder.
"""

import argparse
import contextlib
import csv
import subprocess
from pathlib import Path

import yaml

from tests.servers.first import FirstServer
from tests.servers.legacy import LegacyServer
from tests.workflow.runs import ENVIRONMENT, command

LABELS = {
    **dict.fromkeys(("100", "102", "104", "110", "112"), "FRI"),
    **dict.fromkeys(("200", "201", "210"), "FRII"),
    **dict.fromkeys(("300", "310"), None),  # hybrids
}
# Positions of our own for the Legacy Surveys files: several share one in their headers.
OPTICAL = {
    "example_a.fits": (150.0, 2.0),
    "example_b.fits": (151.0, 2.0),
    "example_d.fits": (152.0, 2.0),
    "temp_small.fits": (153.0, 2.0),
    "example_bad_pix.fits": (154.0, 2.0),
    "example_incomplete.fits": None,  # cut short: served as it is, under its own position
}
NOT_COVERED = ("nothing_there", 10.0, -60.0)


def configuration(data: Path, output: Path, first_url: str, legacy_url: str, quick: bool) -> dict:
    """The configuration of the run; ``quick`` trains less."""
    http = {"pause_s": 0, "backoff_s": 0.1, "timeout_s": 30}
    return {
        "results": str(output / "results"),
        "cache": str(output / "cache"),
        "contact": "galgaze's own tests",
        "shard_size": 100,
        "surveys": {
            "first": {"kind": "first", "urls": [first_url], "http": http},
            "legacy": {
                "kind": "legacy",
                "url": legacy_url,
                "probe_ra_deg": 150.0,
                "probe_dec_deg": 2.0,
                "http": http,
            },
            "simulated": {"kind": "simulated_legacy"},
        },
        "fields": {
            "mirabest": {
                "table": {
                    "path": str(data / "first/mirabest/sources.csv"),
                    "columns": {
                        "ra_deg": "ra_deg",
                        "dec_deg": "dec_deg",
                        "redshift": "redshift",
                        "las_arcsec": "las_arcsec",
                        "label": "label",
                    },
                },
                "labels": LABELS,
                "tasks": ["radio_fr"],
            },
            "decals": {"table": {"path": str(output / "decals.csv")}, "tasks": ["optical_morphology"]},
            "training_galaxies": {"simulated": {"survey": "simulated", "count": 300, "prefix": "t"}},
        },
        "tasks": {
            "radio_fr": {
                "survey": "first",
                "preparation": {"kind": "radio_clip", "min_coverage": 0.5},
                "model": {
                    "train": {
                        "field": "mirabest",
                        "epochs": 3 if quick else 30,
                        "central_epochs": 2 if quick else 20,
                        "batch_size": 16,
                    }
                },
            },
            "optical_morphology": {
                "survey": "legacy",
                # the files are 42 to 59 arcsec wide
                "preparation": {"kind": "optical_composite", "field_of_view_arcsec": 40.0},
                "model": {
                    "train": {
                        "field": "training_galaxies",
                        "survey": "simulated",
                        "epochs": 2,
                        "central_epochs": 1,
                        "batch_size": 16,
                    }
                },
                "bars": {"probability_threshold": 0.0, "samples": 10},
            },
        },
    }


def optical_positions(data: Path) -> dict[str, tuple[float, float]]:
    """Where each file is asked for; a damaged one at the position in its own header."""
    from tests.servers import header

    folder = data / "decals/fits"
    own = header.parse_header(header.read_bytes(folder / "example_incomplete.fits", 20 * header.BLOCK))[0]
    return {name: position or header.centre(own) for name, position in OPTICAL.items()}


@contextlib.contextmanager
def servers(data: Path):
    """Both servers; gives them."""
    with (
        FirstServer(data / "first/mirabest/fits") as first,
        LegacyServer(data / "decals/fits", positions=optical_positions(data)) as legacy,
    ):
        yield first, legacy


def prepare(data: Path, output: Path, first_url: str, legacy_url: str, quick: bool) -> Path:
    """Write the optical table and the configuration; gives the configuration's path."""
    output.mkdir(parents=True, exist_ok=True)
    with open(output / "decals.csv", "w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["source_id", "ra", "dec"])
        rows.writerows([Path(name).stem, *position] for name, position in optical_positions(data).items())
        rows.writerow(NOT_COVERED)
    path = output / "config.yaml"
    path.write_text(yaml.safe_dump(configuration(data, output, first_url, legacy_url, quick), sort_keys=False))
    return path


def main() -> int:
    """Run it, and say where the results are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of test data")
    parser.add_argument("--output", type=Path, default=Path("results/real"))
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="train for three epochs only")
    options = parser.parse_args()
    data, output = options.data.resolve(), options.output.resolve()
    if not (data / "first/mirabest/sources.csv").is_file():
        parser.error(f"--data {options.data}: no first/mirabest/sources.csv there")
    with servers(data) as (first, legacy):
        config = prepare(data, output, first.url, legacy.url, options.quick)
        code = subprocess.call(command(config, cores=options.cores), env=ENVIRONMENT)
        print(f"\n{len(first.requests)} requests to the FIRST server, {len(legacy.requests)} to the viewer")
    for field in ("mirabest", "decals"):
        print(f"{output}/results/{field}/report.html")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
