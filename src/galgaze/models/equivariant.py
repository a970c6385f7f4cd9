"""The AG-CNN with group-equivariant convolutions: turn the image, and the logits stay while the maps turn with it.

Bowles, Bromley, Allen & Scaife 2021 (arXiv:2111.04742). The stages, gates and aggregations of `galgaze.models.agcnn`;
convolutions are those of `galgaze.models.groups`, and gates and classifier see the maximum over the group. Exact for
turns by 90 degrees and reflections (of the D groups), approximate for 45 and 22.5 degrees (groups of 8 and 16 turns).

What keeps it exact: the image is blanked outside of its inscribed disc and padded alike on all sides, so that every
pooling treats left and right alike. Even sides grow to a multiple of 8 (150 to 152, 76, 38, 19). Odd ones grow to one
less (75 to 79, 40, 20, 10), and where a side is odd the pooling windows are 3 px wide and overlap.

`export` gives the same function with plain convolutions.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from galgaze.models.agcnn import CONVOLUTIONS, with_faint_light
from galgaze.models.gated import GatedNetwork
from galgaze.models.groups import GROUPS, FieldBatchNorm, GroupConvolution, pool_group
from galgaze.models.network import Examination

POOLED_PX = 8  # three poolings halve the sides three times


def inside_disc(height: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Which pixels have their centre in the disc inscribed in an image. (H, W) bool."""
    row, column = (torch.arange(side, device=device) - (side - 1) / 2 for side in (height, width))
    return torch.hypot(row[:, None], column) <= min(height, width) / 2


def halve(x: torch.Tensor) -> torch.Tensor:
    """Maximum over 2 px windows, over 3 px overlapping ones along odd sides. (B, C, H, W) -> (B, C, H / 2, W / 2).

    Odd sides are rounded up. Either way a mirrored image gives a mirrored result.
    """
    odd = [side % 2 for side in x.shape[2:]]
    return F.max_pool2d(x, [2 + side for side in odd], stride=2, padding=odd)


class _SymmetricAGCNN(GatedNetwork):
    """What the equivariant network and its plain export share: everything but how they convolve and normalise.

    Parameters
    ----------
    layer : callable
        From in-fields, out-fields and whether it reads the image to its convolution and batch normalisation.
    order : int
        Elements of the group.
    others
        As in `EquivariantAGCNN`.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        layer: Callable[[int, int, bool], tuple[nn.Module, nn.Module]],
        order: int,
        widths: Sequence[int],
        gates: int,
        normalisation: str,
        aggregation: str,
        gate_channels: int,
        gate_pooling: str,
        dropout: float,
        faint_light: bool,
    ):
        super().__init__()
        self.order, self.faint_light = order, faint_light
        fields = channels * (2 if faint_light else 1)
        self.stages = nn.ModuleList()
        for width, convolutions in zip(widths, CONVOLUTIONS, strict=True):
            layers: list[nn.Module] = []
            for number in range(convolutions):
                layers += [*layer(fields, width, not self.stages and number == 0), nn.ReLU()]
                fields = width
            self.stages.append(nn.Sequential(*layers))
        self.make_gates(
            widths, classes, gates, normalisation, aggregation, gate_channels, gate_pooling, dropout,
            flat_values=widths[3],
        )  # fmt: skip

    def padding_px(self, size_px: int) -> int:
        """Pixels of blank sky that the network adds on each side; 0 to 3."""
        return -size_px % POOLED_PX // 2

    def examine(self, image: torch.Tensor) -> Examination:
        """Maps are at a quarter, half and the whole of the padded image's size; features do not turn."""
        x = self._light(image)
        features = []
        for stage in self.stages[:3]:
            x = stage(x)
            features.append(x)  # (B, N width, H / 2^i, W / 2^i)
            x = halve(x)
        g = pool_group(self.stages[3](x), self.order)  # (B, width, H / 8, W / 8)
        local = [pool_group(x, self.order) for x in features[::-1][: len(self.attention)]]
        return self.judge(local, g, lambda g: g.mean(dim=(2, 3)))

    def _light(self, image: torch.Tensor) -> torch.Tensor:
        """From -1..1 to 0..2, so that the convolutions' zeros are blank sky too; disc, padding. (B, C, H, W)."""
        light = (with_faint_light(image) if self.faint_light else image) + 1
        height, width = image.shape[2:]
        x, y = self.padding_px(width), self.padding_px(height)
        return F.pad(light * inside_disc(height, width, image.device), (x, x, y, y))


