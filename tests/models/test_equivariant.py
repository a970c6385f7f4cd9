import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks import equivariance as benchmark
from benchmarks.equivariance import equivariant_flop, group_settings, matched_widths, progress, rotation_rows
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from galgaze.config import EQUIVARIANT_WIDTHS, EquivariantSettings, RadioPreparation
from galgaze.errors import ConfigError
from galgaze.images.datasets import LabelledSet
from galgaze.images.preparation import preparation_identity
from galgaze.models.agcnn import AGCNN
from galgaze.models.combined import TurnedViews
from galgaze.models.dropout_passes import thinned
from galgaze.models.equivariant import EquivariantAGCNN, ExportedAGCNN, export, export_architecture, halve, inside_disc
from galgaze.models.groups import GROUPS, FieldBatchNorm, GroupConvolution, pool_group, steerable_basis, turned_basis
from galgaze.models.model_file import ModelCard, architecture_of, load_extras, load_network, read_card, save_model
from galgaze.models.registry import create_network
from galgaze.stages.export_plain import export_plain

PLAIN_MFLOP = 238.210848  # the published AG-CNN on one image of 150 px
QUARTER_TURNS_AND_MIRRORS = GROUPS["D4"]
SMALL = {"widths": (2, 3, 3, 4), "gate_channels": 5}
every_group = pytest.mark.parametrize("name", GROUPS)
every_true_group = pytest.mark.parametrize("name", [name for name in GROUPS if name != "trivial"])


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(group="D4", **settings) -> EquivariantAGCNN:
    torch.manual_seed(0)
    net = EquivariantAGCNN(1, 2, group, **(SMALL | settings))
    for module in net.modules():  # as after some training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.2)
    return net.eval()


def images(size: int, count: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def relative(changed: torch.Tensor, original: torch.Tensor) -> float:
    return float((changed - original).detach().norm() / original.detach().norm())


# ------------------------------------------------------------------------------------------------ groups


@every_group
def test_group_axioms(name):
    group = GROUPS[name]
    elements = range(group.order)
    table = [[group.product(a, b) for b in elements] for a in elements]
    assert all(sorted(row) == list(elements) for row in table)  # closed, and each element once
    assert table[0] == list(elements) == [row[0] for row in table]  # 0 is the identity
    assert all(table[table[a][b]][c] == table[a][table[b][c]] for a, b, c in itertools.product(elements, repeat=3))
    assert all(table[a][group.inverse(a)] == 0 == table[group.inverse(a)][a] for a in elements)
    assert all(table[a][q] == b for a, row in enumerate(group.quotients().tolist()) for b, q in enumerate(row))


def test_orders_and_what_commutes():
    assert [group.order for group in GROUPS.values()] == [1, 4, 8, 16, 8, 16, 32]
    for name, group in GROUPS.items():
        pairs = itertools.combinations(range(group.order), 2)
        commutes = all(group.product(a, b) == group.product(b, a) for a, b in pairs)
        assert commutes == (not name.startswith("D"))


@every_group
def test_elements_act_on_images_as_the_group_says(name):
    group, image = GROUPS[name], images(7)
    for a, b in itertools.product(group.exact_elements(), repeat=2):
        torch.testing.assert_close(group.act(a, group.act(b, image)), group.act(group.product(a, b), image))


def test_an_element_between_the_pixels_is_refused():
    with pytest.raises(ValueError, match="element 1 turns by 45 degrees"):
        GROUPS["C8"].act(1, images(4))


# ----------------------------------------------------------------------------------------------- filters


@every_group
@pytest.mark.parametrize("size", [3, 5])
def test_turned_filters_are_turned_exactly_by_quarters_and_mirrors(name, size):
    group = GROUPS[name]
    turned = turned_basis(group, size)
    for a, b in itertools.product(group.exact_elements(), range(group.order)):
        torch.testing.assert_close(group.act(a, turned[b]), turned[group.product(a, b)], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "free", "steerable"), [(3, 9, 8), (5, 25, 19), (7, 49, 34), (9, 81, 53)])
