"""Settings of tasks: preparation, training, model, uncertainty, bars."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from galgaze.config.datasets import DatasetSettings
from galgaze.config.networks import AgcnnSettings, NetworkSettings
from galgaze.config.section import Section


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


PreparationSettings = Annotated[OpticalPreparation | RadioPreparation, Field(discriminator="kind")]


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
