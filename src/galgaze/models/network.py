"""What every network offers, whatever its architecture."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Examination:
    """What a network makes of images.

    Attributes
    ----------
    logits : torch.Tensor
        (B, K), a value a class.
    maps : list of torch.Tensor
        An attention map (B, h, w) a gate, the deepest gate first.
    features : torch.Tensor
        (B, D), what the last layers read: where images unlike those trained on stand apart.
    answers : torch.Tensor or None
        (B, A), logits of the answers to the questions that the network knows, question after question.
    """

    logits: torch.Tensor
    maps: list[torch.Tensor]
    features: torch.Tensor
    answers: torch.Tensor | None = None


class AttentionNetwork(nn.Module):
    """Base of the architectures: they fill in `examine`.

    Attributes
    ----------
    attention_reductions : tuple of int
        Image pixels a side of a pixel of each gate's map.
    normalisation : str
        Of the attention (a key of `galgaze.models.attention.NORMALISATIONS`).
    """

    attention_reductions: tuple[int, ...] = ()
    normalisation: str = "range_norm"

    def examine(self, image: torch.Tensor) -> Examination:
        """Image (B, C, H, W) in -1..1 to everything that the network says of it."""
        raise NotImplementedError

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image (B, C, H, W) in -1..1 to logits (B, K)."""
        return self.examine(image).logits

    def forward_with_attention(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits (B, K), and a map (B, h, w) a gate."""
        examination = self.examine(image)
        return examination.logits, examination.maps

    def padding_px(self, size_px: int) -> int:
        """Pixels that the network adds on each side of an image before it looks; its maps cover them too."""
        return 0
