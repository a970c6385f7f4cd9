"""The network that answers Galaxy Zoo's questions: its smoothness, and whether its saliency finds bars."""

import inspect

import numpy as np
import pytest
import torch

from galgaze.config import BarNetworkSettings
from galgaze.measures.saliency import smoothgrad
from galgaze.models.agcnn import AGCNN
from galgaze.models.bar_network import BarNetwork
from galgaze.models.model_file import architecture_of
from galgaze.models.questions import ANSWERS, bar_logit, barred_probability, question_loss
from galgaze.models.registry import create_network
from galgaze.models.runtime import tune_allocator

BACKBONES = ("plain", "residual", "separable")
NARROW = (4, 6, 8, 10)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tune_allocator()
    yield
    torch.set_num_threads(threads)


def settled(net):
    """With statistics as after some training."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def network(channels=3, **settings) -> BarNetwork:
    torch.manual_seed(0)
    return settled(BarNetwork(channels, 10, **{"widths": NARROW} | settings))


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_sizes_of_the_networks():
    counts = {name: parameters(BarNetwork(3, 10, name)) for name in BACKBONES}
    assert counts["plain"] == counts["residual"] == 335_519
    assert counts["separable"] < counts["plain"] / 5
    # a gate's features fewer: 64 + 24 + 8 values of 20 outputs, and the gates themselves
    gates = 16 * (64 + 24 + 8 + 3 * 128) + 3 * 17
    assert counts["plain"] - parameters(BarNetwork(3, 10, gates=0)) == 20 * (64 + 24 + 8) + gates


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [64, 100, 128])
def test_what_it_says_of_images_of_any_size(backbone, size):
    net = network(backbone=backbone)
    with torch.inference_mode():
        seen = net.examine(torch.rand(2, 3, size, size))
    assert seen.logits.shape == (2, 10)
    assert seen.answers.shape == (2, len(ANSWERS))
    assert seen.features.shape == (2, 8 + 6 + 4 + 10)
    assert [size // a.shape[-1] for a in seen.maps] == list(net.attention_reductions)
    for values in (seen.logits, seen.answers, seen.features):
        assert torch.isfinite(values).all()


@pytest.mark.parametrize("gates", [0, 1, 2, 3])
def test_gates_are_counted_from_the_deepest(gates):
    seen = network(gates=gates).examine(torch.rand(1, 3, 64, 64))
    assert [a.shape[-1] for a in seen.maps] == [16, 32, 64][:gates]
    assert seen.features.shape[1] == sum((8, 6, 4)[:gates]) + 10


@pytest.mark.parametrize("backbone", BACKBONES)
def test_nothing_depends_on_the_images_beside(backbone):
    net, image = network(backbone=backbone), torch.rand(4, 3, 64, 64) * 2 - 1
    together = net.examine(image)
    for i in range(4):
        alone = net.examine(image[i : i + 1])
        torch.testing.assert_close(alone.answers[0], together.answers[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.maps[2][0], together.maps[2][i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_flipping_the_image_flips_the_maps_of_a_symmetric_network(backbone):
    net = network(backbone=backbone)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = (module.weight.data + module.weight.data.flip(-1)) / 2
    image = torch.rand(1, 3, 64, 64)
    seen, mirrored = net.examine(image), net.examine(image.flip(-1))
    torch.testing.assert_close(seen.answers, mirrored.answers, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen.maps[2].flip(-1), mirrored.maps[2], rtol=1e-3, atol=1e-3)


def test_backbones_are_not_one_network():
    image = torch.rand(1, 3, 64, 64)
    plain, residual = network(), network(backbone="residual")
    residual.load_state_dict(plain.state_dict())  # the same convolutions, and shortcuts
    assert (plain(image) - residual(image)).abs().max() > 1e-3
    for net in (plain, residual):
        for stage in net.stages:
            stage.layers[-1][-1].weight.data.zero_()
            stage.layers[-1][-1].bias.data.zero_()
    # with their last convolutions silent nothing comes through but by the shortcut
    assert plain.examine(image).features.abs().max() == 0
    assert residual.examine(image).features.abs().max() > 0


def test_without_a_class_head_all_classes_are_alike():
    net = network(class_head=False)
    assert parameters(network()) - parameters(net) == 10 * (8 + 6 + 4 + 10 + 1)
    seen = net.examine(torch.rand(2, 3, 64, 64))
    assert (seen.logits == 0).all()
    assert seen.logits.shape == (2, 10)
    votes = torch.rand(2, 10)
    (
        torch.nn.functional.cross_entropy(seen.logits, torch.tensor([1, 2])) + question_loss(seen.answers, votes)
    ).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="no backbone 'vgg'; known are plain, residual and separable"):
        BarNetwork(3, 10, backbone="vgg")


def test_the_configured_network_is_the_one_that_is_built():
    settings = BarNetworkSettings(architecture="bar_network", backbone="separable", class_head=False, gates=2)
    built = create_network(architecture_of(settings), 3, 10)
    assert isinstance(built, BarNetwork)
    assert built.classifier is None
    assert len(built.attention) == 2
    defaults = {name: value.default for name, value in inspect.signature(BarNetwork).parameters.items()}
    configured = BarNetworkSettings(architecture="bar_network").model_dump(exclude={"architecture", "widths"})
    assert configured == {name: defaults[name] for name in configured}


def test_bar_logit_is_that_of_its_answers():
    net, image = network(), torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(net.bar_logit(image), bar_logit(net.examine(image).answers))


# ---------------------------------------------------------------------------------------------- smoothness


def gradient_along(score, image, direction, steps):
    """d score / d pixel at each step along a direction, (steps, pixels), over the largest of them."""
    rows = []
    for step in steps:
        x = (image + step * direction).requires_grad_()
        rows.append(torch.autograd.grad(score(x).sum(), x)[0].flatten())
    gradients = torch.stack(rows)
    return gradients / gradients.norm(dim=1).max()


def largest_jump(score, image, width, count=25):
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(3), dtype=image.dtype)
    steps = torch.linspace(0, width, count, dtype=image.dtype)
    return float(gradient_along(score, image, direction, steps).diff(dim=0).norm(dim=1).max())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_change_as_little_as_the_image(backbone):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    smooth = network(backbone=backbone).double().bar_logit
    # ten times finer steps: a smooth gradient's largest change is a tenth, that of one with kinks is not
    coarse, fine = largest_jump(smooth, image, 0.01), largest_jump(smooth, image, 0.001)
    assert fine < 0.15 * coarse
    torch.manual_seed(0)
    kinked = settled(AGCNN(3, 10, widths=NARROW, gate_channels=16, gate_pooling="mean")).double()
    coarse, fine = (largest_jump(lambda x: kinked(x)[:, 5], image, width) for width in (0.01, 0.001))
    assert fine > 0.2 * coarse


@pytest.mark.parametrize("backbone", BACKBONES)
def test_second_derivatives_are_those_of_the_gradient(backbone):
    net = network(backbone=backbone).double()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = image.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net.bar_logit(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad((slope * direction).sum(), x)
    assert torch.isfinite(curvature).all()
    assert curvature.abs().max() > 0
    step = 1e-5
    before, after = (
        torch.autograd.grad(net.bar_logit(y).sum(), y)[0]
        for y in ((image + sign * step * direction).requires_grad_() for sign in (-1, 1))
    )
    torch.testing.assert_close((after - before) / (2 * step), curvature, rtol=1e-3, atol=1e-6)


# --------------------------------------------------------------------------------------- learning, and bars

SIZE = 40


def galaxies(count, seed):
    """Discs with a bulge, half of them barred: images in -1..1, whether barred, the bar's angle in degrees.

    The angle counts from columns to rows.
    """
    generator = torch.Generator().manual_seed(seed)
    angle, length, draw = torch.rand(3, count, generator=generator)
    barred, angle = draw < 0.5, 180 * angle
    row, column = torch.meshgrid(*[torch.arange(SIZE) - (SIZE - 1) / 2] * 2, indexing="ij")
    turn = torch.deg2rad(angle)[:, None, None]
    along = column * torch.cos(turn) + row * torch.sin(turn)
    across = row * torch.cos(turn) - column * torch.sin(turn)
    half_length = SIZE * (0.14 + 0.1 * length)[:, None, None]
    bar = torch.exp(-((along / half_length) ** 4) - (across / (0.22 * half_length)) ** 2)
    radius = torch.hypot(row, column)
    disc, bulge = torch.exp(-radius / (0.16 * SIZE)), torch.exp(-((radius / (0.07 * SIZE)) ** 2))
    share = 0.4 * barred[:, None, None]
    light = 0.35 * disc + (0.4 - 0.4 * share) * bulge + share * bar
    light = light + 0.03 * torch.randn(light.shape, generator=generator)
    return (2 * light.clamp(0, 1) - 1)[:, None], barred, angle


def votes_on(barred):
    no = torch.where(barred, 0.05, 0.95)
    first = torch.tensor([0.1, 0.88, 0.02, 0.05, 0.95, 0.3, 0.7]).repeat(len(barred), 1)
    return torch.cat([first, torch.stack([0.8 * (1 - no), 0.2 * (1 - no), no], dim=1)], dim=1)


def trained(epochs=5, count=384, batch=32):
    """A small network after some seconds; its images are as noisy as SmoothGrad's, or its saliency shows no bars."""
    torch.manual_seed(0)
    net = BarNetwork(1, 10, widths=(8, 16, 24, 32), class_head=False)
    image, barred, _ = galaxies(count, seed=1)
    votes = votes_on(barred)
    optimiser = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * count // batch)
    for _ in range(epochs):
        for chosen in torch.randperm(count).split(batch):
            turned = image[chosen].rot90(int(torch.randint(4, (1,))), (2, 3))
            noisy = turned + 0.5 * torch.rand(batch, 1, 1, 1) * torch.randn(turned.shape)
            optimiser.zero_grad()
            question_loss(net.examine(noisy).answers, votes[chosen]).backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def axis_deg(saliency):
    """Angle of the principal axis of the brightest fifth of the pixels, and its elongation."""
    weight = np.clip(saliency - np.quantile(saliency, 0.8), 0, None)
    row, column = np.indices(saliency.shape)
    variance, axes = np.linalg.eigh(np.cov(np.stack([column.ravel(), row.ravel()]), aweights=weight.ravel()))
    return np.degrees(np.arctan2(axes[1, 1], axes[0, 1])), np.sqrt(variance[1] / variance[0])


def test_it_learns_to_see_bars_and_saliency_shows_where_they_are():
    net = trained()
    image, barred, angle = galaxies(120, seed=2)
    with torch.inference_mode():
        probability = barred_probability(net.examine(image).answers)
    assert ((probability > 0.5) == barred).float().mean() > 0.95
    # votes are fractions, and so is what was learnt
    assert probability[barred].median() == pytest.approx(0.95, abs=0.06)
    assert probability[~barred].median() == pytest.approx(0.05, abs=0.06)
    off, elongation = [], []
    for i in np.flatnonzero(barred)[:12]:
        found, stretched = axis_deg(smoothgrad(net.bar_logit, image[i], 16, 0.25, seed=int(i), chunk=16))
        off.append(abs((found - float(angle[i]) + 90) % 180 - 90))
        elongation.append(stretched)
    assert np.median(off) < 20
    assert np.median(elongation) > 1.1
