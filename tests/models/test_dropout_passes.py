import pytest
import torch
from torch import nn

from galgaze.models.agcnn import AGCNN
from galgaze.models.attention_vgg import AttentionVGG
from galgaze.models.combined import Ensemble, TurnedViews
from galgaze.models.dropout_passes import dropout_modules, dropout_probabilities, thinned

torch.set_num_threads(1)


def settled(network: nn.Module) -> nn.Module:
    """With statistics as after some training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(noise(16))
    return network.eval()


def agcnn(seed: int = 0, dropout: float = 0.5) -> AGCNN:
    torch.manual_seed(seed)
    network = AGCNN(1, 3, (3, 4, 5, 6), aggregation="concat", gate_pooling="mean", dropout=dropout)
    return settled(network)


def vgg() -> AttentionVGG:
    torch.manual_seed(0)
    widths = (4, 5, 6, 7, 8, 9)
    return settled(AttentionVGG(1, 3, widths, compatibility="dp", aggregation="indep", dropout=0.3))


def noise(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 1, 40, 40, generator=torch.Generator().manual_seed(7)) * 2 - 1


NETWORKS = {
    "agcnn": agcnn,
    "vgg": vgg,
    "views": lambda: TurnedViews(agcnn(), 4),
    "ensemble": lambda: Ensemble([agcnn(0), agcnn(1)]),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def test_passes_differ_and_are_probabilities(network):
    p = dropout_probabilities(network, noise(), 6, seed=3)
    assert p.shape == (6, 5, 3)
    assert p.dtype == torch.float64
    torch.testing.assert_close(p.sum(dim=2), torch.ones(6, 5, dtype=torch.float64))
    assert p.std(dim=0).min() > 1e-5
    assert len({tuple(one.flatten().tolist()) for one in p}) == 6


def test_a_source_does_not_depend_on_batch_or_order(network):
    image = noise()
    p = dropout_probabilities(network, image, 3, seed=3)
    for i in range(len(image)):
        alone = dropout_probabilities(network, image[i : i + 1], 3, seed=3)
        torch.testing.assert_close(alone[:, 0], p[:, i], atol=1e-6, rtol=1e-5)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(dropout_probabilities(network, image[order], 3, seed=3), p[:, order], atol=1e-6, rtol=0)


def test_the_seed_decides_and_the_global_one_does_not(network):
    image = noise()
    first = dropout_probabilities(network, image, 2, seed=3)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert torch.equal(dropout_probabilities(network, image, 2, seed=3), first)
    assert torch.equal(torch.random.get_rng_state(), before)  # nor is it touched
    assert (dropout_probabilities(network, image, 2, seed=4) - first).abs().max() > 1e-4
    assert torch.equal(dropout_probabilities(network, image, 4, seed=3)[:2], first)  # more passes, the same first ones


def test_the_network_is_left_as_it_was(network):
    network.train()
    next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    modes = [module.training for module in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    p = dropout_probabilities(network, noise(), 2, seed=3)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(not module._forward_hooks for module in network.modules())
    assert torch.equal(p, dropout_probabilities(network.eval(), noise(), 2, seed=3))


def test_hooks_and_modes_are_restored_after_an_error():
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)).train()
    with pytest.raises(RuntimeError, match="shapes"):
        dropout_probabilities(network, torch.zeros(2, 5), 2, seed=1)
    assert network.training
    assert network[0].training
    assert all(not module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("network", [agcnn(dropout=0.0), nn.Sequential(nn.Flatten(), nn.Linear(1600, 3))])
def test_without_dropout_all_passes_are_the_prediction(network):
    image = noise()
    assert not dropout_modules(network)
    p = dropout_probabilities(network, image, 4, seed=1)
    assert p.shape == (4, 5, 3)
    expected = network(image).double().softmax(dim=1)
    assert all(torch.equal(one, expected) for one in p)


def test_dropped_share_and_scale():
    network = nn.Sequential(nn.Dropout(0.3)).eval()
    with thinned(network, seed=1, number=0):
        out = network(torch.ones(3, 20_000))
    assert torch.equal(out[0], out[1])
    assert sorted(set(out[0].tolist())) == pytest.approx([0, 1 / 0.7])
    assert float((out[0] == 0).float().mean()) == pytest.approx(0.3, abs=0.015)
    assert torch.equal(network(torch.ones(3, 4)), torch.ones(3, 4))


def test_channels_are_dropped_whole():
    network = nn.Sequential(nn.Dropout2d(0.5)).eval()
    with thinned(network, seed=1, number=0):
        out = network(torch.ones(2, 64, 3, 5))
    assert torch.equal(out, out[:1, :, :1, :1].expand_as(out))
    assert 10 < int((out[0, :, 0, 0] == 0).sum()) < 54


def test_each_module_and_pass_has_its_own_mask():
    network = nn.Sequential(nn.Dropout(0.5), nn.Identity(), nn.Dropout(0.5)).eval()
    seen = []
    for module in (network[0], network[2]):
        for number in range(2):
            with thinned(network, seed=1, number=number):
                seen.append(tuple(module(torch.ones(1, 64)).flatten().tolist()))
    assert len(set(seen)) == 4


def test_the_mean_of_many_passes_is_the_prediction_of_a_linear_network():
    """The expectation of a masked sum is the sum: with logits l linear in the masks, mean(l) -> l."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.2), nn.Linear(50, 2)).eval()
    x = torch.randn(3, 50)
    p = dropout_probabilities(network, x, 1000, seed=1)
    logit = (p[..., 1] / p[..., 0]).log()  # (P, B)
    expected = (network(x)[:, 1] - network(x)[:, 0]).double()
    error = logit.std(dim=0) / 1000**0.5
    assert ((logit.mean(dim=0) - expected).abs() < 4 * error).all()


def test_views_of_an_image_are_thinned_alike():
    image, network = noise(), TurnedViews(agcnn(), 8)
    p = dropout_probabilities(network, image, 3, seed=2)
    turned = dropout_probabilities(network, torch.rot90(image, 1, dims=(2, 3)), 3, seed=2)
    torch.testing.assert_close(turned, p, atol=1e-5, rtol=1e-5)


def test_a_wrapper_does_not_change_what_is_dropped():
    image = noise()
    p = dropout_probabilities(agcnn(), image, 3, seed=2)
    assert torch.equal(dropout_probabilities(TurnedViews(agcnn(), 1), image, 3, seed=2), p)


def test_temperature_divides_the_logits():
    image, network = noise(), agcnn()
    cold = dropout_probabilities(network, image, 2, seed=1)
    warm = dropout_probabilities(network, image, 2, seed=1, temperature=2.5)
    torch.testing.assert_close(warm, (cold.log() / 2.5).softmax(dim=2))


@pytest.mark.parametrize(("passes", "temperature", "message"), [(0, 1.0, "passes"), (2, 0.0, "temperature")])
def test_nonsense_is_refused(passes, temperature, message):
    with pytest.raises(ValueError, match=message):
        dropout_probabilities(agcnn(), noise(), passes, seed=1, temperature=temperature)
