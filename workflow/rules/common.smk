# Checks the configuration, plans the fields (a dry run does too, so that it can count the jobs), and holds the
# functions that the rules ask for their inputs.
import json
import sys

from snakemake.exceptions import WorkflowError

from galgaze.config import check_config
from galgaze.errors import GalgazeError
from galgaze.files import write_if_changed
from galgaze.layout import Layout
from galgaze.stages.budget import describe, fetch_budget, remote_images
from galgaze.stages.context import Run
from galgaze.stages.plan import make_plan
from galgaze.stages.validate import check_run

try:
    RUN = Run(check_config(config))
    # Jobs read this file too, and need not build the networks.
    check_run(RUN, load=workflow.is_main_process)
    SHARDS = {field: make_plan(RUN, field)["shards"] for field in RUN.config.fields}
except GalgazeError as error:
    raise WorkflowError(str(error)) from None

LAYOUT = RUN.layout
# Jobs read this file rather than config.yaml: it has what --configfile and --config have changed.
CONFIG = str(LAYOUT.config())
write_if_changed(CONFIG, json.dumps(RUN.config.model_dump(), indent=1).encode())

IMAGES = {(images.field, images.store): images for images in RUN.all_images()}


onstart:
    # before anything is asked of a public server: what it will cost
    for field, survey in remote_images(RUN):
        try:
            print(describe(fetch_budget(RUN, field, survey)), file=sys.stderr)
        except GalgazeError as error:
            print(f"{field} from {survey}: no estimate: {error}", file=sys.stderr)


wildcard_constraints:
    field="[a-z0-9_]+",
    survey="[a-z0-9_]+",
    task="[a-z0-9_]+",
    store="[a-z0-9_]+-[0-9a-f]+",
    shard="[0-9]+",


def get_reports():
    """A page for every field that has a task."""
    return [
        LAYOUT.report(field)
        for field, settings in RUN.config.fields.items()
        if settings.tasks
    ]


def get_downloads(wildcards):
    """Jobs that ask a public server are few at a time: see `downloads` in the profiles."""
    return int(RUN.survey(wildcards.survey).remote)


def get_survey_identity(wildcards):
    """What decides the bytes that a survey serves; a change fetches again."""
    return RUN.survey_identity(wildcards.survey)


def get_fetch_marker(wildcards):
    """The cutouts that a shard of a store is made from."""
    images = IMAGES[wildcards.field, wildcards.store]
    return LAYOUT.fetch_marker(wildcards.field, images.survey, wildcards.shard)


def get_store_task(wildcards):
    """A task whose preparation a store has."""
    return IMAGES[wildcards.field, wildcards.store].task


def get_store_survey(wildcards):
    """The survey whose images a store has."""
    return IMAGES[wildcards.field, wildcards.store].survey


def store_markers(images):
    """Markers of all shards of a store."""
    return [
        LAYOUT.store_marker(images.field, images.store, shard)
        for shard in range(SHARDS[images.field])
    ]


def get_training_images(wildcards):
    """The labelled images of a task, and what else its training reads."""
    images = RUN.training_images(wildcards.task)
    markers = store_markers(images) if images else []
    return markers + RUN.training_files(wildcards.task)


def get_training_settings(wildcards):
    """What decides a training; a change trains again."""
    return RUN.train_settings(wildcards.task).model_dump()


def get_training_threads(wildcards):
    """As configured: the number of threads is part of the result."""
    return RUN.train_settings(wildcards.task).torch_threads


def get_images(wildcards):
    """The images of a field for a task."""
    return store_markers(RUN.images(wildcards.field, wildcards.task))


def get_model(wildcards):
    """The marker of the trained model, or the weights named in the configuration."""
    if RUN.task(wildcards.task).model.train:
        return LAYOUT.model(wildcards.task).with_suffix(".json")
    return RUN.models(wildcards.task)


def get_uncertainty_settings(wildcards):
    """What decides how predictions are repeated; a change predicts again."""
    return RUN.task(wildcards.task).uncertainty.model_dump()


def get_dask_workers(wildcards, threads):
    """Workers x one thread = the job's cores, unless a profile says otherwise."""
    return threads


def get_bar_settings(wildcards):
    """What decides the bars; a change measures again."""
    return RUN.task(wildcards.task).bars.model_dump()


def get_measured(wildcards):
    """The marker of the bars, where there are any to measure."""
    bars = RUN.task(wildcards.task).bars
    return (
        LAYOUT.stage_marker(wildcards.field, wildcards.task, "measure") if bars else []
    )


def get_catalogues(wildcards):
    """The catalogues of a field."""
    return [
        LAYOUT.catalogue(wildcards.field, task)
        for task in RUN.config.fields[wildcards.field].tasks
    ]
