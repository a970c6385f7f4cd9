"""The command line: the same verbs as the Snakemake rules, by hand.

Errors that the user, or time, can mend are printed as one paragraph; the exit code says which kind it was
(2 configuration, 75 come back later). Anything else shows its traceback: it is a bug.
"""

import errno
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from galgaze import __version__
from galgaze.errors import GalgazeError

INTERRUPTED = 130  # as shells say it: 128 + SIGINT

app = typer.Typer(
    name="galgaze",
    help="Galaxy morphology catalogues that also say where the network looked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="configuration file")]
Field = Annotated[str, typer.Option("--field", help="a field of the configuration")]
TaskName = Annotated[str, typer.Option("--task", help="a task of the configuration")]
Shard = Annotated[int, typer.Option("--shard", min=0, help="number of the shard, from 0")]
SurveyName = Annotated[str | None, typer.Option("--survey", help="a survey of the configuration; default: the task's")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Dask workers, one thread each")]
Dask = Annotated[str, typer.Option("--dask", help="local, slurm, or a scheduler's address")]


class Split(StrEnum):
    """Which part of a published set."""

    train = "train"
    test = "test"


class Subset(StrEnum):
    """Which labels count."""

    all = "all"
    confident = "confident"


class Retried(StrEnum):
    """Of which sources another request may bring another answer, though none is made unless asked for."""

    no_coverage = "no_coverage"
    bad_image = "bad_image"


def _one_thread() -> None:
    """A shard's job has one core: its libraries must not start threads that fight for the others."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _run(config: Path):
    from galgaze.stages.context import Run

    return Run.load(config)


def _say(line: str) -> None:
    from galgaze.stages.terminal import say

    say(line)


cache_app = typer.Typer(help="The folder of raw downloads: how large it is, whether it is whole, and less of it.")
app.add_typer(cache_app, name="cache")


@cache_app.command("size")
def cache_size(config: ConfigPath = Path("config.yaml")):
    """Say how much is kept of which survey."""
    from galgaze.stages.cache import cache_size

    print(cache_size(_run(config)))


@cache_app.command("verify")
def cache_verify(config: ConfigPath = Path("config.yaml")):
    """Read everything, and remove what is damaged: it will be fetched again."""
    from galgaze.stages.cache import cache_verify

    print(cache_verify(_run(config)))


@cache_app.command("prune")
def cache_prune(
    config: ConfigPath = Path("config.yaml"),
    older_than_days: Annotated[
        float | None, typer.Option(min=0, help="only what came longer ago; 0: of whatever age")
    ] = None,
    no_coverage: Annotated[bool, typer.Option("--no-coverage", help="only what says that nothing is there")] = False,
    kind: Annotated[
        str | None,
        typer.Option(help="only of this kind, as `galgaze cache size` names them: legacy, first, bricks, ..."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="remove nothing, say what would be")] = False,
):
    """Remove what fits all options; without any, only what is damaged or was left half.

    The packs of fetched shards keep what they have.
    """
    from galgaze.stages.cache import cache_prune

    print(cache_prune(_run(config), older_than_days, no_coverage, kind, dry_run))


@app.command()
def plan(
    config: ConfigPath = Path("config.yaml"),
    field: Annotated[str | None, typer.Option("--field", help="one field; default: all")] = None,
):
    """Read and check fields, and assign their sources to shards."""
    from galgaze.stages.plan import make_plan
    from galgaze.stages.validate import check_run

    run = _run(config)
    check_run(run)
    for name in [field] if field else list(run.config.fields):
        record = make_plan(run, name)
        _say(f"{name}: {record['sources']} sources in {record['shards']} shards")


@app.command()
def fetch(
    field: Annotated[str | None, typer.Option("--field", help="a field of the configuration")] = None,
    shard: Annotated[
        int | None, typer.Option("--shard", min=0, help="number of the shard, from 0; default: all")
    ] = None,
    survey: Annotated[str | None, typer.Option("--survey", help="a survey of the configuration")] = None,
    config: ConfigPath = Path("config.yaml"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what it would cost; without a field: of all fields")
    ] = False,
    retry: Annotated[
        list[Retried] | None, typer.Option(help="ask again for sources of this status; may be given twice")
    ] = None,
):
    """Fetch the cutouts of a field, or of one shard of it; or say beforehand what that costs."""
    _one_thread()
    from galgaze.stages.fetch import fetch_field

    run, again = _run(config), tuple(value.value for value in retry or [])
    if dry_run:
        _say_budget(run, field, survey, again)
        return
    try:
        for line in fetch_field(run, field, survey, shard, again):
            _say(line)
    except KeyboardInterrupt:
        _say("galgaze: interrupted. What was fetched is kept: run the same command again, and it goes on from here.")
        os._exit(INTERRUPTED)  # threads may wait for a server for minutes yet; files have their names when whole


def _say_budget(run, field: str | None, survey: str | None, retry: tuple[str, ...]) -> None:
    from galgaze.stages.budget import describe, fetch_budget, remote_images
    from galgaze.stages.plan import make_plan

    pairs = remote_images(run, field, survey)
    for name in dict.fromkeys(pair[0] for pair in pairs):
        make_plan(run, name)
    for pair in pairs:
        print(describe(fetch_budget(run, *pair, retry)))
    if not pairs:
        print("Nothing here comes from a public server.")


@app.command()
def shard(
    field: Field,
    task: TaskName,
    shard: Shard,
    survey: SurveyName = None,
    config: ConfigPath = Path("config.yaml"),
):
    """Prepare the images of one shard and write them into the Zarr store."""
    _one_thread()
    from galgaze.stages.shard import shard as make_shard

    _say(make_shard(_run(config), field, task, shard, survey))


@app.command()
def train(task: TaskName, config: ConfigPath = Path("config.yaml")):
    """Train a task's model on its labelled field."""
    from galgaze.stages.train import train

    _say(train(_run(config), task))


@app.command()
def predict(
    field: Field,
    task: TaskName,
    workers: Workers = 1,
    dask: Dask = "local",
    config: ConfigPath = Path("config.yaml"),
):
    """Predict every source of a field."""
    from galgaze.stages.predict import predict

    _say(predict(_run(config), field, task, workers, dask))


@app.command()
def measure(
    field: Field,
    task: TaskName,
    workers: Workers = 1,
    dask: Dask = "local",
    config: ConfigPath = Path("config.yaml"),
):
    """Measure the bars of a field."""
    from galgaze.stages.measure import measure

    _say(measure(_run(config), field, task, workers, dask))


@app.command()
def write(field: Field, task: TaskName, config: ConfigPath = Path("config.yaml")):
    """Write the catalogue of a field and task."""
    from galgaze.stages.write import write

    _say(write(_run(config), field, task))


@app.command()
def report(field: Field, config: ConfigPath = Path("config.yaml")):
    """Write the page of a field."""
    from galgaze.stages.report import report

    _say(report(_run(config), field))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Option(help="model file")],
    dataset: Annotated[
        str,
        typer.Option(
            metavar="KIND:PATH",
            help="mirabest:DIR, frdeep:DIR (or their archives), radio_galaxy_dataset:FILE, galaxy10:FILE, or "
            "directory:DIR (with labels.csv: file, label)",
        ),
    ],
    split: Annotated[
        Split, typer.Option(help="which part of MiraBest, FR-DEEP or the Radio Galaxy Dataset")
    ] = Split.test,
    subset: Annotated[Subset, typer.Option(help="all labels of MiraBest, or the confident ones")] = Subset.all,
    pixel_scale_arcsec: Annotated[
        float | None, typer.Option(help="of pictures in a directory; default: taken whole")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="images a forward pass")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
):
    """Print how good a model is on a labelled set, and on those of its sources that it was not trained on."""
    from galgaze.stages.evaluate import describe, evaluate

    result = evaluate(model, dataset, split.value, subset.value, batch_size, pixel_scale_arcsec)
    print(json.dumps(result, indent=1) if as_json else describe(result))


