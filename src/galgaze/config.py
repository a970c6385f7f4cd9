"""The configuration: typed, documented here once, and checked before any work begins.

``config.yaml`` is an instance of `Config`; ``workflow/config.schema.json`` is generated from it
(``galgaze config schema``). Science stands in the configuration; cores, memory and partitions stand in
``workflow/profiles``.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from galgaze.errors import ConfigError
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_MORPHOLOGIES, TASKS, check_mix

FIELD_NAME = r"^[a-z0-9][a-z0-9_]*$"  # becomes a folder and a Snakemake wildcard
SURVEY_NAME = FIELD_NAME


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------------------------------------- surveys


class HttpSettings(Section):
    """How to ask a public service: politely, and not for ever."""

    attempts: int = Field(4, ge=1, le=10, description="tries for one request before it counts as failed")
    backoff_s: float = Field(1.0, ge=0, description="seconds before the second try; doubles with every try")
    backoff_max_s: float = Field(60.0, ge=0, description="longest wait between two tries, Retry-After included")
    timeout_s: float = Field(60.0, gt=0, description="seconds without an answer after which a try has failed")
    pause_s: float = Field(0.2, ge=0, description="least seconds between two requests of one job")
    give_up_after: int = Field(
        10, ge=1, description="failed sources in a row after which the job stops, to be resumed later"
    )


class LegacySurvey(Section):
    """DESI Legacy Imaging Surveys (DECaLS), through the viewer's cutout service; g r z, nanomaggies."""

    kind: Literal["legacy"]
    url: str = Field("https://www.legacysurvey.org/viewer", description="address of the viewer")
    layer: str = Field("ls-dr9", description="the viewer's layer (data release), always sent")
    size_px: int = Field(256, ge=16, le=512, description="side of the cutout in pixels")
    pixel_scale_arcsec: float = Field(0.262, gt=0.05, lt=5, description="arcsec a pixel; 0.262 is native")
    # A place known to be covered tells an outage from the edge of the survey: the service answers
    # "500" in both cases.
    probe_ra_deg: float = Field(190.1086, description="RA of a position that the service surely covers")
    probe_dec_deg: float = Field(1.2005, description="Dec of a position that the service surely covers")
    http: HttpSettings = HttpSettings()


class FirstSurvey(Section):
    """VLA FIRST, 1.4 GHz, through its cutout server; Jy/beam, 1.8 arcsec a pixel."""

    kind: Literal["first"]
    urls: list[str] = Field(
        [
            "https://sundog.stsci.edu/cgi-bin/firstcutout",
            "https://third.ucllnl.org/cgi-bin/firstcutout",
        ],
        min_length=1,
        description="cutout servers, asked in this order",
    )
    size_px: int = Field(
        300, ge=33, le=1024, description="side in pixels of 1.8 arcsec; 300 as in the published preparation"
    )
    http: HttpSettings = HttpSettings()


class DirectorySurvey(Section):
    """Cutouts that are already on disk, one file a source, named after its id."""

    kind: Literal["directory"]
    path: str = Field(description="folder that holds <source_id>.fits, .fits.gz, .jpg, .jpeg or .png")
    pixel_scale_arcsec: float | None = Field(
        None,
        gt=0,
        description="arcsec a pixel of JPEG and PNG files; null: unknown, then no lengths in arcsec",
    )


class SimulatedLegacySurvey(Section):
    """A simulated twin of `legacy`, drawn with GalSim; needs no network."""

    kind: Literal["simulated_legacy"]
    seed: int = Field(1, ge=0, description="another seed is another sky")
    size_px: int = Field(256, ge=16, le=512, description="side of the cutout in pixels")
    pixel_scale_arcsec: float = Field(0.262, gt=0.05, lt=5, description="arcsec a pixel")
    mix: dict[str, float] | None = Field(
        None, description="relative share of each of the ten classes; those left out do not occur; null: all equal"
    )
    artefact_fraction: float = Field(
        0.03, ge=0, le=1, description="share of images with a bleed or satellite trail, a missing band or a blank part"
    )

    @field_validator("mix")
    @classmethod
    def _known_classes(cls, mix):
        if mix is not None:
            check_mix(mix, OPTICAL_MORPHOLOGY.classes)
        return mix