class EquivariantAGCNN(_SymmetricAGCNN):
    """The attention-gated CNN that commutes with turns and reflections.

    Parameters
    ----------
    channels, classes : int
        Of the image, and to tell apart.
    group : str
        A key of `galgaze.models.groups.GROUPS`: C: turns by 360/N degrees; D: with reflections.
    widths : sequence of int
        Fields of the four stages, each with a channel a group element; (6, 16, 32, 64) in the paper.
    kernel_size : int
        Side of the convolutions in pixels, odd; 5 in the paper (3, 7 and 9 too).
    gates : int
        0 to 3, counted from the deepest: one is on stage 3, two on stages 3 and 2.
    normalisation : str
        Of the attention, a key of `galgaze.models.attention.NORMALISATIONS`.
    aggregation : {"ft", "concat", "mean", "deep_sup"}
        From the gates' vectors to logits, see `galgaze.models.attention.Aggregation`. Not used without gates.
    gate_channels : int
        To which a gate brings local and global features before it compares them.
    gate_pooling : {"mean", "sum"}
        How a gate gathers its features: sum of a x over sum of a, or sum of a x as in the paper.
    dropout : float
        Share of a gate's values dropped in training.
    faint_light : bool
        Show the network each channel's asinh stretch beside it.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        group: str = "D4",
        widths: Sequence[int] = (2, 4, 8, 12),
        kernel_size: int = 5,
        gates: int = 3,
        normalisation: str = "range_norm",
        aggregation: str = "ft",
        gate_channels: int = 16,
        gate_pooling: str = "mean",
        dropout: float = 0.2,
        faint_light: bool = False,
    ):
        symmetry = GROUPS[group]

        def layer(in_fields: int, out_fields: int, lifting: bool) -> tuple[nn.Module, nn.Module]:
            convolution = GroupConvolution(in_fields, out_fields, kernel_size, symmetry, lifting)
            return convolution, FieldBatchNorm(out_fields, symmetry)

        super().__init__(
            channels, classes, layer, symmetry.order, widths, gates, normalisation, aggregation, gate_channels,
            gate_pooling, dropout, faint_light,
        )  # fmt: skip
        self.channels, self.classes = channels, classes
        self.settings = {
            "group": group, "widths": list(widths), "kernel_size": kernel_size, "gates": gates,
            "normalisation": normalisation, "aggregation": aggregation, "gate_channels": gate_channels,
            "gate_pooling": gate_pooling, "dropout": dropout, "faint_light": faint_light,
        }  # fmt: skip


class ExportedAGCNN(_SymmetricAGCNN):
    """What `export` makes of an `EquivariantAGCNN`: plain convolutions with its filters, turned by each element.

    Trained further, it would lose its symmetry.

    Parameters
    ----------
    order : int
        Elements of the group; the stages have `order` times `widths` channels.
    others
        As in `EquivariantAGCNN`.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        order: int,
        widths: Sequence[int] = (2, 4, 8, 12),
        kernel_size: int = 5,
        gates: int = 3,
        normalisation: str = "range_norm",
        aggregation: str = "ft",
        gate_channels: int = 16,
        gate_pooling: str = "mean",
        dropout: float = 0.2,
        faint_light: bool = False,
    ):
        def layer(in_fields: int, out_fields: int, lifting: bool) -> tuple[nn.Module, nn.Module]:
            inputs, outputs = in_fields * (1 if lifting else order), out_fields * order
            convolution = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)
            return convolution, nn.BatchNorm2d(outputs)

        super().__init__(
            channels, classes, layer, order, widths, gates, normalisation, aggregation, gate_channels, gate_pooling,
            dropout, faint_light,
        )  # fmt: skip


def export_architecture(architecture: dict) -> dict:
    """A card's ``architecture`` of the exported network, from that of the equivariant one."""
    settings = {key: value for key, value in architecture.items() if key not in ("name", "group")}
    order = GROUPS[architecture.get("group", "D4")].order
    return {"name": "exported_agcnn", "order": order} | settings


def export(network: EquivariantAGCNN) -> ExportedAGCNN:
    """The same function with plain convolutions and batch normalisations, for prediction.

    Parameters
    ----------
    network : EquivariantAGCNN
        It stays as it is.

    Returns
    -------
    ExportedAGCNN
        In the same mode, on the same device.
    """
    settings = export_architecture(network.settings)
    del settings["name"]
    exported = ExportedAGCNN(network.channels, network.classes, **settings)
    state = {}
    for name, tensor in network.state_dict().items():
        module = network.get_submodule(name.rpartition(".")[0])
        if isinstance(module, GroupConvolution):
            state[name.replace("coefficients", "weight")] = module.filters().detach()
        elif isinstance(module, FieldBatchNorm) and tensor.ndim:
            state[name] = tensor.repeat(network.order)
        else:
            state[name] = tensor
    exported.load_state_dict(state)
    return exported.to(next(network.parameters()).device).train(network.training)