def test_dimensions_of_the_filters(size, free, steerable):
    for name, dimensions in (("D4", free), ("D8", steerable)):
        filters = turned_basis(GROUPS[name], size)[0].flatten(1).double()
        assert filters.shape == (dimensions, size**2)
        singular = torch.linalg.svdvals(filters)
        assert singular[-1] > 0.25 * singular[0]  # all of them told apart well


def test_any_turn_is_a_combination_within_the_basis():
    upright, turned = steerable_basis(5), steerable_basis(5, math.radians(33), mirrored=True)
    coefficients = torch.linalg.lstsq(upright.flatten(1).T, turned.flatten(1).T).solution
    torch.testing.assert_close(coefficients.T @ upright.flatten(1), turned.flatten(1), rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------ layers


@every_group
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_layer_is_exactly_equivariant(name, memory_format):
    torch.manual_seed(0)
    group = GROUPS[name]
    lifting, convolution = GroupConvolution(2, 3, 5, group, lifting=True), GroupConvolution(3, 2, 3, group)
    normalisation = FieldBatchNorm(2, group)
    image = torch.randn(2, 2, 14, 14).to(memory_format=memory_format)

    def look(image):
        lifted = lifting(image)
        convolved = convolution(F.relu(lifted))
        return lifted, convolved, normalisation(convolved)

    upright = look(image)
    assert float(upright[2].detach().flatten(2).std()) > 0.5
    for a in group.exact_elements():
        turned = look(group.act(a, image).contiguous(memory_format=memory_format))
        for before, after in zip(upright, turned, strict=True):
            torch.testing.assert_close(after, group.act_on_fields(a, before), rtol=1e-4, atol=1e-5)
        for by in ("max", "mean"):
            pooled = pool_group(turned[1], group.order, by)
            torch.testing.assert_close(
                pooled, group.act(a, pool_group(upright[1], group.order, by)), rtol=1e-4, atol=1e-5
            )


def plane_waves(angle_rad: float, mirrored: bool, size: int = 15, wavelength_px: float = 10.0) -> torch.Tensor:
    """Smooth images (60, 1, size, size), turned about their middle pixel without any interpolation."""
    random = torch.Generator().manual_seed(3)
    direction, phase = 2 * math.pi * torch.rand(2, 60, 4, generator=random, dtype=torch.float64)
    if mirrored:
        direction = math.pi - direction
    direction = direction + angle_rad
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    along = direction.cos()[..., None, None] * column - direction.sin()[..., None, None] * row
    return torch.cos(2 * math.pi / wavelength_px * along + phase[..., None, None]).mean(dim=1, keepdim=True).float()


@pytest.mark.parametrize("name", ["C8", "C16", "D8", "D16"])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_layers_are_nearly_equivariant_between_the_pixels(name, kernel_size):
    """Waves of 10 px, two layers: to 10 %, at 45 degrees as at 22.5; the turn itself changes 17 to 120 %."""
    torch.manual_seed(0)
    group = GROUPS[name]
    lifting = GroupConvolution(1, 6, kernel_size, group, lifting=True)
    convolution = GroupConvolution(6, 6, kernel_size, group)

    def at_middle(image):
        with torch.no_grad():
            middle = convolution(F.relu(lifting(image)))[:, :, 7:8, 7:8]
        return group.by_element(middle)  # (B, N, F, 1, 1)

    upright = at_middle(plane_waves(0, False))
    for a in {1, 3, group.rotations - 1, group.order - 1}:
        turned = at_middle(plane_waves(group.angle_rad(a), group.mirrors(a)))
        moved = torch.stack([turned[:, group.product(a, b)] for b in range(group.order)], dim=1)
        assert relative(moved, upright) < 0.1
        assert relative(turned, upright) > 0.17  # elements that stay in their places are wrong


@pytest.mark.parametrize("name", ["trivial", "C4", "D8"])
@pytest.mark.parametrize("kernel_size", [3, 5, 9])
def test_first_weights_keep_the_variance_of_a_network_with_relu(name, kernel_size):
    """He et al. 2015: the mean square doubles in a convolution, and ReLU halves it again."""
    torch.manual_seed(0)
    for lifting in (True, False):
        layer = GroupConvolution(16, 64, kernel_size, GROUPS[name], lifting)
        inputs = layer.filters().shape[1]
        with torch.no_grad():
            after = layer(torch.randn(4, inputs, 24, 24))[:, :, 4:-4, 4:-4]
        assert float(after.square().mean()) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("name", ["trivial", "D4", "D8"])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_signals_keep_their_size_through_the_layers_at_first(name, kernel_size):
    torch.manual_seed(0)
    net = EquivariantAGCNN(1, 2, name, widths=(6, 6, 6, 6), kernel_size=kernel_size).eval()
    sizes = []
    for module in net.modules():
        if isinstance(module, GroupConvolution):
            module.register_forward_hook(lambda _module, _input, output: sizes.append(float(output.square().mean())))
    with torch.no_grad():
        net(torch.randn(4, 1, 48, 48).clamp(-1, 1))
    assert len(sizes) == 11
    assert 1 / 2 < (sizes[-1] / sizes[0]) ** (1 / 10) < 2  # a layer, without batch normalisation


# ----------------------------------------------------------------------------------------------- network


def assert_turns_with_the_image(net, image, elements, logits=1e-4, maps=1e-4):
    with torch.no_grad():
        upright = net.examine(image)
        for a in elements:
            turned = net.examine(QUARTER_TURNS_AND_MIRRORS.act(a, image))
            assert relative(turned.logits, upright.logits) < logits
            assert relative(turned.features, upright.features) < logits
            for before, after in zip(upright.maps, turned.maps, strict=True):
                torch.testing.assert_close(
                    after, QUARTER_TURNS_AND_MIRRORS.act(a, before), rtol=0, atol=maps * float(before.abs().max())
                )


@every_true_group
@pytest.mark.parametrize("size", [40, 43, 75])
def test_logits_stay_and_maps_turn(name, size):
    elements = range(8) if name.startswith("D") else range(4)
    net, image = network(name), images(size)
    assert_turns_with_the_image(net, image, elements)
    features = net.examine(image).features.detach()
    assert relative(features[0], features[1]) > 1e-3  # while other images give other features


@pytest.mark.parametrize("name", ["C4", "C8", "C16"])
def test_without_reflections_a_mirrored_image_is_another(name):
    net, image = network(name), images(40)
    with torch.no_grad():
        before, after = net.examine(image), net.examine(image.flip(-1))
    assert relative(after.logits, before.logits) > 1e-3
    assert float((after.maps[2].flip(-1) - before.maps[2]).abs().max()) > 0.1


@pytest.mark.parametrize("net", [AGCNN(1, 2, gate_pooling="mean").eval(), network("trivial")], ids=["plain", "trivial"])
def test_the_plain_network_is_not_invariant(net):
    with pytest.raises(AssertionError):
        assert_turns_with_the_image(net, images(40), [1], logits=1e-3)
    assert_turns_with_the_image(net, images(40), [0])


@pytest.mark.parametrize(
    "settings",
    [
        *({"normalisation": name} for name in ("std_mean_norm", "sigmoid", "softmax", "tanh")),
        *({"aggregation": name} for name in ("concat", "mean", "deep_sup")),
        {"gate_pooling": "sum"},
        {"faint_light": True},
        *({"kernel_size": size} for size in (3, 7, 9)),
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_whatever_the_settings_it_is_invariant_and_its_export_equal(settings):
    net, image = network(**settings), images(34)
    # std_mean_norm divides by a maximum that may be near 0
    assert_turns_with_the_image(net, image, range(8), maps=1e-3 if "std_mean_norm" in settings.values() else 1e-4)
    with torch.no_grad():
        torch.testing.assert_close(export(net)(image), net(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "padded"), [(32, 32), (33, 39), (50, 56), (75, 79), (150, 152), (151, 151), (299, 303), (300, 304)]
)
def test_sizes(size, padded):
    net = network("C4", widths=(1, 1, 1, 1))
    assert size + 2 * net.padding_px(size) == padded
    image = images(size, 1)
    with torch.no_grad():
        logits, maps = net.forward_with_attention(image)
    assert torch.isfinite(logits).all()
    assert [a.shape[-1] for a in maps] == [math.ceil(padded / reduction) for reduction in net.attention_reductions]
    assert_turns_with_the_image(net, image, range(4))


def test_150_px_are_halved_to_19_and_mirrored_alike():
    x = images(152)
    for size in (76, 38, 19, 10, 5):
        mirrored, x = halve(x.flip(-1)), halve(x)
        assert x.shape[-2:] == (size, size)
        assert torch.equal(mirrored.flip(-1), x)


@pytest.mark.parametrize(("small", "large"), [(19, 152), (19, 38), (10, 79), (10, 40)])
def test_the_gates_interpolation_turns_with_the_image(small, large):
    coarse = images(small)
    up = F.interpolate(coarse, size=(large, large), mode="bilinear", align_corners=False)
    for a in range(8):
        turned = QUARTER_TURNS_AND_MIRRORS.act(a, coarse)
        again = F.interpolate(turned, size=(large, large), mode="bilinear", align_corners=False)
        torch.testing.assert_close(again, QUARTER_TURNS_AND_MIRRORS.act(a, up), rtol=0, atol=1e-5)


@pytest.mark.parametrize("faint_light", [False, True])
def test_what_is_outside_of_the_disc_is_not_seen(faint_light):
    net, image = network(faint_light=faint_light), images(50)
    inside = inside_disc(50, 50)
    assert int(inside.sum()) == pytest.approx(math.pi * 25**2, rel=0.01)
    assert not inside[0, 0]
    assert inside[0, 25]
    with torch.no_grad():
        logits = net(image)
        assert torch.equal(net(torch.where(inside, image, 1.0)), logits)
        assert torch.equal(net(torch.where(inside, image, -1.0)), logits)  # -1 is blank
        image[:, :, 0, 25] += 0.5
        assert not torch.equal(net(image), logits)


@pytest.mark.parametrize("gates", range(4))
def test_gates_and_every_parameter_is_used(gates):
    net, image = network(gates=gates, normalisation="sigmoid", aggregation="concat"), images(32, 4)
    assert_turns_with_the_image(net, image, range(8))
    seen = net.examine(image)
    assert len(seen.maps) == gates == len(net.attention_reductions)
    assert seen.features.shape == (4, [4, 3, 6, 8][gates])
    seen.logits[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    unused = [name for name, parameter in net.named_parameters() if not parameter.grad.abs().max() > 0]
    assert not unused


@pytest.mark.parametrize("name", ["C4", "D8"])
def test_training_keeps_the_symmetry(name):
    net = network(name).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.05)
    weights = {key: value.clone() for key, value in net.named_parameters()}
    image, label = images(40, 6).to(memory_format=torch.channels_last), torch.tensor([0, 1, 0, 1, 0, 1])
    for _ in range(2):
        optimiser.zero_grad()
        F.cross_entropy(net(image), label).backward()
        optimiser.step()
    assert any(relative(value.detach(), weights[key]) > 0.01 for key, value in net.named_parameters())
    for dropout in net.dropout:
        dropout.p = 0.0
    elements = range(8) if name.startswith("D") else range(4)
    assert_turns_with_the_image(net, image, elements, logits=1e-3, maps=1e-3)  # statistics of the batch
    assert_turns_with_the_image(net.eval(), image, elements)  # running statistics


def test_batch_statistics_do_not_know_how_the_images_were_turned():
    statistics = []
    for turns in (0, 1):
        net = network().train()
        net(images(40).rot90(turns, (2, 3)))
        statistics.append({key: value for key, value in net.state_dict().items() if "running" in key})
    for key, value in statistics[0].items():
        torch.testing.assert_close(statistics[1][key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gates", range(1, 4))
def test_gates_of_equal_width_are_thinned_by_masks_of_their_own(gates):
    net = network(gates=gates, widths=(4, 4, 4, 4), dropout=0.5)
    seen = dict.fromkeys(net.dropout, 0)
    for module in net.dropout:
        module.register_forward_hook(lambda module, _inputs, _output: seen.update({module: seen[module] + 1}))
    with torch.no_grad():
        net(images(32))
        assert list(seen.values()) == [1] * gates  # each has a gate
        with thinned(net, seed=1, number=0):
            masks = [tuple(module(torch.ones(1, 200)).flatten().tolist()) for module in net.dropout]
    assert len(set(masks)) == gates
    assert export(net).dropout[-1].p == 0.5


# --------------------------------------------------------------------------------- settings, cost, export


def test_the_registry_builds_it_from_the_configuration():
    settings = EquivariantSettings(architecture="equivariant_agcnn")
    net = create_network(architecture_of(settings), 3, 10)
    assert net.settings == settings.model_dump(exclude={"architecture"})
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def mflop(net, size_px: int) -> float:
    net = net.to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 1, size_px, size_px, device="meta"))
    return counter.get_total_flops() / 1e6


@pytest.mark.parametrize(("group", "times"), [(name, 16 if name == "D16" else 10) for name in GROUPS])
def test_at_first_settings_it_costs_at_most_ten_plain_networks(group, times):
    settings = EquivariantSettings(architecture="equivariant_agcnn", group=group)
    assert equivariant_flop(settings.model_dump(exclude={"architecture"})) <= times * PLAIN_MFLOP * 1e6


def test_the_papers_widths_cost_what_they_must():
    """34 GFLOP for D4 at 150 px, 35.6 at the padded 152: nothing is computed twice."""
    architecture = export_architecture({"group": "D4", "widths": (6, 16, 32, 64), "kernel_size": 5})
    del architecture["name"]
    gates = {"gates": 3, "normalisation": "range_norm", "aggregation": "ft", "gate_channels": 64, "dropout": 0.5}
    assert mflop(ExportedAGCNN(1, 2, gate_pooling="sum", **architecture, **gates), 150) / 1000 == pytest.approx(
        35.6, abs=0.2
    )


def test_the_papers_largest_network_runs():
    with torch.inference_mode():
        net = EquivariantAGCNN(1, 2, "D16", widths=(6, 16, 32, 64), gate_channels=64).eval()
        logits, maps = net.forward_with_attention(images(32, 1))
    assert torch.isfinite(logits).all()
    assert [a.shape[-1] for a in maps] == [8, 16, 32]


@every_group
def test_the_export_says_the_same_without_group_machinery(name):
    net, image = network(name), images(43, 3)
    plain = export(net)
    assert not any(isinstance(module, GroupConvolution | FieldBatchNorm) for module in plain.modules())
    fresh = create_network(export_architecture({"name": "equivariant_agcnn"} | net.settings), 1, 2)
    fresh.load_state_dict(plain.state_dict())
    with torch.no_grad():
        expected = net.examine(image)
        for copy in (plain, fresh.eval()):
            seen = copy.examine(image)
            torch.testing.assert_close(seen.logits, expected.logits, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(seen.features, expected.features, rtol=1e-5, atol=1e-5)
            for ours, theirs in zip(seen.maps, expected.maps, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert plain.padding_px(150) == net.padding_px(150) == 1


def card(**changes) -> ModelCard:
    values = {
        "task": "radio_fr",
        "architecture": {"name": "equivariant_agcnn", "group": "D4", "widths": [1, 2, 2, 3], "gate_channels": 4},
        "classes": ["FRI", "FRII"],
        "channels": 1,
        "preparation": preparation_identity(RadioPreparation(size_px=64)),
        "calibration": {"method": "temperature", "temperature": 1.7},
        "seed": 5,
    }
    return ModelCard(**(values | changes))


@pytest.mark.parametrize("turns", [1, 4])
def test_a_model_file_is_exported_with_its_card_and_extras(tmp_path, turns):
    model, out = tmp_path / "model.safetensors", tmp_path / "plain.safetensors"
    original = card(test_time_turns=turns)
    save_model(model, create_network(original.architecture, 1, 2), original, {"training_role": torch.tensor([0, 1])})
    assert str(out) in export_plain(model, out)
    (network, before), (plain, after) = load_network(model), load_network(out)
    assert isinstance(plain, ExportedAGCNN if turns == 1 else TurnedViews)
    assert after.architecture["order"] == 8
    assert after.model_copy(update={"architecture": before.architecture}) == before
    assert load_extras(out)["training_role"].tolist() == [0, 1]
    with torch.no_grad():
        torch.testing.assert_close(plain(images(64)), network(images(64)), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="architecture is exported_agcnn; only equivariant_agcnn"):
        export_plain(out, tmp_path / "again.safetensors")
    with pytest.raises(ConfigError, match="this is the model itself"):
        export_plain(model, model)
    assert read_card(model) == before


# -------------------------------------------------------------------------------------------- benchmark


def test_costs_are_those_of_each_groups_own_widths(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "OUT", tmp_path)
    monkeypatch.setattr(benchmark, "PAPER_WIDTHS", (1, 2, 2, 3))  # the true ones take minutes
    monkeypatch.setattr(benchmark, "images_per_second", lambda *_: 1.0)
    benchmark.cost(["C4", "D8"], 0.0)
    table = pd.read_csv(tmp_path / "equivariance_cost.csv")
    assert table["network"].tolist() == ["plain", "C4", "D8", "C4", "D8"]
    assert table["widths"][1:].tolist() == [
        f"default {EQUIVARIANT_WIDTHS['C4']}", f"default {EQUIVARIANT_WIDTHS['D8']}", *["paper [1, 2, 2, 3]"] * 2,
    ]  # fmt: skip
    for row, group in ((1, "C4"), (2, "D8")):
        net = EquivariantAGCNN(1, 2, group, EQUIVARIANT_WIDTHS[group])
        assert table["parameters"][row] == sum(parameter.numel() for parameter in net.parameters())
        assert table["flop_ratio"][row] < 10
    assert [group_settings("D4", gate_channels=64)[name] for name in ("group", "gate_channels")] == ["D4", 64]


def test_the_folds_are_those_of_the_whole_set():
    random = np.random.default_rng(0)
    count = 60
    ids = np.array([f"s{number}" for number in range(count)])
    ra, dec = random.uniform(0, 360, count), random.uniform(-60, 60, count)
    ra[1], dec[1] = ra[0], dec[0] + 30 / 3600  # one piece of sky
    image = np.arange(count, dtype=np.uint8)[:, None, None, None]
    confident = random.random(count) < 0.5
    data = LabelledSet(image, np.arange(count) % 2, ids, ra, dec, None, confident=confident)
    everything = benchmark.some_images(data, "all", None)
    assert set(everything.fold) == set(range(5))
    assert everything.fold[0] == everything.fold[1]
    part = benchmark.some_images(data, "confident", 10)
    rows = part.image.ravel()
    assert confident[rows].all()
    assert 5 <= len(rows) <= 10
    assert part.fold.tolist() == everything.fold[rows].tolist()
    assert part.label.tolist() == (rows % 2).tolist()


def test_how_soon_a_training_was_nearly_there():
    accuracy = [0.5, 0.85, 0.6, 0.82, *[0.9] * 6]  # 90 % of 0.9 is 0.81
    found = progress(accuracy, mflop_an_epoch=2e6)
    assert (found["final_accuracy"], found["epochs_to_90"], found["epochs_to_stay"]) == (pytest.approx(0.9), 2, 4)
    assert (found["tflop_to_90"], found["tflop_to_stay"]) == (4, 8)


def test_widths_for_a_budget():
    settings = {"kernel_size": 3, "gate_channels": 16}
    widths = matched_widths(settings | {"group": "C4"}, 200_000_000)
    assert 160e6 < equivariant_flop(settings | {"group": "C4", "widths": widths}) < 240e6
    assert widths == sorted(widths)
    with pytest.raises(ConfigError, match=r"D8 with kernels of 3 px cannot cost 200 MFLOP.* nearest is 32"):
        matched_widths(settings | {"group": "D8"}, 200_000_000)


def test_turning_images_changes_what_networks_say_unless_it_is_a_symmetry():
    image = (torch.rand(8, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    change = {
        (name, row["angle_deg"]): row["median_relative_change_of_logits"]
        for name in ("trivial", "C4")
        for row in rotation_rows(name, network(name), image)
    }
    assert change["C4", 90] < 1e-4
    assert min(change["trivial", 90], change["C4", 45], change["C4", 22.5]) > 1e-3
