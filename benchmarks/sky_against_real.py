"""The simulated sky against real images: contact sheets side by side, and distributions of what can be measured.

    python -m benchmarks.sky_against_real DATA [--sky optical|radio] [--count 400] [--half steer] [--out results/sky]

DATA is the folder of real data. Optical: the sample of Galaxy10 DECaLS against `simulated_legacy`; radio: MiraBest's
confident sources against `simulated_first`, both as in config.yaml and as prepared for the networks. The simulated
sources have the classes of the real ones in the same proportions. The real optical images are JPEGs, whose coarse
colours and smoothed noise no sky can have: the simulated ones are coded in the same way first, unless --no-jpeg is
given. Statistics of one half of the real images are
computed, never of the other (see benchmarks/real_images.py).

A row of the table is a feature: median and 16 to 84 % of the simulated and of the real images, the Kolmogorov-Smirnov
distance between them with its standard error (bootstrap), and what the distance would be on average if both came from
the same distribution (permutations): only what is well above that differs. The largest distance comes first. The
features are described in benchmarks/image_features.py.
"""

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, NullFormatter
from PIL import Image

from benchmarks import real_images
from benchmarks.image_features import POWER_BINS, optical_features, radio_features
from galgaze import status
from galgaze.config import PreparationSettings
from galgaze.errors import BadImage, NoCoverage
from galgaze.files import write_bytes
from galgaze.images.preparation import crop, prepare, viewer_composite
from galgaze.report.contact_sheet import SheetRow, sheet_png
from galgaze.report.figures import BLUE, ORANGE, in_style, plot, shown
from galgaze.stages.contact_sheet import ANYWHERE, simulated_survey
from galgaze.stages.context import Run
from galgaze.surveys.base import Cutout, Source, Survey
from galgaze.tasks import TASKS, Task

CONFIG = Path(__file__).parents[1] / "config.yaml"
SKIES = {"optical": ("optical_morphology", "simulated_legacy"), "radio": ("radio_fr", "simulated_first")}
SETS = ("simulated", "real")
PREFIX = "sky"  # of the simulated ids: no training field has it
JPEG_QUALITY = 75  # of the files of the Galaxy10 sample, by their quantisation tables; colours at half the resolution
SCANNED = 20  # truths looked at for each simulated image wanted, before giving up on a rare class
RESAMPLED = 200
SEED = 1
SHEET_ROW, SHEET_IMAGES = 6, 60  # images in a line of the sheet, and of all classes together
LEAST_REAL = 20  # images of a class for which its own table is printed; the CSV holds all
PRINTED_BY_CLASS = 12
PANELS_ACROSS = 6


@dataclass(frozen=True)
class Sample:
    """One image: class, network input (C, H, W), and for radio the map (H, W) it was made from, Jy/beam."""

    label: str
    image: np.ndarray
    flux_map: np.ndarray | None = None


@dataclass(frozen=True)
class Measured:
    """A set of images, measured.

    Attributes
    ----------
    features : pandas.DataFrame
        A row an image, with its class in the column ``class``.
    power : numpy.ndarray
        (N, POWER_BINS) noise power.
    histogram : numpy.ndarray
        (C, 256) pixels by channel and value.
    images : dict of list
        The first images of each class, for the sheet.
    failures : dict of int
        How often features could not be measured, by reason.
    """

    features: pd.DataFrame
    power: np.ndarray
    histogram: np.ndarray
    images: dict[str, list[np.ndarray]]
    failures: dict[str, int]


# -------------------------------------------------------------------------------------------- samples


def real_samples(sky: str, data: Path, preparation: PreparationSettings, half: str) -> Iterator[Sample]:
    """The real images of one half."""
    task = TASKS[SKIES[sky][0]]
    if sky == "optical":
        images = real_images.galaxy10_sample(data, preparation).half(half)
        for image, label in zip(images.image, images.label, strict=True):
            yield Sample(task.classes[label], image)
        return
    rows = real_images.mirabest_rows(data)
    rows = rows[real_images.half_mask(rows["report"].to_numpy(bool), half)]
    labels = rows["label"].str[0].map(real_images.FR_CLASS)
    for label, (source, cutout) in zip(labels, real_images.mirabest_cutouts(data, rows), strict=True):
        image = prepare(cutout, preparation, source.las_arcsec).pixels
        yield Sample(task.classes[label], image, crop(cutout.pixels[0], cutout.centre_px, preparation.size_px)[0])


