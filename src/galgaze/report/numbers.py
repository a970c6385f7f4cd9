"""The numbers of a page, out of a catalogue alone: counts, held-out accuracy, bars against the truth."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from galgaze.catalogue.columns import probability_column
from galgaze.measures import calibration
from galgaze.measures.calibration import Reliability, wilson_interval
from galgaze.measures.evaluation import confusion_matrix, expected_calibration_error, roc_auc
from galgaze.status import OK, STATUSES
from galgaze.tasks import Task

RELIABILITY_BINS, FEWEST_A_BIN = 10, 10  # points of a reliability diagram, at most; sources of each
ERROR_BINS = 15  # of equal width, as `expected_calibration_error` has
REASONS_SHOWN = 10
UNCERTAIN_SHOWN = 8
BARS_SHOWN = 4
FEW_CLASSES = 4  # up to so many, two examples a class are shown instead of one
FLAGS = {0: "good", 1: "suspect", 2: "bad: no length is given"}


# ------------------------------------------------------------------------------------------- counts


def predicted_rows(catalogue: pd.DataFrame) -> pd.DataFrame:
    """Rows with a prediction."""
    return catalogue[catalogue["class_label"].notna()]


def status_counts(catalogue: pd.DataFrame) -> list[dict]:
    """How many sources have each status, all statuses in their order, with the meaning of each."""
    counts = catalogue["status"].value_counts()
    known = [name for name in counts.index if name not in STATUSES]  # none, unless the file is of another version
    return [
        {"status": name, "meaning": STATUSES.get(name, "not known to this version"), "count": int(counts.get(name, 0))}
        for name in [*STATUSES, *sorted(known)]
    ]


def example_reasons(catalogue: pd.DataFrame) -> list[dict]:
    """The most frequent reasons why there is no prediction, each with its count and one source."""
    failed = catalogue[catalogue["status"] != OK].assign(
        status_reason=lambda rows: rows["status_reason"].astype(object).where(rows["status_reason"].notna(), "")
    )
    groups = failed.groupby(["status", "status_reason"])["source_id"].agg(["size", "min"]).reset_index()
    groups = groups.sort_values(["size", "status", "status_reason"], ascending=[False, True, True])
    return [
        {"status": row.status, "reason": row.status_reason, "count": int(row.size_), "source_id": row.example}
        for row in groups.set_axis(["status", "status_reason", "size_", "example"], axis=1)
        .head(REASONS_SHOWN)
        .itertuples()
    ]


def class_counts(catalogue: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Sources a class, as predicted and as labelled: index class, columns predicted, labelled."""
    columns = {"predicted": catalogue["class_label"], "labelled": catalogue["label"]}
    counts = {name: values.value_counts().reindex(list(task.classes), fill_value=0) for name, values in columns.items()}
    return pd.DataFrame(counts).astype(int)


# ----------------------------------------------------------------------------------------- accuracy


@dataclass(frozen=True)
class HeldOut:
    """The labelled sources that can judge the model, and what became of the other labelled ones.

    Attributes
    ----------
    rows : pandas.DataFrame
        Predicted, labelled with one of the task's classes, and not trained on.
    labelled, foreign, trained, unpredicted, validation : int
        Sources with a label; of these left out because the label is no class of the task, because the model
        was trained on them, because there is no prediction; and of `rows` those that the training was
        validated on, which chose the epoch but not the weights.
    """

    rows: pd.DataFrame
    labelled: int
    foreign: int
    trained: int
    unpredicted: int
    validation: int


def held_out(catalogue: pd.DataFrame, task: Task) -> HeldOut:
    """Select the rows to judge the model by."""
    labelled = catalogue[catalogue["label"].notna()]
    ours = labelled[labelled["label"].isin(task.classes)]
    unseen = ours[ours["training_role"] != "training"]
    rows = predicted_rows(unseen)
    return HeldOut(
        rows=rows,
        labelled=len(labelled),
        foreign=len(labelled) - len(ours),
        trained=len(ours) - len(unseen),
        unpredicted=len(unseen) - len(rows),
        validation=int((rows["training_role"] == "validation").sum()),
    )


@dataclass(frozen=True)
class Quality:
    """How good the predictions are on the held-out rows.

    Attributes
    ----------
    n : int
        Rows.
    accuracy, largest_share : float
        Share of right classes; share of the most frequent true class (`largest_class`), which is what
        always answering that class would reach.
    interval : tuple of float
        68 % Wilson interval of the accuracy.
    matrix : numpy.ndarray
        (K, K) counts, rows true and columns predicted.
    auc, ece : float or None
        Area under the ROC curve, and calibration error of the raw probability.
    """

    n: int
    accuracy: float
    interval: tuple[float, float]
    largest_class: str
    largest_share: float
    matrix: np.ndarray
    auc: float | None
    ece: float | None


def quality(rows: pd.DataFrame, task: Task) -> Quality | None:
    """Judge held-out rows; None without any.

    What counts as predicted is the column ``class_label``, so that a reader of the catalogue gets the same.
    """
    if rows.empty:
        return None
    label, prediction = _index(rows["label"], task), _index(rows["class_label"], task)
    matrix = confusion_matrix(prediction, label, len(task.classes))
    probability = rows[[probability_column(name) for name in task.classes]].to_numpy(float)
    right, n = int(matrix.trace()), len(rows)
    by_class = matrix.sum(axis=1)
    return Quality(
        n=n,
        accuracy=right / n,
        interval=tuple(float(end) for end in wilson_interval(right, n)),
        largest_class=task.classes[by_class.argmax()],
        largest_share=float(by_class.max() / n),
        matrix=matrix,
        auc=roc_auc(probability, label),
        ece=expected_calibration_error(probability, label),
    )


