"""The figures of a page: plain arrays and frames in, PNGs as ``data:`` addresses out.

No id of a source and no other text from outside is drawn: such text stands in the page, where it is escaped.
"""

import base64
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from PIL import Image
from scipy import ndimage

from galgaze.catalogue.columns import ATTENTION_STATISTICS, GATES, attention_column
from galgaze.report.numbers import ReliabilityCurve, angle_difference_deg

DPI = 110
# Okabe & Ito's colours, told apart by all eyes
BLUE, BLUE_LIGHT, ORANGE, GREEN, GREY = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#7A7A7A"
# from nothing at all to red: what lies under a low value stays to be seen
HEAT = LinearSegmentedColormap.from_list("heat", [(0.95, 0.75, 0.1, 0), (0.9, 0.45, 0, 0.55), (0.75, 0.05, 0, 0.85)])
STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same page on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "text.parse_math": False,
}
PANEL_IN = 1.36  # side of an example's panel
FRAME, GAP = 1, 3  # pixels around and between an example's panels
BAR_MARGIN = 0.2  # of the image's side, left out all around where bars are shown
PALETTE_COLOURS = 256  # of the examples' PNGs: a third of the bytes, no difference seen
SCALE_BARS_ARCSEC = (10, 30, 60, 120)  # the first one that is long enough to see
LEAST_SCALE_BAR = 0.1  # of the image's side


@dataclass(frozen=True)
class Example:
    """One source to be looked at.

    Attributes
    ----------
    source_id : str
        Any text.
    image : numpy.ndarray
        (C, H, W) uint8, rows from south to north.
    attention : tuple of numpy.ndarray
        A map (h, w) a gate, the deepest first, 0 to 1.
    reductions : tuple of int
        Pixels of the image that a pixel of each map spans.
    centre_px : numpy.ndarray
        (2,): column and row of the source.
    jacobian_arcsec : numpy.ndarray
        (2, 2): d(east, north) / d(column, row); NaN where unknown.
    saliency : numpy.ndarray or None
        (H, W), 0 to 1: the map that the bar was measured on.
    padding_px : int
        By how much the attention maps reach beyond the image on each side.
    """

    source_id: str
    image: np.ndarray
    attention: tuple[np.ndarray, ...]
    reductions: tuple[int, ...]
    centre_px: np.ndarray
    jacobian_arcsec: np.ndarray
    saliency: np.ndarray | None = None
    padding_px: int = 0

    @property
    def upright(self) -> bool:
        """Whether north is up and east left, within some degrees."""
        east, north = self.jacobian_arcsec
        return bool(-east[0] > 10 * abs(east[1]) and north[1] > 10 * abs(north[0]))  # NaN is not


@dataclass(frozen=True)
class Bar:
    """A bar to be drawn: full length on the sky, and position angle from north through east."""

    length_arcsec: float
    position_angle_deg: float


def drawn(render: Callable[[Figure], bytes]) -> Callable:
    """Let a function that builds a figure give it as a ``data:`` address, in the one style of the page."""

    def decorate(build: Callable[..., Figure]) -> Callable[..., str]:
        @functools.wraps(build)
        def draw(*args, **kwargs) -> str:
            png = in_style(lambda: render(build(*args, **kwargs)))
            return "data:image/png;base64," + base64.b64encode(png).decode()

        return draw

    return decorate


def in_style(draw: Callable[[], bytes]) -> bytes:
    """What a function draws, in the one style of the page."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        return draw()


def plot(figure: Figure) -> bytes:
    """PNG of a figure; without metadata the same figure is the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def picture(figure: Figure) -> bytes:
    """PNG of a figure that shows images, in few colours."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    colours = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    buffer = io.BytesIO()
    colours.quantize(PALETTE_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue()


def shown(name: str) -> str:
    """A class's name for people."""
    return name.replace("_", " ")


# ------------------------------------------------------------------------------------------- counts


