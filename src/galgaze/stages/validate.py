"""What can be found wrong before any work begins, beyond the configuration's own form."""

from galgaze.models.model_file import check_fits_task, read_card
from galgaze.stages.context import Run


def check_run(run: Run) -> None:
    """Check that surveys can be opened, and that named weights exist and fit their tasks.

    Raises
    ------
    ConfigError
        With what to do.
    """
    for task in run.used_tasks():
        weights = run.task(task).model.weights
        if weights:
            check_fits_task(weights, read_card(weights), task, run.task(task).preparation)
    run.all_images()
