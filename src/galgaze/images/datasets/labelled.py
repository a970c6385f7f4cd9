"""The one form in which labelled images travel, and the door to the published sets."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from galgaze.config import DatasetSettings, PreparationSettings
from galgaze.errors import ConfigError
from galgaze.tasks import Task

# Which images each set holds: a task reads those of its own kind.
KINDS = {
    "mirabest": "radio",
    "frdeep": "radio",
    "radio_galaxy_dataset": "radio",
    "galaxy10": "optical",
    "galaxy_zoo": "optical",
}
RADIO_SIDE_PX = 150  # of the radio sets' images, as of the preparation of Bowles et al. 2021
RADIO_CLIP_SIGMA = 3.0  # below which they were clipped


@dataclass
class LabelledSet:
    """Labelled images, prepared for a task.

    Attributes
    ----------
    image : numpy.ndarray
        (N, C, H, W) uint8; rows from south to north, as in the stores.
    label : numpy.ndarray
        (N,) int64, class index in the task's order; `galgaze.tasks.NO_CLASS`: none (only votes).
    source_id : numpy.ndarray
        (N,) str, unique.
    ra_deg, dec_deg : numpy.ndarray
        (N,) float64, degrees, ICRS; NaN: unknown.
    votes : numpy.ndarray or None
        (N, A) float32 vote fractions, answers of `galgaze.tasks.QUESTIONS` one question after another; NaN: unknown.
    description : dict
        For the model's card: name, sha256 by file, licence, images, count by_class, and where there are any, those
        left_out, and why.
    confident : numpy.ndarray or None
        (N,) bool, whether those who labelled were confident; None: the set does not tell.
    """

    image: np.ndarray
    label: np.ndarray
    source_id: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray
    votes: np.ndarray | None
    description: dict = field(default_factory=dict)
    confident: np.ndarray | None = None


def read_labelled_set(
    settings: DatasetSettings, task: Task, preparation: PreparationSettings, split: str = "train"
) -> LabelledSet:
    """Read a published set, its images prepared for a task.

    Parameters
    ----------
    settings : DatasetSettings
        Which set, and where it is.
    task : Task
        Whose classes and kind of images it must have.
    preparation : PreparationSettings
        Optical pictures are brought to it. The radio sets were clipped and scaled before they were published: it
        must say what was done to them.
    split : {"train", "test"}
        Which part of a set that has a test part of its own; the others are read whole.

    Raises
    ------
    ConfigError
        If the set does not fit, is damaged, or holds nothing for the task; the message says what to do.
    """
    kind = KINDS[settings.kind]
    if kind != task.kind:
        fitting = ", ".join(name for name, of in KINDS.items() if of == task.kind)
        raise ConfigError(
            f"The set {settings.kind} holds {kind} images, and {task.name} reads {task.kind} ones. Name one of "
            f"{fitting}, or use the set for {kind} images."
        )
    if kind == "radio":
        check_radio_preparation(settings.kind, preparation)
    path = Path(settings.path)
    if settings.kind in ("mirabest", "frdeep"):
        from galgaze.images.datasets.batches import read_frdeep_set, read_mirabest_set

        if settings.kind == "mirabest":
            labelled = read_mirabest_set(path, task, settings.subset, split)
        else:
            labelled = read_frdeep_set(path, task, split)
        if labelled.image.shape[2:] != (RADIO_SIDE_PX, RADIO_SIDE_PX):
            raise ConfigError(
                f"{path}: the images have {labelled.image.shape[2]} px, the published ones {RADIO_SIDE_PX}. Get the "
                "published set anew."
            )
        return labelled
    if settings.kind == "radio_galaxy_dataset":
        from galgaze.images.datasets.radio_galaxy_dataset import read_radio_galaxy_dataset

        return read_radio_galaxy_dataset(path, task, split)
    if settings.kind == "galaxy10":
        from galgaze.images.datasets.galaxy10 import read_galaxy10

        return read_galaxy10(path, task, preparation)
    from galgaze.images.datasets.galaxy_zoo import read_galaxy_zoo

    return read_galaxy_zoo(settings, task, preparation)


def check_radio_preparation(name: str, preparation: PreparationSettings) -> None:
    """Refuse a preparation that the images of the radio sets have not been through."""
    expected = {"size_px": RADIO_SIDE_PX, "clip_sigma": RADIO_CLIP_SIGMA, "mask_las": False}
    given = preparation.model_dump()
    differing = [key for key, value in expected.items() if given.get(key) != value]
    if differing:
        found = ", ".join(f"{key} {_yaml(given.get(key))}" for key in differing)
        wanted = ", ".join(f"{key}: {_yaml(expected[key])}" for key in differing)
        raise ConfigError(
            f"The images of {name} were published prepared: {RADIO_SIDE_PX} px, clipped at {RADIO_CLIP_SIGMA:g} "
            f"sigma, not masked; the preparation at hand has {found}. Set {wanted} in the task's preparation; a model "
            "that was made for other images does not fit this set."
        )


def _yaml(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
