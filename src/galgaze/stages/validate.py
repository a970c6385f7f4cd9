"""What can be found wrong before any work begins, beyond the configuration's own form."""

from galgaze.models.model_file import check_fits_task, read_card
from galgaze.stages.context import Run
from galgaze.stages.training_data import check_training


def check_run(run: Run) -> None:
    """Check that surveys can be opened, and that named weights exist and fit their tasks.

    Raises
    ------
    ConfigError
        With what to do.
    """
    for task in run.used_tasks():
        if run.task(task).model.weights is not None:
            for path in run.models(task):
                check_fits_task(path, read_card(path), task, run.task(task).preparation)
    for task in run.trained_tasks():
        check_training(run, task)
    run.all_images()
