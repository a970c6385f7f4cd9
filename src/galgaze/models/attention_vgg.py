"""The attentional CNN for optical morphology.

Jetley, Lord, Lee & Torr 2018, Learn To Pay Attention (arXiv:1804.02391), as Misquith 2023 used it for Galaxy10
DECaLS: a VGG whose last features ask three earlier layers where to look, and only what is seen there is classified.
At the paper's widths, 3 channels and 10 classes: 19.86 million parameters, and 7.84 GFLOP for 32 x 32 px; without the
projection of L1 they are the published 19.7 and 7.6.

A flaw of the published form: parametrised compatibility under a softmax does not see g. ``u . (l + g)`` is ``u . l``
plus a number that is the same for all pixels, and a softmax over the pixels takes that away. Block 6 and g, a quarter
of the parameters, then learn nothing, and each level looks wherever its own ``u . l`` is large. Dot products, or a
sigmoid, do look where g says.
"""

import torch
from torch import nn
from torch.nn import functional as F

from galgaze.errors import ConfigError
from galgaze.models.agcnn import convolution_stage
from galgaze.models.attention import NORMALISATIONS, gather
from galgaze.models.combined import log_mean_probability
from galgaze.models.network import AttentionNetwork, Examination

CONVOLUTIONS = (2, 2, 3, 3, 3)  # in the first five blocks; the two of the sixth have a pooling each
FIRST_LOCAL = 2  # index of the first block that is pooled, and whose end is attended to
SMALLEST_PX = 32  # five poolings leave one pixel
CHOICES = {
    "attention": ("before_pooling", "after_pooling"),
    "compatibility": ("pc", "dp"),
    "normalisation": ("softmax", "sigmoid"),
    "aggregation": ("concat", "indep"),
}


