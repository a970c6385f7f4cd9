import itertools
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from galgaze.config import AttentionVggSettings
from galgaze.errors import ConfigError
from galgaze.models.attention_vgg import CHOICES, AttentionEstimator, AttentionVGG
from galgaze.models.model_file import architecture_of
from galgaze.models.registry import create_network

torch.set_num_threads(1)
NARROW = (4, 6, 8, 10, 12, 14)
COMBINATIONS = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]


def network(channels=3, classes=10, widths=NARROW, **settings) -> AttentionVGG:
    torch.manual_seed(0)
    net = AttentionVGG(channels, classes, widths, **settings).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    net(torch.rand(16, channels, 32, 32) * 2 - 1)  # statistics as after some training
    return net.eval()


def parameters(net) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_published_form_has_the_published_size_and_cost():
    """The published 19.7 million and 7.6 GFLOP are those of the network less the projection of L1 to 512 channels."""
    net = create_network(architecture_of(AttentionVggSettings(architecture="attention_vgg")), 3, 10).eval()
    projection = 256 * 512
    assert parameters(net) == 19_855_434
    assert (parameters(net) - projection) / 1e6 == pytest.approx(19.7, abs=0.05)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits, maps = net.forward_with_attention(torch.rand(1, 3, 32, 32))
    gflop, of_projection = counter.get_total_flops() / 1e9, 2 * 32 * 32 * projection / 1e9
    assert gflop == pytest.approx(7.84, abs=0.005)
    assert gflop - of_projection == pytest.approx(7.6, abs=0.05)
    assert logits.shape == (1, 10)
    assert [tuple(a.shape) for a in maps] == [(1, 8, 8), (1, 16, 16), (1, 32, 32)]


def test_estimators_stand_after_convolutions_7_10_and_13():
    net, seen = network(), []
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_hook(lambda _module, _inputs, x: seen.append(tuple(x.shape[1:])))
    net(torch.rand(1, 3, 32, 32))
    assert len(seen) == 15
    assert [seen[number - 1] for number in (7, 10, 13)] == [(8, 32, 32), (10, 16, 16), (12, 8, 8)]
    assert seen[13:] == [(14, 4, 4), (14, 2, 2)]


@pytest.mark.parametrize("size", [32, 33, 50, 64, 75, 128, 150])
@pytest.mark.parametrize("attention", CHOICES["attention"])
def test_maps_have_the_sizes_that_their_reductions_say(size, attention):
    net = network(attention=attention)
    with torch.inference_mode():
        said = net.examine(torch.rand(2, 3, size, size))
    assert [a.shape[-1] for a in said.maps] == [size // reduction for reduction in net.attention_reductions]
    assert net.attention_reductions == ((8, 4, 2) if attention == "after_pooling" else (4, 2, 1))
    assert said.features.shape == (2, 3 * NARROW[-1])
    assert torch.isfinite(said.logits).all()


def test_too_small_images_are_refused_in_words():
    with pytest.raises(ConfigError, match=r"31 x 40 px.*size_px to 32 or more"):
        network()(torch.zeros(1, 3, 40, 31))


GLOBAL_BRANCH = ("last_block", "to_global")


@pytest.mark.parametrize("settings", COMBINATIONS, ids=lambda settings: "-".join(settings.values()))
def test_every_parameter_learns_that_can(settings):
    net = network(dropout=0.1, **settings).train()
    image, label = torch.rand(8, 3, 40, 40) * 2 - 1, torch.arange(8)
    torch.nn.functional.cross_entropy(net(image), label).backward()
    largest = max(parameter.grad.abs().max() for parameter in net.parameters())
    # u . (l + g) = u . l + u . g, and the second, the same for all pixels, does not change a softmax over pixels.
    blind_to_g = settings["compatibility"] == "pc" and settings["normalisation"] == "softmax"
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        gradient = parameter.grad.abs().max() / largest
        if blind_to_g and name.startswith(GLOBAL_BRANCH):
            assert gradient < 1e-6, name
        # A bias before a batch normalisation is taken away again: it learns nothing.
        elif not (name.endswith(".bias") and name.startswith(("blocks", "last_block")) and int(name[-6]) % 3 == 0):
            assert gradient > 1e-6, name


@pytest.mark.parametrize("compatibility", CHOICES["compatibility"])
@pytest.mark.parametrize("normalisation", CHOICES["normalisation"])
def test_g_steers_the_attention_unless_parametrised_under_a_softmax(compatibility, normalisation):
    net = network(compatibility=compatibility, normalisation=normalisation)
    image = torch.rand(2, 3, 32, 32)
    before = net(image)
    with torch.no_grad():
        net.to_global.bias += torch.randn(NARROW[-1])
    changed = (net(image) - before).abs().max()
    assert (changed < 1e-5) == (compatibility == "pc" and normalisation == "softmax")


@pytest.mark.parametrize("settings", COMBINATIONS[::3], ids=lambda settings: "-".join(settings.values()))
def test_nothing_depends_on_the_images_beside(settings):
    net = network(dropout=0.3, **settings)
    image = torch.rand(4, 3, 45, 45) * 2 - 1
    with torch.inference_mode():
        together = net.examine(image)
        assert together.logits.std(dim=0).max() > 1e-5  # the images are told apart at all
        for i in range(4):
            alone = net.examine(image[i : i + 1])
            torch.testing.assert_close(alone.logits[0], together.logits[i], rtol=1e-5, atol=1e-6)
            for own, shared in zip(alone.maps, together.maps, strict=True):
                torch.testing.assert_close(own[0], shared[i], rtol=1e-4, atol=1e-6)


# A toy: two channels, three pixels in a row, l = (1, 0), (0, 2), (1, 1); g = (2, 1); u = (1, -1).
LOCAL = torch.tensor([[[[1.0, 0.0, 1.0]], [[0.0, 2.0, 1.0]]]])
GLOBAL = torch.tensor([[2.0, 1.0]])
SCORES = {"dp": (2.0, 2.0, 3.0), "pc": (2.0, -1.0, 1.0)}  # l . g; u . (l + g)


@pytest.mark.parametrize("compatibility", CHOICES["compatibility"])
@pytest.mark.parametrize("normalisation", CHOICES["normalisation"])
def test_compatibility_and_estimate_by_hand(compatibility, normalisation):
    estimator = AttentionEstimator(2, 2, compatibility, normalisation)
    if compatibility == "pc":
        estimator.u.weight.data = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    vector, a = estimator(LOCAL, GLOBAL)
    c = SCORES[compatibility]
    weight = [math.exp(value) if normalisation == "softmax" else 1 / (1 + math.exp(-value)) for value in c]
    total = sum(weight)
    expected = [value / total if normalisation == "softmax" else value for value in weight]
    torch.testing.assert_close(a, torch.tensor(expected).reshape(1, 1, 3))
    by_hand = torch.tensor([[weight[0] + weight[2], 2 * weight[1] + weight[2]]]) / total
    torch.testing.assert_close(vector, by_hand)


@pytest.mark.parametrize("compatibility", CHOICES["compatibility"])
def test_compatibility_is_not_rounded_under_autocast(compatibility):
    """In bfloat16 scores near 300 are 2 apart; these differ by 0.01 or less, which a softmax tells."""
    torch.manual_seed(0)
    estimator = AttentionEstimator(2, 2, compatibility, "softmax")
    local = torch.cat([torch.full((1, 1, 4, 4), 300.0), torch.zeros(1, 1, 4, 4)], dim=1)
    local[0, 1] = torch.rand(4, 4) * 3  # the same numbers in bfloat16 or not: only the score is at stake
    local, g = local.bfloat16().float(), torch.tensor([[1.0, 1.0]])
    if compatibility == "pc":
        estimator.u.weight.data = torch.ones(1, 2, 1, 1)
    with torch.no_grad():
        vector, a = estimator(local, g)
        with torch.autocast("cpu", torch.bfloat16):
            vector_mixed, a_mixed = estimator(local, g)
    assert a.max() > 2 * a.min()
    torch.testing.assert_close(a_mixed, a)
    torch.testing.assert_close(vector_mixed, vector)
    assert a_mixed.dtype == torch.float32


def test_it_learns_under_autocast():
    net = network(dropout=0.1).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(net(torch.rand(4, 3, 40, 40) * 2 - 1), torch.arange(4))
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())
    assert min(float(estimator.u.weight.grad.abs().max()) for estimator in net.estimators) > 0


