"""A model as the pipeline loads it: what one file gives, and which files make an ensemble."""

import json
import struct

import pytest
import torch
from tests.stages.test_predict import AGCNN, BARS, EQUIVARIANT, OPTICAL, RADIO, blobs, calibrated, save

from galgaze.errors import ConfigError
from galgaze.models.agcnn import AGCNN as Agcnn
from galgaze.models.combined import Ensemble, TurnedViews
from galgaze.models.loaded import load_model
from galgaze.models.model_file import CARD_KEY
from galgaze.models.runtime import to_network_input
from galgaze.tasks import QUESTIONS

ALL_QUESTIONS = [question.name for question in QUESTIONS]
KNOWN = {"training_position_deg": torch.tensor([[1.0, 2.0]], dtype=torch.float64)}


def images(channels: int = 1) -> torch.Tensor:
    return to_network_input(torch.from_numpy(blobs(3, channels)))


def change_card(path, **values) -> None:
    """Change a card in its file, weights left alone."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    card = json.loads(header["__metadata__"][CARD_KEY])
    for name, value in values.items():
        card[name] = card[name] | value if isinstance(value, dict) else value
    header["__metadata__"][CARD_KEY] = json.dumps(card)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def pair(tmp_path, first=AGCNN, second=AGCNN, task=RADIO, **card):
    """Two model files; the second has another seed, and perhaps another architecture and card."""
    return [
        save(tmp_path / "first.safetensors", task, first, 1),
        save(tmp_path / "second.safetensors", task, second, 2, **card),
    ]


def test_one_file(tmp_path):
    path = save(tmp_path / "m.safetensors", RADIO, AGCNN, extras=KNOWN, calibration=calibrated(2.0))
    model = load_model([path])
    (member,) = model.members
    assert isinstance(model.network, Agcnn)
    assert model.network is member.network
    assert not model.network.training
    assert model.card.calibration.temperature == 2
    assert member.extras["training_position_deg"].tolist() == [[1.0, 2.0]]
    with torch.inference_mode():
        (said,) = model.examine(images())
        torch.testing.assert_close(said.logits, model.network(images()))


def test_the_card_s_views_are_taken(tmp_path):
    model = load_model([save(tmp_path / "m.safetensors", RADIO, AGCNN, test_time_turns=8)])
    assert isinstance(model.network, TurnedViews)
    assert model.network.turns == 8
    with torch.inference_mode():
        turned = model.examine(images().transpose(2, 3))[0].logits
        torch.testing.assert_close(turned, model.examine(images())[0].logits, atol=1e-5, rtol=1e-5)


def test_several_files_are_an_ensemble(tmp_path):
    paths = pair(tmp_path)
    model = load_model(paths)
    assert isinstance(model.network, Ensemble)
    with torch.inference_mode():
        both = model.examine(images())
        single = [load_model([path]).examine(images())[0].logits for path in paths]
        for said, expected in zip(both, single, strict=True):
            torch.testing.assert_close(said.logits, expected)
        mean = torch.stack([logits.softmax(dim=1) for logits in single]).mean(dim=0)
        torch.testing.assert_close(model.network(images()).softmax(dim=1), mean)
    assert (single[0] - single[1]).abs().max() > 0.1


def test_it_goes_to_a_device_as_a_whole(tmp_path):
    model = load_model(pair(tmp_path))
    moved = model.to(torch.device("meta"))
    for network in (moved.network, *(member.network for member in moved.members)):
        assert {parameter.device.type for parameter in network.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("second", "task", "change", "match"),
    [
        (AGCNN, OPTICAL, {}, r"its task \(optical_morphology\) is not that of .*first.safetensors \(radio_fr\)"),
        (AGCNN, RADIO, {"channels": 2}, r"its channels \(2\) is not that of"),
        (AGCNN, RADIO, {"preparation": {"clip_sigma": 5.0}}, r"its preparation \(.*'clip_sigma': 5.0.* is not that of"),
        (AGCNN, RADIO, {"preparation": {"size_px": 64}}, r"its preparation \(.*'size_px': 64.* is not that of"),
        (
            AGCNN,
            RADIO,
            {"questions": ALL_QUESTIONS},
            r"its questions \(\['smooth_.* is not that of",
        ),
        (AGCNN | {"gates": 2}, RADIO, {}, r"its attention gates are not those of .*first.safetensors: no ensemble"),
        (AGCNN | {"gates": 0}, RADIO, {}, "its attention gates are not those of"),
        (AGCNN | {"normalisation": "tanh"}, RADIO, {}, r"differ in their normalisations.*They make no ensemble"),
    ],
)
def test_members_that_do_not_fit_each_other_are_refused(tmp_path, second, task, change, match):
    first = save(tmp_path / "first.safetensors", RADIO, AGCNN)
    other = save(tmp_path / "second.safetensors", task, second, 2)
    if "channels" in change:  # so many that weights and card agree
        other = save_with_channels(tmp_path / "second.safetensors", change.pop("channels"))
    change_card(other, **change)
    with pytest.raises(ConfigError, match=match) as refusal:
        load_model([first, other])
    assert "second.safetensors" in str(refusal.value)


def save_with_channels(path, channels: int):
    from galgaze.models.model_file import ModelCard, read_card, save_model
    from galgaze.models.registry import create_network

    card = read_card(path)
    values = card.model_dump() | {"channels": channels}
    save_model(path, create_network(card.architecture, channels, len(card.classes)), ModelCard(**values))
    return path


def test_a_network_of_questions_and_one_of_classes_make_no_ensemble(tmp_path):
    with pytest.raises(ConfigError, match=r"its questions \(\['smooth_or_featured', .*\]\) is not that of"):
        load_model(pair(tmp_path, second=BARS, task=OPTICAL))


def test_a_member_without_classes_would_water_down_the_others(tmp_path):
    """Its probabilities are all alike, because it has learnt none."""
    for networks in ((BARS, BARS | {"class_head": False}), (BARS | {"class_head": False}, BARS)):
        with pytest.raises(ConfigError, match=r"second.safetensors: its class_head .* is not that of .*first"):
            load_model(pair(tmp_path, *networks, task=OPTICAL))
    both = pair(tmp_path, *[BARS | {"class_head": False}] * 2, task=OPTICAL)
    assert len(load_model(both).members) == 2


def test_maps_of_other_sizes_are_refused_before_any_image_is_seen(tmp_path):
    """At 46 px the equivariant network pads to 48, the other drops an edge: no mean of their maps exists."""
    paths = [
        save(tmp_path / f"{network['name']}.safetensors", RADIO, network, size_px=46)
        for network in (AGCNN, EQUIVARIANT)
    ]
    with pytest.raises(ConfigError, match=r"agcnn.safetensors.* differ in their paddings.*They make no ensemble"):
        load_model(paths)


def test_architectures_whose_maps_fit_make_an_ensemble(tmp_path):
    model = load_model(pair(tmp_path, AGCNN, EQUIVARIANT))
    with torch.inference_mode():
        maps = [said.maps for said in model.examine(images())]
        assert (
            [a.shape for a in maps[0]]
            == [a.shape for a in maps[1]]
            == [a.shape for a in model.network.examine(images()).maps]
        )


def test_the_least_coverage_and_the_views_may_differ(tmp_path):
    """Neither changes what the images look like; see `galgaze.models.model_file.check_fits_task`."""
    paths = pair(tmp_path, test_time_turns=4)
    change_card(paths[1], preparation={"min_coverage": 0.5})
    assert len(load_model(paths).members) == 2


def test_a_file_that_is_none_is_named(tmp_path):
    path = save(tmp_path / "m.safetensors", RADIO, AGCNN)
    with pytest.raises(ConfigError, match=r"gone.safetensors: cannot read the model file"):
        load_model([path, tmp_path / "gone.safetensors"])
    change_card(path, architecture={"widths": [3, 4, 5, 7]})
    with pytest.raises(ConfigError, match=r"m.safetensors: the weights do not fit the model's card"):
        load_model([path])
