import pytest
import torch
from torch.nn import functional as F

from galgaze.config import Augmentation
from galgaze.models.augmentation import augment, central_part

DEFAULT = Augmentation()
OFF = {"rotate": False, "flip": False, "zoom": 0.0, "shift_px": 0.0}


def chance(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def off(**changes) -> Augmentation:
    return Augmentation(**(OFF | changes))


def as_before(image: torch.Tensor, generator: torch.Generator, part: float) -> torch.Tensor:
    """The augmentation of TRAINING_VERSION 1, written out: what the defaults must go on doing."""
    count, channels, height, width = image.shape
    angle, zoom, shift_x, shift_y, flip = torch.rand(5, count, generator=generator)
    angle, zoom = 2 * torch.pi * angle, 1 / (0.9 + 0.2 * zoom)
    mirror = torch.where(flip < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * zoom * part, torch.sin(angle) * zoom * part
    rows = [
        torch.stack([cosine * mirror, -sine, (shift_x - 0.5) * 8 / width], dim=1),
        torch.stack([sine * mirror, cosine, (shift_y - 0.5) * 8 / height], dim=1),
    ]
    size = [count, channels, round(height * part), round(width * part)]
    grid = F.affine_grid(torch.stack(rows, dim=1), size, align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@pytest.mark.parametrize("part", [1.0, 0.5])
def test_the_defaults_do_what_was_always_done(part):
    image = torch.rand(6, 3, 24, 32, generator=chance())
    assert torch.equal(augment(image, chance(4), DEFAULT, part), as_before(image, chance(4), part))


def test_with_everything_off_nothing_changes():
    image = torch.rand(5, 2, 17, 20)
    assert torch.equal(augment(image, chance(), off()), image)
    halved = augment(image[..., :16, :20], chance(), off(), 0.5)
    torch.testing.assert_close(halved, central_part(image[..., :16, :20], 0.5), atol=1e-5, rtol=0)


def test_the_source_stays_in_the_middle_and_blank_sky_blank():
    image = torch.zeros(200, 1, 33, 33)
    image[:, :, 16, 16] = 1
    turned = augment(image, chance(), DEFAULT)
    assert turned.shape == image.shape
    light = turned.sum(dim=(1, 2, 3))
    rows = (turned.sum(dim=3)[:, 0] * torch.arange(33)).sum(1) / light
    assert (rows - 16).abs().max() < 2.5  # shifts of up to 2 px, zoomed
    assert rows.std() > 0.5
    assert augment(torch.zeros(4, 1, 33, 33), chance(), DEFAULT).abs().max() == 0


def angles(image: torch.Tensor) -> torch.Tensor:
    """Towards where the light lies from the middle, (B,) radians."""
    middle = (image.shape[-1] - 1) / 2
    rows, columns = torch.meshgrid(*[torch.arange(image.shape[-1]) - middle] * 2, indexing="ij")
    return torch.atan2((image[:, 0] * rows).sum((1, 2)), (image[:, 0] * columns).sum((1, 2)))


def spokes(count: int) -> torch.Tensor:
    image = torch.zeros(count, 1, 65, 65)
    image[:, :, 32, 32:62] = 1
    return image


def test_rotation_covers_all_angles():
    counts = torch.histc(angles(augment(spokes(400), chance(2), DEFAULT)), bins=8, min=-torch.pi, max=torch.pi)
    assert counts.min() > 25


def test_a_flip_alone_mirrors_one_half_exactly():
    image = torch.rand(200, 1, 16, 16, generator=chance())
    flipped = augment(image, chance(3), off(flip=True))
    is_mirror = (flipped - image.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-5
    is_same = (flipped - image).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert (is_mirror ^ is_same).all()
    assert 70 < is_mirror.sum() < 130


def test_a_zoom_alone_changes_the_size_within_its_limits():
    image = torch.zeros(300, 1, 64, 64)
    image[:, :, 16:48, 16:48] = 1
    area = augment(image, chance(), off(zoom=0.3)).sum(dim=(1, 2, 3)) / 32**2
    assert 0.7**2 - 0.02 < area.min() < 0.6
    assert 1.5 < area.max() < 1.3**2 + 0.02


def test_a_shift_alone_moves_by_up_to_so_many_pixels():
    image = torch.zeros(300, 1, 41, 41)
    image[:, :, 20, 20] = 1
    moved = augment(image, chance(), off(shift_px=5.0))[:, 0]
    columns = (moved.sum(1) * torch.arange(41)).sum(1) - 20
    assert 4.5 < columns.abs().max() <= 5.0
    torch.testing.assert_close(moved.sum((1, 2)), torch.ones(300), atol=1e-4, rtol=0)


def test_noise_has_its_sigma_and_stays_in_range():
    image = torch.full((8, 1, 64, 64), 0.5)
    noisy = augment(image, chance(), off(noise=0.05))
    assert float((noisy - image).std()) == pytest.approx(0.05, rel=0.02)
    assert float((noisy - image).mean()) == pytest.approx(0, abs=0.002)
    faint = augment(torch.zeros(2, 1, 32, 32), chance(), off(noise=0.5))
    assert faint.min() == 0
    assert faint.max() <= 1


def test_brightness_is_one_factor_an_image():
    image = torch.full((400, 3, 4, 4), 0.5)
    factor = augment(image, chance(), off(brightness=0.3)) / image
    assert (factor == factor[:, :1, :1, :1]).all()
    assert 0.7 <= factor.min() < 0.73
    assert 1.27 < factor.max() <= 1.3
    assert augment(torch.ones(50, 1, 2, 2), chance(), off(brightness=0.3)).max() == 1


def test_what_is_off_leaves_the_chance_of_the_rest_alone():
    image = spokes(20)
    turned = augment(image, chance(5), off(rotate=True))
    shifted = augment(image, chance(5), off(rotate=True, shift_px=1.0))
    difference = angles(turned) - angles(shifted)
    assert (torch.remainder(difference + torch.pi, 2 * torch.pi) - torch.pi).abs().max() < 0.15


def test_same_seed_same_images():
    image = torch.rand(4, 1, 16, 16)
    settings = Augmentation(noise=0.1, brightness=0.2)
    assert torch.equal(augment(image, chance(9), settings), augment(image, chance(9), settings))
    assert not torch.equal(augment(image, chance(9), settings), augment(image, chance(8), settings))


def test_central_part():
    image = torch.arange(64).reshape(1, 1, 8, 8)
    assert central_part(image, 0.5).tolist() == image[:, :, 2:6, 2:6].tolist()