@app.command("contact-sheet")
def contact_sheet(
    out: Annotated[Path, typer.Argument(help="PNG file to write")],
    task: TaskName,
    config: ConfigPath = Path("config.yaml"),
    survey: SurveyName = None,
    real: Annotated[
        Path | None, typer.Option(help="folder of labelled real images, drawn beside the simulated ones")
    ] = None,
    labels: Annotated[str, typer.Option(help="table of the real images' labels, looked up from their folder")] = (
        "labels.csv"
    ),
    file_column: Annotated[str, typer.Option(help="its column of files, from the folder; endings may lack")] = "file",
    label_column: Annotated[str, typer.Option(help="its column of classes")] = "label",
    label_map: Annotated[
        str | None, typer.Option(help='from its labels to classes, "100=FRI,200=FRII"; others are not shown')
    ] = None,
    pixel_scale: Annotated[
        float | None, typer.Option(min=0.01, help="arcsec a pixel of real pictures; default: taken whole")
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, max=50, help="images a row, at most")] = 6,
    seed_prefix: Annotated[str, typer.Option(help="of the simulated sources' ids: other ids are other sources")] = (
        "sheet"
    ),
):
    """Draw simulated images as the network sees them, class by class, beside real ones.

    Real FITS files need columns ra_deg and dec_deg in the table of labels.
    """
    _one_thread()
    from galgaze.images.datasets import LabelTable
    from galgaze.stages.contact_sheet import RealFolder, contact_sheet, parse_label_map

    listing = LabelTable(labels, file_column, label_column, parse_label_map(label_map))
    folder = RealFolder(real, listing, pixel_scale) if real else None
    _say(contact_sheet(_run(config), task, out, survey, folder, per_class, seed_prefix))