def simulated_samples(
    survey: Survey, task: Task, preparation: PreparationSettings, wanted: dict[str, int], jpeg: bool
) -> Iterator[Sample]:
    """So many simulated images of each class, the first ones that are usable; optical ones perhaps by way of JPEG."""
    left = dict(wanted)
    for index in range(SCANNED * sum(wanted.values())):
        source_id = f"{PREFIX}-{index:07d}"
        truth = survey.truth(source_id)
        label = truth["class_label"]
        if not left.get(label):
            continue
        source = Source(source_id, *ANYWHERE, truth.get("las_arcsec") or float("nan"))
        sample = _simulated(survey, task, preparation, source, label, jpeg)
        if sample is not None:
            left[label] -= 1
            yield sample
        if not any(left.values()):
            return


def _simulated(
    survey: Survey, task: Task, preparation: PreparationSettings, source: Source, label: str, jpeg: bool
) -> Sample | None:
    """One simulated image; None where the simulated survey has no usable one."""
    try:
        cutout = survey.decode(survey.download(source)[0], source)
    except (BadImage, NoCoverage):
        return None
    if task.kind == "radio":
        # the real maps at hand have the size of the network's input: the clip's sigma is to come from as much sky
        cutout = _cropped(cutout, preparation.size_px)
    elif jpeg:
        cutout = as_jpeg(cutout)
    prepared = prepare(cutout, preparation, source.las_arcsec)
    if prepared.status != status.OK:
        return None
    return Sample(label, prepared.pixels, cutout.pixels[0] if task.kind == "radio" else None)


def _cropped(cutout: Cutout, size_px: int) -> Cutout:
    pixels, centre_px = crop(cutout.pixels[0], cutout.centre_px, size_px)
    observed, _ = crop(cutout.observed, cutout.centre_px, size_px)
    return replace(cutout, pixels=pixels[None], observed=observed, centre_px=centre_px)