def test_other_widths_are_projected_first():
    estimator = AttentionEstimator(2, 3, "dp", "softmax")
    estimator.project.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).reshape(3, 2, 1, 1)
    vector, a = estimator(LOCAL, torch.tensor([[2.0, 1.0, 0.0]]))
    torch.testing.assert_close(a[0, 0], torch.tensor(SCORES["dp"]).softmax(dim=0))
    assert vector.shape == (1, 3)
    torch.testing.assert_close(vector[:, 2], vector[:, :2].sum(dim=1))


@pytest.mark.parametrize("compatibility", CHOICES["compatibility"])
def test_softmax_maps_sum_to_1(compatibility):
    with torch.inference_mode():
        _, maps = network(compatibility=compatibility).forward_with_attention(torch.rand(2, 3, 50, 50))
    for a in maps:
        assert (a >= 0).all()
        torch.testing.assert_close(a.sum(dim=(1, 2)), torch.ones(2))


def test_independent_classifiers_average_probabilities():
    net = network(aggregation="indep")
    image = torch.rand(3, 3, 32, 32)
    said = net.examine(image)
    vectors = said.features.split(NARROW[-1], dim=1)
    votes = [layer(vector).softmax(dim=1) for layer, vector in zip(net.classifiers, vectors, strict=True)]
    torch.testing.assert_close(said.logits.softmax(dim=1), torch.stack(votes).mean(dim=0))


@pytest.mark.parametrize("settings", COMBINATIONS[::2], ids=lambda settings: "-".join(settings.values()))
def test_maps_follow_a_shift_by_the_stride(settings):
    """In a blank field wide enough for the receptive field (about 130 px); the edges stay where they are."""
    net = network(**settings)
    blank = torch.full((1, 3, 288, 288), -1.0)
    shifted = blank.clone()
    source = torch.rand(3, 16, 16) * 2 - 1
    blank[0, :, 120:136, 120:136] = source
    shifted[0, :, 152:168, 152:168] = source
    with torch.inference_mode():
        at_home, moved = net.examine(blank), net.examine(shifted)
    torch.testing.assert_close(moved.logits, at_home.logits, rtol=1e-4, atol=1e-5)
    for a, b, reduction in zip(at_home.maps, moved.maps, net.attention_reductions, strict=True):
        start, stop, step = 100 // reduction, 160 // reduction, 32 // reduction
        window = a[:, start:stop, start:stop]
        assert window.std() > 1e-4 * window.mean()  # there is something to follow
        torch.testing.assert_close(
            b[:, start + step : stop + step, start + step : stop + step], window, rtol=1e-3, atol=1e-3 * float(a.std())
        )


def test_unknown_choices_are_named():
    with pytest.raises(ValueError, match=r"compatibility is 'cosine'; expected pc or dp"):
        AttentionVGG(3, 10, NARROW, compatibility="cosine")
