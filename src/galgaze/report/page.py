"""The page of a field: what its catalogues say, in one HTML file that needs nothing else.

It has no scripts and asks for nothing: the pictures stand in it, and its own policy forbids the rest.
"""

from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from galgaze.catalogue.columns import catalogue_columns
from galgaze.report import contact_sheet, figures, numbers
from galgaze.report.contact_sheet import SheetRow
from galgaze.report.figures import Bar, Example, shown
from galgaze.tasks import Task
from galgaze.words import duration, size

TEMPLATE = "page.html.j2"
LONGEST_TEXT = 400  # of a reason, which may quote a server


@dataclass(frozen=True)
class FieldFacts:
    """A field as a whole: its name, where its sources come from in words, how many, in how many shards."""

    name: str
    origin: str
    sources: int
    shards: int
    pipeline_version: str


@dataclass(frozen=True)
class ModelFacts:
    """The model file as the configuration names it, its hash, its card, and how many parameters it has.

    `knows_its_sources`: whether it can be told which sources it was trained on.
    """

    path: str
    sha256: str
    card: dict
    parameters: int
    trained_here: bool
    knows_its_sources: bool = True


@dataclass(frozen=True)
class FetchFacts:
    """What it took to fetch a field's images from public servers, beside what was to be expected.

    Attributes
    ----------
    way : str
        ``cutouts`` or ``bricks``.
    expected : dict
        ``requests``, ``megabytes``, ``seconds``, ``files`` for the whole field by that way.
    others : dict of str to dict
        The same for the ways not taken.
    jobs : int
        That fetched, those that were cut off too.
    requests, megabytes, seconds
        Of all of them together; jobs side by side count each.
    in_vain : dict of str to int
        Tries that failed, by kind.
    served_by : dict of str to int
        Images by the survey that they came from.
    """

    way: str
    expected: dict
    others: dict[str, dict]
    jobs: int
    requests: int
    megabytes: float
    seconds: float
    in_vain: dict[str, int]
    served_by: dict[str, int]


@dataclass(frozen=True)
class TaskResults:
    """All that the page says about one task.

    Attributes
    ----------
    task : Task
        The task.
    survey : str
        Its survey's name in the configuration.
    catalogue : pandas.DataFrame
        As written.
    provenance : dict
        That of the catalogue.
    model : ModelFacts
        The model that predicted.
    truth : pandas.DataFrame or None
        Of a simulated field.
    curve : pandas.DataFrame or None
        The training curve, where the model was trained in this run.
    examples : dict of Example
        By source id: at least those of `examples_wanted`; a source that is missing is not shown.
    sheet : list of SheetRow
        Images of a simulated field by true class; empty for other fields.
    fetching : FetchFacts or None
        Of images from public servers.
    """

    task: Task
    survey: str
    catalogue: pd.DataFrame
    provenance: dict
    model: ModelFacts
    truth: pd.DataFrame | None = None
    curve: pd.DataFrame | None = None
    examples: dict[str, Example] = field(default_factory=dict)
    sheet: list[SheetRow] = field(default_factory=list)
    fetching: FetchFacts | None = None


@dataclass(frozen=True)
class Picture:
    """An image in the page: its ``data:`` address, and what it shows in words."""

    src: str
    alt: str


def examples_wanted(catalogue: pd.DataFrame, task: Task) -> tuple[list[str], list[str]]:
    """The ids of the sources to look at, and of those among them whose bar's saliency is to be shown."""
    bars = numbers.clearest_bars(catalogue, task)
    others = numbers.most_confident(catalogue, task) + numbers.least_certain(catalogue)
    return list(dict.fromkeys(others + bars)), bars


