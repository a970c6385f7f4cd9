"""What the attention gates do while a network learns: a few numbers an epoch, and a warning where one has collapsed.

In Misquith 2023's network the first estimator went blank after epoch 67 and the third looked at the centre alone, while
the accuracy said nothing of it.
"""

from dataclasses import dataclass

import torch

# A map whose pixels differ by less than a hundredth of their mean gathers the plain mean of the features: the gate does
# nothing. Attention below a millionth everywhere (softmax gives 1 / pixels, 1e-5 or more) gathers nothing.
FLAT_CONTRAST = 0.01
NO_ATTENTION = 1e-6
MOST = 0.5  # of the images
# Range normalisation gives even a dead gate contrast: one pixel at 0, and the others at 0.9 to 1. So a map that covers
# nearly all of the image and is the same for all images counts as blank too. It covers 1 / (1 + (scatter / mean)^2):
# 0.95 is a scatter of less than a quarter of the mean. Above 0.98, a seventh, any maps' cosine is as high: then nothing
# is told by what little they follow.
WHOLE_IMAGE = 0.95
# An even disc around the centre has a mean distance of 2/3 of its radius: 0.25 is one over a ninth of the image.
# Compact sources alone give that too, but then the maps follow their sizes and shapes: the scatter between images is
# tenths of the distance, and the maps differ (our optical network's deepest gate: distance 0.17, scatter 0.05, cosine
# 0.70). A gate that has learnt a place, not a thing, gives the same map for every image.
CENTRAL_DISTANCE = 0.25
SAME_DISTANCE = 0.05  # scatter between images over the mean distance
SAME_MAPS = 0.98  # mean cosine between the maps of two images


@dataclass(frozen=True)
class GateStatistics:
    """What one gate's maps are like: means over images whose maps are not blank; None where all are.

    Attributes
    ----------
    entropy : float or None
        ``-sum p ln p / ln N`` of the map p over its sum, N pixels: 0 all in one pixel, 1 spread evenly.
    area_share : float or None
        ``(sum a)^2 / (N sum a^2)``: the part of the map that the attention covers.
    centre_distance : float or None
        ``sum p r``, r the distance from the image's centre in units of half its side; 0.765 for an even map.
    distance_scatter : float or None
        Standard deviation of that over the images.
    similarity : float or None
        Mean cosine between the maps of two images; 1 if all are the same.
    blank_share : float
        Part of the images whose map is flat, zero or not finite.
    """

    entropy: float | None
    area_share: float | None
    centre_distance: float | None
    distance_scatter: float | None
    similarity: float | None
    blank_share: float


def gate_record(maps: list[torch.Tensor]) -> list[GateStatistics]:
    """Describe the maps of all gates.

    Parameters
    ----------
    maps : list of torch.Tensor
        (B, h, w) a gate, of the same B >= 1 images, counted from zero (`galgaze.models.attention.from_zero`).

    Returns
    -------
    list of GateStatistics
        One a gate, in their order.
    """
    return [_statistics(gate.detach().double().cpu()) for gate in maps]


def _statistics(a: torch.Tensor) -> GateStatistics:
    pixels = a.flatten(1)  # (B, N)
    mean, scatter = pixels.mean(dim=1), pixels.std(dim=1, correction=0)
    # written so that NaN counts as blank
    seen = (pixels.amax(dim=1) > NO_ATTENTION) & (scatter > FLAT_CONTRAST * mean) & torch.isfinite(mean)
    blank_share = 1 - float(seen.double().mean())
    if not seen.any():
        return GateStatistics(None, None, None, None, None, blank_share)
    pixels = pixels[seen]
    p = pixels / pixels.sum(dim=1, keepdim=True)
    count = pixels.shape[1]
    entropy = torch.special.entr(p).sum(dim=1) / torch.log(torch.tensor(float(count), dtype=p.dtype))
    distance = p @ _distance_from_centre(*a.shape[1:]).flatten()
    return GateStatistics(
        float(entropy.mean()),
        float((1 / (count * (p**2).sum(dim=1))).mean()),
        float(distance.mean()),
        float(distance.std(correction=0)),
        _similarity(p),
        blank_share,
    )


def _distance_from_centre(height: int, width: int) -> torch.Tensor:
    """Of each pixel (h, w), in units of half the image's side."""
    row, column = ((torch.arange(side, dtype=torch.double) + 0.5) / side * 2 - 1 for side in (height, width))
    return torch.hypot(row[:, None], column[None, :])


def _similarity(p: torch.Tensor) -> float | None:
    """Mean cosine over the pairs of rows of p (B, N); None for a single row."""
    count = len(p)
    if count < 2:
        return None
    unit = p / p.norm(dim=1, keepdim=True)
    return float((unit.sum(dim=0).square().sum() - count) / (count * (count - 1)))


def collapse_warnings(record: list[GateStatistics]) -> list[str]:
    """What is wrong with the gates, a sentence a collapsed one; the same gate gives the same words at every epoch.

    Blank: the map is flat (contrast under 1 %), zero or not finite for more than half of the images; or it covers more
    than 95 % of the image and is the same for all images (mean cosine above 0.98). Centre only: the mean distance from
    the centre is under a quarter of half the side *and* the maps of different images are the same (scatter of the
    distance under 5 % of it, mean cosine above 0.98). Maps of less than 6 x 6 pixels have no such centre: their four
    middle pixels are too far out.

    Parameters
    ----------
    record : list of GateStatistics
        Of one epoch.

    Returns
    -------
    list of str
        None where nothing is wrong.
    """
    return [f"gate {number} {fault}" for number, gate in enumerate(record, start=1) if (fault := _fault(gate))]


def _fault(gate: GateStatistics) -> str | None:
    same = gate.similarity is not None and gate.similarity > SAME_MAPS
    if gate.blank_share > MOST or (same and gate.area_share > WHOLE_IMAGE):
        return "has gone blank: for most images its map is flat or zero, so it tells nothing"
    if (
        same
        and gate.centre_distance < CENTRAL_DISTANCE
        and gate.distance_scatter < SAME_DISTANCE * gate.centre_distance
    ):
        return "looks only at the centre: its map is the same small patch there for every image, whatever they show"
    return None
