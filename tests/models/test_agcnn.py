import math

import pytest
import torch

from galgaze.models.agcnn import AGCNN, with_faint_light
from galgaze.models.attention import NORMALISATIONS

torch.set_num_threads(1)
AGGREGATIONS = ["ft", "concat", "mean", "deep_sup"]
SMALL = {"widths": (3, 4, 5, 6), "gate_channels": 7}


def network(channels: int = 1, classes: int = 2, **settings) -> AGCNN:
    torch.manual_seed(0)
    net = AGCNN(channels, classes, **settings)
    for module in net.modules():  # statistics as after some training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def image_batch(images: int, size: int = 64, channels: int = 1) -> torch.Tensor:
    return torch.rand(images, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_published_form_has_101447_parameters():
    assert count(AGCNN(1, 2)) == 101_447


def test_published_form_without_gates_reads_5184_values():
    net = AGCNN(1, 2, gates=0, flattened_px=150)
    assert net.classifier.in_features == 5184
    stages = sum(parameter.numel() for parameter in net.stages.parameters())
    assert count(net) == stages + 2 * 5184 + 2


def test_maps_have_the_sizes_that_their_reductions_say():
    net = network()
    logits, maps = net.forward_with_attention(image_batch(2, 150))
    assert logits.shape == (2, 2)
    assert [tuple(a.shape) for a in maps] == [(2, 37, 37), (2, 75, 75), (2, 150, 150)]
    assert [150 // a.shape[-1] for a in maps] == list(net.attention_reductions)


@pytest.mark.parametrize("gates", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [32, 64, 75, 150, 300])
def test_sizes_and_gates(size, gates):
    examination = network(gates=gates, **SMALL).examine(image_batch(2, size))
    assert torch.isfinite(examination.logits).all()
    assert [tuple(a.shape) for a in examination.maps] == [(2, size // r, size // r) for r in (4, 2, 1)[:gates]]
    assert examination.features.shape == (2, {0: 6, 1: 5, 2: 5 + 4, 3: 5 + 4 + 3}[gates])
    assert examination.answers is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_channels_and_classes(channels, classes, aggregation):
    net = network(channels, classes, aggregation=aggregation, **SMALL)
    logits, maps = net.forward_with_attention(image_batch(2, 32, channels))
    assert logits.shape == (2, classes)
    assert torch.isfinite(logits).all()
    assert len(maps) == 3
    assert torch.equal(net(image_batch(2, 32, channels)), logits)


def test_without_gates_the_published_form_reads_one_size():
    net = network(gates=0, flattened_px=150, **SMALL)
    assert net(image_batch(1, 150)).shape == (1, 2)
    with pytest.raises(ValueError, match="reads images of 150 px, not of 152"):
        net(image_batch(1, 152))


def test_without_gates_the_mean_of_the_last_stage_decides():
    net = network(gates=0, **SMALL)
    image = image_batch(2)
    x = image
    for stage in net.stages[:3]:
        x = torch.nn.functional.max_pool2d(stage(x), 2)
    torch.testing.assert_close(net(image), net.classifier(net.stages[3](x).mean(dim=(2, 3))))


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("normalisation", list(NORMALISATIONS))
def test_nothing_depends_on_the_images_beside(normalisation, pooling):
    net = network(normalisation=normalisation, gate_pooling=pooling)
    image = image_batch(5) * torch.tensor([1.0, 0.1, 0.01, 1.0, 0.0]).view(5, 1, 1, 1)
    together, maps = net.forward_with_attention(image)
    scale = together.abs().max()
    for i in range(5):
        alone, own = net.forward_with_attention(image[i : i + 1])
        torch.testing.assert_close(alone[0] / scale, together[i] / scale, rtol=0, atol=1e-5)
        for gate in range(3):
            torch.testing.assert_close(own[gate][0], maps[gate][i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gates", [1, 2, 3])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("normalisation", list(NORMALISATIONS))
def test_every_parameter_is_used(gates, aggregation, normalisation):
    net = network(3, 10, gates=gates, aggregation=aggregation, normalisation=normalisation, **SMALL).double()
    logits = net(image_batch(4, 32, 3).double())
    (logits * torch.randn(logits.shape, dtype=torch.float64)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        largest = parameter.grad.abs().max()
        if name.endswith("psi.bias") and normalisation in ("range_norm", "softmax"):
            assert largest < 1e-9, name  # these two do not see the level of the scores: the only idle parameter
        else:
            assert largest > 1e-9, name


@pytest.mark.parametrize("flattened_px", [None, 32])
def test_every_parameter_is_used_without_gates(flattened_px):
    net = network(gates=0, flattened_px=flattened_px, **SMALL)
    net(image_batch(2, 32)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_gates_are_counted_from_the_deepest():
    net = network(gates=2, **SMALL)
    assert [gate.theta.in_channels for gate in net.attention] == [5, 4]
    assert net.attention_reductions == (4, 2)


def test_flipping_the_image_flips_the_maps_of_a_symmetric_network():
    net = network()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = (module.weight.data + module.weight.data.flip(-1)) / 2
    image = image_batch(1)
    logits, maps = net.forward_with_attention(image)
    mirrored, mirrored_maps = net.forward_with_attention(image.flip(-1))
    torch.testing.assert_close(logits, mirrored, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(maps[2].flip(-1), mirrored_maps[2], rtol=1e-3, atol=1e-3)


def test_only_training_drops_values():
    net = network(dropout=0.5)
    image = image_batch(2)
    assert torch.equal(net(image), net(image))
    net.train()
    assert not torch.equal(net(image), net(image))


def test_faint_light_is_the_asinh_stretch():
    image = torch.tensor([-1.0, -0.98, 0.0, 1.0]).view(1, 1, 2, 2)
    linear, faint = with_faint_light(image)[0]
    assert torch.equal(linear, image[0, 0])
    expected = [2 * math.asinh(30 * light) / math.asinh(30) - 1 for light in (0, 0.01, 0.5, 1)]
    torch.testing.assert_close(faint.flatten(), torch.tensor(expected))
    assert faint[0, 1] > linear[0, 1] + 0.1  # a hundredth of the brightest is seen


def test_faint_light_doubles_the_channels():
    net = network(3, faint_light=True, **SMALL)
    assert net.stages[0][0].in_channels == 6
    assert torch.isfinite(net(image_batch(1, 32, 3))).all()


class TestBinning:
    @pytest.mark.parametrize("size", [64, 65, 150])
    def test_it_is_the_same_network_on_binned_images(self, size):
        torch.manual_seed(1)
        plain, binned = AGCNN(1, 2).eval(), AGCNN(1, 2, binning=2).eval()
        binned.load_state_dict(plain.state_dict())
        image = torch.rand(3, 1, size, size) * 2 - 1
        small = torch.stack(
            [image[..., i : i + 2, j : j + 2].mean(dim=(-2, -1)) for i in range(0, size, 2) for j in range(0, size, 2)],
            -1,
        ).reshape(3, 1, -(-size // 2), -(-size // 2))
        with torch.inference_mode():
            expected, found = plain.forward_with_attention(small), binned.forward_with_attention(image)
        torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
        for there, here in zip(expected[1], found[1], strict=True):
            torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-5)

    def test_maps_know_how_many_pixels_theirs_have(self):
        assert AGCNN(1, 2, binning=2).attention_reductions == (8, 4, 2)
        assert AGCNN(1, 2, gates=1).attention_reductions == (4,)

    def test_published_form_without_gates_binned(self):
        network = AGCNN(1, 2, gates=0, flattened_px=150, binning=2).eval()
        assert network(torch.zeros(1, 1, 150, 150)).shape == (1, 2)