def render_page(facts: FieldFacts, results: list[TaskResults]) -> str:
    """The whole page as text; the same input gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # ids, labels and reasons are other people's text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "shown": shown,
        "short": short,
        "duration": duration,
        "size": size,
    }
    sections = [describe_task(result) for result in results]
    return environment.get_template(TEMPLATE).render(facts=facts, sections=sections)


def percent(share: float | None) -> str:
    """0.8531 as 85.3 %."""
    return "–" if share is None else f"{100 * share:.1f} %"


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals, or a dash."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def short(text: str) -> str:
    """Text cut to a length that a table can bear."""
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"


# ---------------------------------------------------------------------------------------- a task


def describe_task(result: TaskResults) -> dict:
    """What the template needs of one task."""
    predicted = numbers.predicted_rows(result.catalogue)
    held = numbers.held_out(result.catalogue, result.task)
    quality = numbers.quality(held.rows, result.task)
    return {
        "task": result.task,
        "survey": result.survey,
        "survey_facts": _plain_facts(result.provenance["survey"]),
        "fetching": result.fetching,
        "preparation": result.provenance["preparation"],
        "model": result.model,
        "architecture": {k: v for k, v in result.model.card["architecture"].items() if k != "name"},
        "training_data": _plain_facts(result.model.card["training_data"]),
        "rows": len(result.catalogue),
        "predicted": len(predicted),
        "statuses": numbers.status_counts(result.catalogue),
        "reasons": numbers.example_reasons(result.catalogue),
        "class_figure": _class_figure(result, len(predicted)),
        "sheet": _sheet(result),
        "held_out": held,
        "quality": quality,
        "accuracy": _accuracy(result, held, quality),
        "curve": _curve(result),
        "examples": _examples(result, numbers.most_confident(result.catalogue, result.task)),
        "unseen_classes": [name for name in result.task.classes if name not in set(predicted["class_label"])],
        "uncertain": _examples(result, numbers.least_certain(result.catalogue)),
        "orientation": _orientation(result.examples.values()),
        "attention": _attention(result, predicted),
        "bars": _bars(result),
        "columns": catalogue_columns(result.task),
        "gates": max((len(example.attention) for example in result.examples.values()), default=0),
        "tells_classes": result.model.card["architecture"].get("class_head", True),
    }


def _plain_facts(values: dict) -> dict:
    """Those of a card that can be read in a line: no tables within the table, no hashes."""
    return {k: v for k, v in values.items() if not isinstance(v, dict | list) and not k.endswith("sha256")}


def _class_figure(result: TaskResults, predicted: int) -> Picture | None:
    counts = numbers.class_counts(result.catalogue, result.task)
    if not predicted and not counts["labelled"].sum():
        return None
    words = ", ".join(f"{shown(name)} {row.predicted}" for name, row in counts.iterrows())
    return Picture(figures.class_bars(counts), f"Bar chart of sources by predicted class: {words}.")


def _sheet(result: TaskResults) -> Picture | None:
    if not any(images for row in result.sheet for images in row.groups):
        return None
    words = ", ".join(f"{' '.join(row.name.split())} {len(row.groups[0])}" for row in result.sheet)
    return Picture(contact_sheet.page_sheet(result.sheet), f"Images of simulated sources by true class: {words}.")


def _accuracy(result: TaskResults, held: numbers.HeldOut, quality: numbers.Quality | None) -> dict | None:
    if quality is None:
        return None
    curves = _reliability_curves(held.rows)
    errors = [curve.error for curve in curves.values()]
    return {
        "classes": numbers.class_quality(quality.matrix, result.task),
        "calibrated": len(curves) > 1,
        "errors": errors,
        "chance_error": list(curves.values())[-1].chance_error,
        "confusion": Picture(
            figures.confusion(quality.matrix, result.task.classes),
            f"Confusion matrix of {quality.n} held-out labelled sources; {int(quality.matrix.trace())} are on the "
            "diagonal.",
        ),
        "reliability": Picture(
            figures.reliability_diagram(curves),
            f"Reliability diagram of {quality.n} held-out labelled sources: share of right classes against "
            f"{' and '.join(curves)}; expected calibration error {' and '.join(number(error, 3) for error in errors)}.",
        ),
    }


def _reliability_curves(rows: pd.DataFrame) -> dict[str, numbers.ReliabilityCurve]:
    """That of the network's own probability, and that of the confidence where there is one."""
    right = rows["class_label"] == rows["label"]
    raw = numbers.reliability_curve(rows["class_probability"], right)
    calibrated = rows["confidence"].notna()
    if not calibrated.any():
        return {"network's probability": raw}
    confidence = rows.loc[calibrated, "confidence"]
    return {
        "network's probability": raw,
        "calibrated confidence": numbers.reliability_curve(confidence, right[calibrated]),
    }


def _curve(result: TaskResults) -> Picture | None:
    if result.curve is None or result.curve.empty:
        return None
    share = result.model.card.get("metrics", {}).get("largest_class_share")
    last = result.curve.iloc[-1]
    accuracy = last["validation_accuracy"]
    words = f"after {len(result.curve)} epochs the validation loss is {last['validation_loss']:.3f}"
    if not pd.isna(accuracy):
        words += f", the accuracy {percent(float(accuracy))}"
    return Picture(figures.training_curve(result.curve, share), f"Training curves of loss and accuracy: {words}.")


def _attention(result: TaskResults, predicted: pd.DataFrame) -> Picture | None:
    if predicted.empty or predicted.filter(like="attention_").isna().all(axis=None):
        return None
    occurring = set(predicted["class_label"])
    names = [name for name in result.task.classes if name in occurring]
    return Picture(
        figures.attention_distributions(predicted, names),
        "Distributions of the attention maps' entropy, peak, effective area and centroid offset for each gate, by "
        "predicted class.",
    )