class SimulatedFirstSurvey(Section):
    """A simulated twin of `first`; needs no network."""

    kind: Literal["simulated_first"]
    seed: int = Field(1, ge=0, description="another seed is another sky")
    size_px: int = Field(300, ge=33, le=1024, description="side in pixels of 1.8 arcsec")
    mix: dict[str, float] | None = Field(
        None,
        description="relative share of each morphology (fri, wide_angle_tail, narrow_angle_tail, frii, double_double, "
        "hybrid, compact); those left out do not occur; null: about as in MiraBest",
    )

    @field_validator("mix")
    @classmethod
    def _known_morphologies(cls, mix):
        if mix is not None:
            check_mix(mix, tuple(RADIO_MORPHOLOGIES))
        return mix


SurveySettings = Annotated[
    LegacySurvey | FirstSurvey | DirectorySurvey | SimulatedLegacySurvey | SimulatedFirstSurvey,
    Field(discriminator="kind"),
]

# ----------------------------------------------------------------------------------------------- fields


class Columns(Section):
    """How the table at hand names the columns; null: it has none."""

    source_id: str = Field("source_id", description="unique id, read as text")
    ra_deg: str = Field("ra", description="right ascension, degrees, ICRS")
    dec_deg: str = Field("dec", description="declination, degrees, ICRS")
    redshift: str | None = Field(None, description="redshift")
    las_arcsec: str | None = Field(None, description="largest angular size of a radio source, arcsec")
    petrosian_radius_arcsec: str | None = Field(None, description="Petrosian radius, arcsec")
    label: str | None = Field(None, description="known class, to train on and to compare with")


class TableSource(Section):
    """Sources from a file."""

    path: str = Field(description="CSV, Parquet, FITS or VOTable (by ending: .csv .parquet .fits .vot .xml)")
    columns: Columns = Columns()


class Cone(Section):
    """A circle on the sky."""

    ra_deg: float = Field(ge=0, lt=360, description="centre, degrees")
    dec_deg: float = Field(ge=-90, le=90, description="centre, degrees")
    radius_deg: float = Field(gt=0, le=180, description="radius, degrees")


class Box(Section):
    """A box on the sky, sides along RA and Dec."""

    ra_deg: float = Field(ge=0, lt=360, description="centre, degrees")
    dec_deg: float = Field(ge=-90, le=90, description="centre, degrees")
    width_deg: float = Field(gt=0, le=180, description="extent along RA on the sky, degrees")
    height_deg: float = Field(gt=0, le=180, description="extent along Dec, degrees")


class QuerySource(Section):
    """Sources from a VizieR catalogue, asked once through astroquery; the answer is kept."""

    catalogue: str = Field("VIII/92/first14", description="VizieR's name; FIRST's own is VIII/92/first14")
    cone: Cone | None = Field(None, description="a circle, or")
    box: Box | None = Field(None, description="a box")
    row_limit: int = Field(10_000, ge=1, description="an answer with as many rows is refused as cut short")
    constraints: dict[str, str] = Field({}, description="VizieR column filters, such as Fint: '>10'")
    columns: Columns = Columns(source_id="FIRST", ra_deg="RAJ2000", dec_deg="DEJ2000")
    server: str | None = Field(None, description="VizieR mirror's host or address; null: astroquery's default")

    @model_validator(mode="after")
    def _one_region(self):
        if (self.cone is None) == (self.box is None):
            raise ValueError("give either cone or box")
        return self


class SimulatedSource(Section):
    """Sources that only the simulated surveys know; their labels are the truth."""

    survey: str = Field(description="the simulated survey (a key of surveys) whose truth gives the labels")
    count: int = Field(ge=0, le=10_000_000, description="number of sources")
    prefix: str = Field("sim", pattern=r"^[A-Za-z0-9_-]{1,32}$", description="ids are <prefix>-0000000 ...")


