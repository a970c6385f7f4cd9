"""Settings of the networks, by architecture."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from galgaze.config.section import Section

Normalisation = Literal["range_norm", "std_mean_norm", "sigmoid", "softmax", "tanh"]


class AgcnnSettings(Section):
    """The attention-gated CNN of Bowles et al. 2021."""

    architecture: Literal["agcnn"] = Field("agcnn", description="the attention-gated CNN")
    widths: list[int] = Field(
        [6, 16, 32, 64], min_length=4, max_length=4, description="channels of the four convolution stages"
    )
    gates: int = Field(3, ge=0, le=3, description="attention gates, counted from the deepest")
    normalisation: Normalisation = Field("range_norm", description="of the attention, a map for itself")
    aggregation: Literal["ft", "concat", "mean", "deep_sup"] = Field(
        "ft", description="how the gates' vectors become logits"
    )
    gate_channels: int = Field(
        64, ge=1, description="channels in which a gate compares local and global features; fewer are quicker"
    )
    gate_pooling: Literal["mean", "sum"] = Field(
        "mean", description="mean: sum of a x over sum of a, trains faster; sum: as published"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="share of a gate's values dropped in training")
    faint_light: bool = Field(False, description="show the network each channel's asinh stretch beside it")
    flattened_px: int | None = Field(
        None,
        ge=32,
        description="without gates: side of the images when the classifier reads every pixel of the last stage, as "
        "published; null: their mean",
    )
    binning: int = Field(
        1,
        ge=1,
        le=4,
        description="side of the blocks of pixels averaged before the first convolution; 2: a quarter of the cost",
    )


# The larger the group, the fewer fields cost the same: at 150 px, kernel 5, ten times the AG-CNN's 0.24 GFLOP.
# No network of D16 is as cheap: this one costs 15 times as much, with kernel 3 it would be 6.
EQUIVARIANT_WIDTHS = {
    "trivial": [15, 32, 64, 96],
    "C4": [4, 8, 16, 24],
    "C8": [2, 4, 8, 12],
    "D4": [2, 4, 8, 12],
    "C16": [1, 2, 4, 6],
    "D8": [1, 2, 4, 6],
    "D16": [1, 1, 1, 2],
}


class EquivariantSettings(Section):
    """The AG-CNN with group-equivariant convolutions (Bowles et al. 2021b, arXiv:2111.04742)."""

    architecture: Literal["equivariant_agcnn"] = Field(description="the equivariant attention-gated CNN")
    group: Literal["trivial", "C4", "C8", "C16", "D4", "D8", "D16"] = Field(
        "D4", description="rotations by 360/N degrees; D: with reflections"
    )
    widths: list[int] = Field(
        min_length=4,
        max_length=4,
        description="fields of the four stages, each with a channel a group element; [6, 16, 32, 64] as published; "
        "left out: what costs at most ten times the AG-CNN's operations, by group",
    )
    kernel_size: Literal[3, 5, 7, 9] = Field(5, description="side of the convolutions, pixels")
    gates: int = Field(3, ge=0, le=3, description="attention gates, counted from the deepest")
    normalisation: Normalisation = Field("range_norm", description="of the attention")
    aggregation: Literal["ft", "concat", "mean", "deep_sup"] = Field("ft", description="from the gates to logits")
    gate_channels: int = Field(16, ge=1, description="channels in which a gate compares")
    gate_pooling: Literal["mean", "sum"] = Field("mean", description="mean, or sum as published")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of a gate's values dropped in training")
    faint_light: bool = Field(False, description="show the network each channel's asinh stretch beside it")

    @model_validator(mode="before")
    @classmethod
    def _widths_of_the_group(cls, values):
        if isinstance(values, dict) and values.get("widths") is None:
            return values | {"widths": EQUIVARIANT_WIDTHS.get(values.get("group", "D4"))}
        return values


class AttentionVggSettings(Section):
    """The attentional CNN of Misquith 2023, after Jetley et al. 2018 (arXiv:1804.02391)."""

    architecture: Literal["attention_vgg"] = Field(description="the attentional CNN")
    widths: list[int] = Field(
        [64, 128, 256, 512, 512, 512],
        min_length=6,
        max_length=6,
        description="channels of the six blocks; divide them for quicker networks",
    )
    attention: Literal["before_pooling", "after_pooling"] = Field(
        "before_pooling", description="where the attention estimators take their features"
    )
    compatibility: Literal["pc", "dp"] = Field(
        "pc",
        description="pc: parametrised, u . (l + g), as published, which under a softmax does not see g; dp: dot "
        "product l . g",
    )
    normalisation: Literal["softmax", "sigmoid"] = Field("softmax", description="of the attention")
    aggregation: Literal["concat", "indep"] = Field("concat", description="one classifier, or one a level, averaged")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of channels dropped after each block, and of features")


class BarNetworkSettings(Section):
    """A network for Galaxy Zoo's questions, whose bar logit saliency can differentiate (Bhambra et al. 2022)."""

    architecture: Literal["bar_network"] = Field(description="classes and Galaxy Zoo's questions, smooth activations")
    backbone: Literal["plain", "residual", "separable"] = Field(
        "plain", description="as VGG, as ResNet, as Xception, in small"
    )
    widths: list[int] = Field(
        [8, 24, 64, 128], min_length=4, max_length=4, description="channels of the four convolution stages"
    )
    gates: int = Field(3, ge=0, le=3, description="attention gates, counted from the deepest")
    normalisation: Normalisation = Field("range_norm", description="of the attention")
    gate_channels: int = Field(16, ge=1, description="channels in which a gate compares")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of features dropped in training")
    class_head: bool = Field(True, description="tell the task's classes as well as answer the questions")


NetworkSettings = Annotated[
    AgcnnSettings | EquivariantSettings | AttentionVggSettings | BarNetworkSettings,
    Field(discriminator="architecture"),
]
