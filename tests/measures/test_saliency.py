import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn

from galgaze.measures.bars import measure_bar
from galgaze.measures.saliency import seed_of, smoothgrad


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.SiLU(),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers, nn.Linear(8 * 16 * 16, 4)).eval()


@pytest.fixture(scope="module")
def score(network):
    return lambda images: network(images)[:, 2]


@pytest.fixture(scope="module")
def image():
    return torch.rand((3, 16, 16), generator=torch.Generator().manual_seed(1)) * 3 - 1


def scaled(saliency):
    return (saliency - saliency.min()) / (saliency.max() - saliency.min())


def test_captum_agrees_on_the_same_noise(network, score, image):
    generator = torch.Generator().manual_seed(7)
    noise = torch.stack([torch.randn(image.shape, generator=generator) for _ in range(12)])
    noisy = image + 0.25 * (image.max() - image.min()) * noise
    captum = Saliency(network).attribute(noisy.requires_grad_(), target=2, abs=True).mean(dim=0).amax(dim=0)
    np.testing.assert_allclose(smoothgrad(score, image, 12, 0.25, 7), scaled(captum.detach().numpy()), atol=1e-5)


def test_captum_agrees_on_its_own_noise(network, score, image):
    torch.manual_seed(3)
    captum = NoiseTunnel(Saliency(network)).attribute(
        image[None],
        nt_type="smoothgrad",
        nt_samples=300,
        nt_samples_batch_size=50,
        stdevs=float(0.25 * (image.max() - image.min())),
        target=2,
        abs=True,
    )[0]
    ours = smoothgrad(score, image, 300, 0.25, 7, chunk=50)
    assert np.corrcoef(ours.ravel(), captum.detach().amax(dim=0).numpy().ravel())[0, 1] > 0.98


def test_the_seed_decides_and_the_chunk_does_not(score, image):
    first = smoothgrad(score, image, 10, 0.25, seed=5, chunk=10)
    np.testing.assert_allclose(smoothgrad(score, image, 10, 0.25, seed=5, chunk=3), first, atol=1e-5)
    np.testing.assert_array_equal(smoothgrad(score, image, 10, 0.25, seed=5, chunk=10), first)
    assert np.abs(smoothgrad(score, image, 10, 0.25, seed=6) - first).max() > 0.01


def test_the_global_generator_and_the_network_are_left_alone(network, score, image):
    before = torch.get_rng_state()
    with torch.no_grad():
        smoothgrad(score, image, 3, 0.25, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert not image.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_saliency_of_a_known_gradient():
    # score = sum(weight * x^2) / 2, gradient weight * x: without noise |weight x|, maximum over channels.
    weight = torch.tensor([[[0.0, 1.0, -2.0]], [[0.5, 0.0, 1.0]]])
    image = torch.tensor([[[9.0, 1.0, 2.0]], [[2.0, 3.0, 1.0]]])
    saliency = smoothgrad(lambda x: (weight * x**2).sum(dim=(1, 2, 3)) / 2, image, 2, 0.0, 0)
    np.testing.assert_allclose(saliency, [[0.0, 0.0, 1.0]])  # of 1, 1, 4
    assert saliency.dtype == np.float32


def test_a_score_that_is_a_bar_has_its_length():
    row, column = np.indices((64, 64)) - 31.5
    bar = torch.tensor((np.abs(row - column) < 5) & (np.abs(row + column) < 25), dtype=torch.float32)
    image = torch.rand((3, 64, 64), generator=torch.Generator().manual_seed(1))
    saliency = smoothgrad(lambda x: torch.tanh((x * bar).sum(dim=(1, 2, 3)) / 1e4), image, 4, 0.25, 0)
    measured = measure_bar(saliency, (31.5, 31.5), np.array([[-0.5, 0.0], [0.0, 0.5]]))
    assert measured.length_px == pytest.approx(50 / np.sqrt(2), rel=0.05)
    assert measured.position_angle_deg == pytest.approx(135, abs=0.1)


def test_flat_saliency_is_zero(image):
    saliency = smoothgrad(lambda x: x.sum(dim=(1, 2, 3)), image, 3, 0.25, 0)
    np.testing.assert_array_equal(saliency, np.zeros((16, 16)))


def test_a_gradient_that_is_not_finite_gives_nan(image):
    saliency = smoothgrad(lambda x: torch.sqrt(x).sum(dim=(1, 2, 3)), image, 3, 0.25, 0)
    assert np.isnan(saliency).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": torch.zeros((16, 16))}, "floating-point image"),
        ({"image": torch.zeros((3, 16, 16), dtype=torch.uint8)}, "floating-point image"),
        ({"samples": 0}, "samples >= 1"),
        ({"chunk": 0}, "chunk >= 1"),
        ({"noise_fraction": -0.1}, "noise_fraction >= 0"),
        ({"score": lambda x: x.sum(dim=(2, 3))}, r"must have shape \(2,\), got \(2, 3\)"),
    ],
)
def test_bad_input_is_refused(score, image, changes, message):
    arguments = {"score": score, "image": image, "samples": 2, "noise_fraction": 0.25, "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        smoothgrad(**arguments)


def test_seeds_of_sources():
    assert seed_of("legacy-1", 0) == 5729439895346413837  # printf 0:legacy-1 | sha256sum, by hand
    seeds = {seed_of(f"source-{number}", seed) for number in range(100) for seed in range(3)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(max(seeds))
