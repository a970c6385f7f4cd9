import json
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from galgaze.config import OpticalPreparation, RadioPreparation
from galgaze.errors import ConfigError
from galgaze.images.preparation import preparation_identity
from galgaze.models.model_file import (
    CARD_KEY,
    Calibration,
    ModelCard,
    check_fits_task,
    load_extras,
    load_network,
    read_card,
    save_model,
)
from galgaze.models.registry import build_network

PREPARATION = RadioPreparation(size_px=64)


def card(**changes) -> ModelCard:
    values = {
        "task": "radio_fr",
        "architecture": {"name": "agcnn", "widths": [6, 16, 32, 64], "gate_pooling": "mean", "dropout": 0.2},
        "classes": ["FRI", "FRII"],
        "channels": 1,
        "preparation": preparation_identity(PREPARATION),
    }
    return ModelCard(**(values | changes))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, build_network(card()), card())
    return path


def test_round_trip(model):
    network, read = load_network(model)
    assert read == card()
    assert not network.training
    original = build_network(card())
    original.load_state_dict(network.state_dict())
    image = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(original.eval()(image), network(image))


def test_the_card_tells_the_calibration(tmp_path):
    calibrated = card(calibration=Calibration(method="temperature", temperature=1.7))
    save_model(tmp_path / "m.safetensors", build_network(calibrated), calibrated)
    assert read_card(tmp_path / "m.safetensors").calibration.temperature == 1.7


def test_same_weights_same_bytes(model, tmp_path):
    network, read = load_network(model)
    save_model(tmp_path / "again.safetensors", network, read)
    assert (tmp_path / "again.safetensors").read_bytes() == model.read_bytes()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        pickle.dumps(Malicious()),
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 12) + b'{"__metadata',
    ],
    ids=["empty", "short", "pickle", "absurd header", "no metadata", "cut header"],
)
def test_what_is_no_model_file_is_refused_and_not_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="not a galgaze model file"):
        load_network(tmp_path / "m.safetensors")
    assert not (tmp_path / "hacked").exists()


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the model file"):
        read_card(tmp_path / "nowhere.safetensors")


def with_card(tmp_path, value: str):
    save_file({"x": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={CARD_KEY: value})
    return tmp_path / "m.safetensors"


def test_card_of_another_class_order_is_refused(tmp_path):
    path = with_card(tmp_path, card(classes=["FRII", "FRI"]).model_dump_json())
    with pytest.raises(ConfigError, match=r"classes are \['FRII', 'FRI'\].*in this order, \['FRI', 'FRII'\]"):
        read_card(path)


def test_card_of_an_unknown_task_or_form_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown task 'stars'"):
        read_card(with_card(tmp_path, card(task="stars").model_dump_json()))
    with pytest.raises(ConfigError, match="card cannot be read"):
        read_card(with_card(tmp_path, json.dumps({"task": "radio_fr"})))


def test_weights_that_do_not_fit_the_card_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, build_network(card()), card(architecture=card().architecture | {"widths": [8, 8, 8, 8]}))
    with pytest.raises(ConfigError, match="weights do not fit the model's card"):
        load_network(path)


def test_truncated_weights_are_refused_by_the_card_alone(model):
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="the weights are cut short or damaged"):
        read_card(model)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = build_network(card())
    network.stages[0][0].weight.data[0] = torch.nan
    save_model(tmp_path / "m.safetensors", network, card())
    with pytest.raises(ConfigError, match=r"stages.0.0.weight holds NaN or infinity"):
        load_network(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architecture": {"name": "agcnn", "normalisation": "foo"}}, "cannot be built: normalisation"),
        ({"architecture": {"name": "agcnn", "aggregation": "foo"}}, "cannot be built: aggregation"),
        ({"architecture": {"name": "agcnn", "widths": [6, 16, 32]}}, "cannot be built: widths"),
        ({"architecture": {"name": "equivariant_agcnn", "group": "C5"}}, "cannot be built"),
        ({"questions": ["bar"]}, r"questions are \['bar'\]; expected, in this order"),
        ({"test_time_turns": 4}, None),
    ],
)
def test_a_card_that_no_network_can_have_is_refused(tmp_path, changes, match):
    path = with_card(tmp_path, card(**changes).model_dump_json())
    if match is None:
        read_card(path)
        return
    with pytest.raises(ConfigError, match=match):
        read_card(path)


def test_a_model_for_another_number_of_channels_is_refused():
    with pytest.raises(ConfigError, match="reads images of 3 channels, those of radio_fr have 1"):
        check_fits_task("m", card(channels=3), "radio_fr", PREPARATION)


def test_extras_travel_with_the_weights_and_are_not_taken_for_them(tmp_path):
    extras = {"training_position_deg": torch.tensor([[1.0, 2.0]], dtype=torch.float64)}
    save_model(tmp_path / "m.safetensors", build_network(card()), card(), extras)
    load_network(tmp_path / "m.safetensors")
    assert load_extras(tmp_path / "m.safetensors")["training_position_deg"].tolist() == [[1.0, 2.0]]


def test_unknown_architecture(tmp_path):
    save_model(tmp_path / "m.safetensors", build_network(card()), card(architecture={"name": "resnet"}))
    with pytest.raises(ConfigError, match="'resnet' is not known"):
        load_network(tmp_path / "m.safetensors")


def test_model_must_fit_the_task_and_its_preparation():
    check_fits_task("m", card(), "radio_fr", PREPARATION)
    check_fits_task("m", card(), "radio_fr", RadioPreparation(size_px=64, min_coverage=0.1))
    with pytest.raises(ConfigError, match="size_px: model 64, configuration 150"):
        check_fits_task("m", card(), "radio_fr", RadioPreparation())
    with pytest.raises(ConfigError, match="for radio_fr, the configuration wants optical_morphology"):
        check_fits_task("m", card(), "optical_morphology", OpticalPreparation())