# -------------------------------------------------------------------------------------- examples


def _examples(result: TaskResults, ids: list[str]) -> list[dict]:
    rows = result.catalogue.set_index("source_id")
    found = [name for name in ids if name in result.examples]
    return [_example(rows.loc[name], result.examples[name]) for name in found]


def _example(row: pd.Series, example: Example) -> dict:
    return {
        "source_id": example.source_id,
        "class_label": row["class_label"],
        "probability": float(row["class_probability"]),
        "entropy": float(row["class_entropy"]),
        "label": row["label"] if pd.notna(row["label"]) else None,
        "picture": Picture(
            figures.attention_strip(example),
            f"Cutout of source {example.source_id}, predicted {shown(row['class_label'])}{_under_gates(example)}.",
        ),
    }


def _under_gates(example: Example) -> str:
    count = len(example.attention)
    if not count:
        return ""
    return f", and the same in grey under the attention of {'gate 1' if count == 1 else f'gates 1 to {count}'}"


def _orientation(examples) -> str:
    """A sentence on where north is, true of every example."""
    upright = [example.upright for example in examples]
    known = [bool(np.isfinite(example.jacobian_arcsec).all()) for example in examples]
    if all(upright):
        return "North is up, east is left."
    if not any(known):
        return "The orientation on the sky is unknown; images are shown as they were given."
    return "Not every image has north up and east left."


# ------------------------------------------------------------------------------------------ bars


def _bars(result: TaskResults) -> dict | None:
    """What there is to say of bars; None for a task, or a run, that measures none."""
    if result.task.barred_class is None or result.provenance.get("bars") is None:
        return None
    bars = numbers.measured_bars(result.catalogue, result.truth)
    agreement = numbers.bar_agreement(bars)
    return {
        "settings": result.provenance["bars"],
        "measured": len(bars),
        "flags": numbers.flag_counts(bars),
        "agreement": agreement,
        "truth": _bar_truth(result, bars),
        "figure": _bar_figure(bars, agreement),
        "examples": _bar_examples(result, bars),
    }


def _bar_truth(result: TaskResults, bars: pd.DataFrame) -> dict | None:
    """How the sources measured and the true bars overlap."""
    if not numbers.knows_bars(result.truth):
        return None
    barred = result.truth.loc[result.truth["bar_length_arcsec"].notna(), "source_id"]
    barred = barred[barred.isin(result.catalogue["source_id"])]
    return {
        "barred": len(barred),
        "found": int(barred.isin(bars["source_id"]).sum()),
        "unbarred_measured": int(bars["true_length_arcsec"].isna().sum()),
    }


def _bar_figure(bars: pd.DataFrame, agreement: list[dict]) -> Picture | None:
    if agreement:
        whole = agreement[-1]
        return Picture(
            figures.bar_lengths_against_truth(bars),
            f"Measured against true bar length of {whole['n']} bars, Pearson r {number(whole['pearson'])}, and the "
            f"histogram of differences in position angle, median absolute {number(whole['turn_deg'], 1)} degrees.",
        )
    if bars[["bar_length_arcsec", "bar_length_px"]].notna().any(axis=None):
        return Picture(figures.bar_length_histogram(bars), "Histogram of measured bar lengths.")
    return None


def _bar_examples(result: TaskResults, bars: pd.DataFrame) -> list[dict]:
    rows = bars.set_index("source_id")
    ids = numbers.clearest_bars(result.catalogue, result.task)
    shown_ids = [name for name in ids if name in result.examples and result.examples[name].saliency is not None]
    return [_bar_example(rows.loc[name], result.examples[name]) for name in shown_ids]


def _bar_example(row: pd.Series, example: Example) -> dict:
    measured = Bar(float(row["bar_length_arcsec"]), float(row["bar_position_angle_deg"]))
    true = Bar(float(row["true_length_arcsec"]), float(row["true_position_angle_deg"]))
    return {
        "source_id": example.source_id,
        "measured": measured if np.isfinite(measured.length_arcsec) else None,
        "true": true if np.isfinite(true.length_arcsec) else None,
        "flag": int(row["bar_flag"]),
        "reason": row["bar_flag_reason"] if pd.notna(row["bar_flag_reason"]) else "",
        "picture": Picture(
            figures.bar_strip(example, measured, true),
            f"Cutout of source {example.source_id} and its SmoothGrad saliency, with the bar as measured"
            f"{' and as it truly is' if np.isfinite(true.length_arcsec) else ''}.",
        ),
    }
