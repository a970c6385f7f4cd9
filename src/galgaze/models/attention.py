"""Attention gates and how their maps are normalised.

The gates are those of Bowles, Scaife, Porter, Tang & Bastien 2021, MNRAS 501, 4579 (arXiv:2012.01248), after
Schlemper et al. 2019 (arXiv:1808.08114). Every normalisation here looks at one image alone; the network released
with the paper takes minimum and maximum over the batch, so that a source's class hangs on its neighbours.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

SMALLEST = 1e-12


def range_norm(a: torch.Tensor) -> torch.Tensor:
    """(a - min) / (max - min) over each image's pixels; 0 where the map is flat. (B, 1, H, W) -> same."""
    low = a.amin(dim=(2, 3), keepdim=True)
    spread = a.amax(dim=(2, 3), keepdim=True) - low
    # a flat map has no gradient either: through a tiny divisor it would be enormous
    seen = spread > SMALLEST
    return torch.where(seen, (a - low) / torch.where(seen, spread, torch.ones_like(spread)), torch.zeros_like(a))


def std_mean_norm(a: torch.Tensor) -> torch.Tensor:
    """((a - min) / max - 0.5) / 0.25, the maximum taken before the shift, as published. (B, 1, H, W) -> same.

    Where all scores are negative this turns the map over. -2, as at the minimum, where the maximum is 0.
    """
    low = a.amin(dim=(2, 3), keepdim=True)
    high = a.amax(dim=(2, 3), keepdim=True)
    seen = high.abs() > SMALLEST
    share = torch.where(seen, (a - low) / torch.where(seen, high, torch.ones_like(high)), torch.zeros_like(a))
    return (share - 0.5) / 0.25


def softmax(a: torch.Tensor) -> torch.Tensor:
    """exp(a) over its sum over each image's pixels. (B, 1, H, W) -> same."""
    return a.flatten(2).softmax(dim=2).view_as(a)


NORMALISATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "range_norm": range_norm,
    "std_mean_norm": std_mean_norm,
    "sigmoid": torch.sigmoid,
    "softmax": softmax,
    "tanh": torch.tanh,
}


def from_zero(maps: torch.Tensor, normalisation: str) -> torch.Tensor:
    """Maps (B, h, w) counted from no attention, for statistics and pictures: those that can be negative are shifted."""
    if normalisation == "tanh":
        return (maps + 1) / 2
    if normalisation == "std_mean_norm":
        return maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps


def gather(a: torch.Tensor, x: torch.Tensor, pooling: str) -> torch.Tensor:
    """Features x (B, C, h, w) under the attention a (B, 1, h, w), a value a channel (B, C).

    ``sum``: sum of a x over the pixels, as published. ``mean``: that over the sum of abs(a).
    """
    gathered = (a * x).sum(dim=(2, 3))
    if pooling == "mean":
        gathered = gathered / a.abs().sum(dim=(2, 3)).clamp_min(1e-6)
    return gathered


class AttentionGate(nn.Module):
    """a = N(psi(relu(theta(x) + up(phi(g))))), and x gathered under a.

    Parameters
    ----------
    local_channels, global_channels : int
        Of x and g.
    gate_channels : int
        To which both are brought before they are compared.
    pooling : {"mean", "sum"}
        See `gather`.
    normalisation : str
        N, a key of `NORMALISATIONS`.
    activation : callable
        In the place of relu.
    """

    def __init__(
        self,
        local_channels: int,
        global_channels: int,
        gate_channels: int,
        pooling: str,
        normalisation: str = "range_norm",
        activation: Callable[[torch.Tensor], torch.Tensor] = F.relu,
    ):
        super().__init__()
        self.theta = nn.Conv2d(local_channels, gate_channels, 1, bias=False)
        self.phi = nn.Conv2d(global_channels, gate_channels, 1, bias=False)
        self.psi = nn.Conv2d(gate_channels, 1, 1)
        self.pooling = pooling
        self.normalise = NORMALISATIONS[normalisation]
        self.activation = activation

    def forward(self, x: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Local (B, C, h, w) and global (B, G, h', w') features to a value a channel (B, C), and the map (B, h, w)."""
        up = F.interpolate(self.phi(g), size=x.shape[2:], mode="bilinear", align_corners=False)
        a = self.normalise(self.psi(self.activation(self.theta(x) + up)))  # (B, 1, h, w)
        return gather(a, x, self.pooling), a[:, 0]


class Aggregation(nn.Module):
    """From the gates' vectors to logits.

    ``concat``: one linear layer on all values. ``mean``: a linear layer a gate, the mean of their logits.
    ``deep_sup``: the mean of the concat logits and of each gate's own. ``ft``: a linear layer and ReLU a gate,
    concatenated, then one linear layer. Only the layers in use exist.
    """

    def __init__(self, kind: str, widths: tuple[int, ...], classes: int):
        super().__init__()
        self.kind = kind
        if kind != "concat":
            self.gate_classifiers = nn.ModuleList(nn.Linear(width, classes) for width in widths)
        if kind != "mean":
            self.classifier = nn.Linear(len(widths) * classes if kind == "ft" else sum(widths), classes)

    def forward(self, gathered: list[torch.Tensor]) -> torch.Tensor:
        """A vector (B, C) a gate to logits (B, K)."""
        if self.kind == "concat":
            return self.classifier(torch.cat(gathered, dim=1))
        votes = [classifier(vector) for classifier, vector in zip(self.gate_classifiers, gathered, strict=True)]
        if self.kind == "ft":
            return self.classifier(torch.cat([F.relu(vote) for vote in votes], dim=1))
        if self.kind == "deep_sup":
            votes = [self.classifier(torch.cat(gathered, dim=1)), *votes]
        return torch.stack(votes).mean(dim=0)
