import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional as F

from galgaze.models.attention import NORMALISATIONS, Aggregation, AttentionGate, from_zero, gather

torch.set_num_threads(1)
ALL = list(NORMALISATIONS)
NEVER_NEGATIVE = ["range_norm", "sigmoid", "softmax"]
SCORES = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]  # (1, 1, 2, 2)
FLAT = {
    "range_norm": 0.0,
    "std_mean_norm": -2.0,
    "sigmoid": 1 / (1 + math.exp(-7)),
    "softmax": 1 / 20,
    "tanh": math.tanh(7),
}


def scores(images: int = 3, side: int = 6) -> torch.Tensor:
    return torch.randn(images, 1, side, side, generator=torch.Generator().manual_seed(1)) * 3


# ---------------------------------------------------------------------------------------- normalisations


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        ("range_norm", [[0, 1 / 3], [2 / 3, 1]]),
        ("std_mean_norm", [[-2, -1], [0, 1]]),  # ((a - 1) / 4 - 0.5) / 0.25: the maximum is 4, not 4 - 1
        ("sigmoid", [[1 / (1 + math.exp(-a)) for a in row] for row in ((1, 2), (3, 4))]),
        ("softmax", [[math.exp(a) / sum(map(math.exp, (1, 2, 3, 4))) for a in row] for row in ((1, 2), (3, 4))]),
        ("tanh", [[math.tanh(a) for a in row] for row in ((1, 2), (3, 4))]),
    ],
)
def test_normalisation_by_hand(normalisation, expected):
    torch.testing.assert_close(NORMALISATIONS[normalisation](SCORES)[0, 0], torch.tensor(expected, dtype=torch.float32))


def test_std_mean_norm_of_negative_scores_is_as_published():
    # ((a + 4) / -1 - 0.5) / 0.25: a negative maximum turns the map over
    expected = torch.tensor([[-2.0, -6.0], [-10.0, -14.0]])
    torch.testing.assert_close(NORMALISATIONS["std_mean_norm"](SCORES - 5)[0, 0], expected)


def test_range_norm_spans_0_to_1_of_each_image():
    a = NORMALISATIONS["range_norm"](scores() * torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1, 1))
    torch.testing.assert_close(a.amin(dim=(1, 2, 3)), torch.zeros(3))
    torch.testing.assert_close(a.amax(dim=(1, 2, 3)), torch.ones(3))


def test_softmax_sums_to_1_for_each_image():
    torch.testing.assert_close(NORMALISATIONS["softmax"](scores() * 30).sum(dim=(1, 2, 3)), torch.ones(3))


@pytest.mark.parametrize("normalisation", ["range_norm", "softmax"])
def test_the_level_of_the_scores_does_not_matter(normalisation):
    a = scores()
    torch.testing.assert_close(
        NORMALISATIONS[normalisation](a), NORMALISATIONS[normalisation](a + 5), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("normalisation", ALL)
def test_images_are_normalised_one_by_one(normalisation):
    a = scores() * torch.tensor([0.1, 1.0, 10.0]).view(3, 1, 1, 1)
    together = NORMALISATIONS[normalisation](a)
    alone = torch.cat([NORMALISATIONS[normalisation](image[None]) for image in a])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("normalisation", ALL)
@pytest.mark.parametrize("level", [0.0, 7.0, -7.0, 1e30])
def test_flat_scores_give_finite_maps_and_gradients(normalisation, level):
    a = torch.full((2, 1, 4, 5), level, requires_grad=True)
    attention = NORMALISATIONS[normalisation](a)
    assert torch.isfinite(attention).all()
    assert attention.max() == attention.min()
    if level == 7:
        torch.testing.assert_close(attention, torch.full_like(attention, FLAT[normalisation]))
    (attention * torch.linspace(-1, 1, 20).view(4, 5)).sum().backward()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("normalisation", ALL)
def test_gradient_is_that_of_finite_differences(normalisation):
    a = torch.linspace(-0.7, 1.9, 9, dtype=torch.float64).roll(4).view(1, 1, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(NORMALISATIONS[normalisation], a)


# -------------------------------------------------------------------------------------------- from zero


@pytest.mark.parametrize("normalisation", ALL)
@given(values=arrays("float32", (2, 3, 3), elements=st.floats(-50, 50, width=32), fill=st.nothing()))
def test_maps_from_zero_are_never_negative(normalisation, values):
    maps = NORMALISATIONS[normalisation](torch.from_numpy(values)[:, None])[:, 0]
    counted = from_zero(maps, normalisation)
    assert torch.isfinite(counted).all()
    assert (counted >= 0).all()
    # a shift (and for tanh a halving): where there is more attention stays where there is more
    most = maps.flatten(1).argmax(1, keepdim=True)
    assert torch.equal(counted.flatten(1).gather(1, most), counted.flatten(1).amax(1, keepdim=True))


def test_maps_from_zero_by_hand():
    maps = torch.tensor([[[-1.0, 0.0], [0.5, 1.0]]])
    torch.testing.assert_close(from_zero(maps, "tanh"), torch.tensor([[[0, 0.5], [0.75, 1]]]))
    torch.testing.assert_close(from_zero(maps, "std_mean_norm"), torch.tensor([[[0.0, 1.0], [1.5, 2.0]]]))
    for normalisation in NEVER_NEGATIVE:
        assert from_zero(maps, normalisation) is maps


# --------------------------------------------------------------------------------------------- gathering


def test_gather_by_hand():
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 0.0]]])[None]  # (1, 2, 2, 2)
    a = torch.tensor([[0.0, 1.0], [-1.0, 2.0]])[None, None]
    torch.testing.assert_close(gather(a, x, "sum"), torch.tensor([[2 - 3 + 8.0, 0.0]]))
    torch.testing.assert_close(gather(a, x, "mean"), torch.tensor([[7 / 4, 0.0]]))