class FieldSettings(Section):
    """A named set of sources; exactly one of table, query, simulated."""

    table: TableSource | None = Field(None, description="sources from a file")
    query: QuerySource | None = Field(None, description="sources from VizieR")
    simulated: SimulatedSource | None = Field(None, description="simulated sources")
    labels: dict[str, str | None] = Field(
        {}, description="from the label column's values to class names; null: not used as a label"
    )
    tasks: list[Literal[tuple(TASKS)]] = Field([], description="what to find out; []: only trained on")
    shard_size: int | None = Field(None, ge=1, le=100_000, description="overrides the general shard_size")

    @model_validator(mode="after")
    def _one_origin(self):
        if sum(origin is not None for origin in (self.table, self.query, self.simulated)) != 1:
            raise ValueError("give exactly one of table, query, simulated")
        return self


# ------------------------------------------------------------------------------------------------ tasks


class OpticalPreparation(Section):
    """g r z fluxes, or a JPEG of the viewer, to a colour composite of fixed field of view."""

    kind: Literal["optical_composite"] = "optical_composite"
    field_of_view_arcsec: float = Field(
        67.072, gt=0, description="side on the sky; 67.072 is 256 px of 0.262 arcsec, as Galaxy10 DECaLS"
    )
    size_px: int = Field(128, ge=16, le=1024, description="side in pixels; bars need 128 or more")
    min_coverage: float = Field(0.8, ge=0, le=1, description="least observed fraction for a prediction")


class RadioPreparation(Section):
    """A radio map to the clipped, scaled uint8 image of Bowles et al. 2021."""

    kind: Literal["radio_clip"] = "radio_clip"
    size_px: int = Field(150, ge=16, le=1024, description="side in pixels of 1.8 arcsec, cut from the centre")
    clip_sigma: float = Field(3.0, ge=0, description="pixels up to this many standard deviations become 0")
    mask_las: bool = Field(False, description="blank everything beyond the source's largest angular size")
    min_coverage: float = Field(0.8, ge=0, le=1, description="least observed fraction for a prediction")


Normalisation = Literal["range_norm", "std_mean_norm", "sigmoid", "softmax", "tanh"]

PreparationSettings = Annotated[OpticalPreparation | RadioPreparation, Field(discriminator="kind")]


class AgcnnSettings(Section):
    """The attention-gated CNN of Bowles et al. 2021."""

    architecture: Literal["agcnn"] = Field("agcnn", description="the attention-gated CNN")
    widths: list[int] = Field(
        [6, 16, 32, 64], min_length=4, max_length=4, description="channels of the four convolution stages"
    )
    gates: int = Field(3, ge=0, le=3, description="attention gates, counted from the deepest")
    normalisation: Normalisation = Field("range_norm", description="of the attention, a map for itself")
    aggregation: Literal["ft", "concat", "mean", "deep_sup"] = Field(
        "ft", description="how the gates' vectors become logits"
    )
    gate_channels: int = Field(
        64, ge=1, description="channels in which a gate compares local and global features; fewer are quicker"
    )
    gate_pooling: Literal["mean", "sum"] = Field(
        "mean", description="mean: sum of a x over sum of a, trains faster; sum: as published"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="share of a gate's values dropped in training")
    faint_light: bool = Field(False, description="show the network each channel's asinh stretch beside it")
    flattened_px: int | None = Field(
        None,
        ge=32,
        description="without gates: side of the images when the classifier reads every pixel of the last stage, as "
        "published; null: their mean",
    )


# The larger the group, the fewer fields cost the same: at 150 px, kernel 5, ten times the AG-CNN's 0.24 GFLOP.
# No network of D16 is as cheap: this one costs 15 times as much, with kernel 3 it would be 6.
EQUIVARIANT_WIDTHS = {
    "trivial": [15, 32, 64, 96],
    "C4": [4, 8, 16, 24],
    "C8": [2, 4, 8, 12],
    "D4": [2, 4, 8, 12],
    "C16": [1, 2, 4, 6],
    "D8": [1, 2, 4, 6],
    "D16": [1, 1, 1, 2],
}


