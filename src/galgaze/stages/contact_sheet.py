"""Contact sheets of a simulated sky, beside real images of the same classes: no stage of a run, a look at it."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from galgaze import status
from galgaze.config import PreparationSettings
from galgaze.errors import BadImage, ConfigError, NoCoverage
from galgaze.files import write_bytes
from galgaze.images.datasets import LabelTable, read_labelled_directory
from galgaze.images.preparation import prepare
from galgaze.stages.context import Run
from galgaze.stages.terminal import say
from galgaze.surveys.base import Source, Survey
from galgaze.tasks import TASKS, Task

SPARE = 6  # sources a row, in the place of those that lie at a survey's edge
SCANNED_PER_IMAGE = 40  # truths drawn for every image of a sheet, so that rare types come up too
ANYWHERE = (180.0, 15.0)  # degrees; what is drawn for a simulated source does not depend on its position


@dataclass(frozen=True)
class RealFolder:
    """A folder of labelled real images, as `read_labelled_directory` reads it."""

    folder: Path
    listing: LabelTable
    pixel_scale_arcsec: float | None = None


def contact_sheet(
    run: Run,
    task: str,
    out: Path,
    survey: str | None = None,
    real: RealFolder | None = None,
    per_class: int = 6,
    prefix: str = "sheet",
) -> str:
    """Draw the sheet into a PNG file; gives a line that says what was done.

    Raises
    ------
    ConfigError
        If the survey is not simulated, does not fit the task, or the real images cannot be read.
    """
    from galgaze.report.contact_sheet import SheetRow, choose_sources, row_name, sheet_png

    settings, survey = run.task(task), survey or run.task(task).survey
    simulated = simulated_survey(run, survey)
    truth = draw_truth(simulated, TASKS[task], per_class, prefix)
    wanted = choose_sources(truth, TASKS[task], per_class + SPARE)
    rows = []
    for label, kind, ids in wanted:
        drawn = usable_images(simulated, settings.preparation, ids)
        rows.append(SheetRow(row_name(label, kind), (list(itertools.islice(drawn, per_class)),)))
    headings = (f"simulated: {survey}, as the network sees it",)
    if real is not None:
        found = _real_images(real, TASKS[task], settings.preparation, [label for label, *_ in wanted], per_class)
        rows = [SheetRow(row.name, (*row.groups, images)) for row, images in zip(rows, found, strict=True)]
        by_class = ", by class alone" if any(kind for _, kind, _ in wanted) else ""
        headings = (*headings, f"real: {'/'.join(real.folder.resolve().parts[-2:])}{by_class}")
    note = "square root of the pixels" if TASKS[task].kind == "radio" else ""
    write_bytes(out, sheet_png(rows, headings, note))
    counts = [sum(len(row.groups[index]) for row in rows) for index in range(len(headings))]
    beside = f", {counts[1]} real ones beside them" if real is not None else ""
    return f"{out}: {counts[0]} simulated images of {survey} in {len(rows)} rows{beside}"


# ------------------------------------------------------------------------------------------- simulated


def simulated_survey(run: Run, name: str) -> Survey:
    """A simulated survey of the configuration; raises `ConfigError` for others."""
    survey = run.survey(name)
    if not hasattr(survey, "truth"):
        known = [key for key, settings in run.config.surveys.items() if settings.kind.startswith("simulated")]
        raise ConfigError(
            f"The survey {name!r} is not simulated (kind {run.config.surveys[name].kind}); a contact sheet shows a "
            f"simulated sky. Simulated in this configuration: {', '.join(known) or 'none'}; choose with --survey."
        )
    return survey


def draw_truth(survey: Survey, task: Task, per_class: int, prefix: str) -> pd.DataFrame:
    """The truth of enough sources ``<prefix>-0000000`` ... that a sheet can be chosen from them."""
    count = SCANNED_PER_IMAGE * per_class * len(task.classes)
    ids = [f"{prefix}-{index:07d}" for index in range(count)]
    truth = pd.DataFrame([{"source_id": name, **survey.truth(name)} for name in ids])
    if not truth["class_label"].isin(task.classes).any():
        found = ", ".join(sorted(truth["class_label"].dropna().unique()))
        raise ConfigError(f"The survey's sources are {found}; none of them is a class of {task.name}.")
    return truth


def usable_images(survey: Survey, preparation: PreparationSettings, ids: Iterable[str]) -> Iterator[np.ndarray]:
    """The network's input, (C, H, W) uint8, for one simulated source after the other; unusable ones are left out."""
    for source_id in ids:
        source = Source(source_id, *ANYWHERE, survey.truth(source_id).get("las_arcsec") or float("nan"))
        body, _ = survey.download(source)
        with contextlib.suppress(BadImage, NoCoverage):  # the edges and gaps of a survey are simulated too
            prepared = prepare(survey.decode(body, source), preparation)
            if prepared.status == status.OK:
                yield prepared.pixels


# ------------------------------------------------------------------------------------------------ real


def parse_label_map(text: str | None) -> dict[str, str] | None:
    """``100=FRI,200=FRII`` as a dictionary; raises `ConfigError` for anything else."""
    if text is None:
        return None
    pairs = [part.split("=") for part in text.split(",")]
    if any(len(pair) != 2 or not all(word.strip() for word in pair) for pair in pairs):
        raise ConfigError(f"--label-map {text!r}: expected pairs such as 100=FRI,200=FRII.")
    return {label.strip(): name.strip() for label, name in pairs}


def _real_images(
    real: RealFolder, task: Task, preparation: PreparationSettings, labels: list[str | None], per_class: int
) -> list[list[np.ndarray]]:
    """Images for each row: rows of the same class share that class's images out among them, in their order."""
    rows_per_class = max(labels.count(name) for name in task.classes)
    image, index, left_out = read_labelled_directory(
        real.folder, task, preparation, real.pixel_scale_arcsec, real.listing, per_class * rows_per_class
    )
    for line in left_out:
        say(f"left out: {line}")
    found = []
    for place, label in enumerate(labels):
        before = labels[:place].count(label) * per_class
        of_class = index == (task.classes.index(label) if label else -1)  # a type that is no class has no real images
        found.append(list(image[of_class][before : before + per_class]))
    return found
