from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks import mirabest

from galgaze.errors import ConfigError
from galgaze.images.datasets import LabelledSet
from galgaze.models import loaded


def rows(shift: float) -> pd.DataFrame:
    """Two folds of eight sources; logits that are right for all but the last of each."""
    label = np.tile([0, 1], 8)
    right = np.where(np.arange(16) % 8 == 7, -1.0, 1.0) * (2 * label - 1)
    return pd.DataFrame(
        {
            "source_id": [f"s{k}" for k in range(16)],
            "label": label,
            "confident": np.arange(16) % 4 < 2,
            "fold": np.repeat([1, 2], 8),
            "seed": 1,
            "fri_logit": shift - right,
            "frii_logit": shift + right,
            "fri_logit_one_view": -right,
            "frii_logit_one_view": right,
            "temperature": 1.0,
        }
    )


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_summary_of_known_predictions(shift):
    found = mirabest.summarise(rows(shift), "all")
    assert found["accuracy"] == pytest.approx(7 / 8)
    assert found["accuracy_error"] == pytest.approx(0)
    assert found["recall_FRI"] == 1
    assert found["recall_FRII"] == pytest.approx(3 / 4)
    assert found["sources"] == 16
    assert mirabest.summarise(rows(shift), "confident")["accuracy"] == 1


def test_network_stays_within_the_published_size():
    network = mirabest._network(mirabest.FINE_TUNING, None)
    assert sum(parameter.numel() for parameter in network.parameters()) <= 102_000


def sky(count: int = 40) -> LabelledSet:
    """Pairs of sources 30 arcsec apart, degrees from the next; image n is of the value n."""
    number = np.arange(count)
    return LabelledSet(
        image=np.full((count, 1, 16, 16), number[:, None, None, None], np.uint8),
        label=number // 2 % 2,
        source_id=np.array([f"s{n}" for n in number]),
        ra_deg=5.0 * (number // 2),
        dec_deg=np.where(number % 2, 30 / 3600, 0.0),
        votes=None,
        confident=np.ones(count, bool),
    )


def test_an_eighth_by_position_chooses_the_epoch():
    others = np.arange(8, 40)
    training, validation = mirabest.inner_split(sky(), others, seed=1)
    numbers = [set(part.image[:, 0, 0, 0].tolist()) for part in (training, validation)]
    assert numbers[0] | numbers[1] == set(others)
    assert not numbers[0] & numbers[1]
    assert len(numbers[1]) == 4
    assert all({n, n ^ 1} <= part for part in numbers for n in part)  # neighbours stand together
    assert validation.label.tolist() == [n // 2 % 2 for n in validation.image[:, 0, 0, 0].tolist()]


@pytest.fixture
def model(monkeypatch):
    """A model file's stand-in, that was trained on the given sources of `sky`."""

    def make(trained, validated=()):
        data, rows = sky(), [*trained, *validated]
        position = torch.tensor(np.column_stack([data.ra_deg, data.dec_deg])[rows])
        role = torch.tensor([0] * len(trained) + [1] * len(validated), dtype=torch.uint8)
        extras = {"training_position_deg": position.reshape(-1, 2), "training_role": role}
        stand_in = SimpleNamespace(members=[SimpleNamespace(extras=extras)])
        monkeypatch.setattr(loaded, "load_model", lambda _: stand_in)
        monkeypatch.setattr(mirabest, "read", lambda _: data)
        return mirabest._model_and_unseen("batches", "m.safetensors")[1][:, 0, 0, 0].tolist()

    return make


def test_what_a_model_was_trained_on_is_not_turned(model):
    assert model(range(20), range(20, 30)) == list(range(20, 40))
    assert model([0]) == list(range(2, 40))  # its neighbour was seen too
    assert model([]) == list(range(40))
    with pytest.raises(ConfigError, match=r"m.safetensors: the model was trained on all 40 sources of batches"):
        model(range(0, 40, 2))


def test_turned_images_are_what_the_network_sees():
    image = np.zeros((3, 1, 17, 17), np.uint8)
    image[:, 0, 8, 14] = 255

    def brightest_quarter(x: torch.Tensor) -> torch.Tensor:
        assert x.min() >= -1
        assert x.max() <= 1
        return torch.stack([x[:, 0, 8, 14], x[:, 0, 14, 8], x[:, 0, 8, 2], x[:, 0, 2, 8]], dim=1)

    stand_in = SimpleNamespace(network=brightest_quarter)
    found = [mirabest._classes(stand_in, image, angle).tolist() for angle in (0, 90, 180, 270)]
    assert found == [[quarter] * 3 for quarter in range(4)]