class EquivariantSettings(Section):
    """The AG-CNN with group-equivariant convolutions (Bowles et al. 2021b, arXiv:2111.04742)."""

    architecture: Literal["equivariant_agcnn"] = Field(description="the equivariant attention-gated CNN")
    group: Literal["trivial", "C4", "C8", "C16", "D4", "D8", "D16"] = Field(
        "D4", description="rotations by 360/N degrees; D: with reflections"
    )
    widths: list[int] = Field(
        min_length=4,
        max_length=4,
        description="fields of the four stages, each with a channel a group element; [6, 16, 32, 64] as published; "
        "left out: what costs at most ten times the AG-CNN's operations, by group",
    )
    kernel_size: Literal[3, 5, 7, 9] = Field(5, description="side of the convolutions, pixels")
    gates: int = Field(3, ge=0, le=3, description="attention gates, counted from the deepest")
    normalisation: Normalisation = Field("range_norm", description="of the attention")
    aggregation: Literal["ft", "concat", "mean", "deep_sup"] = Field("ft", description="from the gates to logits")
    gate_channels: int = Field(16, ge=1, description="channels in which a gate compares")
    gate_pooling: Literal["mean", "sum"] = Field("mean", description="mean, or sum as published")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of a gate's values dropped in training")
    faint_light: bool = Field(False, description="show the network each channel's asinh stretch beside it")

    @model_validator(mode="before")
    @classmethod
    def _widths_of_the_group(cls, values):
        if isinstance(values, dict) and values.get("widths") is None:
            return values | {"widths": EQUIVARIANT_WIDTHS.get(values.get("group", "D4"))}
        return values


class AttentionVggSettings(Section):
    """The attentional CNN of Misquith 2023, after Jetley et al. 2018 (arXiv:1804.02391)."""

    architecture: Literal["attention_vgg"] = Field(description="the attentional CNN")
    widths: list[int] = Field(
        [64, 128, 256, 512, 512, 512],
        min_length=6,
        max_length=6,
        description="channels of the six blocks; divide them for quicker networks",
    )
    attention: Literal["before_pooling", "after_pooling"] = Field(
        "before_pooling", description="where the attention estimators take their features"
    )
    compatibility: Literal["pc", "dp"] = Field(
        "pc",
        description="pc: parametrised, u . (l + g), as published, which under a softmax does not see g; dp: dot "
        "product l . g",
    )
    normalisation: Literal["softmax", "sigmoid"] = Field("softmax", description="of the attention")
    aggregation: Literal["concat", "indep"] = Field("concat", description="one classifier, or one a level, averaged")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of channels dropped after each block, and of features")


class BarNetworkSettings(Section):
    """A network for Galaxy Zoo's questions, whose bar logit saliency can differentiate (Bhambra et al. 2022)."""

    architecture: Literal["bar_network"] = Field(description="classes and Galaxy Zoo's questions, smooth activations")
    backbone: Literal["plain", "residual", "separable"] = Field(
        "plain", description="as VGG, as ResNet, as Xception, in small"
    )
    widths: list[int] = Field(
        [8, 24, 64, 128], min_length=4, max_length=4, description="channels of the four convolution stages"
    )
    gates: int = Field(3, ge=0, le=3, description="attention gates, counted from the deepest")
    normalisation: Normalisation = Field("range_norm", description="of the attention")
    gate_channels: int = Field(16, ge=1, description="channels in which a gate compares")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of features dropped in training")
    class_head: bool = Field(True, description="tell the task's classes as well as answer the questions")


NetworkSettings = Annotated[
    AgcnnSettings | EquivariantSettings | AttentionVggSettings | BarNetworkSettings,
    Field(discriminator="architecture"),
]


class MirabestDataset(Section):
    """The published MiraBest batches (Porter & Scaife 2023)."""

    kind: Literal["mirabest"]
    path: str = Field(description="folder of data_batch_1 to 7 and batches.meta, the folder above it, or their archive")
    subset: Literal["all", "confident"] = Field("all", description="whether uncertain labels count")


class FrdeepDataset(Section):
    """The published FR-DEEP batches (Tang et al. 2019), of FIRST or NVSS images."""

    kind: Literal["frdeep"]
    path: str = Field(description="folder of data_batch_* and batches.meta, the folder above it, or their archive")


