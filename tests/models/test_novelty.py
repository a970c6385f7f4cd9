"""The score of unlike images: its formula, what it must not depend on, and that it finds what is unlike."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from galgaze.models.agcnn import AGCNN
from galgaze.models.network import AttentionNetwork, Examination
from galgaze.models.novelty import IMAGE_FEATURES, _precision, fit_novelty, novelty, novelty_features
from galgaze.models.runtime import to_network_input


class Patches(AttentionNetwork):
    """In the place of a network: its features are the mean light of the image's four quarters, and a dead unit."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)

    def examine(self, image):
        quarters = self.pool((image + 1) / 2).flatten(1)
        return Examination(quarters[:, :2], [], torch.cat([quarters, torch.zeros_like(quarters[:, :1])], dim=1))


def spots(count: int, seed: int = 0, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with a faint spot to the left (0) or the right (1) on blank sky."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count)
    rows, columns = np.indices((32, 32))
    centre = np.where(label, 22, 10) + rng.normal(0, 1, count)
    width, peak = rng.uniform(2, 3, count), rng.uniform(150, 255, count)
    away = (rows - 16) ** 2 + (columns - centre[:, None, None]) ** 2
    image = peak[:, None, None] * np.exp(-away / (2 * width[:, None, None] ** 2))
    return torch.from_numpy(np.repeat(image.astype(np.uint8)[:, None], channels, axis=1)), torch.from_numpy(label)


def score(network, image: torch.Tensor, extras: dict) -> torch.Tensor:
    batch = to_network_input(image)
    with torch.inference_mode():
        return novelty(novelty_features(network.eval().examine(batch), batch), extras)


@pytest.fixture(scope="module")
def fitted():
    network = Patches()
    return network, fit_novelty(network, *spots(400), spots(300, seed=1)[0])


# ---------------------------------------------------------------------------------------- the formula


def extras_of(distances) -> dict[str, torch.Tensor]:
    """One class at 0 in two dimensions, the first twice as wide."""
    return {
        "feature_mean": torch.zeros(1, 2),
        "feature_precision": torch.diag(torch.tensor([0.25, 1.0])),
        "feature_distance": torch.tensor(distances, dtype=torch.float64),
    }


def test_the_score_is_the_share_of_nearer_validation_images_and_goes_on_rising_beyond_them():
    extras = extras_of([1.0, 2.0, 4.0])
    features = torch.tensor([[0.0, 0], [0, 0.5], [2, 0], [0, 1.5], [4, 0], [0, 3], [0, 4], [0, 8], [80, 0]])
    expected = [0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 1 - 0.5 / 4, 1 - 0.1 / 4]
    np.testing.assert_allclose(novelty(features, extras), expected, rtol=1e-12)


def test_scores_order_as_distances_do():
    extras = extras_of([1.0, 1.0, 2.0])  # two validation images as near as each other
    features = torch.stack([torch.zeros(400), torch.logspace(-3, 5, 400)], dim=1)
    found = novelty(features, extras)
    assert (found.diff() > 0).all()
    assert 0 < float(found[0]) < float(found[-1]) < 1


def test_the_nearest_class_counts():
    extras = extras_of([1.0, 2.0, 4.0]) | {"feature_mean": torch.tensor([[0.0, 0], [0, 10]])}
    np.testing.assert_allclose(novelty(torch.tensor([[0.0, 9.0], [0.0, 1.0], [0.0, 5.0]]), extras), [0.25, 0.25, 0.8])


def test_what_is_not_a_number_has_no_score():
    assert torch.isnan(novelty(torch.tensor([[0.0, math.nan]]), extras_of([1.0, 2.0]))).all()


# ------------------------------------------------------------------------------------------- the fit


def test_validation_images_have_a_share_of_themselves(fitted):
    network, extras = fitted
    found = score(network, spots(300, seed=1)[0], extras)
    assert float(found.mean()) == pytest.approx(0.5, abs=0.01)
    fresh = score(network, spots(2000, seed=2)[0], extras)
    for share in (0.1, 0.5, 0.9):
        assert float((fresh < share).double().mean()) == pytest.approx(share, abs=0.06)


def test_shapes_and_that_few_quantiles_are_kept(fitted):
    _, extras = fitted
    features = 5 + IMAGE_FEATURES
    assert extras["feature_mean"].shape == (2, features)
    assert extras["feature_precision"].shape == (features, features)
    assert extras["feature_distance"].shape == (201,)
    assert (extras["feature_distance"].diff() >= 0).all()
    few = fit_novelty(Patches(), *spots(40), spots(7, seed=1)[0])
    assert few["feature_distance"].shape == (7,)


def test_images_of_another_kind_are_told_from_new_ones_of_the_same(fitted):
    network, extras = fitted
    usual = score(network, spots(200, seed=3)[0], extras).quantile(0.95)
    image = spots(1, seed=4)[0]
    strange = {
        "blank": torch.zeros_like(image),
        "one hot pixel": torch.zeros_like(image).index_fill_(3, torch.tensor(5), 0),
        "noise": torch.from_numpy(np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)),
        "a raised sky": image.clamp_min(30),
        "stripes": torch.where(torch.arange(32) % 8 == 0, 200, image),
        "white": torch.full_like(image, 255),
    }
    strange["one hot pixel"][0, 0, 16, 10] = 255
    for name, picture in strange.items():
        assert float(score(network, picture.to(torch.uint8), extras)) > max(0.97, float(usual)), name