@pytest.mark.parametrize("normalisation", NEVER_NEGATIVE)
def test_the_mean_of_a_constant_is_the_constant(normalisation):
    constant = torch.tensor([3.0, -2.0, 0.0])
    a = NORMALISATIONS[normalisation](scores(side=20))
    gathered = gather(a, constant.view(1, 3, 1, 1).expand(3, 3, 20, 20), "mean")
    torch.testing.assert_close(gathered, constant.expand(3, 3))


def test_the_mean_stays_within_the_features_and_the_sum_grows_with_the_map():
    a, x = scores(), scores() + 2
    assert (gather(a, x, "mean").abs() <= x.abs().amax(dim=(2, 3)) + 1e-5).all()
    torch.testing.assert_close(gather(2 * a, x, "mean"), gather(a, x, "mean"))
    torch.testing.assert_close(gather(2 * a, x, "sum"), 2 * gather(a, x, "sum"))


def test_no_attention_gathers_nothing():
    assert torch.equal(gather(torch.zeros(1, 1, 4, 4), torch.ones(1, 2, 4, 4), "mean"), torch.zeros(1, 2))


# -------------------------------------------------------------------------------------------------- gate


@pytest.mark.parametrize("normalisation", ALL)
@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_gate_follows_its_formula(normalisation, pooling):
    torch.manual_seed(2)
    gate = AttentionGate(3, 4, 5, pooling, normalisation)
    x, g = torch.randn(2, 3, 9, 9), torch.randn(2, 4, 2, 2)
    compared = torch.einsum("kc,bchw->bkhw", gate.theta.weight[:, :, 0, 0], x)
    phi = torch.einsum("kc,bchw->bkhw", gate.phi.weight[:, :, 0, 0], g)
    compared = compared + F.interpolate(phi, size=(9, 9), mode="bilinear", align_corners=False)
    psi = torch.einsum("k,bkhw->bhw", gate.psi.weight[0, :, 0, 0], compared.clamp_min(0)) + gate.psi.bias
    expected = NORMALISATIONS[normalisation](psi[:, None])
    gathered, attention = gate(x, g)
    torch.testing.assert_close(attention, expected[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gathered, gather(expected, x, pooling), rtol=1e-4, atol=1e-4)


def test_gate_turns_with_its_features():
    torch.manual_seed(2)
    gate = AttentionGate(3, 4, 5, "mean")
    x, g = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 2, 2)
    gathered, attention = gate(x, g)
    turned, turned_attention = gate(x.rot90(1, (2, 3)), g.rot90(1, (2, 3)))
    torch.testing.assert_close(turned, gathered, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(turned_attention, attention.rot90(1, (1, 2)), rtol=1e-4, atol=1e-5)


def test_gate_with_another_activation():
    torch.manual_seed(2)
    gate = AttentionGate(1, 1, 2, "sum", "sigmoid", activation=torch.zeros_like)
    _, attention = gate(torch.randn(1, 1, 3, 3), torch.randn(1, 1, 1, 1))
    torch.testing.assert_close(attention, torch.sigmoid(gate.psi.bias).expand(1, 3, 3))


# ------------------------------------------------------------------------------------------- aggregation


def aggregated(kind: str) -> tuple[Aggregation, list[torch.Tensor]]:
    torch.manual_seed(3)
    return Aggregation(kind, (4, 2), 3), [torch.randn(5, 4), torch.randn(5, 2)]


def linear(layer, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.T + layer.bias


def test_concat_is_one_layer_on_all_values():
    aggregation, (first, second) = aggregated("concat")
    expected = linear(aggregation.classifier, torch.cat([first, second], dim=1))
    torch.testing.assert_close(aggregation([first, second]), expected)


def test_mean_is_the_mean_of_the_gates_votes():
    aggregation, (first, second) = aggregated("mean")
    one, two = aggregation.gate_classifiers
    torch.testing.assert_close(aggregation([first, second]), (linear(one, first) + linear(two, second)) / 2)


def test_deep_sup_is_the_mean_of_concat_and_votes():
    aggregation, (first, second) = aggregated("deep_sup")
    one, two = aggregation.gate_classifiers
    concat = linear(aggregation.classifier, torch.cat([first, second], dim=1))
    expected = (concat + linear(one, first) + linear(two, second)) / 3
    torch.testing.assert_close(aggregation([first, second]), expected)


def test_ft_is_a_layer_on_the_rectified_votes():
    aggregation, (first, second) = aggregated("ft")
    one, two = aggregation.gate_classifiers
    votes = torch.cat([linear(one, first).clamp_min(0), linear(two, second).clamp_min(0)], dim=1)
    torch.testing.assert_close(aggregation([first, second]), linear(aggregation.classifier, votes))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("concat", 54 * 2 + 2),
        ("mean", 54 * 2 + 3 * 2),
        ("deep_sup", 2 * 54 * 2 + 4 * 2),
        ("ft", 54 * 2 + 6 + 6 * 2 + 2),
    ],
)
def test_only_the_layers_in_use_exist(kind, parameters):
    assert sum(p.numel() for p in Aggregation(kind, (32, 16, 6), 2).parameters()) == parameters