class RadioGalaxyDataset(Section):
    """The Radio Galaxy Dataset (Griese et al. 2023): its FRI and FRII."""

    kind: Literal["radio_galaxy_dataset"]
    path: str = Field(description="the HDF5 file: image, label, ra_deg, dec_deg")


class Galaxy10Dataset(Section):
    """Galaxy10 DECaLS (Leung & Bovy): images, ans, ra, dec, pxscale."""

    kind: Literal["galaxy10"]
    path: str = Field(description="the HDF5 file")


class GalaxyZooDataset(Section):
    """Pictures, and a table of Galaxy Zoo vote fractions."""

    kind: Literal["galaxy_zoo"]
    path: str = Field(description="folder of the pictures")
    table: str = Field("labels.csv", description="CSV or Parquet of votes, looked up from the folder")
    file: str = Field("file", description="its column of files, from the folder; endings may lack")
    pixel_scale_arcsec: float | None = Field(None, gt=0, description="of the pictures; null: each taken whole")


DatasetSettings = Annotated[
    MirabestDataset | FrdeepDataset | RadioGalaxyDataset | Galaxy10Dataset | GalaxyZooDataset,
    Field(discriminator="kind"),
]


class Augmentation(Section):
    """What is done to training images, at random, at every look."""

    rotate: bool = Field(True, description="by any angle")
    flip: bool = Field(True, description="one half of them")
    zoom: float = Field(0.1, ge=0, lt=1, description="by 1 - zoom to 1 + zoom")
    shift_px: float = Field(2.0, ge=0, description="along each axis, up to so many pixels")
    noise: float = Field(0.0, ge=0, le=1, description="sigma of Gaussian noise, over the range of pixel values")
    brightness: float = Field(0.0, ge=0, lt=1, description="by 1 - brightness to 1 + brightness")


