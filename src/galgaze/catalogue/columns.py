"""The column table: the one place that knows the catalogue's columns.

It makes the Arrow schema, the file's metadata, the documentation (``docs/columns.md``) and the checks. A new
column is one row here, and a number put under its name by a stage.
"""

from dataclasses import dataclass

import pyarrow as pa

from galgaze.status import STATUSES
from galgaze.tasks import QUESTIONS, Task

GATES = 3


@dataclass(frozen=True)
class Column:
    """One column: what `pandas`, the VO and a reader need to know of it.

    `null` says what a null means; empty: never null.
    """

    name: str
    dtype: pa.DataType
    unit: str
    ucd: str
    description: str
    null: str = ""


NO_PREDICTION = "no prediction, see status"
NO_CLASSES = "no prediction, see status; or the model answers questions and names no class"
NOT_GIVEN = "not given in the field's table"

IDENTITY = (
    Column("source_id", pa.string(), "", "meta.id;meta.main", "Identifier, as in the field's table"),
    Column("ra_deg", pa.float64(), "deg", "pos.eq.ra;meta.main", "Right ascension, ICRS"),
    Column("dec_deg", pa.float64(), "deg", "pos.eq.dec;meta.main", "Declination, ICRS"),
    Column("_healpix_29", pa.int64(), "", "pos.healpix", "HEALPix index of the position, order 29, nested"),
    Column("redshift", pa.float64(), "", "src.redshift", "Redshift, as in the field's table", NOT_GIVEN),
    Column("las_arcsec", pa.float64(), "arcsec", "phys.angSize", "Largest angular size, as given", NOT_GIVEN),
    Column(
        "petrosian_radius_arcsec",
        pa.float64(),
        "arcsec",
        "phys.angSize",
        "Petrosian radius, as given",
        NOT_GIVEN,
    ),
    Column("label", pa.string(), "", "meta.code.class", "Class known beforehand, as given", NOT_GIVEN),
    Column(
        "training_role",
        pa.string(),
        "",
        "meta.code",
        "What the model knew of this source (by position, within 60 arcsec): training or validation",
        "the source was no part of the training, or the model file does not tell",
    ),
)

STATUS = (
    Column("survey", pa.string(), "", "meta.id;instr", "Who served the image (a name from the configuration)"),
    Column("status", pa.string(), "", "meta.code.status", "; ".join(f"{k}: {v}" for k, v in STATUSES.items())),
    Column("status_reason", pa.string(), "", "meta.note", "The status in words", "the status is ok"),
    Column("coverage_fraction", pa.float32(), "", "stat.fill", "Observed fraction of the field of view"),
    Column(
        "pixel_scale_arcsec",
        pa.float32(),
        "arcsec",
        "instr.pixel",
        "Side of a pixel of the prepared image",
        "no image, or of unknown scale",
    ),
    Column("image_sha256", pa.string(), "", "meta.id", "SHA-256 of the image as served", "no image"),
)

CLASSIFICATION = (
    Column("class_label", pa.string(), "", "meta.code.class", "The most probable class", NO_CLASSES),
    Column(
        "class_probability",
        pa.float32(),
        "",
        "stat.probability",
        "The network's probability of class_label, not calibrated",
        NO_CLASSES,
    ),
    Column(
        "confidence",
        pa.float32(),
        "",
        "stat.probability",
        "Calibrated probability that class_label is right",
        "no prediction, or the model carries no calibration (see calibration)",
    ),
    Column(
        "calibration",
        pa.string(),
        "",
        "meta.note",
        "How confidence was calibrated: temperature or uncalibrated",
        NO_CLASSES,
    ),
    Column(
        "class_entropy",
        pa.float32(),
        "",
        "stat.value",
        "Entropy of the probabilities over its maximum, 0 certain to 1 undecided",
        NO_CLASSES,
    ),
    Column(
        "class_margin",
        pa.float32(),
        "",
        "stat.value",
        "Probability of the most over that of the second most probable class, their difference",
        NO_CLASSES,
    ),
    Column(
        "probability_spread",
        pa.float32(),
        "",
        "stat.stdev;stat.probability",
        "Standard deviation of the probability of class_label between the networks, or the passes with dropout",
        "no prediction, or from one network and one pass",
    ),
    Column(
        "mutual_information",
        pa.float32(),
        "",
        "stat.value",
        "How far the networks, or passes with dropout, contradict each other: 0 agreed, 1 each sure of another class",
        "no prediction, or from one network and one pass",
    ),
    Column(
        "novelty",
        pa.float32(),
        "",
        "stat.value",
        "Share of the images that the model was validated on which it finds more familiar; near 1: unlike all of them",
        "no prediction, or the model does not know what it was trained on",
    ),
)

