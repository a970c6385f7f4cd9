"""The attention-gated CNN for radio galaxies (AG-CNN).

Bowles, Scaife, Porter, Tang & Bastien 2021, MNRAS 501, 4579 (arXiv:2012.01248); the gates after Schlemper et
al. 2019 (arXiv:1808.08114). Here with three gates, range normalisation and the fine-tuned aggregation, the
paper's choice: 101,447 parameters for two classes and one channel.

One thing differs from the released network, on purpose: the range normalisation takes each image's own minimum
and maximum, where the release takes the batch's, so that a source's class does not depend on its neighbours.
"""

import torch
from torch import nn
from torch.nn import functional as F

CONVOLUTIONS = (3, 3, 3, 2)  # in the four stages


def range_normalise(a: torch.Tensor) -> torch.Tensor:
    """(a - min) / (max - min) over each image's pixels; 0 where the map is flat. (B, 1, H, W) -> same."""
    low = a.amin(dim=(2, 3), keepdim=True)
    high = a.amax(dim=(2, 3), keepdim=True)
    return (a - low) / (high - low).clamp_min(1e-12)


class AttentionGate(nn.Module):
    """a = N(psi(relu(theta(x) + up(phi(g))))), and x gathered under a."""

    def __init__(self, local_channels: int, global_channels: int, gate_channels: int, pooling: str):
        super().__init__()
        self.theta = nn.Conv2d(local_channels, gate_channels, 1, bias=False)
        self.phi = nn.Conv2d(global_channels, gate_channels, 1, bias=False)
        self.psi = nn.Conv2d(gate_channels, 1, 1)
        self.pooling = pooling

    def forward(self, x: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Local (B, C, h, w) and global (B, G, h', w') features to a value a channel (B, C), and the map (B, h, w)."""
        up = F.interpolate(self.phi(g), size=x.shape[2:], mode="bilinear", align_corners=False)
        a = range_normalise(self.psi(F.relu(self.theta(x) + up)))  # (B, 1, h, w)
        gathered = (a * x).sum(dim=(2, 3))  # (B, C)
        if self.pooling == "mean":
            gathered = gathered / a.sum(dim=(2, 3)).clamp_min(1e-6)
        return gathered, a[:, 0]


def _stage(in_channels: int, out_channels: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
        in_channels = out_channels
    return nn.Sequential(*layers)


class AGCNN(nn.Module):
    """Four convolution stages; the last one gates what the first three have seen.

    Parameters
    ----------
    channels, classes : int
        Of the image, and to tell apart.
    widths : sequence of int
        Channels of the four stages; (6, 16, 32, 64) in the paper.
    gate_channels : int
        To which a gate brings local and global features before it compares them; 64 in the paper.
    gate_pooling : {"mean", "sum"}
        How a gate gathers its features: sum of a x over sum of a, or sum of a x as in the paper.
    dropout : float
        Share of a gate's values dropped in training.
    """

    gates = 3
    # image pixels a pixel of each gate's map; pooling halves and drops what is left over
    attention_reductions = (4, 2, 1)

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: tuple[int, int, int, int] = (6, 16, 32, 64),
        gate_channels: int = 64,
        gate_pooling: str = "sum",
        dropout: float = 0.5,
    ):
        super().__init__()
        inputs = (channels, *widths[:-1])
        self.stages = nn.ModuleList(map(_stage, inputs, widths, CONVOLUTIONS))
        local = widths[2::-1]  # gate 1 is the deepest, on stage 3
        self.attention = nn.ModuleList(AttentionGate(width, widths[3], gate_channels, gate_pooling) for width in local)
        self.dropout = nn.Dropout(dropout)
        self.gate_classifiers = nn.ModuleList(nn.Linear(width, classes) for width in local)
        self.classifier = nn.Linear(self.gates * classes, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image (B, C, H, W) in -1..1 to logits (B, K)."""
        return self.forward_with_attention(image)[0]

    def forward_with_attention(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits (B, K), and a map (B, h, w) a gate: at a quarter, half and the whole of the image's size."""
        features = []
        x = image
        for stage in self.stages[:3]:
            x = stage(x)
            features.append(x)  # (B, width, H / 2^i, W / 2^i)
            x = F.max_pool2d(x, 2)
        g = self.stages[3](x)  # (B, 64, H / 8, W / 8)
        votes, maps = [], []
        for local, gate, classifier in zip(features[::-1], self.attention, self.gate_classifiers, strict=True):
            gathered, a = gate(local, g)
            votes.append(F.relu(classifier(self.dropout(gathered))))  # (B, K)
            maps.append(a)
        return self.classifier(torch.cat(votes, dim=1)), maps
