"""Contact sheets: many small images side by side, a row a class, to see at a glance what a sky looks like."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from galgaze.report.figures import DPI, drawn, in_style, picture, plot, shown
from galgaze.tasks import Task

PANEL_GAP_PX, GROUP_GAP_PX = 3, 24  # white between images, and between simulated and real ones
LABEL_PX, HEADING_PX, EDGE_PX = 132, 33, 4  # of the rows' names, of headings and notes, and where nothing is
PAGE_PANEL_PX = 104  # side of an image in the page; in a file of its own each has its own pixels
ROW_NAME_WIDTH = 16  # letters that fit beside a row


@dataclass(frozen=True)
class SheetRow:
    """One row of a contact sheet.

    Attributes
    ----------
    name : str
        The class, and a finer type where there is one.
    groups : tuple of list of numpy.ndarray
        Images (C, H, W) uint8, rows from south to north: a list for each heading of the sheet. A list that
        is shorter than others leaves room.
    """

    name: str
    groups: tuple[list[np.ndarray], ...]


# ---------------------------------------------------------------------------------------- which sources


def choose_sources(truth: pd.DataFrame, task: Task, per_row: int) -> list[tuple[str | None, str | None, list[str]]]:
    """The first sources of each class of a simulated sky, or of each finer type where its truth names one.

    Parameters
    ----------
    truth : pandas.DataFrame
        source_id, class_label, and for radio perhaps morphology.
    task : Task
        Its classes give the order; types that are no class of it (hybrids, compact sources) come last.
    per_row : int
        At most so many of each.

    Returns
    -------
    list of (class, type or None, source ids)
        Classes without a source are there too, with no ids.
    """
    kinds = _finer_types(truth, task)
    rows = []
    for name in task.classes:
        of_class = truth["class_label"] == name
        found = kinds[of_class].unique().tolist()
        for kind in sorted(found, key=lambda kind: (_finer(name, kind) != "", kind)) or [""]:
            ids = truth.loc[of_class & (kinds == kind), "source_id"].head(per_row).tolist()
            rows.append((name, kind or None, ids))
    unlabelled = truth["class_label"].isna() & (kinds != "")
    for kind in sorted(kinds[unlabelled].unique()):
        rows.append((None, kind, truth.loc[unlabelled & (kinds == kind), "source_id"].head(per_row).tolist()))
    return rows


def _finer_types(truth: pd.DataFrame, task: Task) -> pd.Series:
    """The radio morphology of each source; "" where there is none."""
    if task.kind != "radio" or "morphology" not in truth:
        return pd.Series("", index=truth.index)
    return truth["morphology"].astype(object).where(truth["morphology"].notna(), "").astype(str)


def row_name(label: str | None, kind: str | None) -> str:
    """What stands beside a row: the class, and below it the type, which need not say the class again."""
    if label is None:
        return f"{shown(kind)}\n(no class)"
    finer = _finer(label, kind)
    return shown(label) + (f"\n{finer}" if finer else "")


def _finer(label: str, kind: str | None) -> str:
    return shown(kind or "").removeprefix(label).removeprefix(label.lower()).strip()


# ---------------------------------------------------------------------------------------- the figure


@drawn(picture)
def page_sheet(rows: list[SheetRow], headings: tuple[str, ...] = ("",)) -> Figure:
    """A contact sheet for the page, in few colours and small images."""
    return _sheet(rows, headings, PAGE_PANEL_PX)


def sheet_png(rows: list[SheetRow], headings: tuple[str, ...], note: str = "") -> bytes:
    """A contact sheet as a PNG file, each image in its own pixels and colours."""
    sides = [image.shape[-1] for row in rows for group in row.groups for image in group]
    return in_style(lambda: plot(_sheet(rows, headings, max(sides, default=PAGE_PANEL_PX), note)))


def _sheet(rows: list[SheetRow], headings: tuple[str, ...], panel_px: int, note: str = "") -> Figure:
    """A figure of all rows, each group under its heading; in whole pixels, so that no image is blurred."""
    pitch = panel_px + PANEL_GAP_PX
    columns = [max([1, *(len(row.groups[index]) for row in rows)]) for index in range(len(headings))]
    starts = [LABEL_PX + sum(columns[:index]) * pitch + index * GROUP_GAP_PX for index in range(len(headings))]
    top, bottom = HEADING_PX if any(headings) else EDGE_PX, HEADING_PX if note else EDGE_PX
    width, height = starts[-1] + columns[-1] * pitch, top + len(rows) * pitch + bottom
    figure = Figure(figsize=(width / DPI, height / DPI))
    for number, row in enumerate(rows):
        up = height - top - number * pitch - panel_px
        middle = (up + panel_px / 2) / height
        figure.text(EDGE_PX / width, middle, _wrapped(row.name), va="center", fontsize=8)
        for start, images in zip(starts, row.groups, strict=True):
            for place, image in enumerate(images):
                left = start + place * pitch
                axes = figure.add_axes((left / width, up / height, panel_px / width, panel_px / height))
                axes.set_axis_off()
                axes.imshow(display_colours(image), origin="lower", aspect="auto")
    for start, heading in zip(starts, headings, strict=True):
        figure.text(start / width, 1 - top / 2 / height, heading, va="center", fontsize=9, fontweight="bold")
    figure.text(LABEL_PX / width, bottom / 2 / height, note, va="center", fontsize=7, color="#555555")
    return figure


def _wrapped(name: str) -> str:
    import textwrap

    return "\n".join(part for line in name.split("\n") for part in textwrap.wrap(line, ROW_NAME_WIDTH))


def display_colours(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) uint8 for the eye: (H, W, 3) in 0..1.

    Colours as they are; a radio image as its square root in grey, or its lobes would not be seen.
    """
    colours = image.transpose(1, 2, 0) / 255
    return colours if colours.shape[2] == 3 else np.repeat(np.sqrt(colours), 3, axis=2)
