import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from galgaze.config import TrainSettings
from galgaze.models.agcnn import AGCNN
from galgaze.models.training import (
    LabelledImages,
    augment,
    central_half,
    predict_logits,
    split_by_position,
    train_network,
)

SETTINGS = TrainSettings(field="f", epochs=4, batch_size=8, learning_rate=5e-3, central_epochs=1)


def bars_and_blobs(count: int, seed: int) -> LabelledImages:
    """Class 0: a round blob; class 1: an elongated one, at any angle."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((32, 32)) - 15.5
    label = np.arange(count) % 2
    images = []
    for kind in label:
        angle = rng.uniform(0, np.pi)
        u = columns * np.cos(angle) + rows * np.sin(angle)
        v = rows * np.cos(angle) - columns * np.sin(angle)
        images.append(np.exp(-((u / (7 if kind else 3.5)) ** 2) - (v / (1.8 if kind else 3.5)) ** 2))
    image = torch.from_numpy((np.array(images)[:, None] * 255).astype(np.uint8))
    return LabelledImages(image, torch.from_numpy(label))


def fresh() -> AGCNN:
    torch.manual_seed(3)
    return AGCNN(1, 2, gate_pooling="mean", dropout=0.2)


def train(settings=SETTINGS, state=None, on_epoch=lambda record, state: None):
    network = fresh()
    curve = train_network(
        network, bars_and_blobs(64, 0), bars_and_blobs(32, 1), settings, torch.device("cpu"), on_epoch, state
    )
    return network, curve


def same_weights(first, second) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_learns_what_can_be_learnt():
    network, curve = train(SETTINGS.model_copy(update={"epochs": 12, "central_epochs": 0}))
    test = bars_and_blobs(64, 7)
    accuracy = (predict_logits(network, test.image).argmax(1) == test.label).float().mean()
    assert accuracy > 0.9
    assert curve[-1].training_loss < curve[0].training_loss


def test_same_seed_same_network_and_another_seed_another():
    first, _ = train()
    assert same_weights(first, train()[0])
    assert not same_weights(first, train(SETTINGS.model_copy(update={"seed": 2}))[0])


def test_resumed_training_gives_the_same_network():
    states = {}
    whole, curve = train(on_epoch=lambda record, state: states.update({record.epoch: torch_round_trip(state())}))
    resumed, again = train(state=states[2])
    assert same_weights(whole, resumed)
    assert again == curve


def torch_round_trip(state: dict) -> dict:
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_stops_when_nothing_improves():
    _, curve = train(SETTINGS.model_copy(update={"epochs": 50, "patience_epochs": 2, "learning_rate": 1e-9}))
    assert len(curve) < 50


def test_predictions_do_not_depend_on_the_batch():
    network, _ = train()
    image = bars_and_blobs(20, 5).image
    torch.testing.assert_close(
        predict_logits(network, image, 1), predict_logits(network, image, 20), rtol=1e-4, atol=1e-5
    )


def test_augmentation_keeps_the_source_in_the_middle_and_blank_sky_blank():
    image = torch.zeros(200, 1, 33, 33)
    image[:, :, 16, 16] = 1
    turned = augment(image, torch.Generator().manual_seed(1))
    assert turned.shape == image.shape
    light = turned.sum(dim=(1, 2, 3))
    rows = (turned.sum(dim=3)[:, 0] * torch.arange(33)).sum(1) / light
    assert (rows - 16).abs().max() < 2.5  # shifts of up to 2 px, zoomed
    assert rows.std() > 0.5
    assert augment(torch.zeros(4, 1, 33, 33), torch.Generator()).abs().max() == 0


def test_augmentation_covers_all_angles():
    image = torch.zeros(400, 1, 65, 65)
    image[:, :, 32, 32:62] = 1
    turned = augment(image, torch.Generator().manual_seed(2))[:, 0]
    rows, columns = torch.meshgrid(torch.arange(65) - 32.0, torch.arange(65) - 32.0, indexing="ij")
    angle = torch.atan2((turned * rows).sum((1, 2)), (turned * columns).sum((1, 2)))
    counts = torch.histc(angle, bins=8, min=-torch.pi, max=torch.pi)
    assert counts.min() > 25


def test_central_half():
    image = torch.arange(64).reshape(1, 1, 8, 8)
    assert central_half(image).tolist() == image[:, :, 2:6, 2:6].tolist()


@given(st.integers(0, 2**31), st.floats(0.05, 0.6))
def test_split_is_reproducible_and_of_about_the_right_size(seed, fraction):
    rng = np.random.default_rng(seed)
    ids = np.array([f"s{i}" for i in range(400)])
    ra, dec = rng.uniform(0, 360, 400), rng.uniform(-80, 80, 400)
    chosen = split_by_position(ids, ra, dec, fraction, seed)
    assert abs(chosen.mean() - fraction) < 0.15
    order = rng.permutation(400)
    assert (split_by_position(ids[order], ra[order], dec[order], fraction, seed) == chosen[order]).all()


def test_twins_go_to_the_same_side():
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 300), rng.uniform(-60, 60, 300)
    ids = np.array([f"a{i}" for i in range(300)] + [f"b{i}" for i in range(300)])
    near = dec + 20 / 3600
    chosen = split_by_position(ids, np.tile(ra, 2), np.concatenate([dec, near]), 0.3, 1)
    assert (chosen[:300] == chosen[300:]).all()
    assert 0.15 < chosen.mean() < 0.45


@pytest.mark.parametrize("ra", [0.0, 359.9999])
def test_twins_across_ra_0_go_to_the_same_side(ra):
    ids = np.array(["x", "y"])
    for seed in range(20):
        chosen = split_by_position(ids, np.array([ra, 0.0001]), np.array([10.0, 10.0]), 0.5, seed)
        assert chosen[0] == chosen[1]


def test_weights_of_epochs_on_centres_alone_are_not_kept():
    network, curve = train(SETTINGS.model_copy(update={"epochs": 3, "central_epochs": 2}))
    assert [record.central for record in curve] == [True, True, False]
    loss = torch.nn.functional.cross_entropy(
        predict_logits(network, bars_and_blobs(32, 1).image), bars_and_blobs(32, 1).label
    )
    assert float(loss) == pytest.approx(curve[2].validation_loss, rel=1e-5)


def test_a_training_must_end_on_whole_images():
    with pytest.raises(ValueError, match=r"central_epochs \(4\) must be fewer than epochs \(4\)"):
        TrainSettings(field="f", epochs=4, central_epochs=4)
