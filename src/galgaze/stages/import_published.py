"""From a file released with Bowles et al. 2021 to a model file with a card."""

from pathlib import Path

from galgaze.config import RadioPreparation
from galgaze.errors import ConfigError
from galgaze.files import sha256_file
from galgaze.images.preparation import channels, preparation_identity
from galgaze.models.model_file import ModelCard, architecture_of, save_model, software_versions
from galgaze.tasks import RADIO_FR


def import_published(
    source: Path,
    target: Path,
    normalisation: str | None = None,
    aggregation: str | None = None,
    gates: int | None = None,
) -> str:
    """Write a released AG-CNN as a model file.

    The images are prepared as the paper's (`RadioPreparation`'s defaults). The released probabilities were never
    calibrated, so the card carries no calibration.

    Parameters
    ----------
    source : Path
        The released file (.pt).
    target : Path
        The model file to write, ending in .safetensors.
    normalisation, aggregation, gates : optional
        See `galgaze.models.published.load_released`.

    Returns
    -------
    str
        What was imported, in a line.

    Raises
    ------
    ConfigError
        If the file cannot be used, or is not for the task ``radio_fr``.
    """
    from galgaze.models.published import PAPER, load_released

    if target.suffix != ".safetensors":
        raise ConfigError(f"{target}: the model file to write must end in .safetensors.")
    released = load_released(source, normalisation, aggregation, gates)
    preparation = RadioPreparation(kind="radio_clip")
    expected = (channels(preparation), len(RADIO_FR.classes))
    if (released.channels, released.classes) != expected:
        raise ConfigError(
            f"{source}: reads images of {released.channels} channels and tells {released.classes} classes apart; a "
            f"model for {RADIO_FR.name} reads {expected[0]} and tells {expected[1]} ({', '.join(RADIO_FR.classes)}) "
            "apart."
        )
    card = ModelCard(
        task=RADIO_FR.name,
        architecture=architecture_of(released.settings),
        classes=list(RADIO_FR.classes),
        channels=released.channels,
        preparation=preparation_identity(preparation),
        calibration=None,
        training_data={
            "origin": "weights released with the paper, imported from the released file",
            "paper": PAPER,
            "file": released.name,
            "file_sha256": sha256_file(source),
        },
        metrics={},
        software=software_versions(),
    )
    save_model(target, released.network, card)
    return f"{target}: imported {released.name}: {_describe(released)}"


def _describe(released) -> str:
    settings = released.settings
    gates = f"{settings.gates} gate{'' if settings.gates == 1 else 's'}"
    attention = (
        f"normalisation {settings.normalisation}, aggregation {settings.aggregation}, " if settings.gates else ""
    )
    count = sum(parameter.numel() for parameter in released.network.parameters())
    return f"{attention}{gates}, {count:,} parameters"
