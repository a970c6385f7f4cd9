"""Networks made of others, without parameters of their own: views of an image averaged, and several networks."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from galgaze.models.network import AttentionNetwork, Examination

BLANK = -1.0  # an empty pixel, in the range that networks read

# Views -> (angles in degrees, whether mirrored too); each also turned by 0, 90, 180 and 270 degrees.
VIEWS: dict[int, tuple[tuple[float, ...], tuple[bool, ...]]] = {
    1: ((), ()),
    4: ((0.0,), (False,)),
    8: ((0.0,), (False, True)),
    16: ((0.0, 45.0), (False, True)),
    32: ((0.0, 22.5, 45.0, 67.5), (False, True)),
}


def log_mean_probability(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logarithm of the mean of softmax(logits), so that its own softmax is that mean.

    Parameters
    ----------
    logits : sequence of torch.Tensor
        Each (..., K), of the same shape.

    Returns
    -------
    torch.Tensor
        (..., K)
    """
    stacked = torch.stack([values.log_softmax(dim=-1) for values in logits])  # (M, ..., K)
    return stacked.logsumexp(dim=0) - math.log(len(logits))


def rotate(image: torch.Tensor, angle_deg: float, outside: float = 0.0) -> torch.Tensor:
    """Turn images about their centre, bilinearly, at the same scale.

    Parameters
    ----------
    image : torch.Tensor
        (B, C, H, W)
    angle_deg : float
        From the columns' axis towards the rows': positive takes what is right of the centre to below it (a larger row).
    outside : float
        Value of what lies beyond the image's edge.

    Returns
    -------
    torch.Tensor
        (B, C, H, W)
    """
    height, width = image.shape[-2:]
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    wide = image if image.dtype == torch.float64 else image.float()  # half precision cannot tell pixels apart
    # From where each pixel comes, in halves of the image's sides.
    inverse = wide.new_tensor([[cos, sin * height / width, 0.0], [-sin * width / height, cos, 0.0]])
    grid = F.affine_grid(inverse.expand(len(image), 2, 3), list(image.shape), align_corners=False)
    turned = F.grid_sample(wide - outside, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (turned + outside).to(image.dtype)


class TurnedViews(AttentionNetwork):
    """A network that looks at an image several times, turned and mirrored, and averages what it says.

    Logits are averaged, not probabilities: it is the projection onto functions that do not change when the image is
    turned, which leaves an invariant network as it is; it keeps one view that saturates from outvoting the others'
    doubts, keeps temperature scaling what it was, and a saliency of the mean is the mean of the saliencies. Features
    and answers (logits too) are averaged likewise.

    Maps are turned back and averaged: the plain mean over the views that show the pixel (turned by 45 degrees the
    corners lie outside). Where a network's poolings drop an edge (150 px: 37 pixels of 4), its map lies up to half a
    dropped edge beside the image's centre, and the mean of all views is centred.

    Under the turns by 90 degrees (and, from 8 views on, reflections) of square images the logits are the same to
    rounding, and the maps turn with the image, whatever the network. Views pass one after the other: memory is that
    of one.

    Parameters
    ----------
    network : AttentionNetwork
        The network that looks.
    turns : {1, 4, 8, 16, 32}
        Views. 1: the image; 4: turned by 90 degrees; 8: mirrored too; 16: also turned by 45 degrees, 32: by 22.5,
        bilinearly at the same scale, blank outside.

    Raises
    ------
    ValueError
        If `turns` is another number.
    """

    def __init__(self, network: AttentionNetwork, turns: int):
        super().__init__()
        if turns not in VIEWS:
            raise ValueError(f"turns must be one of {', '.join(map(str, VIEWS))}, not {turns!r}")
        self.network, self.turns = network, turns
        self.attention_reductions, self.normalisation = network.attention_reductions, network.normalisation

    def padding_px(self, size_px: int) -> int:
        """As the network's."""
        return self.network.padding_px(size_px)

    def examine(self, image: torch.Tensor) -> Examination:
        """Mean over the views; maps as the network's own in number and size."""
        if self.turns == 1:
            return self.network.examine(image)
        angles, mirrors = VIEWS[self.turns]
        total, seen = None, None
        for angle in angles:
            views = self._sum_of_views(rotate(image, angle, BLANK) if angle else image, mirrors)
            shown = [torch.ones_like(a[:1]) for a in views.maps]  # (1, h, w)
            if angle:
                views.maps = [rotate(a[:, None], -angle)[:, 0] for a in views.maps]
                shown = [rotate(a[:, None], -angle)[:, 0] for a in shown]
            total = views if total is None else _added(total, views)
            seen = shown if seen is None else [one + other for one, other in zip(seen, shown, strict=True)]
        symmetries = 4 * len(mirrors)
        return Examination(
            total.logits / self.turns,
            [a / (symmetries * times) for a, times in zip(total.maps, seen, strict=True)],
            total.features / self.turns,
            None if total.answers is None else total.answers / self.turns,
        )

    def _sum_of_views(self, image: torch.Tensor, mirrors: tuple[bool, ...]) -> Examination:
        """Sums over the turns by 90 degrees, mirrored or not; maps turned back."""
        total = None
        for mirrored in mirrors:
            for quarters in range(4):
                view = torch.rot90(image, quarters, dims=(2, 3))
                said = self.network.examine(view.flip(-1) if mirrored else view)
                maps = [torch.rot90(a.flip(-1) if mirrored else a, -quarters, dims=(1, 2)) for a in said.maps]
                said = Examination(said.logits, maps, said.features, said.answers)
                total = said if total is None else _added(total, said)
        return total


class Ensemble(AttentionNetwork):
    """Several networks, whose class probabilities are averaged (Lakshminarayanan et al. 2017, arXiv:1612.01474).

    ``logits = ln(mean over members of softmax(member's logits))``, and so for each question's answers: their softmax
    is the mean. Members trained apart are separate opinions, so that their disagreement has to lower the confidence;
    a mean of logits would let the loudest win. Maps are the members' mean, features stand one after the other.
    Answers are None unless every member gives some.

    Parameters
    ----------
    networks : sequence of AttentionNetwork
        At least one.

    Raises
    ------
    ValueError
        If there are none, or if their gates differ in number, reduction or normalisation: then no mean of their maps
        exists. `examine` raises it if maps or logits differ in size all the same, `padding_px` if paddings do.
    """

    def __init__(self, networks: Sequence[AttentionNetwork]):
        super().__init__()
        if not networks:
            raise ValueError("an ensemble needs at least one network")
        self.networks = nn.ModuleList(networks)
        self.attention_reductions = _common("gates", [tuple(network.attention_reductions) for network in networks])
        if self.attention_reductions:
            self.normalisation = _common("normalisations", [network.normalisation for network in networks])

    def padding_px(self, size_px: int) -> int:
        """As each member's."""
        return _common("paddings", [network.padding_px(size_px) for network in self.networks])

    def examine_members(self, image: torch.Tensor) -> list[Examination]:
        """What each member says of images (B, C, H, W), one member after the other."""
        return [network.examine(image) for network in self.networks]

    def member_probabilities(self, image: torch.Tensor) -> torch.Tensor:
        """Image (B, C, H, W) to each member's class probabilities (M, B, K)."""
        return torch.stack([network(image).softmax(dim=1) for network in self.networks])

    def examine(self, image: torch.Tensor) -> Examination:
        """Mean over the members; features (B, sum of D)."""
        return combine(self.examine_members(image))


def combine(members: Sequence[Examination]) -> Examination:
    """What an ensemble says, from what its members say; for those who need both.

    Raises
    ------
    ValueError
        If numbers of classes, or maps, differ.
    """
    _common("numbers of classes", [member.logits.shape[1] for member in members])
    _common("maps' sizes", [[tuple(a.shape[1:]) for a in member.maps] for member in members])
    maps = [torch.stack(level).mean(dim=0) for level in zip(*(member.maps for member in members), strict=True)]
    answers = [member.answers for member in members]
    return Examination(
        log_mean_probability([member.logits for member in members]),
        maps,
        torch.cat([member.features for member in members], dim=1),
        None if any(one is None for one in answers) else _mean_answers(answers),
    )


def _mean_answers(answers: list[torch.Tensor]) -> torch.Tensor:
    """Logarithm of the mean of each question's fractions: (B, A) a member -> (B, A)."""
    from galgaze.models.questions import answer_slices

    questions = answer_slices().values()
    return torch.cat([log_mean_probability([one[:, part] for one in answers]) for part in questions], dim=1)


def _common(what: str, values: list):
    """The value that all members share."""
    for number, value in enumerate(values[1:], start=2):
        if value != values[0]:
            raise ValueError(
                f"the networks of an ensemble differ in their {what}: the first has {values[0]}, number {number} has "
                f"{value}. Combine networks that were trained with the same settings."
            )
    return values[0]


def _added(one: Examination, other: Examination) -> Examination:
    return Examination(
        one.logits + other.logits,
        [a + b for a, b in zip(one.maps, other.maps, strict=True)],
        one.features + other.features,
        None if one.answers is None else one.answers + other.answers,
    )
