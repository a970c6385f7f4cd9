"""The benchmark that trains on the simulated sky and scores on real images: that its parts are what they say."""

import numpy as np
import pytest
from benchmarks import simulated_to_real
from benchmarks.simulated_to_real import _auc_error, _in_grey, _served, simulated_images

from galgaze.config import TrainSettings
from galgaze.images.preparation import prepare
from galgaze.models.model_file import load_network, read_card
from galgaze.surveys.registry import open_survey


@pytest.mark.parametrize("task", ["optical_morphology", "radio_fr"])
def test_simulated_images_are_labelled_network_inputs_whatever_the_number_of_workers(task):
    image, label = simulated_images(task, 12, "test", workers=1)
    assert image.dtype == np.uint8
    assert image.shape[1:] == {"optical_morphology": (3, 128, 128), "radio_fr": (1, 150, 150)}[task]
    assert len(image) == len(label) > 6
    again, _ = simulated_images(task, 12, "test", workers=2)
    np.testing.assert_array_equal(again, image)


def test_the_viewers_jpeg_shows_the_same_galaxy_as_the_fits_file():
    survey = open_survey(simulated_to_real.SURVEYS["optical_morphology"])
    preparation = simulated_to_real.PREPARATIONS["optical_morphology"]
    fits, jpeg = (prepare(_served(survey, "test-1", number), preparation).pixels.astype(float) for number in (0, 1))
    assert not np.array_equal(fits, jpeg)
    assert np.abs(fits.mean(axis=0) - jpeg.mean(axis=0)).mean() < 4
    assert np.corrcoef(fits.mean(axis=0).ravel(), jpeg.mean(axis=0).ravel())[0, 1] > 0.95


def test_every_third_image_is_grey_in_a_stretch_of_its_own_and_radio_maps_are_left_alone():
    colours = np.random.default_rng(0).integers(0, 200, (3, 16, 16), dtype=np.uint8)
    stretches = [_in_grey(colours, number) for number in (3, 6)]
    for grey in stretches:
        assert (grey == grey[0]).all()
        assert grey.max() == 255
        order = np.argsort(colours[1].ravel(), kind="stable")  # a stretch keeps the order of the pixels
        assert (np.diff(grey[0].ravel()[order].astype(int)) >= 0).all()
    assert not np.array_equal(*stretches)
    np.testing.assert_array_equal(_in_grey(colours, 4), colours)
    np.testing.assert_array_equal(_in_grey(colours[:1], 3), colours[:1])


def test_the_error_of_an_auc_is_that_of_hanley_and_mcneil():
    label = np.repeat([1, 0], 50)
    assert _auc_error(0.8, label) == pytest.approx(0.0445, abs=0.0005)
    assert _auc_error(0.8, np.repeat([1, 0], 200)) == pytest.approx(0.0222, abs=0.0005)


def test_training_writes_a_model_that_names_its_sky(tmp_path, monkeypatch, capsys):
    settings = TrainSettings(field="simulated", epochs=1, batch_size=8)
    monkeypatch.setitem(simulated_to_real.TRAINING, "radio_fr", settings)
    model = tmp_path / "radio.safetensors"
    simulated_to_real.train("radio_fr", model, 40, None, seed=2, workers=1)
    card = read_card(model)
    assert card.training_data["survey"]["sky_version"] == 2
    assert card.training_data["training"] + card.metrics["validation"]["n"] <= 40
    load_network(model)
    assert "accuracy on fresh simulated sources" in capsys.readouterr().out