class AttentionEstimator(nn.Module):
    """How well each local feature l fits the global ones g, and what is seen where it does.

    Compatibility ``c = u . (l + g)`` (``pc``) or ``c = l . g`` (``dp``); attention ``a`` is its softmax over the
    image's pixels or its sigmoid; the vector is ``sum(a l) / sum(a)``, so that softmax and sigmoid both average, and
    neither grows with the image. (A softmax sums to 1 anyway. For the sigmoid the paper names no divisor.) There is
    no bias: a softmax would not see it.

    Parameters
    ----------
    local_channels, global_channels : int
        Of l and g. Where they differ, a 1x1 convolution brings l to g's, for the vector too.
    compatibility : {"pc", "dp"}
    normalisation : {"softmax", "sigmoid"}
    """

    def __init__(self, local_channels: int, global_channels: int, compatibility: str, normalisation: str):
        super().__init__()
        same = local_channels == global_channels
        self.project = nn.Identity() if same else nn.Conv2d(local_channels, global_channels, 1, bias=False)
        self.u = nn.Conv2d(global_channels, 1, 1, bias=False) if compatibility == "pc" else None
        self.normalise = NORMALISATIONS[normalisation]

    def forward(self, local: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Local (B, L, h, w) and global (B, G) features to a vector (B, G), and the map (B, h, w)."""
        local = self.project(local)  # (B, G, h, w)
        # Half precision rounds a dot product in the hundreds by more than a softmax forgives; autocast would take the
        # convolution by u back to it.
        local = local.to(torch.promote_types(local.dtype, torch.float32))
        everywhere = g[:, :, None, None]
        with torch.autocast(local.device.type, enabled=False):
            c = self.u(local + everywhere) if self.u is not None else (local * everywhere).sum(dim=1, keepdim=True)
        a = self.normalise(c)  # (B, 1, h, w)
        return gather(a, local, "mean"), a[:, 0]


class AttentionVGG(AttentionNetwork):
    """Six blocks of 3x3 convolutions, batch normalisation and ReLU, and three attention estimators.

    Blocks of 2, 2, 3, 3, 3 and 2 convolutions. L1, L2 and L3 are the ends of blocks 3, 4 and 5; a pooling follows each
    of these, and each convolution of block 6. What is left, 1 x 1 px for an image of 32 x 32, goes through a 1x1
    convolution and is averaged over its pixels: g. At 32 px that is exactly the paper's; larger images, multiples of
    32 or not, use the same weights.

    Parameters
    ----------
    channels, classes : int
        Of the image, and to tell apart.
    widths : sequence of int
        Channels of the six blocks; (64, 128, 256, 512, 512, 512) in the paper.
    attention : {"before_pooling", "after_pooling"}
        Whether L1 to L3 are taken before or after the pooling that follows them.
    compatibility : {"pc", "dp"}
        Parametrised, or the dot product; see `AttentionEstimator`.
    normalisation : {"softmax", "sigmoid"}
        Of the attention.
    aggregation : {"concat", "indep"}
        One linear layer on the three vectors together; or one a level, whose class probabilities are averaged. The
        logits are then the logarithms of these means.
    dropout : float
        Share of channels dropped after each block, and of the estimators' vectors, in training.

    Raises
    ------
    ValueError
        If a setting is not one of its choices.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: tuple[int, int, int, int, int, int] = (64, 128, 256, 512, 512, 512),
        attention: str = "before_pooling",
        compatibility: str = "pc",
        normalisation: str = "softmax",
        aggregation: str = "concat",
        dropout: float = 0.0,
    ):
        super().__init__()
        _check(attention=attention, compatibility=compatibility, normalisation=normalisation, aggregation=aggregation)
        self.normalisation, self.after_pooling = normalisation, attention == "after_pooling"
        # L3, L2, L1: the deepest first, as everywhere
        self.attention_reductions = (8, 4, 2) if self.after_pooling else (4, 2, 1)
        self.blocks = nn.ModuleList(map(convolution_stage, (channels, *widths[:4]), widths[:5], CONVOLUTIONS))
        self.last_block = nn.ModuleList(convolution_stage(width, widths[5], 1) for width in (widths[4], widths[5]))
        self.to_global = nn.Conv2d(widths[5], widths[5], 1)
        self.estimators = nn.ModuleList(
            AttentionEstimator(width, widths[5], compatibility, normalisation) for width in widths[4:1:-1]
        )
        # A module a place, so that each thins by its own mask (`galgaze.models.dropout_passes`).
        self.channel_dropout = nn.ModuleList(nn.Dropout2d(dropout) for _ in widths)
        self.vector_dropout = nn.ModuleList(nn.Dropout(dropout) for _ in self.estimators)
        concat = aggregation == "concat"
        inputs = [3 * widths[5]] if concat else [widths[5]] * 3
        self.classifiers = nn.ModuleList(nn.Linear(width, classes) for width in inputs)

    def examine(self, image: torch.Tensor) -> Examination:
        """Maps of L3, L2 and L1: at 1/4, 1/2 and the whole of the image's size, or half of each after pooling.

        Raises
        ------
        ConfigError
            If the image is smaller than 32 x 32 px.
        """
        if min(image.shape[-2:]) < SMALLEST_PX:
            height, width = image.shape[-2:]
            raise ConfigError(
                f"The network attention_vgg halves images five times and cannot read {width} x {height} px: set "
                f"preparation.size_px to {SMALLEST_PX} or more (and central_epochs so that half a side is), or choose "
                "another network."
            )
        local, g = self._features(image)
        vectors, maps = zip(
            *(estimator(features, g) for estimator, features in zip(self.estimators, local, strict=True)), strict=True
        )
        return Examination(self._classify(vectors), list(maps), torch.cat(vectors, dim=1))

    def _features(self, image: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """L3, L2, L1 and g (B, G)."""
        x, local = image, []
        for index, block in enumerate(self.blocks):
            x = self.channel_dropout[index](block(x))
            if index >= FIRST_LOCAL:
                pooled = F.max_pool2d(x, 2)
                local.append(pooled if self.after_pooling else x)  # (B, width, h, w)
                x = pooled
        for convolution in self.last_block:
            x = F.max_pool2d(convolution(x), 2)
        x = self.channel_dropout[-1](x)  # (B, G, H / 32, W / 32)
        return local[::-1], self.to_global(x).mean(dim=(2, 3))

    def _classify(self, vectors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        dropped = [dropout(vector) for dropout, vector in zip(self.vector_dropout, vectors, strict=True)]
        if len(self.classifiers) == 1:
            return self.classifiers[0](torch.cat(dropped, dim=1))
        return log_mean_probability(
            [classifier(vector) for classifier, vector in zip(self.classifiers, dropped, strict=True)]
        )


def _check(**settings: str) -> None:
    for name, value in settings.items():
        if value not in CHOICES[name]:
            raise ValueError(f"attention_vgg: {name} is {value!r}; expected {' or '.join(CHOICES[name])}")