class TrainSettings(Section):
    """Train on a labelled field, or on a published set; exactly one of field and dataset."""

    field: str | None = Field(None, description="the labelled field (a key of fields)")
    dataset: DatasetSettings | None = Field(None, description="a published set, from its file")
    survey: str | None = Field(None, description="survey to train on; null: the task's own")
    votes: str | None = Field(
        None,
        description="CSV or Parquet of Galaxy Zoo vote fractions with a column source_id, for networks that answer "
        "questions; simulated fields bring their own",
    )
    network: NetworkSettings = AgcnnSettings()
    initial_weights: str | None = Field(
        None, description="model file to start from; what it was trained on stays on the training side"
    )
    epochs: int = Field(30, ge=1, description="passes over the training images, at most")
    central_epochs: int = Field(
        0, ge=0, description="the first so many epochs see only the central part of the images: quicker"
    )
    central_part: float = Field(
        0.5, gt=0.2, le=1, description="of each side of the images, in these epochs; 0.5: four times as quick"
    )
    patience_epochs: int = Field(30, ge=1, description="stop after so many epochs without improvement")
    batch_size: int = Field(32, ge=2, description="images a step")
    learning_rate: float = Field(3e-3, gt=0, description="peak of the one-cycle schedule (AdamW)")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label given to all classes alike")
    class_balance: bool = Field(False, description="weight the loss so that all classes count alike")
    weight_average: float = Field(
        0.0, ge=0, lt=1, description="decay of the running average of the weights that is kept; 0: the weights"
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: mixed precision")
    augmentation: Augmentation = Augmentation()
    validation_fraction: float = Field(0.2, gt=0, lt=1, description="share of the sources kept to validate on")
    seed: int = Field(1, ge=0, description="of the first weights, the order and the augmentation")
    # The number of threads splits the sums and so is part of the result: fixed here rather than taken from
    # the machine, so that one core and two cores train the same network.
    torch_threads: int = Field(2, ge=1, description="threads of the training on a CPU")
    test_time_turns: Literal[1, 4, 8, 16, 32] = Field(
        1,
        description="average the trained network over so many views of an image: 4 turns by 90 degrees, 8 with "
        "reflections, 16 and 32 with turns by 45 and 22.5 degrees too",
    )

    @field_validator("network", mode="before")
    @classmethod
    def _default_architecture(cls, network):
        if isinstance(network, dict) and "architecture" not in network:
            return {"architecture": "agcnn"} | network
        return network

    @model_validator(mode="after")
    def _one_origin(self):
        if (self.field is None) == (self.dataset is None):
            raise ValueError("give exactly one of field and dataset")
        if self.dataset and (self.survey or self.votes):
            raise ValueError("survey and votes go with field: a dataset has its own images and votes")
        return self

    @model_validator(mode="after")
    def _ends_on_whole_images(self):
        if self.central_epochs >= self.epochs:
            raise ValueError(f"central_epochs ({self.central_epochs}) must be fewer than epochs ({self.epochs})")
        return self


class UncertaintySettings(Section):
    """How sure the prediction itself is: several networks, or one thinned at random several times."""

    dropout_passes: int = Field(
        0, ge=0, le=1000, description="predictions with parts of the network dropped (MC dropout); 0: none"
    )
    seed: int = Field(1, ge=0, description="of what is dropped")


class ModelSettings(Section):
    """Where the model comes from: exactly one of weights and train."""

    weights: str | list[str] | None = Field(
        None, description="a model file (.safetensors with card), or several whose predictions are averaged"
    )
    train: TrainSettings | None = Field(None, description="train on a labelled field")

    @model_validator(mode="after")
    def _one_origin(self):
        if (self.weights is None) == (self.train is None):
            raise ValueError("give exactly one of weights and train")
        if isinstance(self.weights, list) and len(set(self.weights)) < max(1, len(self.weights)):
            raise ValueError("weights: an ensemble needs model files, each once")
        return self


class BarSettings(Section):
    """Bar lengths from SmoothGrad saliency (Bhambra et al. 2022)."""

    probability_threshold: float = Field(0.5, ge=0, le=1, description="measure where a bar is at least as probable")
    samples: int = Field(50, ge=1, le=10_000, description="noisy copies an image")
    noise_fraction: float = Field(0.25, gt=0, description="noise sigma over the image's range")
    seed: int = Field(1, ge=0, description="of the noise, with the source's id")


class TaskSettings(Section):
    """What to find out, on which images, with which model."""

    survey: str = Field(description="who serves the images (a key of surveys)")
    preparation: PreparationSettings = Field(description="from cutout to network input")
    model: ModelSettings = Field(description="weights or training")
    batch_size: int = Field(64, ge=1, description="images a forward pass; does not change results")
    uncertainty: UncertaintySettings = UncertaintySettings()
    bars: BarSettings | None = Field(None, description="bar lengths; null: none")


# ----------------------------------------------------------------------------------------------- whole


class Config(Section):
    """The whole configuration."""

    results: str = Field("results", description="folder for everything a run leaves")
    cache: str = Field("results/cache", description="folder of raw downloads, may be shared between runs")
    contact: str = Field("", description="e-mail or address of the person responsible, told to the surveys")
    shard_size: int = Field(500, ge=1, le=100_000, description="sources a shard: the unit of work and storage")
    surveys: dict[Annotated[str, Field(pattern=SURVEY_NAME)], SurveySettings]
    fields: dict[Annotated[str, Field(pattern=FIELD_NAME)], FieldSettings]
    tasks: dict[Literal[tuple(TASKS)], TaskSettings]

    @model_validator(mode="after")
    def _references(self):
        for name, field in self.fields.items():
            for task in field.tasks:
                _expect(task, self.tasks, f"fields.{name}.tasks")
            if field.simulated:
                _expect(field.simulated.survey, self.surveys, f"fields.{name}.simulated.survey")
                kind = self.surveys[field.simulated.survey].kind
                if not kind.startswith("simulated"):
                    raise ValueError(f"fields.{name}.simulated.survey: {kind} is not a simulated survey")
        for name, task in self.tasks.items():
            _expect(task.survey, self.surveys, f"tasks.{name}.survey")
            optical = TASKS[name].kind == "optical"
            if (task.preparation.kind == "optical_composite") != optical:
                raise ValueError(f"tasks.{name}.preparation.kind: {task.preparation.kind} does not fit {name}")
            if task.bars and TASKS[name].barred_class is None:
                raise ValueError(f"tasks.{name}.bars: {name} has no class of barred galaxies; leave bars out")
            if task.model.train:
                where = f"tasks.{name}.model.train"
                if task.model.train.field:
                    _expect(task.model.train.field, self.fields, f"{where}.field")
                if task.model.train.survey:
                    _expect(task.model.train.survey, self.surveys, f"{where}.survey")
        return self


def _expect(name: str, known: dict, where: str) -> None:
    if name not in known:
        raise ValueError(f"{where}: {name!r} is not defined; defined are: {', '.join(known)}{_nearest(name, known)}")


def _nearest(name: str, known) -> str:
    close = difflib.get_close_matches(name, [str(key) for key in known], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


# --------------------------------------------------------------------------------------------- loading


def load_config(path: str | Path) -> Config:
    """Read and check a configuration file.

    Raises
    ------
    ConfigError
        If the file is missing, is not YAML, or does not fit `Config`; the message names every key at
        fault and the nearest valid one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration ({error.strerror}).") from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: this is not valid YAML: {' '.join(str(error).split())}") from error
    return check_config(raw, str(path))


def check_config(raw: Any, origin: str = "configuration") -> Config:
    """Turn plain data (as read from YAML) into a `Config`; see `load_config` for what is raised."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{origin}: expected keys and values, found {type(raw).__name__}.")
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        problems = "\n".join(f"  - {_explain(problem, raw)}" for problem in error.errors())
        raise ConfigError(f"{origin}: the configuration cannot be used:\n{problems}") from error


def _explain(problem: dict, raw: dict) -> str:
    """One validation problem as a sentence: where, what, what was expected."""
    location = [str(part) for part in problem["loc"]]
    where = ".".join(_as_written(location, raw)) or "top level"
    if problem["type"] == "extra_forbidden":
        siblings = _siblings(location)
        hint = _nearest(location[-1], siblings)
        return f"{where}: unknown key{hint or '; valid here: ' + ', '.join(siblings)}"
    if problem["type"] == "missing":
        return f"{where}: this key is required"
    message = problem["msg"].removeprefix("Value error, ")
    if where == "top level":
        return message
    given = problem["input"]
    shown = "" if isinstance(given, dict) else f" (found {given!r})"
    return f"{where}: {message[0].lower()}{message[1:]}{shown}"


def _as_written(location: list[str], raw: Any) -> list[str]:
    """Only those parts of a pydantic location that stand in the user's file.

    pydantic puts in the tag of a union and '[key]'; the last part may be a key that is missing.
    """
    parts = []
    for part in location:
        keys = {str(key): value for key, value in raw.items()} if isinstance(raw, dict) else {}
        if isinstance(raw, list) and part.isdigit():
            parts.append(part)
            raw = raw[int(part)]
        elif part in keys:
            parts.append(part)
            raw = keys[part]
        elif part is location[-1] and part != "[key]":
            parts.append(part)
    return parts


def _siblings(location: list[str]) -> list[str]:
    """Names of the keys that are valid beside the last part of ``location``."""
    node = Config.model_json_schema()
    definitions = node["$defs"]
    for part in location[:-1]:
        node = _descend(node, part, definitions)
        if node is None:
            return []
    return list(node.get("properties", {}))


def _descend(node: dict, part: str, definitions: dict) -> dict | None:
    patterns = list(node.get("patternProperties", {}).values())
    child = node.get("properties", {}).get(part) or next(iter(patterns), None) or node.get("additionalProperties")
    if not isinstance(child, dict):
        return None
    if "discriminator" in child:  # the next part of the location is the union's tag
        mapping = child["discriminator"]["mapping"]
        return {"properties": {tag: {"$ref": reference} for tag, reference in mapping.items()}}
    for option in [child, *child.get("anyOf", [])]:
        if "$ref" in option:
            return definitions[option["$ref"].removeprefix("#/$defs/")]
    return child


def config_json_schema() -> dict:
    """The JSON schema of ``config.yaml``, generated from `Config`."""
    return Config.model_json_schema()
