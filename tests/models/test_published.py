import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.real_data import FOLDER, needs_data, unpacked_mirabest
from torch.nn import functional as F

from galgaze.config import RadioPreparation
from galgaze.errors import ConfigError
from galgaze.files import sha256_file
from galgaze.images.datasets import read_array_pickle
from galgaze.images.preparation import preparation_identity
from galgaze.models.model_file import check_fits_task, load_network, read_card
from galgaze.models.published import load_released
from galgaze.models.runtime import to_network_input
from galgaze.stages.import_published import import_published

torch.set_num_threads(1)
NORMALISATIONS = ["range_norm", "std_mean_norm", "sigmoid", "softmax", "tanh"]
AGGREGATIONS = ["ft", "concat", "mean", "deep_sup"]
EXPERIMENT = {0: "Exp30", 1: "Exp31", 2: "Exp32", 3: "Exp1"}
STEMS = [
    "0709Exp1-range_norm-MiraBestNOHYBRIDAdam-AGRadGalNetft-5e-05",
    "0709Exp2-sigmoid-MiraBestNOHYBRIDAdam-AGRadGalNetdeep_sup-5e-05",
    "0709Exp2-sigmoid-MiraBestNOHYBRIDAdam-AGRadGalNetmean-5e-05",
    "0709Exp2-softmax-MiraBestNOHYBRIDAdam-AGRadGalNetconcat-5e-05",
]

# ------------------------------------------------------- the released network, from its description alone
#
# Written from the paper and the facts measured on the released files, sharing nothing with galgaze.models.

STAGES = {1: "abc", 2: "abc", 3: "abc", 4: "ab"}


