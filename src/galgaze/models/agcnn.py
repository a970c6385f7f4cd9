"""The attention-gated CNN for radio galaxies (AG-CNN).

Bowles, Scaife, Porter, Tang & Bastien 2021, MNRAS 501, 4579 (arXiv:2012.01248). With three gates, range
normalisation and the fine-tuned aggregation, the paper's choice, 101,447 parameters for two classes and one channel.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from galgaze.models.gated import GatedNetwork
from galgaze.models.network import Examination

CONVOLUTIONS = (3, 3, 3, 2)  # in the four stages
ASINH_SOFTENING = 30.0  # at what share of the brightest pixel the stretch turns from linear to logarithmic: 1/30


def convolution_stage(in_channels: int, out_channels: int, convolutions: int, activation=nn.ReLU) -> nn.Sequential:
    """3x3 convolution, batch normalisation, activation, so many times over."""
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), activation()]
        in_channels = out_channels
    return nn.Sequential(*layers)


def with_faint_light(image: torch.Tensor) -> torch.Tensor:
    """Each channel beside its asinh stretch, in which lobes a hundredth as bright as the core are seen.

    (B, C, H, W) in -1..1 -> (B, 2 C, H, W) in -1..1.
    """
    light = (image + 1) / 2
    stretched = torch.asinh(ASINH_SOFTENING * light) / math.asinh(ASINH_SOFTENING)
    return torch.cat([image, 2 * stretched - 1], dim=1)


class AGCNN(GatedNetwork):
    """Four convolution stages; the last one gates what the first three have seen.

    Parameters
    ----------
    channels, classes : int
        Of the image, and to tell apart.
    widths : sequence of int
        Channels of the four stages; (6, 16, 32, 64) in the paper.
    gates : int
        0 to 3, counted from the deepest: one is on stage 3, two on stages 3 and 2.
    normalisation : str
        Of the attention, a key of `galgaze.models.attention.NORMALISATIONS`.
    aggregation : {"ft", "concat", "mean", "deep_sup"}
        From the gates' vectors to logits, see `galgaze.models.attention.Aggregation`. Not used without gates.
    gate_channels : int
        To which a gate brings local and global features before it compares them; 64 in the paper.
    gate_pooling : {"mean", "sum"}
        How a gate gathers its features: sum of a x over sum of a, or sum of a x as in the paper.
    dropout : float
        Share of a gate's values dropped in training.
    faint_light : bool
        Show the network each channel's asinh stretch beside it; the paper does not.
    flattened_px : int or None
        Without gates: the side of the images, when the classifier reads each pixel of the last stage, pooled, as
        published; None: it reads their mean, for images of any size.
    binning : int
        Side of the blocks of pixels that are averaged before the first convolution; 1 in the paper. Where the beam or
        the seeing is wider than two pixels a network of half the size sees as much, at a quarter of the cost.

    Raises
    ------
    ValueError
        If `flattened_px` is set and images have another size.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: tuple[int, int, int, int] = (6, 16, 32, 64),
        gates: int = 3,
        normalisation: str = "range_norm",
        aggregation: str = "ft",
        gate_channels: int = 64,
        gate_pooling: str = "sum",
        dropout: float = 0.5,
        faint_light: bool = False,
        flattened_px: int | None = None,
        binning: int = 1,
    ):
        super().__init__()
        self.binning = binning
        self.faint_light, self.flattened_px = faint_light, flattened_px
        inputs = (channels * (2 if faint_light else 1), *widths[:-1])
        self.stages = nn.ModuleList(map(convolution_stage, inputs, widths, CONVOLUTIONS))
        pixels = (-(-flattened_px // binning) // 16) ** 2 if flattened_px else 1
        self.make_gates(
            widths, classes, gates, normalisation, aggregation, gate_channels, gate_pooling, dropout,
            flat_values=widths[3] * pixels,
        )  # fmt: skip
        self.attention_reductions = tuple(binning * reduction for reduction in self.attention_reductions)

    def examine(self, image: torch.Tensor) -> Examination:
        """Maps are at a quarter, half and the whole of the image's size, or of the binned one's."""
        features, size_px = [], image.shape[-1]
        if self.binning > 1:  # blocks at the edges may be cut off: their mean is that of what there is
            image = F.avg_pool2d(image, self.binning, ceil_mode=True, count_include_pad=False)
        x = with_faint_light(image) if self.faint_light else image
        for stage in self.stages[:3]:
            x = stage(x)
            features.append(x)  # (B, width, H / 2^i, W / 2^i)
            x = F.max_pool2d(x, 2)
        g = self.stages[3](x)  # (B, 64, H / 8, W / 8)
        return self.judge(features[::-1][: len(self.attention)], g, lambda g: self._flat(g, size_px))

    def _flat(self, g: torch.Tensor, size_px: int) -> torch.Tensor:
        if self.flattened_px is None:
            return g.mean(dim=(2, 3))
        if size_px != self.flattened_px:
            raise ValueError(f"this network without gates reads images of {self.flattened_px} px, not of {size_px}")
        return F.max_pool2d(g, 2).flatten(1)
