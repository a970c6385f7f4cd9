"""What can be found wrong before any work begins, beyond the configuration's own form."""

from pathlib import Path

from galgaze.errors import ConfigError
from galgaze.models.loaded import load_model
from galgaze.models.model_file import check_fits_task, read_card
from galgaze.stages.context import Run
from galgaze.stages.training_data import check_training


def check_run(run: Run, load: bool = True) -> None:
    """Check that surveys can be opened, and that named weights exist, fit their tasks and can be loaded.

    Parameters
    ----------
    run : Run
        The configuration.
    load : bool
        Whether to build the networks too, which takes seconds; else the cards alone are read.

    Raises
    ------
    ConfigError
        With what to do.
    """
    for task in run.used_tasks():
        if run.task(task).model.weights is not None:
            for path in run.models(task):
                check_fits_task(path, read_card(path), task, run.task(task).preparation)
            if load:
                load_model(run.models(task))
    for task in run.trained_tasks():
        check_training(run, task, load)
    used = {images.survey for images in run.all_images()}
    for survey in sorted(used | {fallback for fallback in map(run.fallback, used) if fallback}):
        _check_footprint(run, survey)


def _check_footprint(run: Run, survey: str) -> None:
    """The file is there; whether it is good, which may take seconds to tell, those will see who fetch."""
    footprint = getattr(run.config.surveys[survey], "footprint", None)
    if footprint and "://" not in footprint and not Path(footprint).expanduser().is_file():
        raise ConfigError(
            f"surveys.{survey}.footprint: the file {footprint} cannot be read. Correct it, or leave it out."
        )