def reference_stage(state: dict, stage: int, x: torch.Tensor) -> torch.Tensor:
    for letter in STAGES[stage]:
        x = F.conv2d(x, state[f"conv{stage}{letter}.weight"], state[f"conv{stage}{letter}.bias"], padding=1)
        mean, variance, scale, shift = (
            state[f"bnorm{stage}{letter}.{name}"].view(1, -1, 1, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp_min(0)
    return x


def reference_normalise(psi: torch.Tensor, normalisation: str) -> torch.Tensor:
    """One image's scores (1, 1, H, W); minimum and maximum are those of all that is given, as released."""
    if normalisation == "range_norm":
        return (psi - psi.min()) / (psi.max() - psi.min())
    if normalisation == "std_mean_norm":
        return ((psi - psi.min()) / psi.max() - 0.5) / 0.25
    if normalisation == "softmax":
        return psi.exp() / psi.exp().sum()
    return 1 / (1 + (-psi).exp()) if normalisation == "sigmoid" else 1 - 2 / ((2 * psi).exp() + 1)


def reference_one(state: dict, image: torch.Tensor, normalisation: str, aggregation: str, gates: int):
    """Logits (K,), and a map (h, w) a gate, of one image (1, C, H, W)."""
    state = {name: value.double() for name, value in state.items()}
    outputs, x = {}, image.double()
    for stage in (1, 2, 3):
        outputs[stage] = reference_stage(state, stage, x)
        x = F.max_pool2d(outputs[stage], 2)
    g = reference_stage(state, 4, x)
    if gates == 0:
        flat = F.max_pool2d(g, 2).reshape(-1)  # (C, H, W) order
        return state["classifier.weight"] @ flat + state["classifier.bias"], []
    vectors, maps = [], []
    for gate, stage in zip(range(1, gates + 1), (3, 2, 1), strict=False):
        local, name = outputs[stage], f"attention{gate}"
        up = F.interpolate(F.conv2d(g, state[f"{name}.phi.weight"]), size=local.shape[2:], mode="bilinear")
        compared = (F.conv2d(local, state[f"{name}.theta.weight"]) + up).clamp_min(0)
        a = reference_normalise(
            F.conv2d(compared, state[f"{name}.psi.weight"], state[f"{name}.psi.bias"]), normalisation
        )
        vectors.append((a * local).sum(dim=(2, 3))[0])
        maps.append(a[0, 0])
    return reference_aggregate(state, vectors, aggregation), maps


def reference_aggregate(state: dict, vectors: list[torch.Tensor], aggregation: str) -> torch.Tensor:
    def layer(name: str, vector: torch.Tensor) -> torch.Tensor:
        return state[f"{name}.weight"] @ vector + state[f"{name}.bias"]

    if aggregation == "concat":
        return layer("classifier", torch.cat(vectors))
    votes = [layer(f"classifiers.{i}", vector) for i, vector in enumerate(vectors)]
    if aggregation == "mean":
        return sum(votes) / len(votes)
    if aggregation == "deep_sup":
        return sum([layer("classifier", torch.cat(vectors)), *votes]) / (len(votes) + 1)
    return layer("classifier", torch.cat([vote.clamp_min(0) for vote in votes]))


def synthetic(
    aggregation: str = "ft",
    gates: int = 3,
    widths: tuple[int, ...] = (6, 16, 32, 64),
    channels: int = 1,
    classes: int = 2,
    gate_channels: int = 64,
) -> dict[str, torch.Tensor]:
    """A state dict as released, of random weights that keep the features' size from stage to stage."""
    random = torch.Generator().manual_seed(5)
    state = {}

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=random) * scale

    def linear(name: str, out: int, values: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = normal(out, values, scale=values**-0.5), normal(out)

    values = channels
    for stage, width in enumerate(widths, start=1):
        for letter in STAGES[stage]:
            name = f"{stage}{letter}"
            state[f"conv{name}.weight"] = normal(width, values, 3, 3, scale=(2 / (9 * values)) ** 0.5)
            state[f"conv{name}.bias"] = normal(width, scale=0.1)
            state[f"bnorm{name}.weight"] = 1 + normal(width, scale=0.1)
            state[f"bnorm{name}.bias"] = normal(width, scale=0.1)
            state[f"bnorm{name}.running_mean"] = normal(width, scale=0.1)
            state[f"bnorm{name}.running_var"] = 1 + normal(width).abs()
            state[f"bnorm{name}.num_batches_tracked"] = torch.tensor(7)
            values = width
    local = widths[2::-1][:gates]
    for gate, width in enumerate(local, start=1):
        state[f"attention{gate}.theta.weight"] = normal(gate_channels, width, 1, 1, scale=width**-0.5)
        state[f"attention{gate}.phi.weight"] = normal(gate_channels, widths[3], 1, 1, scale=widths[3] ** -0.5)
        state[f"attention{gate}.psi.weight"] = normal(1, gate_channels, 1, 1, scale=gate_channels**-0.5)
        state[f"attention{gate}.psi.bias"] = normal(1)
    for name in ("fc1", "fc2", "fc3"):  # never used; far larger in the release
        linear(name, 2, 3)
    if gates == 0:
        linear("classifier", classes, widths[3] * 81)
    elif aggregation != "concat":
        for i, width in enumerate(local):
            linear(f"classifiers.{i}", classes, width)
    if gates and aggregation != "mean":
        linear("classifier", classes, classes * gates if aggregation == "ft" else sum(local))
    return state


SMALL = {"widths": (3, 4, 5, 6), "gate_channels": 7}


def released_name(normalisation: str, aggregation: str, gates: int) -> str:
    return f"0709{EXPERIMENT[gates]}-{normalisation}-MiraBestNOHYBRIDAdam-AGRadGalNet{aggregation}-5e-05.pt"


def saved(folder: Path, state, name: str = "Exp1-range_norm-AGRadGalNetft.pt") -> Path:
    torch.save(state, folder / name)
    return folder / name


@torch.no_grad()
def assert_same(network, state, image, normalisation, aggregation, gates) -> None:
    """Logits relative to each image's largest one (the other may happen to be near 0), and maps."""
    logits, maps = network.forward_with_attention(image)
    for i in range(len(image)):
        expected, expected_maps = reference_one(state, image[i : i + 1], normalisation, aggregation, gates)
        scale = expected.abs().max()
        torch.testing.assert_close(logits[i] / scale, (expected / scale).float(), rtol=0, atol=1e-4)
        assert len(maps) == gates
        for a, expected_map in zip(maps, expected_maps, strict=True):
            scale = max(1.0, float(expected_map.abs().max()))  # std_mean_norm has no bounds
            torch.testing.assert_close(a[i] / scale, (expected_map / scale).float(), rtol=0, atol=1e-4)


def random_image(images: int, channels: int, size: int) -> torch.Tensor:
    return torch.rand(images, channels, size, size, generator=torch.Generator().manual_seed(6)) * 2 - 1


# ---------------------------------------------------------------------------------- synthetic state dicts


@pytest.mark.parametrize("gates", [1, 2, 3])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_synthetic_weights_give_the_released_logits_and_maps(tmp_path, normalisation, aggregation, gates):
    state = synthetic(aggregation, gates)
    path = saved(tmp_path, state, released_name(normalisation, aggregation, gates))
    line = import_published(path, tmp_path / "m.safetensors")
    assert f"normalisation {normalisation}, aggregation {aggregation}, {gates} gate" in line
    network, card = load_network(tmp_path / "m.safetensors")
    found = {key: card.architecture[key] for key in ("normalisation", "aggregation", "gates")}
    assert found == {"normalisation": normalisation, "aggregation": aggregation, "gates": gates}
    assert_same(network, state, random_image(2, 1, 48), normalisation, aggregation, gates)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_synthetic_weights_without_gates(tmp_path, normalisation, aggregation):
    state = synthetic(gates=0, widths=(6, 8, 8, 8))
    path = saved(tmp_path, state, released_name(normalisation, aggregation, 0))
    line = import_published(path, tmp_path / "m.safetensors")
    assert ": 0 gates, " in line  # nothing is normalised or brought together
    network, card = load_network(tmp_path / "m.safetensors")
    assert card.architecture["flattened_px"] == 150
    assert_same(network, state, random_image(1, 1, 150), normalisation, aggregation, 0)
    with pytest.raises(ValueError, match="reads images of 150 px, not of 64"):
        network(random_image(1, 1, 64))


@pytest.mark.parametrize("gates", [0, 1, 3])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_other_widths_channels_and_classes_are_read_off_the_tensors(tmp_path, aggregation, gates):
    state = synthetic(aggregation, gates, channels=3, classes=10, **SMALL)
    released = load_released(saved(tmp_path, state, released_name("sigmoid", aggregation, gates)))
    assert (released.channels, released.classes) == (3, 10)
    assert released.settings.widths == [3, 4, 5, 6]
    if gates:
        assert released.settings.gate_channels == 7
    assert_same(released.network, state, random_image(2, 3, 32 if gates else 150), "sigmoid", aggregation, gates)


def test_reference_knows_the_difference(tmp_path):
    """The reference could tell a wrong import: other settings on the same weights give other logits."""
    state = synthetic()
    network = load_released(saved(tmp_path, state)).network
    image = random_image(1, 1, 48)
    for change in ({"normalisation": "std_mean_norm"}, {"aggregation": "mean"}):
        with pytest.raises(AssertionError):
            assert_same(
                network, state, image, **({"normalisation": "range_norm", "aggregation": "ft", "gates": 3} | change)
            )
    for name in ("bnorm2b.running_mean", "conv4b.bias", "attention3.psi.weight", "classifiers.2.weight"):
        with pytest.raises(AssertionError):
            assert_same(network, state | {name: state[name] + 0.5}, image, "range_norm", "ft", 3)


def test_a_module_s_parameters_are_read_too(tmp_path):
    state = {name: torch.nn.Parameter(v) if v.is_floating_point() else v for name, v in synthetic().items()}
    assert_same(load_released(saved(tmp_path, state)).network, state, random_image(1, 1, 32), "range_norm", "ft", 3)


# ------------------------------------------------------------------------------------------------ the card


def test_the_card_says_what_and_whence(tmp_path):
    path = saved(tmp_path, synthetic(), released_name("range_norm", "ft", 3))
    line = import_published(path, tmp_path / "m.safetensors")
    assert line.endswith("normalisation range_norm, aggregation ft, 3 gates, 101,447 parameters")
    assert path.name in line
    card = read_card(tmp_path / "m.safetensors")
    assert (card.task, card.classes, card.channels) == ("radio_fr", ["FRI", "FRII"], 1)
    assert (card.architecture["gate_pooling"], card.architecture["dropout"]) == ("sum", 0.5)
    assert card.preparation == preparation_identity(RadioPreparation(kind="radio_clip"))
    assert card.calibration is None
    assert card.metrics == {}
    assert set(card.software) == {"galgaze", "torch", "numpy"}
    assert "arXiv:2012.01248" in card.training_data["paper"]
    assert card.training_data["file"] == path.name
    assert card.training_data["file_sha256"] == sha256_file(path)
    assert "released file" in card.training_data["origin"]
    check_fits_task("m", card, "radio_fr", RadioPreparation())
    with pytest.raises(ConfigError, match="size_px: model 150, configuration 128"):
        check_fits_task("m", card, "radio_fr", RadioPreparation(size_px=128))


def test_the_same_file_gives_the_same_bytes(tmp_path):
    path = saved(tmp_path, synthetic())
    for name in ("a", "b"):
        import_published(path, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(("channels", "classes"), [(3, 2), (1, 10)])
def test_what_is_not_for_radio_fr_is_refused(tmp_path, channels, classes):
    path = saved(tmp_path, synthetic(channels=channels, classes=classes))
    expected = (
        rf"reads images of {channels} channels and tells {classes} classes apart.*reads 1 and tells 2 \(FRI, FRII\)"
    )
    with pytest.raises(ConfigError, match=expected):
        import_published(path, tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


# ---------------------------------------------------------------------------- name, tensors and options


@pytest.mark.parametrize(("experiment", "gates"), [("Exp30", 0), ("Exp31", 1), ("Exp32", 2), ("Exp2", 3), ("Exp4", 3)])
def test_the_name_s_experiment_tells_the_gates(tmp_path, experiment, gates):
    name = f"0719{experiment}-range_norm-MiraBestNOUNCAdam-AGRadGalNetft-1e-05.pt"
    assert load_released(saved(tmp_path, synthetic(gates=gates), name)).settings.gates == gates


def test_an_epoch_s_file_takes_its_folder_s_name(tmp_path):
    folder = tmp_path / released_name("tanh", "mean", 3).removesuffix(".pt")
    folder.mkdir()
    path = saved(folder, synthetic("mean"), "26.pt")
    import_published(path, tmp_path / "m.safetensors")
    card = read_card(tmp_path / "m.safetensors")
    assert card.architecture["normalisation"] == "tanh"
    assert card.training_data["file"] == f"{folder.name}/26.pt"


def test_options_and_tensors_say_what_the_name_does_not(tmp_path):
    path = saved(tmp_path, synthetic("deep_sup", gates=2), "weights.pt")
    settings = load_released(path, normalisation="softmax").settings
    assert (settings.normalisation, settings.aggregation, settings.gates) == ("softmax", "deep_sup", 2)
    assert load_released(path, "softmax", "deep_sup", 2).settings == settings


def test_unknown_normalisation(tmp_path):
    path = saved(tmp_path, synthetic(), "weights.pt")
    expected = (
        "tell the normalisation. Give --normalisation with one of range_norm, std_mean_norm, sigmoid, softmax, tanh"
    )
    with pytest.raises(ConfigError, match=expected):
        load_released(path)


def test_without_gates_no_normalisation_is_asked_for(tmp_path):
    assert load_released(saved(tmp_path, synthetic(gates=0), "weights.pt")).settings.gates == 0


def test_aggregation_that_shapes_leave_open(tmp_path):
    # 3 gates of widths 2, 2, 2 and two classes: the last layer reads 6 values either way
    state = synthetic("ft", widths=(2, 2, 2, 3))
    path = saved(tmp_path, state, "weights.pt")
    with pytest.raises(ConfigError, match=r"tell the aggregation. Give --aggregation with one of ft, deep_sup"):
        load_released(path, "tanh")
    for aggregation in ("ft", "deep_sup"):
        network = load_released(path, "tanh", aggregation).network
        assert_same(network, state, random_image(1, 1, 32), "tanh", aggregation, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"normalisation": "tanh"},
            "normalisation. Option --normalisation: tanh; name NAME: softmax; tensors: nothing",
        ),
        ({"aggregation": "concat"}, "aggregation. Option --aggregation: concat; name NAME: ft; tensors: ft"),
        ({"gates": 2}, "gates. Option --gates: 2; name NAME: 3; tensors: 3"),
    ],
)
def test_options_that_contradict(tmp_path, options, message):
    name = released_name("softmax", "ft", 3)
    path = saved(tmp_path, synthetic(), name)
    with pytest.raises(ConfigError, match=re.escape("contradiction about the " + message.replace("NAME", name))):
        load_released(path, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            released_name("softmax", "mean", 3),
            "aggregation. Option --aggregation: nothing; name NAME: mean; tensors: ft",
        ),
        (released_name("softmax", "ft", 2), "gates. Option --gates: nothing; name NAME: 2; tensors: 3"),
        (released_name("softmax", "ft", 0), "gates. Option --gates: nothing; name NAME: 0; tensors: 3"),
    ],
)
def test_names_that_contradict_the_tensors(tmp_path, name, message):
    path = saved(tmp_path, synthetic(), name)
    with pytest.raises(ConfigError, match=re.escape("contradiction about the " + message.replace("NAME", name))):
        load_released(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalisation": "relu"}, "--normalisation relu: not known. It is one of range_norm, std_mean_norm, sigmoid"),
        ({"aggregation": "sum"}, "--aggregation sum: not known. It is one of ft, concat, mean, deep_sup"),
        ({"gates": 4}, "--gates 4: not known. It is one of 0, 1, 2, 3"),
    ],
)
def test_options_that_are_not_known(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        load_released(saved(tmp_path, synthetic(), "weights.pt"), **({"normalisation": "tanh"} | options))


# ------------------------------------------------------------------------------ tensors of another layout


def without(name: str) -> dict:
    return {key: value for key, value in synthetic().items() if not key.startswith(name)}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "the tensor conv1a.weight is missing"),
        ({"state_dict.conv1a.weight": torch.zeros(6, 1, 3, 3)}, "the tensor conv1a.weight is missing"),
        (without("conv3"), "the tensor conv3a.weight is missing"),
        (without("bnorm2c"), r"\(3 gates, aggregation ft\). missing: bnorm2c.weight, bnorm2c.bias, .*running_mean"),
        (without("attention2"), "missing: attention2.theta.weight, attention2.phi.weight"),
        (without("attention3.psi.bias"), "missing: attention3.psi.bias. Expected"),
        (without("classifier"), "the tensor classifiers.0.weight is missing"),
        (synthetic() | {"conv4c.weight": torch.zeros(64, 64, 3, 3)}, "superfluous: conv4c.weight. Expected"),
        (synthetic() | {"fc4.weight": torch.zeros(2, 2)}, "superfluous: fc4.weight"),
        (
            synthetic() | {"conv2b.weight": torch.zeros(16, 6, 3, 3)},
            r"misshapen: conv2b.weight float32 \(16, 6, 3, 3\), expected float32 \(16, 16, 3, 3\)",
        ),
        (synthetic() | {"conv1a.weight": torch.zeros(6, 1)}, r"conv1a.weight has the shape \(6, 1\), expected 4 sizes"),
        (synthetic() | {"conv1a.weight": torch.zeros(0, 1, 3, 3)}, r"conv1a.weight has the shape \(0, 1, 3, 3\)"),
        (
            synthetic() | {"conv1b.bias": torch.zeros(6, dtype=torch.long)},
            r"conv1b.bias int64 \(6,\), expected float32",
        ),
        (synthetic() | {"conv1b.bias": torch.zeros(6, dtype=torch.cfloat)}, r"conv1b.bias complex64 \(6,\), expected"),
        (
            synthetic() | {"classifier.weight": torch.zeros(2, 7)},
            r"reads 7 values, expected 6 \(ft\) or 54 \(deep_sup\)",
        ),
        (
            synthetic() | {"attention2.theta.weight": torch.zeros(32, 16, 1, 1)},
            r"attention2.theta.weight float32 \(32, 16, 1, 1\), expected float32 \(64, 16, 1, 1\)",
        ),
        # sizes that would fill the memory are refused by their shapes alone
        (synthetic() | {"conv3a.weight": torch.zeros(1).expand(10**6, 16, 3, 3)}, "misshapen: conv3a.bias"),
    ],
)
def test_tensors_of_another_layout_are_named(tmp_path, state, message):
    path = saved(tmp_path, state, "weights.pt")
    with pytest.raises(ConfigError, match=message) as refused:
        load_released(path, "range_norm")
    assert str(path) in str(refused.value)


