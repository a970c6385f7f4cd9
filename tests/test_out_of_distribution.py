"""The benchmark of the score of unlike images: that its artefacts are what they say, and its table counts right."""

import numpy as np
import pandas as pd
import pytest
from benchmarks import out_of_distribution as bench

from galgaze.config import OpticalPreparation, RadioPreparation
from galgaze.errors import ConfigError
from galgaze.images.preparation import prepare
from galgaze.models.model_file import ModelCard, save_model
from galgaze.models.registry import build_network
from galgaze.surveys.base import Cutout
from tests.real_data import needs_data

SIGMA = 1e-4


def radio_map(seed: int = 0) -> np.ndarray:
    """A double source of 5 mJy a beam on white noise of 0.1 mJy."""
    rows, columns = np.indices((150, 150))
    lobes = sum(np.exp(-((rows - 75) ** 2 + (columns - column) ** 2) / 18) for column in (65, 85))
    return SIGMA * np.random.default_rng(seed).standard_normal((150, 150)) + 5e-3 * lobes


def prepared(flux: np.ndarray, size_px: int = 75) -> np.ndarray:
    cutout = Cutout(flux[None].astype(np.float32), "", False, np.ones((150, 150), bool), (74.5, 74.5), np.eye(2))
    return prepare(cutout, RadioPreparation(size_px=size_px)).pixels[0]


@pytest.mark.parametrize("name", bench.RADIO_ARTEFACTS)
def test_an_artefact_changes_what_the_network_sees_and_leaves_the_map_alone(name):
    flux = radio_map()
    before, usual = flux.copy(), prepared(flux)
    spoilt = [prepared(bench.RADIO_ARTEFACTS[name](flux, SIGMA, np.random.default_rng(seed))) for seed in (0, 1, 2, 0)]
    np.testing.assert_array_equal(flux, before)
    np.testing.assert_array_equal(spoilt[0], spoilt[3])
    for image in spoilt[:3]:
        assert image.max() > 0
        assert (np.abs(image.astype(int) - usual) > 10).sum() > 20
    assert not np.array_equal(spoilt[0], spoilt[1])


def test_what_each_radio_artefact_is():
    flux, rng = radio_map(), np.random.default_rng(3)
    assert (prepared(bench.hot_pixel(flux, SIGMA, rng)) > 0).sum() == 1
    noise = bench.noise_alone(flux, SIGMA, rng)
    assert np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1] == pytest.approx(0.857, abs=0.02)  # the beam
    missing = bench.half_missing(flux, SIGMA, rng) == 0
    assert 0.4 < missing.mean() < 0.6
    patch = bench.constant_patch(flux, SIGMA, rng)
    assert (patch == patch.max()).sum() >= 64
    ridges = bench.grating(flux, SIGMA, rng) - flux
    assert 8 * SIGMA < ridges.max() < 3 * 30 * SIGMA
    assert (ridges < 0.1 * ridges.max()).mean() > 0.4


def test_optical_artefacts():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (20, 3, 8, 8), dtype=np.uint8)
    spoilt = bench.without_a_band(image, rng)
    assert (spoilt == 0).all(axis=(2, 3)).sum(axis=1).tolist() == [1] * 20
    assert (image > 0).all()
    assert bench.stars(rng).max() > 100 * bench.blank_sky(rng).max()
    found = bench.artefact_images(OpticalPreparation(size_px=64), 12)
    assert set(found) <= {"bleed_trail", "partial_coverage", "satellite_trail"}
    assert 4 < sum(map(len, found.values())) <= 12
    assert all(images.shape[1:] == (3, 64, 64) for images in found.values())


def test_an_optical_picture_where_a_radio_map_is_expected():
    colours = np.random.default_rng(0).integers(10, 20, (3, 40, 40), dtype=np.uint8)
    colours[:, 20:24, 20:24] = 200
    for rendered in (True, False):
        image = prepare(bench._picture(colours, rendered), RadioPreparation(size_px=16)).pixels
        assert image.shape == (1, 16, 16)
        assert image.min() < image.max()


# ---------------------------------------------------------------------------------------- the table


def test_the_table():
    scores = {
        "usual": np.linspace(0, 0.99, 100),
        "like it": np.linspace(0, 0.99, 50),
        "far off": np.full(30, 0.999),
    }
    table = bench.compare(scores, ["usual"]).set_index("kind")
    assert table["images"].to_dict() == {"usual": 100, "like it": 50, "far off": 30, "together": 80}
    assert np.isnan(table.loc["usual", "auc_usual"])
    assert table.loc["like it", "auc_usual"] == pytest.approx(0.5, abs=0.01)
    assert table.loc["far off", "auc_usual"] == 1
    assert table.loc["together", "auc_usual"] == pytest.approx((0.5 * 50 + 30) / 80, abs=0.01)
    assert table["caught_usual"].tolist() == pytest.approx([0.05, 0.06, 1, 0.41], abs=0.011)


# ------------------------------------------------------------------------------------------ commands


@needs_data
def test_maps_that_the_model_was_trained_on_are_left_out(data_folder, monkeypatch):
    rows = bench.mirabest_rows(data_folder, confident_only=False).groupby("label").head(12)
    rows = rows.assign(report=True)
    monkeypatch.setattr(bench, "mirabest_rows", lambda *_, **__: rows)
    monkeypatch.setattr(bench, "optical_pictures", lambda *_: [np.arange(3 * 1600).reshape(3, 40, 40).astype(np.uint8)])
    seen = rows[["ra_deg", "dec_deg"]].astype(float).to_numpy()[:30]
    preparation = RadioPreparation(size_px=75)
    kinds = bench.radio_kinds(data_folder, "report", preparation, 1000, seen)
    assert len(kinds.own["MiraBest"]) == len(kinds.label) == len(rows) - 30
    assert {len(kinds.others[name]) for name in bench.RADIO_ARTEFACTS} == {len(rows) - 30}
    assert len(bench.radio_kinds(data_folder, "report", preparation, 25, seen[:0]).label) == 25
    with pytest.raises(ConfigError, match=r"10 sources of the half 'report' of MiraBest were not trained on; 20"):
        bench.radio_kinds(
            data_folder, "report", preparation, 1000, rows[["ra_deg", "dec_deg"]].astype(float).to_numpy()[10:]
        )


def test_a_file_that_does_not_know_its_own_kind_is_told_from_half_of_it(tmp_path, monkeypatch, capsys):
    preparation = RadioPreparation(size_px=75)
    card = ModelCard(
        task="radio_fr",
        architecture={"name": "agcnn", "widths": [2, 2, 2, 2], "gate_channels": 2, "gate_pooling": "mean"},
        classes=["FRI", "FRII"],
        channels=1,
        preparation=preparation.model_dump() | {"version": 1},
    )
    model = tmp_path / "model.safetensors"
    save_model(model, build_network(card), card)
    maps = np.stack([prepared(radio_map(seed)) for seed in range(40)])[:, None]
    hot = np.zeros((7, 1, 75, 75), np.uint8)
    hot[:, 0, 37, 37] = 255
    kinds = bench.Kinds({"own": maps}, np.arange(40) % 2, {"hot": hot})
    monkeypatch.setattr(bench, "radio_kinds", lambda *_: kinds)
    bench.evaluate(model, tmp_path, "report", 40, tmp_path / "out")
    printed = capsys.readouterr().out
    assert "from half of the images of it" in printed
    table = pd.read_csv(tmp_path / "out/out_of_distribution_radio_fr_report.csv")
    assert table["images"].tolist() == [20, 7, 7]  # half of the own images were fitted to
    assert table.loc[1, "auc_own"] > 0.95