def class_quality(matrix: np.ndarray, task: Task) -> list[dict]:
    """Recall and precision a class; None where undefined."""
    return [
        {
            "name": name,
            "labelled": int(matrix[k].sum()),
            "predicted": int(matrix[:, k].sum()),
            "recall": _ratio(matrix[k, k], matrix[k].sum()),
            "precision": _ratio(matrix[k, k], matrix[:, k].sum()),
        }
        for k, name in enumerate(task.classes)
    ]


@dataclass(frozen=True)
class ReliabilityCurve:
    """A reliability diagram's curve.

    Attributes
    ----------
    probability : numpy.ndarray
        (N,) given to the predicted class.
    points : Reliability
        Up to 10, each of about the same number of sources: bins of equal width would mostly be empty.
    error, chance_error : float
        Expected calibration error in 15 bins of equal width, and about what it would be if the probabilities were true.
    """

    probability: np.ndarray
    points: Reliability
    error: float
    chance_error: float


def reliability_curve(probability: pd.Series, right: pd.Series) -> ReliabilityCurve:
    """How often predictions are right, against the probability that they were given."""
    given, correct = probability.to_numpy(float), right.to_numpy(bool)
    bins = int(np.clip(len(given) // FEWEST_A_BIN, 1, RELIABILITY_BINS))
    points = calibration.reliability(given, correct, bins, equal_counts=True)
    errors = calibration.reliability(given, correct, ERROR_BINS)
    return ReliabilityCurve(given, points, errors.calibration_error, errors.chance_error)


def _index(names: pd.Series, task: Task) -> np.ndarray:
    return names.map({name: k for k, name in enumerate(task.classes)}).to_numpy(np.int64)


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


# --------------------------------------------------------------------------------------------- bars


def measured_bars(catalogue: pd.DataFrame, truth: pd.DataFrame | None) -> pd.DataFrame:
    """Rows whose bar was measured (whatever the flag), with the truth beside them where there is one."""
    bars = catalogue[catalogue["bar_flag"].notna()]
    if not knows_bars(truth):
        return bars.assign(true_length_arcsec=np.nan, true_position_angle_deg=np.nan)
    known = truth[["source_id", "bar_length_arcsec", "bar_position_angle_deg"]]
    known = known.set_axis(["source_id", "true_length_arcsec", "true_position_angle_deg"], axis=1)
    return bars.merge(known, on="source_id", how="left")


def knows_bars(truth: pd.DataFrame | None) -> bool:
    """Whether there is a truth, and it tells of bars."""
    return truth is not None and {"bar_length_arcsec", "bar_position_angle_deg"} <= set(truth)


def angle_difference_deg(measured: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Measured less true position angle of an axis, -90 to 90: 179 and 1 differ by 2."""
    return (np.asarray(measured, float) - np.asarray(true, float) + 90) % 180 - 90


def flag_counts(bars: pd.DataFrame) -> list[dict]:
    """Sources a flag, with the reasons given."""
    rows = []
    for flag, meaning in FLAGS.items():
        flagged = bars[bars["bar_flag"] == flag]
        reasons = flagged["bar_flag_reason"].dropna().astype(str).str.split(",").explode().value_counts()
        text = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items(), key=lambda r: (-r[1], r[0])))
        rows.append({"flag": flag, "meaning": meaning, "count": len(flagged), "reasons": text})
    return rows


def bar_agreement(bars: pd.DataFrame) -> list[dict]:
    """Measured against true bars, for the good measurements and for all that have a length."""
    both = bars[bars["bar_length_arcsec"].notna() & bars["true_length_arcsec"].notna()]
    sets = {"good (flag 0)": both[both["bar_flag"] == 0], "good and suspect (0, 1)": both}
    return [{"set": name, **_agreement(rows)} for name, rows in sets.items() if len(rows)]


def _agreement(rows: pd.DataFrame) -> dict:
    measured, true = rows["bar_length_arcsec"].to_numpy(float), rows["true_length_arcsec"].to_numpy(float)
    ratio = np.quantile(measured / true, [0.16, 0.5, 0.84])
    turn = np.abs(angle_difference_deg(rows["bar_position_angle_deg"], rows["true_position_angle_deg"]))
    varied = len(rows) > 2 and np.ptp(measured) > 0 and np.ptp(true) > 0
    return {
        "n": len(rows),
        "pearson": float(np.corrcoef(measured, true)[0, 1]) if varied else None,
        "ratio": ratio.tolist(),
        "turn_deg": float(np.median(turn)),
    }


# ----------------------------------------------------------------------------------------- examples


def most_confident(catalogue: pd.DataFrame, task: Task) -> list[str]:
    """The ids of the most probable one (or, with few classes, two) of each predicted class, in the classes' order."""
    rows = predicted_rows(catalogue).sort_values(["class_probability", "source_id"], ascending=[False, True])
    each = 2 if len(task.classes) <= FEW_CLASSES else 1
    return [name for k in task.classes for name in rows.loc[rows["class_label"] == k, "source_id"].head(each)]


def least_certain(catalogue: pd.DataFrame) -> list[str]:
    """The ids of those with the highest entropy, highest first."""
    rows = predicted_rows(catalogue).sort_values(["class_entropy", "source_id"], ascending=[False, True])
    return rows["source_id"].head(UNCERTAIN_SHOWN).tolist()


def clearest_bars(catalogue: pd.DataFrame, task: Task) -> list[str]:
    """The ids of measured bars, the best flag first, then the most probable."""
    if task.barred_class is None or "bar_flag" not in catalogue:
        return []
    order = ["bar_flag", "bar_probability", "source_id"]
    rows = catalogue[catalogue["bar_flag"].notna()].sort_values(order, ascending=[True, False, True])
    return rows["source_id"].head(BARS_SHOWN).tolist()