def test_without_gates_only_150_px_fit(tmp_path):
    state = synthetic(gates=0) | {"classifier.weight": torch.zeros(2, 64 * 64)}
    expected = r"\(no gates\). misshapen: classifier.weight float32 \(2, 4096\), expected float32 \(2, 5184\)"
    with pytest.raises(ConfigError, match=expected):
        load_released(saved(tmp_path, state, "weights.pt"), "range_norm")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    state = synthetic()
    state["bnorm3b.running_mean"][4] = value
    with pytest.raises(ConfigError, match=r"bnorm3b.running_mean holds values that are not finite"):
        load_released(saved(tmp_path, state))


def test_values_beyond_single_precision_and_negative_variances_are_refused(tmp_path):
    state = synthetic()
    state["conv1a.bias"] = torch.full((6,), 1e300, dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"conv1a.bias holds values that are not finite"):
        load_released(saved(tmp_path, state))
    state = synthetic()
    state["bnorm1a.running_var"][0] = -1
    with pytest.raises(ConfigError, match=r"bnorm1a.running_var holds negative variances"):
        load_released(saved(tmp_path, state))


# ------------------------------------------------------------------------------ files that are no weights


class Harmful:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def whole_module(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def torch_script(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def cut_short(path: Path) -> None:
    torch.save(synthetic(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def safetensors_by_mistake(path: Path) -> None:
    save_file({name: value.contiguous() for name, value in synthetic().items()}, path)


FILES = {
    "code": (
        lambda path: torch.save(synthetic() | {"extra": Harmful()}, path),
        r"calls code \(.*system\).*not executed",
    ),
    "code in the old format": (
        lambda path: torch.save({"extra": Harmful()}, path, _use_new_zipfile_serialization=False),
        r"calls code \(.*system\).*not executed",
    ),
    "plain pickle": (
        lambda path: path.write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR."),
        r"calls code \(os.system\).*not executed",
    ),
    "module": (whole_module, r"calls code \(torch.nn.modules.linear.Linear\).*torch.save\(module.state_dict"),
    "TorchScript": (torch_script, "a TorchScript module, which is code; it was not executed"),
    "numpy": (lambda path: torch.save({"conv1a.weight": np.zeros(3)}, path), "as a whole module, an array"),
    "cut short": (cut_short, "damaged, cut short, or something else. Fetch it again"),
    "empty": (lambda path: path.write_bytes(b""), "damaged, cut short, or something else"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "not a PyTorch file|damaged, cut short"),
    "safetensors": (safetensors_by_mistake, "this is a safetensors file.*name it under tasks.<task>.model.weights"),
    "tensor": (lambda path: torch.save(torch.ones(3), path), "holds a Tensor, no dictionary of tensors"),
    "list": (lambda path: torch.save([torch.ones(3)], path), "holds a list, no dictionary of tensors"),
    "training state": (
        lambda path: torch.save({"model": synthetic()}, path),
        "'model' is of the type dict, not a plain tensor",
    ),
    "number": (
        lambda path: torch.save(synthetic() | {"epoch": 3}, path),
        "'epoch' is of the type int, not a plain tensor",
    ),
    "nameless": (lambda path: torch.save({1: torch.ones(3)}, path), "1 is a tensor without a name"),
    "sparse": (lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path), "'a' is a tensor that is not dense"),
    "meta": (lambda path: torch.save({"a": torch.ones(2, device="meta")}, path), "'a' is a tensor that is not dense"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_no_state_dict_are_refused_and_not_run(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    write, message = FILES[kind]
    path = tmp_path / "0709Exp1-range_norm-X-AGRadGalNetft-5e-05.pt"
    write(path)
    with pytest.raises(ConfigError, match=message) as refused:
        import_published(path, tmp_path / "m.safetensors")
    assert str(path) in str(refused.value)
    assert not (tmp_path / "hacked").exists()
    assert not (tmp_path / "m.safetensors").exists()


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.pt: cannot be read \(No such file"):
        import_published(tmp_path / "nowhere.pt", tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory"):
        import_published(tmp_path, tmp_path / "m.safetensors")


def test_the_model_file_s_ending(tmp_path):
    with pytest.raises(ConfigError, match=r"model.pt: the model file to write must end in .safetensors"):
        import_published(saved(tmp_path, synthetic()), tmp_path / "model.pt")


# ------------------------------------------------------------------------------------------ command line


def run(monkeypatch, *arguments) -> int:
    from galgaze.cli import main

    monkeypatch.setattr(sys, "argv", ["galgaze", "import-published", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_command(tmp_path, monkeypatch, capfd):
    path = saved(tmp_path, synthetic("mean", gates=1), "weights.pt")
    target = tmp_path / "new" / "m.safetensors"
    options = ("--normalisation", "sigmoid", "--aggregation", "mean", "--gates", "1")
    assert run(monkeypatch, path, target, *options) == 0
    assert "imported weights.pt: normalisation sigmoid, aggregation mean, 1 gate, " in "".join(capfd.readouterr())
    assert read_card(target).architecture["normalisation"] == "sigmoid"
    assert run(monkeypatch, path, target) == 2
    assert "Give --normalisation with one of" in capfd.readouterr().err


# ------------------------------------------------------------------------------------ the released files


@pytest.fixture(scope="module")
def first_32(tmp_path_factory) -> torch.Tensor:
    folder = unpacked_mirabest(Path(FOLDER).resolve(), tmp_path_factory.mktemp("mirabest"))
    batch = read_array_pickle(folder / "data_batch_1")
    return to_network_input(torch.from_numpy(np.asarray(batch["data"][:32]).reshape(32, 1, 150, 150)))


@needs_data
@pytest.mark.parametrize("stem", STEMS)
def test_released_weights_give_the_released_logits_and_maps(data_folder, tmp_path, first_32, stem):
    folder = data_folder / "first/published_checkpoint"
    import_published(folder / f"{stem}.pt", tmp_path / "m.safetensors")
    network, card = load_network(tmp_path / "m.safetensors")
    assert card.training_data["file_sha256"] == sha256_file(folder / f"{stem}.pt")
    with torch.inference_mode():
        logits, maps = network.forward_with_attention(first_32)
        alone = torch.cat([network(image[None]) for image in first_32])
    expected = np.load(folder / "expected_data_batch_1_first32.npz")
    reference = torch.from_numpy(expected[f"{stem}/logits"])
    # relative to each image's largest logit: the other may happen to be near 0
    scale = reference.abs().amax(dim=1, keepdim=True)
    for found in (alone, logits):
        torch.testing.assert_close(found / scale, reference / scale, rtol=0, atol=1e-4)
        assert torch.equal(found.argmax(1), reference.argmax(1))
    np.testing.assert_allclose(torch.softmax(alone, 1), expected[f"{stem}/probability"], rtol=0, atol=1e-4)
    for gate, a in enumerate(maps, start=1):
        np.testing.assert_allclose(a[:4], expected[f"{stem}/attention{gate}"], rtol=0, atol=1e-4)


@needs_data
@pytest.mark.parametrize("stem", STEMS[:1])
def test_the_reference_is_the_released_network(data_folder, first_32, stem):
    """What the synthetic weights are compared with gives the published numbers itself."""
    folder = data_folder / "first/published_checkpoint"
    state = torch.load(folder / f"{stem}.pt", map_location="cpu", weights_only=True)
    expected = np.load(folder / "expected_data_batch_1_first32.npz")[f"{stem}/logits"]
    for i in range(2):
        logits, _ = reference_one(state, first_32[i : i + 1], "range_norm", "ft", 3)
        np.testing.assert_allclose(logits, expected[i], rtol=1e-4, atol=1e-3)