@app.command("import-published")
def import_published(
    file: Annotated[Path, typer.Argument(help="weights released with Bowles et al. 2021 (.pt)")],
    out: Annotated[Path, typer.Argument(help="model file to write (.safetensors)")],
    normalisation: Annotated[
        str | None,
        typer.Option(help="range_norm, std_mean_norm, sigmoid, softmax or tanh, if the file's name is silent"),
    ] = None,
    aggregation: Annotated[str | None, typer.Option(help="ft, concat, mean or deep_sup; the tensors say it")] = None,
    gates: Annotated[int | None, typer.Option(help="0 to 3; the tensors say it")] = None,
):
    """Make a model file of an AG-CNN as released by its authors; nothing in the file is executed."""
    _one_thread()
    from galgaze.stages.import_published import import_published

    _say(import_published(file, out, normalisation, aggregation, gates))


@app.command()
def preset(
    name: Annotated[str, typer.Argument(help="of the preset; --list names them")] = "",
    data: Annotated[Path | None, typer.Option(help="the published set: its file, folder or archive")] = None,
    out: Annotated[Path | None, typer.Option(help="file to write; default: print")] = None,
    names: Annotated[bool, typer.Option("--list", help="say which presets there are, and what they need")] = False,
):
    """Give a configuration that trains on a published set, ready to run."""
    from galgaze.stages.presets import list_presets, make_preset, write_preset

    if names:
        print(list_presets())
    elif out is None:
        print(make_preset(name, data), end="")
    else:
        _say(write_preset(name, data, out))


@app.command()
def card(model: Annotated[Path, typer.Argument(help="model file")]):
    """Print a model's card."""
    from galgaze.models.model_file import read_card

    print(read_card(model).model_dump_json(indent=1))


@app.command("export-plain")
def export_plain(
    model: Annotated[Path, typer.Argument(help="model file of an equivariant_agcnn")],
    out: Annotated[Path, typer.Argument(help="model file to write")],
):
    """Write an equivariant model as the same function with plain convolutions."""
    from galgaze.stages.export_plain import export_plain

    _say(export_plain(model, out))


@app.command()
def check(config: ConfigPath = Path("config.yaml")):
    """Check a configuration, and the weights that it names, without doing anything."""
    from galgaze.stages.validate import check_run

    check_run(_run(config))
    _say(f"{config}: good")


@app.command()
def schema():
    """Print the JSON schema of the configuration."""
    from galgaze.config import config_json_schema

    print(json.dumps(config_json_schema(), indent=1))


@app.command()
def columns():
    """Print the catalogue's columns as Markdown."""
    from galgaze.catalogue.documentation import columns_page

    print(columns_page(), end="")


@app.command()
def version():
    """Print the version."""
    print(__version__)


def main() -> None:
    """Entry point of the ``galgaze`` command."""
    try:
        app()
    except GalgazeError as error:
        print(f"galgaze: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(
            f"galgaze: cannot write{where}: {error.strerror}. No half file was left. Make room or change the folder, "
            "and run the same command again: it goes on from here.",
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
