"""The verb measure: whose gradient shows the bar, and what a bar must not depend on."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from tests.stages.test_predict import (
    AGCNN,
    BARS,
    IDS,
    OPTICAL,
    RADIO,
    SIZE_PX,
    blobs,
    empty_field,
    make_field,
    save,
    serially,
    with_model,
)

from galgaze.config import BarSettings
from galgaze.errors import ConfigError
from galgaze.measures.bars import measure_bar
from galgaze.measures.saliency import seed_of, smoothgrad
from galgaze.models.loaded import load_model
from galgaze.models.questions import bar_logit
from galgaze.models.runtime import to_network_input
from galgaze.stages.measure import PART_SCHEMA, measure
from galgaze.stages.predict import predict
from galgaze.stages.report import report
from galgaze.stages.write import write

BAR = {"probability_threshold": 0.0, "samples": 4, "seed": 7}
NUMBERS = ["bar_length_px", "bar_length_arcsec", "bar_position_angle_deg", "bar_elongation"]
BARRED = 5  # among the classes


@pytest.fixture(autouse=True)
def no_dask(monkeypatch):
    for stage in ("predict", "measure"):
        monkeypatch.setattr(f"galgaze.stages.{stage}.map_shards", serially)


@pytest.fixture(scope="module")
def image():
    """Bars of all angles, with a disc."""
    rows, columns = np.indices((SIZE_PX, SIZE_PX)) - (SIZE_PX - 1) / 2
    angle = np.linspace(0, np.pi, len(IDS), endpoint=False)[:, None, None]
    along, across = columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle)
    light = np.exp(-((along / 9) ** 2) - (across / 2.5) ** 2) + 0.2 * np.exp(-np.hypot(rows, columns) / 8)
    noisy = 0.7 * light[:, None] * [[[[1.0]], [[0.8]], [[0.6]]]] + blobs(len(IDS), 3) / 255 * 0.1
    return (noisy.clip(0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def field(tmp_path_factory, image):
    return make_field(tmp_path_factory.mktemp("bars"), OPTICAL, image)


def measured(run) -> pd.DataFrame:
    predict(run, "field", OPTICAL)
    measure(run, "field", OPTICAL)
    parts = sorted(run.layout.parts("field", OPTICAL, "measure").glob("*.parquet"))
    return pd.concat([pq.read_table(path).to_pandas() for path in parts]).set_index("source_id").sort_index()


def by_hand(score, image: np.ndarray, ids=IDS) -> pd.DataFrame:
    """What the columns of these images (N, C, H, W) should hold, where ``score`` tells of bars."""
    bars = []
    for source_id, one in zip(ids, image, strict=True):
        saliency = smoothgrad(
            score, to_network_input(torch.from_numpy(one)), BAR["samples"], BarSettings().noise_fraction,
            seed_of(source_id, BAR["seed"]),
        )  # fmt: skip
        bars.append(measure_bar(saliency, [(SIZE_PX - 1) / 2] * 2, np.diag([-1.8, 1.8])))
    rows = {name: [getattr(bar, name.removeprefix("bar_")) for bar in bars] for name in [*NUMBERS, "bar_flag"]}
    return pd.DataFrame(rows, index=pd.Index(ids, name="source_id"))


def assert_same_bars(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert found.index.tolist() == expected.index.tolist()
    assert found["bar_flag"].tolist() == expected["bar_flag"].tolist()
    assert (expected["bar_flag"] < 2).any(), "no bar was found: this tests nothing"
    np.testing.assert_allclose(found[NUMBERS].astype(float), expected[NUMBERS], rtol=1e-4)


def test_a_network_of_questions_is_asked_for_the_bar(field, image, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, BARS)
    run = with_model(field, path, bars=BAR)
    found = measured(run)
    assert list(found.reset_index()) == PART_SCHEMA.names
    network = load_model([path]).network
    assert_same_bars(found, by_hand(network.bar_logit, image))
    assert not found[NUMBERS].equals(by_hand(lambda x: network(x)[:, BARRED], image)[NUMBERS].astype("float32"))


def test_another_network_shows_the_barred_class(field, image, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, AGCNN)
    network = load_model([path]).network
    assert_same_bars(measured(with_model(field, path, bars=BAR)), by_hand(lambda x: network(x)[:, BARRED], image))


@pytest.mark.parametrize("turns", [1, 4])
def test_an_ensemble_shows_the_bar_of_its_mean(field, image, tmp_path, turns):
    paths = [save(tmp_path / f"{seed}.safetensors", OPTICAL, BARS, seed, test_time_turns=turns) for seed in (1, 2)]
    network = load_model(paths).network
    assert_same_bars(
        measured(with_model(field, *paths, bars=BAR)), by_hand(lambda x: bar_logit(network.examine(x).answers), image)
    )


def test_a_bar_is_the_same_alone_and_among_others(field, image, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, BARS)
    together = measured(with_model(field, path, bars=BAR))
    alone = make_field(tmp_path, OPTICAL, image[4:5], ids=[IDS[4]], shard_size=1)
    pd.testing.assert_frame_equal(measured(with_model(alone, path, bars=BAR)), together.loc[[IDS[4]]])


def test_only_likely_bars_are_measured(field, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, BARS)
    run = with_model(field, path, bars=BAR)
    assert len(measured(run)) == len(IDS)
    parts = sorted(run.layout.parts("field", OPTICAL, "predict").glob("*.parquet"))
    probability = pd.concat([pq.read_table(part).to_pandas() for part in parts]).set_index("source_id")
    threshold = float(probability["bar_probability"].median())
    likely = probability.index[probability["bar_probability"] >= threshold]
    some = with_model(field, path, bars=BAR | {"probability_threshold": threshold})
    assert measured(some).index.tolist() == sorted(likely)
    none = with_model(field, path, bars=BAR | {"probability_threshold": 1.0})
    assert measured(none).empty
    write(none, "field", OPTICAL)
    catalogue = pd.read_parquet(none.layout.catalogue("field", OPTICAL))
    assert catalogue[[*NUMBERS, "bar_flag", "bar_flag_reason"]].isna().all(axis=None)
    assert catalogue["bar_probability"].notna().sum() == len(IDS)


def test_a_rerun_measures_what_has_changed(field, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, BARS)
    run = with_model(field, path, bars=BAR)
    before = measured(run)
    assert measure(run, "field", OPTICAL) == "field optical_morphology: bars already measured"
    run.layout.part("field", OPTICAL, "measure", 1).unlink()
    assert measure(run, "field", OPTICAL) == "field optical_morphology: 5 bars measured in 1 shards, 1 kept"
    pd.testing.assert_frame_equal(measured(run), before)
    other = with_model(field, path, bars=BAR | {"seed": 8})
    assert measure(other, "field", OPTICAL) == "field optical_morphology: 11 bars measured in 2 shards, 0 kept"
    assert not measured(other)[NUMBERS].equals(before[NUMBERS])


def test_the_model_is_the_one_that_predicted(field, tmp_path):
    first, second = (save(tmp_path / f"{seed}.safetensors", OPTICAL, BARS, seed) for seed in (1, 2))
    predict(with_model(field, first, bars=BAR), "field", OPTICAL)
    with pytest.raises(
        ConfigError, match=r"predicted for optical_morphology with another model than .*galgaze predict"
    ):
        measure(with_model(field, second, bars=BAR), "field", OPTICAL)


def test_the_images_are_those_that_were_predicted(image, tmp_path):
    run = with_model(make_field(tmp_path, OPTICAL, image), save(tmp_path / "m.safetensors", OPTICAL, BARS), bars=BAR)
    predict(run, "field", OPTICAL)
    make_field(tmp_path, OPTICAL, image[::-1])
    with pytest.raises(ConfigError, match=r"predicted .* with other images than .*galgaze predict"):
        measure(run, "field", OPTICAL)


@pytest.mark.parametrize("settings", [{"gates": 0}, {"gates": 1}, {"class_head": False}])
def test_bars_of_networks_that_lack_something_come_to_the_page(field, tmp_path, settings):
    path = save(tmp_path / "m.safetensors", OPTICAL, BARS | settings)
    run = with_model(field, path, bars=BAR)
    assert measured(run)["bar_flag"].notna().all()
    write(run, "field", OPTICAL)
    report(run, "field")
    assert "11</strong>bars measured" in run.layout.report("field").read_text()


def test_what_has_to_be_said_first(field, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, BARS)
    with pytest.raises(ConfigError, match=r"tasks.optical_morphology has no `bars`"):
        measure(with_model(field, path), "field", OPTICAL)
    fresh = with_model(make_field(tmp_path, OPTICAL, blobs(1, 3), ids=["a"]), path, bars=BAR)
    with pytest.raises(ConfigError, match=r"has not been predicted for optical_morphology yet: `galgaze predict`"):
        measure(fresh, "field", OPTICAL)
    radio = save(tmp_path / "r.safetensors", RADIO, AGCNN)
    with pytest.raises(ConfigError, match="radio_fr has no class of barred galaxies"):
        with_model(make_field(tmp_path, RADIO, blobs(1), ids=["a"]), radio, bars=BAR)


def test_a_field_without_sources(tmp_path):
    run = with_model(empty_field(tmp_path, OPTICAL), save(tmp_path / "m.safetensors", OPTICAL, BARS), bars=BAR)
    predict(run, "field", OPTICAL)
    assert measure(run, "field", OPTICAL) == "field optical_morphology: 0 bars measured in 0 shards, 0 kept"