@drawn(plot)
def class_bars(counts: pd.DataFrame) -> Figure:
    """Sources a class, predicted and (where there are labels) labelled.

    Parameters
    ----------
    counts : pandas.DataFrame
        Index: class; columns predicted and labelled.
    """
    labelled = bool(counts["labelled"].sum())
    figure = Figure(figsize=(6.6, 0.9 + (0.33 if labelled else 0.27) * len(counts)), layout="constrained")
    axes = figure.add_subplot()
    place = np.arange(len(counts))[::-1]
    height = 0.38 if labelled else 0.6
    shift = height / 2 if labelled else 0
    bars = [axes.barh(place + shift, counts["predicted"], height, color=BLUE, label="predicted")]
    if labelled:
        bars.append(axes.barh(place - shift, counts["labelled"], height, color="#B8B8B8", label="labelled"))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    for drawn_bars in bars:
        axes.bar_label(drawn_bars, padding=2, fontsize=7, color="#444444")
    axes.set_yticks(place, [shown(name) for name in counts.index])
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.08)
    axes.set_xlabel("sources")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x")
    return figure


# ------------------------------------------------------------------------------------ training curve


@drawn(plot)
def training_curve(curve: pd.DataFrame, largest_share: float | None) -> Figure:
    """Loss and accuracy by epoch, on the training and the validation sources.

    Parameters
    ----------
    curve : pandas.DataFrame
        epoch, central, training_loss, validation_loss, training_accuracy, validation_accuracy.
    largest_share : float or None
        Share of the largest class among the validation sources.
    """
    figure = Figure(figsize=(8.6, 2.9), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    whole = curve[~curve["central"]]  # what the network learnt on the centres of the images alone is not kept
    kept = whole.loc[whole["validation_loss"].idxmin(), "epoch"]
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        axes.plot(curve["epoch"], curve[f"training_{quantity}"], color=GREY, marker=".", label="training")
        axes.plot(curve["epoch"], curve[f"validation_{quantity}"], color=BLUE, marker=".", label="validation")
        axes.axvline(kept, color=GREEN, linestyle=":", linewidth=1.2, label="weights kept")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid()
    loss.set_ylabel("cross entropy (nat)")
    loss.set_yscale("log")
    _plain_ticks(loss.yaxis, loss.get_ylim())
    accuracy.set_ylabel("accuracy")
    accuracy.set_ylim(0, 1.02)
    if largest_share is not None:
        accuracy.axhline(largest_share, color=ORANGE, linestyle="--", linewidth=1.2, label="largest class's share")
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _plain_ticks(axis, limits: tuple[float, float]) -> None:
    """Ticks of a logarithmic axis as plain numbers, close enough that some stand on a short axis."""
    decades = np.log10(limits[1] / limits[0])
    axis.set_major_locator(LogLocator(subs=(1,) if decades > 2 else (1, 3) if decades > 1.2 else (1, 2, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


# ------------------------------------------------------------------------------------------ accuracy


@drawn(plot)
def confusion(matrix: np.ndarray, names: tuple[str, ...]) -> Figure:
    """Counts of true against predicted classes; the shade is the share of the true class."""
    count = len(names)
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    slanted = count > 3
    figure = Figure(figsize=((1.7 if slanted else 1) + 0.37 * count, (1.6 if slanted else 0.8) + 0.37 * count))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    filled = matrix > 0 if slanted else np.ones_like(matrix)  # among many classes zeros would hide the rest
    for row, column in zip(*np.nonzero(filled), strict=True):
        colour = "white" if share[row, column] > 0.55 else "#222222"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, color=colour)
    labels = [shown(name) for name in names]
    axes.set_xticks(range(count), labels, rotation=45 if slanted else 0, ha="right" if slanted else "center")
    axes.set_yticks(range(count), labels)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    return figure


@drawn(plot)
def reliability_diagram(curves: dict[str, ReliabilityCurve]) -> Figure:
    """Share of right classes against the probability given, and below how many sources were given it.

    Parameters
    ----------
    curves : dict of ReliabilityCurve
        By name: as the network gives them, and calibrated where they are.
    """
    figure = Figure(figsize=(3.9, 4.3), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfectly calibrated")
    lowest = np.floor(10 * min(curve.probability.min() for curve in curves.values())) / 10
    edges = np.linspace(lowest, 1, 21)
    # in the order of the names, so that what is calibrated lies on top
    for (name, curve), colour, marker in zip(curves.items(), (ORANGE, BLUE), "so", strict=False):
        points = curve.points
        ends = np.abs(np.stack([points.low, points.high]) - points.accuracy)
        axes.errorbar(
            points.confidence, points.accuracy, ends, color=colour, marker=marker, markersize=4, linewidth=1.2,
            elinewidth=1, label=f"{name}: ECE {curve.error:.3f}",
        )  # fmt: skip
        below.hist(curve.probability, edges, histtype="step", color=colour, linewidth=1.2)
    axes.set_ylabel("share of right classes")
    axes.set_ylim(-0.02, 1.02)
    figure.legend(loc="outside upper left", ncols=1)
    axes.grid()
    below.set_xlim(lowest, 1.01)
    below.set_xlabel("probability given to the predicted class")
    below.set_ylabel("sources")
    below.yaxis.get_major_locator().set_params(integer=True)
    return figure


# ----------------------------------------------------------------------------------------- attention

STATISTIC_LABELS = {
    "entropy": "entropy (0 to 1)",
    "peak": "peak over mean",
    "effective_area_arcsec2": "effective area (arcsec²)",
    "centroid_offset_arcsec": "centroid offset (arcsec)",
}
LOGARITHMIC = ("peak", "effective_area_arcsec2")


@drawn(plot)
def attention_distributions(predicted: pd.DataFrame, names: list[str]) -> Figure:
    """Median, quartiles and 5 to 95 % of each attention statistic, by gate and predicted class.

    Parameters
    ----------
    predicted : pandas.DataFrame
        Catalogue rows with a prediction.
    names : list of str
        Classes that occur among them.
    """
    statistics = [name for name, *_ in ATTENTION_STATISTICS]
    step = len(names) + 1  # a line a class, and one of room below each gate
    place = {gate: (gate - 1) * step + np.arange(len(names)) for gate in range(1, GATES + 1)}
    figure = Figure(figsize=(10.2, 1.0 + 0.16 * GATES * step), layout="constrained")
    panels = figure.subplots(1, len(statistics), sharey=True)
    for statistic, axes in zip(statistics, panels, strict=True):
        for gate in place:
            _draw_spread(axes, predicted, names, attention_column(statistic, gate), place[gate])
        if not axes.lines:
            axes.text(0.5, 0.5, "pixel scale unknown", transform=axes.transAxes, ha="center", color=GREY)
        elif statistic in LOGARITHMIC:
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis, axes.get_xlim())
        axes.set_xlabel(STATISTIC_LABELS.get(statistic, statistic))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(np.concatenate(list(place.values())), [shown(name) for name in names] * GATES)
    panels[0].set_ylim(GATES * step - 1.3, -1.6)
    for gate in place:
        title = f"gate {gate}" + (", the deepest" if gate == 1 else "")
        panels[0].annotate(
            title, (0, place[gate][0] - 0.95), (4, 0), ("axes fraction", "data"), "offset points", va="center",
            fontsize=8, fontweight="bold", color="#444444",
        )  # fmt: skip
    return figure


def _draw_spread(axes, predicted: pd.DataFrame, names: list[str], column: str, place: np.ndarray) -> None:
    known = predicted[["class_label", column]].dropna()
    if known.empty:
        return
    groups = known.astype({column: float}).groupby("class_label")[column]
    table = groups.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack().reindex(names)
    axes.hlines(place, table[0.05], table[0.95], color=BLUE, linewidth=0.8)
    axes.hlines(place, table[0.25], table[0.75], color=BLUE, linewidth=3.5, alpha=0.55)
    axes.plot(table[0.5], place, linestyle="", marker="o", markersize=3.2, color="#222222")


# ---------------------------------------------------------------------------------------------- bars


@drawn(plot)
def bar_lengths_against_truth(bars: pd.DataFrame) -> Figure:
    """Measured against true length with the one-to-one line, and the differences in position angle."""
    known = bars[bars["bar_length_arcsec"].notna() & bars["true_length_arcsec"].notna()]
    figure = Figure(figsize=(8.6, 3.7), layout="constrained")
    lengths, angles = figure.subplots(1, 2)
    limit = 1.08 * float(known[["bar_length_arcsec", "true_length_arcsec"]].to_numpy().max())
    lengths.plot([0, limit], [0, limit], color=GREY, linewidth=1, linestyle="--", label="one to one")
    shapes = {0: ("o", BLUE, "good (flag 0)"), 1: ("o", "none", "suspect (flag 1)")}
    for flag, (marker, face, label) in shapes.items():
        rows = known[known["bar_flag"] == flag]
        lengths.scatter(
            rows["true_length_arcsec"], rows["bar_length_arcsec"], 22, marker=marker, facecolors=face,
            edgecolors=BLUE, linewidths=1, alpha=0.85, label=f"{label}: {len(rows)}",
        )  # fmt: skip
    lengths.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    lengths.set_xlabel("true full length (arcsec)")
    lengths.set_ylabel("measured full length (arcsec)")
    figure.legend(loc="outside upper center", ncols=len(shapes) + 1)
    lengths.grid()
    turn = angle_difference_deg(known["bar_position_angle_deg"], known["true_position_angle_deg"])
    good = (known["bar_flag"] == 0).to_numpy()
    angles.hist(
        [turn[good], turn[~good]], np.arange(-90, 91, 10), stacked=True, color=[BLUE, "white"], edgecolor=BLUE,
        linewidth=0.8,
    )  # fmt: skip
    angles.axvline(0, color=GREY, linewidth=1, linestyle="--")
    angles.set_xlim(-90, 90)
    angles.set_xticks(range(-90, 91, 30))
    angles.set_xlabel("measured less true position angle (deg)")
    angles.set_ylabel("bars")
    angles.yaxis.get_major_locator().set_params(integer=True)
    return figure


@drawn(plot)
def bar_length_histogram(bars: pd.DataFrame) -> Figure:
    """Lengths of the bars that have one: in arcsec, or in pixels where the scale is unknown."""
    in_arcsec = bars["bar_length_arcsec"].notna().any()
    column = "bar_length_arcsec" if in_arcsec else "bar_length_px"
    figure = Figure(figsize=(4.8, 2.9), layout="constrained")
    axes = figure.add_subplot()
    parts = [bars.loc[bars["bar_flag"] == flag, column].dropna().to_numpy(float) for flag in (0, 1)]
    edges = np.histogram_bin_edges(np.concatenate(parts), bins=min(24, 4 + int(np.sqrt(sum(map(len, parts))))))
    axes.hist(
        parts, edges, stacked=True, color=[BLUE, "white"], edgecolor=BLUE, linewidth=0.8,
        label=["good (flag 0)", "suspect (flag 1)"],
    )  # fmt: skip
    axes.set_xlabel("measured full length (" + ("arcsec)" if in_arcsec else "pixels of the prepared image)"))
    axes.set_ylabel("bars")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return figure


# ------------------------------------------------------------------------------------------ examples


@drawn(picture)
def attention_strip(example: Example) -> Figure:
    """The image, and beside it the image in grey under each gate's attention."""
    maps = zip(example.attention, example.reductions, strict=True)
    panels = [colours(example), *(overlaid(example, *gate, example.padding_px) for gate in maps)]
    figure, axes = _strip(panels)
    _draw_scale_bar(axes, example, panels[0].shape[0])
    return figure


@drawn(picture)
def bar_strip(example: Example, measured: Bar | None, true: Bar | None) -> Figure:
    """The image's middle with the bars drawn, and beside it the saliency that the bar was measured on."""
    height, width = example.image.shape[1:]
    margin = int(BAR_MARGIN * min(height, width))
    middle = slice(margin, height - margin), slice(margin, width - margin)
    figure, axes = _strip([colours(example)[middle], overlaid(example, example.saliency, 1)[middle]])
    _draw_scale_bar(axes, example, height - 2 * margin)
    for bar, colour, style in ((true, BLUE_LIGHT, "-"), (measured, ORANGE, (0, (3, 1.5)))):
        _draw_bar(axes, example, bar, margin, colour, style)
    return figure


def colours(example: Example) -> np.ndarray:
    """The image as the network sees it: (H, W, 3) in 0..1."""
    image = example.image.transpose(1, 2, 0) / 255
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def overlaid(example: Example, values: np.ndarray, reduction: int, padding_px: int = 0) -> np.ndarray:
    """The image in grey, dark where bright, under a map: (H, W, 3) in 0..1.

    The map is the more opaque the higher it is. Radio images are shown as their square root, or their lobes
    would not be seen.
    """
    grey = example.image.mean(axis=0) / 255
    grey = 1 - (np.sqrt(grey) if len(example.image) == 1 else grey)
    heat = HEAT(np.clip(enlarged(values, reduction, grey.shape, padding_px), 0, 1))  # (H, W, 4)
    opacity = heat[:, :, 3:]
    return grey[:, :, None] * (1 - opacity) + heat[:, :, :3] * opacity


def enlarged(values: np.ndarray, reduction: int, shape: tuple[int, int], padding_px: int = 0) -> np.ndarray:
    """A coarse map on the image's grid, linearly: its pixel i spans pixels i r to (i + 1) r - 1 of the padded image."""
    rows, columns = ((np.arange(size) + padding_px + 0.5) / reduction - 0.5 for size in shape)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(np.asarray(values, float), grid, order=1, mode="nearest")


def _strip(panels: list[np.ndarray]) -> tuple[Figure, Axes]:
    """Framed images in a row, rows from south to north: up. Pixel (0, 0) of the first stands at (FRAME, FRAME)."""
    framed = [np.pad(panel, ((FRAME, FRAME), (FRAME, FRAME), (0, 0)), constant_values=0.8) for panel in panels]
    gap = np.ones((framed[0].shape[0], GAP, 3))
    strip = np.concatenate([part for panel in framed for part in (gap, panel)][1:], axis=1)
    figure = Figure(figsize=(PANEL_IN * strip.shape[1] / strip.shape[0], PANEL_IN))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(np.clip(strip, 0, 1), origin="lower")
    return figure, axes


def _draw_scale_bar(axes: Axes, example: Example, side: int) -> None:
    if not np.isfinite(example.jacobian_arcsec).all():
        return
    scale = np.sqrt(abs(np.linalg.det(example.jacobian_arcsec)))
    long_enough = [length for length in SCALE_BARS_ARCSEC if length / scale >= LEAST_SCALE_BAR * side]
    length = (long_enough or SCALE_BARS_ARCSEC)[0]
    start = 0.06 * side
    axes.plot([start, start + length / scale], [start] * 2, color="white", linewidth=1.8, solid_capstyle="butt")
    axes.text(start, 1.5 * start, f"{length}″", color="white", fontsize=7, va="bottom")


def _draw_bar(axes: Axes, example: Example, bar: Bar | None, margin: int, colour: str, style) -> None:
    """Draw a bar through the source; nothing where the bar or the pixel scale is unknown."""
    if bar is None or not np.isfinite([bar.length_arcsec, bar.position_angle_deg]).all():
        return
    angle = np.radians(bar.position_angle_deg)
    half = bar.length_arcsec / 2 * np.array([np.sin(angle), np.cos(angle)])  # east, north
    along = np.linalg.solve(example.jacobian_arcsec, half)  # column, row
    centre = example.centre_px - margin + FRAME
    axes.plot(*np.stack([centre - along, centre + along]).T, color=colour, linestyle=style, linewidth=1.6)
