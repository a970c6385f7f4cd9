import numpy as np
import pytest
import torch
from tests.real_data import needs_data, unpacked_mirabest

from galgaze.images.datasets import read_array_pickle
from galgaze.models.agcnn import AGCNN, range_normalise
from galgaze.models.runtime import to_network_input

STEM = "0709Exp1-range_norm-MiraBestNOHYBRIDAdam-AGRadGalNetft-5e-05"


def network(**settings) -> AGCNN:
    torch.manual_seed(0)
    net = AGCNN(1, 2, **settings)
    for module in net.modules():  # statistics as after some training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def test_published_form_has_101447_parameters():
    assert sum(parameter.numel() for parameter in AGCNN(1, 2).parameters()) == 101_447


def test_maps_have_the_sizes_that_their_reductions_say():
    net = network()
    image = torch.rand(2, 1, 150, 150)
    logits, maps = net.forward_with_attention(image)
    assert logits.shape == (2, 2)
    assert [tuple(a.shape) for a in maps] == [(2, 37, 37), (2, 75, 75), (2, 150, 150)]
    assert [150 // a.shape[-1] for a in maps] == list(net.attention_reductions)


def test_nothing_depends_on_the_images_beside():
    net = network(gate_pooling="mean")
    image = torch.rand(5, 1, 64, 64) * 2 - 1
    together, maps = net.forward_with_attention(image)
    for i in range(5):
        alone, own = net.forward_with_attention(image[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own[2][0], maps[2][i], rtol=1e-4, atol=1e-5)


def test_maps_span_0_to_1_and_a_flat_map_is_0():
    a = range_normalise(torch.rand(3, 1, 8, 8))
    torch.testing.assert_close(a.amin(dim=(1, 2, 3)), torch.zeros(3))
    torch.testing.assert_close(a.amax(dim=(1, 2, 3)), torch.ones(3))
    assert (range_normalise(torch.full((1, 1, 4, 4), 7.0)) == 0).all()


def test_flipping_the_image_flips_the_maps_of_a_symmetric_network():
    net = network()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = (module.weight.data + module.weight.data.flip(-1)) / 2
    image = torch.rand(1, 1, 64, 64)
    logits, maps = net.forward_with_attention(image)
    mirrored, mirrored_maps = net.forward_with_attention(image.flip(-1))
    torch.testing.assert_close(logits, mirrored, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(maps[2].flip(-1), mirrored_maps[2], rtol=1e-3, atol=1e-3)


def from_published(state: dict) -> dict:
    """The released state dict under our names; its fc1 to fc3 are never used."""
    ours = {}
    for stage, letters in enumerate(("abc", "abc", "abc", "ab")):
        for layer, letter in enumerate(letters):
            for prefix, index in (("conv", 3 * layer), ("bnorm", 3 * layer + 1)):
                start = f"{prefix}{stage + 1}{letter}."
                ours |= {
                    f"stages.{stage}.{index}.{k.removeprefix(start)}": v
                    for k, v in state.items()
                    if k.startswith(start)
                }
    for key, value in state.items():
        name, _, rest = key.partition(".")
        if name.startswith("attention"):
            ours[f"attention.{int(name[-1]) - 1}.{rest}"] = value
        elif name == "classifiers":
            ours[f"gate_classifiers.{rest}"] = value
        elif name == "classifier":
            ours[key] = value
    return ours


@needs_data
def test_published_weights_give_the_published_logits_and_maps(data_folder, tmp_path):
    folder = data_folder / "first/published_checkpoint"
    state = torch.load(folder / f"{STEM}.pt", map_location="cpu", weights_only=True)
    net = AGCNN(1, 2).eval()
    net.load_state_dict(from_published(state))
    batch = read_array_pickle(unpacked_mirabest(data_folder, tmp_path) / "data_batch_1")
    image = to_network_input(torch.from_numpy(np.asarray(batch["data"][:32]).reshape(32, 1, 150, 150)))
    with torch.inference_mode():
        logits, maps = net.forward_with_attention(image)
    expected = np.load(folder / "expected_data_batch_1_first32.npz")
    np.testing.assert_allclose(logits, expected[f"{STEM}/logits"], rtol=1e-4, atol=1e-3)
    for gate, a in enumerate(maps, start=1):
        np.testing.assert_allclose(a[:4], expected[f"{STEM}/attention{gate}"], atol=1e-4)


@pytest.mark.parametrize("size", [32, 64, 150])
def test_sizes(size):
    assert torch.isfinite(network()(torch.rand(1, 1, size, size))).all()