BARS = (
    Column(
        "bar_probability",
        pa.float32(),
        "",
        "stat.probability",
        "That there is a bar to be seen: from the answers to Galaxy Zoo's questions where the model gives them, else "
        "the probability of the barred class; not calibrated",
        NO_PREDICTION,
    ),
    Column(
        "bar_length_px",
        pa.float32(),
        "pix",
        "phys.angSize",
        "Full length of the bar on the prepared image",
        "not measured: bar_probability is below the threshold, or bar_flag is 2",
    ),
    Column(
        "bar_length_arcsec",
        pa.float32(),
        "arcsec",
        "phys.angSize",
        "Full length of the bar on the sky, not deprojected",
        "as bar_length_px, or pixel scale unknown",
    ),
    Column(
        "bar_position_angle_deg",
        pa.float32(),
        "deg",
        "pos.posAng",
        "Position angle of the bar, east of north, 0 to 180",
        "as bar_length_arcsec",
    ),
    Column(
        "bar_elongation",
        pa.float32(),
        "",
        "phys.size.axisRatio",
        "Extent of the saliency along the bar over that across",
        "not measured",
    ),
    Column("bar_flag", pa.int8(), "", "meta.code.qual", "0 good, 1 suspect, 2 bad", "not measured"),
    Column("bar_flag_reason", pa.string(), "", "meta.note", "Why the flag is not 0", "not measured, or good"),
)

PROVENANCE = (
    Column("model_sha256", pa.string(), "", "meta.id", "SHA-256 of the model file", NO_PREDICTION),
    Column("pipeline_version", pa.string(), "", "meta.version", "Version of galgaze"),
)


def probability_column(class_name: str) -> str:
    """Name of a class's probability column."""
    return f"prob_{class_name.lower()}"


def probability_columns(task: Task) -> tuple[Column, ...]:
    """A column a class, in the order of the task's classes."""
    return tuple(
        Column(
            probability_column(name),
            pa.float32(),
            "",
            "stat.probability",
            f"The network's probability of {name}, not calibrated",
            NO_CLASSES,
        )
        for name in task.classes
    )


def vote_column(question: str, answer: str) -> str:
    """Name of the column of an answer's predicted vote fraction."""
    return f"vote_{question}_{answer}"


def vote_columns() -> tuple[Column, ...]:
    """A column an answer, question after question."""
    return tuple(
        Column(
            vote_column(question.name, answer),
            pa.float32(),
            "",
            "stat.fit;stat.probability",
            f"Share of Galaxy Zoo volunteers predicted to answer {answer} to the question {question.name}",
            "no prediction, or the model does not answer questions",
        )
        for question in QUESTIONS
        for answer in question.answers
    )


# What each attention gate's map is summed up in: name, unit, UCD, description.
ATTENTION_STATISTICS = (
    ("entropy", "", "stat.value", "Entropy of the attention map over its maximum, 0 a point to 1 uniform"),
    ("peak", "", "stat.max", "Maximum over mean of the attention map"),
    (
        "effective_area_arcsec2",
        "arcsec2",
        "phys.angArea",
        "Area that the attention covers: (sum a)^2 / sum a^2 pixels",
    ),
    (
        "centroid_offset_arcsec",
        "arcsec",
        "pos.angDistance",
        "Distance of the attention's centroid from the source",
    ),
)


def attention_column(statistic: str, gate: int) -> str:
    """Name of an attention statistic's column; gates count from 1, the deepest."""
    for unit in ("_arcsec2", "_arcsec"):
        if statistic.endswith(unit):
            return f"attention_{statistic.removesuffix(unit)}_gate{gate}{unit}"
    return f"attention_{statistic}_gate{gate}"


def attention_columns() -> tuple[Column, ...]:
    """Every statistic of every gate."""
    return tuple(
        Column(
            attention_column(name, gate),
            pa.float32(),
            unit,
            ucd,
            f"{description}; gate {gate} of {GATES}, counted from the deepest",
            "no prediction, a flat map, or (arcsec) pixel scale unknown",
        )
        for gate in range(1, GATES + 1)
        for name, unit, ucd, description in ATTENTION_STATISTICS
    )


def catalogue_columns(task: Task) -> tuple[Column, ...]:
    """All columns of a task's catalogue, in order."""
    votes = vote_columns() if task.kind == "optical" else ()
    bars = BARS if task.barred_class else ()
    return (
        *IDENTITY,
        *STATUS,
        *CLASSIFICATION,
        *probability_columns(task),
        *votes,
        *attention_columns(),
        *bars,
        *PROVENANCE,
    )


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Arrow schema with unit, UCD and description in each field's metadata."""
    fields = []
    for column in columns:
        metadata = {
            "unit": column.unit,
            "ucd": column.ucd,
            "description": column.description,
            "null": column.null,
        }
        fields.append(pa.field(column.name, column.dtype, nullable=bool(column.null), metadata=metadata))
    return pa.schema(fields)
