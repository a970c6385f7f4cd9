"""A network that tells the classes, answers Galaxy Zoo's questions, and has smooth gradients.

Bhambra, Joachimi & Lahav 2022 (MNRAS 511, 5032, arXiv:2110.08288) read bar lengths off the saliency of a network that
was trained on Galaxy Zoo's answers, with swish (SiLU) in the place of ReLU, and used VGG16, ResNet50V2, Xception and
the mean of the three. Here are three small backbones of the same kinds under attention gates. Saliency is a gradient:
a ReLU's jumps at every kink and a maximum sends it to one pixel in four, so activations are SiLU and pooling is by the
mean throughout. What is left are the minimum and maximum of the attention's range normalisation.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from galgaze.models.attention import AttentionGate
from galgaze.models.network import AttentionNetwork, Examination
from galgaze.models.questions import ANSWERS, bar_logit

CONVOLUTIONS = (3, 3, 3, 2)  # in the four stages, as in the AG-CNN


def convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution and batch normalisation, which brings the bias."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels))


def separable_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 within each channel, 1x1 across them (Chollet 2017, arXiv:1610.02357), and batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class Stage(nn.Module):
    """Convolutions at one resolution, each followed by SiLU.

    Parameters
    ----------
    layers : list of torch.nn.Module
        The convolutions, each with its normalisation.
    residual : bool
        The second and later ones add to what the first has made (He et al. 2016, arXiv:1512.03385).
    """

    def __init__(self, layers: list[nn.Module], residual: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, C', h, w)."""
        first = x = F.silu(self.layers[0](x))
        for layer in self.layers[1:-1]:
            x = F.silu(layer(x))
        x = self.layers[-1](x)
        return F.silu(x + first if self.residual else x)


def make_stages(backbone: str, channels: int, widths: Sequence[int]) -> nn.ModuleList:
    """The four stages of a backbone (``plain``, ``residual``, ``separable``), for images of so many channels.

    The first convolution of all is never separable: an image has few channels to tell apart.
    """
    later: Callable = separable_convolution if backbone == "separable" else convolution
    stages = []
    for count, width in zip(CONVOLUTIONS, widths, strict=True):
        first = later if stages else convolution
        layers = [first(channels, width), *(later(width, width) for _ in range(count - 1))]
        stages.append(Stage(layers, residual=backbone == "residual"))
        channels = width
    return nn.ModuleList(stages)


class BarNetwork(AttentionNetwork):
    """Four stages under attention gates; the same features give the classes and the answers.

    Images of any size from 64 px; an odd row or column is dropped where it is pooled.

    Parameters
    ----------
    channels, classes : int
        Of the image, and to tell apart.
    backbone : {"plain", "residual", "separable"}
        As VGG, as ResNet, as Xception (without its shortcuts), in small.
    widths : sequence of int
        Channels of the four stages.
    gates : int
        0 to 3, counted from the deepest: one is on stage 3, two on stages 3 and 2.
    normalisation : str
        Of the attention, a key of `galgaze.models.attention.NORMALISATIONS`.
    gate_channels : int
        To which a gate brings local and global features before it compares them.
    dropout : float
        Share of the features dropped in training.
    class_head : bool
        Tell the classes too. Without it the logits are 0: all classes alike, and nothing about them is learnt.

    Raises
    ------
    ValueError
        If the backbone is not known.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        backbone: str = "plain",
        widths: Sequence[int] = (8, 24, 64, 128),
        gates: int = 3,
        normalisation: str = "range_norm",
        gate_channels: int = 16,
        dropout: float = 0.2,
        class_head: bool = True,
    ):
        super().__init__()
        if backbone not in ("plain", "residual", "separable"):
            raise ValueError(f"no backbone {backbone!r}; known are plain, residual and separable")
        self.classes, self.normalisation = classes, normalisation
        self.stages = make_stages(backbone, channels, widths)
        self.attention_reductions = (4, 2, 1)[:gates]  # image pixels a pixel of each gate's map
        local = tuple(widths[2::-1][:gates])  # gate 1 is the deepest, on stage 3
        self.attention = nn.ModuleList(
            AttentionGate(width, widths[3], gate_channels, "mean", normalisation, F.silu) for width in local
        )
        self.dropout = nn.Dropout(dropout)  # one: all features pass it together, once
        features = sum(local) + widths[3]
        self.classifier = nn.Linear(features, classes) if class_head else None
        self.answerer = nn.Linear(features, len(ANSWERS))

    def examine(self, image: torch.Tensor) -> Examination:
        """Maps are at a quarter, half and the whole of the image's size; features are the gates' and the last mean."""
        local = []
        x = image
        for stage in self.stages[:3]:
            x = stage(x)
            local.append(x)  # (B, width, H / 2^i, W / 2^i)
            x = F.avg_pool2d(x, 2)
        g = self.stages[3](x)  # (B, width, H / 8, W / 8)
        seen = [gate(x, g) for gate, x in zip(self.attention, local[::-1], strict=False)]
        features = torch.cat([vector for vector, _ in seen] + [g.mean(dim=(2, 3))], dim=1)  # (B, D)
        kept = self.dropout(features)
        logits = features.new_zeros(len(image), self.classes) if self.classifier is None else self.classifier(kept)
        return Examination(logits, [a for _, a in seen], features, self.answerer(kept))

    def bar_logit(self, image: torch.Tensor) -> torch.Tensor:
        """Log-odds (B,) of a bar against none, see `galgaze.models.questions.bar_logit`; for images (B, C, H, W).

        For SmoothGrad, which asks for its gradient.
        """
        return bar_logit(self.examine(image).answers)