def as_jpeg(cutout: Cutout) -> Cutout:
    """The viewer's colours of a cutout after a JPEG file has held them."""
    colours = viewer_composite(cutout.pixels, cutout.bands) * cutout.observed
    picture = np.round(colours * 255).astype(np.uint8).transpose(1, 2, 0)[::-1]  # rows from the north, as in files
    body = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(body, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    pixels = np.asarray(Image.open(body))[::-1].transpose(2, 0, 1)
    return replace(cutout, pixels=np.ascontiguousarray(pixels), bands="rgb", rendered=True)


def shares_of(count: int, real: pd.Series) -> dict[str, int]:
    """How many of `count` simulated images each class gets, as among the real ones."""
    return {name: round(count * share) for name, share in real.value_counts(normalize=True).items()}


# ---------------------------------------------------------------------------------------- measurements


def measure(samples: Iterator[Sample], pixel_scale_arcsec: float, shown_of_class: int) -> Measured:
    """Measure one image after the other; what fails is counted."""
    rows, powers, images, failures = [], [], {}, {}
    histogram = 0
    for sample in samples:
        if sample.flux_map is None:
            features, power, failure = optical_features(sample.image, pixel_scale_arcsec)
        else:
            features, power, failure = radio_features(sample.image, sample.flux_map)
        if failure:
            failures[failure] = failures.get(failure, 0) + 1
        rows.append({"class": sample.label, **features})
        powers.append(power)
        histogram = histogram + np.stack([np.bincount(plane.ravel(), minlength=256) for plane in sample.image])
        of_class = images.setdefault(sample.label, [])
        if len(of_class) < shown_of_class:
            of_class.append(sample.image)
    return Measured(pd.DataFrame(rows), np.array(powers).reshape(-1, POWER_BINS), histogram, images, failures)


def compare(simulated: pd.DataFrame, real: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """A row a feature and class (``all`` first), the largest distance first."""
    random = np.random.default_rng(SEED)
    names = [name for name in real.columns if name != "class"]
    rows = []
    for label in ("all", *classes):
        parts = [table if label == "all" else table[table["class"] == label] for table in (simulated, real)]
        for name in names:
            values = [part[name].dropna().to_numpy(float) for part in parts]
            if min(map(len, values)):
                rows.append({"class": label, "feature": name, **_difference(*values, random)})
    table = pd.DataFrame(rows)
    order = table["class"].map({name: index for index, name in enumerate(("all", *classes))})
    return table.assign(order=order).sort_values(["order", "ks"], ascending=[True, False]).drop(columns="order")


def _difference(simulated: np.ndarray, real: np.ndarray, random: np.random.Generator) -> dict[str, float]:
    resampled = [ks(*(random.choice(part, len(part)) for part in (simulated, real))) for _ in range(RESAMPLED)]
    pooled, count = np.concatenate([simulated, real]), len(simulated)
    shuffled = (random.permutation(pooled) for _ in range(RESAMPLED))
    equal = [ks(both[:count], both[count:]) for both in shuffled]
    row = {"n_simulated": len(simulated), "n_real": len(real)}
    for name, part in zip(SETS, (simulated, real), strict=True):
        row |= {f"{name}_p{share}": value for share, value in zip((16, 50, 84), _quantiles(part), strict=True)}
    return row | {"ks": ks(simulated, real), "ks_error": float(np.std(resampled)), "ks_equal": float(np.mean(equal))}


def _quantiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, [0.16, 0.5, 0.84]).tolist()


def ks(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance: the largest difference between two cumulative distributions."""
    first, second = np.sort(first), np.sort(second)
    points = np.concatenate([first, second])
    shares = [np.searchsorted(part, points, "right") / len(part) for part in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


# ---------------------------------------------------------------------------------------------- output


def print_table(table: pd.DataFrame) -> None:
    """Print rows of one class."""
    print(f"{'feature':<26} {'simulated (16 to 84 %)':>34} {'real (16 to 84 %)':>34}    KS  error  if equal")
    for row in table.to_dict("records"):
        ranges = [
            f"{row[f'{name}_p50']:10.4g} ({row[f'{name}_p16']:9.4g} to {row[f'{name}_p84']:9.4g})" for name in SETS
        ]
        print(
            f"{row['feature']:<26} {ranges[0]:>34} {ranges[1]:>34}  {row['ks']:.2f}   {row['ks_error']:.2f}"
            f"      {row['ks_equal']:.2f}"
        )


def print_report(sky: str, half: str, table: pd.DataFrame, simulated: Measured, real: Measured) -> None:
    """The whole table, and the first rows for each class that has real images enough."""
    print(f"\n{sky}: {len(simulated.features)} simulated against {len(real.features)} real images, half {half!r}")
    for name, measured in zip(SETS, (simulated, real), strict=True):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(measured.failures.items()))
        print(f"shapes not measured, {name}: {sum(measured.failures.values())}{f' ({reasons})' if reasons else ''}")
    distance = 0.5 * np.abs(_normalised(simulated.histogram) - _normalised(real.histogram)).sum(axis=1)
    print(f"pixel histograms differ by (total variation, by channel): {', '.join(f'{v:.3f}' for v in distance)}")
    print_table(table[table["class"] == "all"])
    counts = real.features["class"].value_counts()
    for label in counts[counts >= LEAST_REAL].index:
        print(f"\n{sky}, {shown(label)}: the {PRINTED_BY_CLASS} largest distances")
        print_table(table[table["class"] == label].head(PRINTED_BY_CLASS))


def draw_features(table: pd.DataFrame, simulated: Measured, real: Measured) -> Figure:
    """Histograms of all features, then of the pixels, then the noise power."""
    table = table[table["class"] == "all"]
    rows = -(-(len(table) + 2) // PANELS_ACROSS)
    figure = Figure(figsize=(2.5 * PANELS_ACROSS, 2.0 * rows), layout="constrained")
    panels = figure.subplots(rows, PANELS_ACROSS).ravel()
    for axes, row in zip(panels, table.itertuples(), strict=False):
        values = [measured.features[row.feature].dropna().to_numpy(float) for measured in (simulated, real)]
        _draw_histograms(axes, values)
        axes.set_title(f"{row.feature}, KS {row.ks:.2f}", fontsize=7)
    _draw_pixels(panels[len(table)], simulated.histogram, real.histogram)
    _draw_power(panels[len(table) + 1], simulated.power, real.power)
    for axes in panels[len(table) + 2 :]:
        axes.set_visible(False)
    for axes in panels:
        axes.tick_params(labelsize=6)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _draw_histograms(axes, values: list[np.ndarray]) -> None:
    low, high = np.quantile(np.concatenate(values), [0.01, 0.99])
    edges = np.linspace(low, high if high > low else low + 1, 25)
    for name, part, colour, filled in zip(SETS, values, (BLUE, ORANGE), (True, False), strict=True):
        axes.hist(
            np.clip(part, edges[0], edges[-1]), edges, weights=np.full(len(part), 1 / len(part)), color=colour,
            histtype="stepfilled" if filled else "step", alpha=0.45 if filled else 1, label=name,
        )  # fmt: skip
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=5)


def _draw_pixels(axes, simulated: np.ndarray, real: np.ndarray) -> None:
    for histogram, colour in ((simulated, BLUE), (real, ORANGE)):
        for plane in _normalised(histogram):
            axes.plot(np.arange(256), np.maximum(plane, 1e-6), color=colour, linewidth=0.8)
    _logarithmic(axes)
    axes.set_title("pixels by value, each channel", fontsize=7)


def _draw_power(axes, simulated: np.ndarray, real: np.ndarray) -> None:
    frequency = (np.arange(POWER_BINS) + 0.5) * 0.5 / POWER_BINS
    for power, colour in ((simulated, BLUE), (real, ORANGE)):
        known = power[np.isfinite(power).all(axis=1)]
        if len(known):
            low, middle, high = np.quantile(known, [0.16, 0.5, 0.84], axis=0)
            axes.plot(frequency, middle, color=colour, linewidth=1)
            axes.fill_between(frequency, low, high, color=colour, alpha=0.25)
    _logarithmic(axes)
    axes.set_title("noise power by cycles a pixel", fontsize=7)


def _logarithmic(axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _normalised(histogram: np.ndarray) -> np.ndarray:
    return histogram / histogram.sum(axis=1, keepdims=True)


def draw_sheet(task: Task, simulated: Measured, real: Measured, half: str) -> bytes:
    """The first images of each class, simulated beside real, some lines a class."""
    rows = []
    for name in task.classes:
        sets = [measured.images.get(name, []) for measured in (simulated, real)]
        for start in range(0, max(1, *map(len, sets)), SHEET_ROW):
            parts = tuple(images[start : start + SHEET_ROW] for images in sets)
            rows.append(SheetRow("" if start else shown(name), parts))
    note = "square root of the pixels" if task.kind == "radio" else ""
    return sheet_png(rows, ("simulated", f"real, half: {half}"), note)


# ------------------------------------------------------------------------------------------------ main


def run_sky(sky: str, data: Path, count: int, half: str, out: Path, jpeg: bool) -> pd.DataFrame:
    """Compare one sky; writes its sheet and figure, prints its table and gives it."""
    run = Run.load(CONFIG)
    task, survey = TASKS[SKIES[sky][0]], simulated_survey(run, SKIES[sky][1])
    preparation = run.task(task.name).preparation
    scale = preparation.field_of_view_arcsec / preparation.size_px if task.kind == "optical" else float("nan")
    shown_of_class = SHEET_IMAGES // len(task.classes)
    real = measure(real_samples(sky, data, preparation, half), scale, shown_of_class)
    wanted = shares_of(count, real.features["class"])
    simulated = measure(simulated_samples(survey, task, preparation, wanted, jpeg), scale, shown_of_class)
    table = compare(simulated.features, real.features, task.classes)
    write_bytes(out / f"{sky}_{half}_sheet.png", draw_sheet(task, simulated, real, half))
    write_bytes(out / f"{sky}_{half}_features.png", in_style(lambda: plot(draw_features(table, simulated, real))))
    print_report(sky, half, table, simulated, real)
    return table.assign(sky=sky)


def main() -> None:
    """Compare both skies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of real data")
    parser.add_argument("--count", type=int, default=400, help="simulated images a sky")
    parser.add_argument("--half", choices=real_images.HALVES, default="steer", help="of the real images")
    parser.add_argument("--sky", choices=[*SKIES, "both"], default="both")
    parser.add_argument("--no-jpeg", action="store_true", help="simulated optical images as from FITS files")
    parser.add_argument("--out", type=Path, default=Path("results/sky"))
    options = parser.parse_args()
    skies = SKIES if options.sky == "both" else [options.sky]
    arguments = (options.data, options.count, options.half, options.out, not options.no_jpeg)
    tables = [run_sky(sky, *arguments) for sky in skies]
    path = options.out / f"{options.sky}_{options.half}.csv"
    columns = ["sky", *tables[0].columns.drop("sky")]
    write_bytes(path, pd.concat(tables)[columns].to_csv(index=False, float_format="%.6g").encode())
    print(f"\nwritten: {path}, and a sheet and a figure for each sky beside it")


if __name__ == "__main__":
    main()
