"""How unlike the images that a network was trained on an image is: a score from 0 to 1.

A network names a class for anything: for artefacts, noise, another survey's images. What its last layers read shows
them: there each class is a cloud, and the distance from the nearest cloud's centre, in units of the clouds' width
(Mahalanobis), says how far off an image is (Lee, Lee, Lee & Shin 2018, arXiv:1807.03888). A network that has learnt to
tell classes apart is blind to much that does not matter for them (trails, a missing half, a single hot pixel), so some
plain numbers of the image itself stand beside its features, and count as much.

The tensors that this needs are kept in the model's file (`galgaze.models.model_file.load_extras`).
"""

import torch
from torch.nn import functional as F

from galgaze.models.network import AttentionNetwork, Examination
from galgaze.models.runtime import to_network_input

BATCH = 64
MOST_IMAGES = 4000  # to fit on, taken evenly: more would cost time, and change nothing
QUANTILES = 201
SCALES = 4  # of contrast: 1, 2, 4 and 8 pixels
IMAGE_FEATURES = 3 + SCALES  # a channel
STEP = 1 / 255  # of stored images
LEAST_WIDTH = 0.05  # over the median feature's: features that hardly varied in training do not rule
ROUNDING = 1e-4  # features of order 1 in float32: what varies by less does not vary
LEAST_SHRINKAGE = 0.01  # so that collinear features have an inverse


def novelty_features(examination: Examination, network_input: torch.Tensor) -> torch.Tensor:
    """What images are compared by: the network's features, then `IMAGE_FEATURES` a channel of the images themselves.

    Of a channel in 0..1: ln mean, ln mean absolute gradient, ln p / (1 - p) for the share p of pixels above 0, and the
    ln rms of what means over 2 x 2 pixels blur, on four scales. The network's features f are taken as asinh f: sums
    over an image have long tails.

    Parameters
    ----------
    examination : Examination
        Of the images.
    network_input : torch.Tensor
        (B, C, H, W) in -1..1.

    Returns
    -------
    torch.Tensor
        (B, D + 7 C) float64.
    """
    return torch.cat([torch.asinh(examination.features.double()), _image_features(network_input)], dim=1)


def _image_features(network_input: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) to (B, 7 C); offsets keep logarithms finite, at what one pixel of one step would give."""
    light = (network_input.double() + 1) / 2
    pixel = 1 / (light.shape[2] * light.shape[3])
    mean = light.mean(dim=(2, 3))
    gradient = sum(light.diff(dim=side).abs().mean(dim=(2, 3)) for side in (2, 3))
    share = (light > STEP / 2).double().mean(dim=(2, 3))
    values = [
        (mean + STEP * pixel).log(),
        (gradient + STEP * pixel).log(),
        ((share + pixel) / (1 - share + pixel)).log(),
    ]
    for _ in range(SCALES):
        coarse = F.avg_pool2d(light, 2, ceil_mode=True)
        blurred = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        detail = light - blurred[:, :, : light.shape[2], : light.shape[3]]
        values.append((detail.square().mean(dim=(2, 3)).sqrt() + STEP * pixel**0.5).log())
        light = coarse
    return torch.cat(values, dim=1)


def fit_novelty(
    network: AttentionNetwork, image: torch.Tensor, label: torch.Tensor, validation_image: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What `novelty` needs to know of the images that a network was trained on.

    Squared distances are ``(x - m_k)^T P (x - m_k)``, the least over the classes k. P is the inverse of the covariance
    within the classes, for the network's features and for those of the images apart, each over its number of features:
    both parts weigh the same. Correlations are shrunk towards 0 by as much as their errors ask for (Schaefer & Strimmer
    2005, Stat. Appl. Genet. Mol. Biol. 4, 32), so that few images of many features will do.

    Parameters
    ----------
    network : AttentionNetwork
        Trained; it is left in evaluation mode.
    image : torch.Tensor
        (N, C, H, W) uint8, trained on.
    label : torch.Tensor
        (N,) int64: class; those without (-1) count as one class more.
    validation_image : torch.Tensor
        (M, C, H, W) uint8, not trained on.

    Returns
    -------
    dict of str to torch.Tensor
        ``feature_mean`` (K, D') of the K classes that occur, ``feature_precision`` (D', D'), float32, and
        ``feature_distance`` (Q,) float64: min(M, 201) quantiles, ascending, of the distances of validation images.

    Raises
    ------
    ValueError
        If there are no images, or not a label for each.
    """
    if len(label) != len(image) or not len(image) or not len(validation_image):
        msg = f"{len(image)} images, {len(label)} labels, {len(validation_image)} images to validate: some are missing"
        raise ValueError(msg)
    chosen = _evenly(len(image))
    features = _features_of(network, image[chosen])
    _, group = label[chosen].cpu().unique(return_inverse=True)
    mean = torch.stack([features[group == k].mean(dim=0) for k in range(int(group.max()) + 1)])
    of_network = features.shape[1] - IMAGE_FEATURES * image.shape[1]
    parts = (features - mean[group]).split([of_network, features.shape[1] - of_network], dim=1)
    freedom = max(1, len(features) - len(mean))
    precision = torch.block_diag(*(_precision(part, freedom) / part.shape[1] for part in parts))
    extras = {"feature_mean": mean.float(), "feature_precision": precision.float()}
    features = _features_of(network, validation_image[_evenly(len(validation_image))])
    distance = torch.cat([_distance(part, extras) for part in features.split(BATCH)])  # (B, K, D') in memory at once
    levels = torch.linspace(0, 1, min(len(distance), QUANTILES), dtype=torch.float64)
    return extras | {"feature_distance": distance.quantile(levels)}


