"""A model as the pipeline uses it: one model file, or an ensemble of several, ready to predict."""

from dataclasses import dataclass
from pathlib import Path

import torch

from galgaze.errors import ConfigError
from galgaze.models.model_file import ModelCard, load_extras, load_network
from galgaze.models.network import AttentionNetwork, Examination


@dataclass(frozen=True)
class Member:
    """One model file: its network (with its views of an image, if it has several), card, and `load_extras`."""

    network: AttentionNetwork
    card: ModelCard
    extras: dict[str, torch.Tensor]


@dataclass(frozen=True)
class LoadedModel:
    """What predicts: the members, and the network of them all (a single member's own)."""

    members: tuple[Member, ...]
    network: AttentionNetwork

    @property
    def card(self) -> ModelCard:
        """The first member's card; the members agree on task, classes, preparation and questions."""
        return self.members[0].card

    def examine(self, image: torch.Tensor) -> list[Examination]:
        """What each member says of images (B, C, H, W) in -1..1."""
        return [member.network.examine(image) for member in self.members]

    def to(self, device: torch.device) -> "LoadedModel":
        """The same, on a device."""
        self.network.to(device, memory_format=torch.channels_last)
        for member in self.members:
            member.network.to(device, memory_format=torch.channels_last)
        return self


def load_model(paths: list[Path]) -> LoadedModel:
    """Load one model file, or several as an ensemble.

    Raises
    ------
    ConfigError
        If a file cannot be used, or the members of an ensemble do not fit each other.
    """
    members = tuple(Member(*load_network(path), load_extras(path)) for path in paths)
    first = members[0]
    for path, member in zip(paths[1:], members[1:], strict=True):
        for name in ("task", "classes", "channels", "preparation", "questions", "class_head"):
            ours, theirs = _compared(first.card, name), _compared(member.card, name)
            if ours != theirs:
                raise ConfigError(f"{path}: its {name} ({theirs}) is not that of {paths[0]} ({ours}): no ensemble.")
        if first.network.attention_reductions != member.network.attention_reductions:
            raise ConfigError(f"{path}: its attention gates are not those of {paths[0]}: no ensemble.")
    if len(members) == 1:
        return LoadedModel(members, first.network)
    from galgaze.models.combined import Ensemble

    try:
        ensemble = Ensemble([member.network for member in members])
        if "size_px" in first.card.preparation:  # maps of other sizes are found now, not at the first image
            ensemble.padding_px(first.card.preparation["size_px"])
    except ValueError as error:
        raise ConfigError(f"{', '.join(map(str, paths))}: {error} They make no ensemble.") from error
    return LoadedModel(members, ensemble)


def _compared(card: ModelCard, name: str):
    """What members must have in common. `min_coverage` they need not: it decides what is predicted, not how."""
    if name == "class_head":  # of a network without one all classes are alike
        return card.architecture.get(name, True)
    value = getattr(card, name)
    return {key: one for key, one in value.items() if key != "min_coverage"} if name == "preparation" else value
