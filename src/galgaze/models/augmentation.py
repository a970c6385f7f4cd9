"""What is done to training images at random, so that a network does not learn what means nothing.

Rotations, flips, zooms and shifts as in Bowles et al. 2021 (arXiv:2012.01248), brightness as in Bhambra et al. 2022
(arXiv:2110.08288), and noise. All chance comes from a generator on the CPU, so that every device sees the same images.
"""

import torch
from torch.nn import functional as F

from galgaze.config import Augmentation


def augment(image: torch.Tensor, generator: torch.Generator, settings: Augmentation, part: float = 1.0) -> torch.Tensor:
    """Turn, flip, zoom and shift each image, keep the central part of each side, change its brightness, add noise.

    What comes in from outside of an image is 0, as blank sky is. Brightness is multiplied, by 1 - b to 1 + b; noise
    is Gaussian, with its sigma in units of the whole range of pixel values; what then leaves 0..1 is cut off.

    Parameters
    ----------
    image : torch.Tensor, shape (B, C, H, W)
        In 0..1, on any device.
    generator : torch.Generator
        On the CPU. Without noise and brightness it is asked for the same numbers whatever the settings.
    settings : Augmentation
        What to do, and how far.
    part : float
        Of each side to keep, in the middle.

    Returns
    -------
    torch.Tensor, shape (B, C, part H, part W)
        In 0..1.
    """
    count, _, height, width = image.shape
    chance = torch.rand(5, count, generator=generator)
    size = (round(height * part), round(width * part))
    if part != 1 or settings.rotate or settings.flip or settings.zoom or settings.shift_px:
        image = _resample(image, _transformation(chance, settings, part, (height, width)), size)
    if settings.brightness:
        factor = 1 + settings.brightness * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
        image = image * factor.to(image.device)
    if settings.noise:
        image = image + settings.noise * torch.randn(image.shape, generator=generator).to(image.device)
    return image.clamp(0, 1) if settings.brightness or settings.noise else image


def _transformation(chance: torch.Tensor, settings: Augmentation, part: float, size: tuple[int, int]) -> torch.Tensor:
    """From a place in the new image to one in the old, (B, 2, 3), in units of half the old image's side."""
    angle, zoom, shift_x, shift_y, flip = chance
    angle = 2 * torch.pi * angle * settings.rotate
    zoom = 1 / (1 - settings.zoom + 2 * settings.zoom * zoom)
    mirror = torch.where((flip < 0.5) & settings.flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * zoom * part, torch.sin(angle) * zoom * part
    shift_x, shift_y = (
        (shift - 0.5) * (4 * settings.shift_px) / side for shift, side in ((shift_x, size[1]), (shift_y, size[0]))
    )
    return torch.stack(
        [
            torch.stack([cosine * mirror, -sine, shift_x], dim=1),
            torch.stack([sine * mirror, cosine, shift_y], dim=1),
        ],
        dim=1,
    )


def _resample(image: torch.Tensor, transformation: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The images through their transformations, (B, C, *size)."""
    grid = F.affine_grid(transformation.to(image.device), [*image.shape[:2], *size], align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def central_part(image: torch.Tensor, part: float) -> torch.Tensor:
    """The central part of each side: (N, C, H, W) -> (N, C, part H, part W)."""
    height, width = (round(side * part) for side in image.shape[2:])
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[:, :, top : top + height, left : left + width]