def novelty(features: torch.Tensor, extras: dict[str, torch.Tensor]) -> torch.Tensor:
    """The share of validation images that are nearer to a class than each image: 0 familiar, near 1 unlike all of them.

    Between the Q quantiles d_1..d_Q of the validation images' distances the score rises from 1 / (Q + 1) to
    Q / (Q + 1) linearly from one to the next, and from 0 below d_1. Beyond d_Q it is ``1 - d_Q / d / (Q + 1)``: what is
    farther off has the higher score still.

    Parameters
    ----------
    features : torch.Tensor
        (B, D') of `novelty_features`.
    extras : dict of str to torch.Tensor
        Of `fit_novelty`, by way of the model's file.

    Returns
    -------
    torch.Tensor
        (B,) float64, on the CPU; NaN where a feature is.
    """
    distance, known = _distance(features, extras), extras["feature_distance"].double()
    count = len(known)
    knots = torch.cat([known.new_zeros(1), known])
    above = torch.searchsorted(knots, distance).clamp(1, count)  # the knot that ends the image's interval
    width = (knots[above] - knots[above - 1]).clamp_min(1e-300)
    within = (above - 1 + ((distance - knots[above - 1]) / width).clamp(0, 1)) / (count + 1)
    beyond = 1 - known[-1] / distance / (count + 1)
    return torch.where(distance > known[-1], beyond, within)


def _distance(features: torch.Tensor, extras: dict[str, torch.Tensor]) -> torch.Tensor:
    """From the nearest class's mean, (B,) float64; 1 is usual."""
    precision = extras["feature_precision"].double()
    offset = features.cpu().double()[:, None] - extras["feature_mean"].double()  # (B, K, D')
    squared = ((offset @ precision) * offset).sum(dim=2)
    return squared.amin(dim=1).clamp_min(0).sqrt()


def _precision(residual: torch.Tensor, freedom: int) -> torch.Tensor:
    """Inverse covariance (D, D) of residuals (N, D), of shrunk correlations; features may be constant or collinear."""
    width = (residual.square().sum(dim=0) / freedom).sqrt()
    width = width.clamp_min(max(ROUNDING, LEAST_WIDTH * float(width.median())))
    scaled, count = residual / width, len(residual)
    correlation = scaled.T @ scaled / freedom
    squares = scaled.square()
    variance = (squares.T @ squares / count - (scaled.T @ scaled / count).square()) / count  # of each correlation
    apart = ~torch.eye(len(width), dtype=torch.bool)
    found = correlation[apart].square().sum()
    shrinkage = float((variance[apart].sum() / found).clamp(LEAST_SHRINKAGE, 1)) if found > 0 else 1.0
    shrunk = ((1 - shrinkage) * correlation).fill_diagonal_(1)  # also where the width was raised
    return torch.linalg.inv(shrunk) / torch.outer(width, width)


def _features_of(network: AttentionNetwork, image: torch.Tensor) -> torch.Tensor:
    """Features (N, D') of stored images, on the CPU."""
    network.eval()
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    parts = []
    with torch.inference_mode():
        for part in image.split(BATCH):
            batch = to_network_input(part.to(device)).contiguous(memory_format=torch.channels_last)
            parts.append(novelty_features(network.examine(batch), batch).cpu())
    return torch.cat(parts)


def _evenly(count: int) -> torch.Tensor:
    return torch.linspace(0, count - 1, min(count, MOST_IMAGES), dtype=torch.float64).round().long()