def test_an_image_s_score_does_not_depend_on_those_beside_it():
    torch.manual_seed(0)
    network = AGCNN(3, 2, widths=(4, 4, 8, 8), gate_channels=4, gate_pooling="mean")
    image, label = spots(60, channels=3)
    for _ in range(30):  # batch normalisation gets its mean and variance: features vary as those of trained networks
        network.train()(to_network_input(image))
    extras = fit_novelty(network, image, label, spots(30, 1, 3)[0])
    together = score(network, image[:7], extras)
    alone = torch.cat([score(network, one[None], extras) for one in image[:7]])
    np.testing.assert_allclose(together, alone, atol=1e-4)  # convolutions round otherwise in other batches
    assert len(set(together.tolist())) == 7


def test_the_order_of_the_training_images_does_not_matter(fitted):
    network, extras = fitted
    image, label = spots(400)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    again = fit_novelty(network, image[order], label[order], spots(300, seed=1)[0])
    for name, values in extras.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-3, atol=1e-3)


def test_images_without_a_class_count_as_one():
    image, label = spots(100)
    unlabelled = fit_novelty(Patches(), image, torch.full_like(label, -1), image)
    assert len(unlabelled["feature_mean"]) == 1
    some = fit_novelty(Patches(), image, torch.where(torch.arange(100) < 30, -1, label), image)
    assert len(some["feature_mean"]) == 3
    assert torch.isfinite(score(Patches(), image, some)).all()


def test_constant_collinear_and_many_features_do_not_break_the_covariance():
    rng = np.random.default_rng(0)
    three = torch.from_numpy(rng.standard_normal((20, 3)))
    wide = torch.cat([three, three, 1e-3 * three.sum(dim=1, keepdim=True), torch.zeros(20, 2)], dim=1)
    many = torch.from_numpy(rng.standard_normal((20, 200)))
    for residual in (wide, many, 1e-30 * three, torch.zeros(4, 3), torch.zeros(1, 2)):
        precision = _precision(residual, 20)
        assert torch.isfinite(precision.float()).all()
        assert (torch.linalg.eigvalsh(precision) > 0).all()


def test_the_covariance_of_many_images_is_hardly_shrunk():
    true = torch.tensor([[4.0, 1.0, 0.0], [1.0, 1.0, 0.2], [0.0, 0.2, 0.25]], dtype=torch.float64)
    draws = torch.from_numpy(np.random.default_rng(0).standard_normal((50_000, 3))) @ torch.linalg.cholesky(true).T
    np.testing.assert_allclose(torch.linalg.inv(_precision(draws, 50_000)), true, atol=0.05)


@pytest.mark.parametrize(("images", "labels", "validation"), [(0, 0, 3), (3, 2, 3), (3, 3, 0)])
def test_nothing_to_fit_on_is_refused(images, labels, validation):
    image, label = spots(3)
    with pytest.raises(ValueError, match=f"{images} images, {labels} labels, {validation} images to validate"):
        fit_novelty(Patches(), image[:images], label[:labels], image[:validation])


def test_image_features_of_a_known_picture():
    image = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    image[0, 0, :, :2] = 255  # half of it white
    batch = to_network_input(image)
    found = novelty_features(Examination(torch.zeros(1, 2), [], torch.tensor([[0.0, 3.0]])), batch)[0]
    least = 1 / 255 / 16
    assert found[:2].tolist() == pytest.approx([0, math.asinh(3)])
    assert found[2:5].tolist() == pytest.approx([math.log(0.5 + least), math.log(1 / 3 + least), 0], abs=1e-6)
    # nothing within 2 x 2 pixels; between the halves, all of it: rms 1/2; then nothing
    nothing, all_of_it = math.log(1 / 255 / 4), math.log(0.5 + 1 / 255 / 4)
    assert found[5:].tolist() == pytest.approx([nothing, all_of_it, nothing, nothing], abs=1e-6)


@pytest.mark.parametrize("size", [5, 16, 75])
def test_any_size_will_do(size):
    image = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    found = novelty_features(Examination(torch.zeros(2, 2), [], torch.zeros(2, 1)), to_network_input(image))
    assert found.shape == (2, 1 + 3 * IMAGE_FEATURES)
    assert torch.isfinite(found).all()
