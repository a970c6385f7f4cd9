"""From an architecture's name to its network: the one list of them."""

import importlib

from galgaze.errors import ConfigError
from galgaze.models.network import AttentionNetwork

# Imported when asked for, so that one architecture's needs are not everybody's.
ARCHITECTURES = {
    "agcnn": ("galgaze.models.agcnn", "AGCNN"),
    "equivariant_agcnn": ("galgaze.models.equivariant", "EquivariantAGCNN"),
    "exported_agcnn": ("galgaze.models.equivariant", "ExportedAGCNN"),
    "attention_vgg": ("galgaze.models.attention_vgg", "AttentionVGG"),
    "bar_network": ("galgaze.models.bar_network", "BarNetwork"),
}


def create_network(architecture: dict, channels: int, classes: int) -> AttentionNetwork:
    """The untrained network of a card's ``architecture`` (``name``, and its settings).

    Raises
    ------
    ConfigError
        If the architecture is not known.
    """
    settings = dict(architecture)
    name = settings.pop("name", None)
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"The model's architecture {name!r} is not known; known are: {', '.join(ARCHITECTURES)}. "
            "A newer galgaze may know it."
        )
    module, network = ARCHITECTURES[name]
    return getattr(importlib.import_module(module), network)(channels, classes, **settings)


def build_network(card) -> AttentionNetwork:
    """The untrained network of a model card."""
    return create_network(card.architecture, card.channels, len(card.classes))
