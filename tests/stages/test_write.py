"""The verb write: the columns of every kind of model in the catalogue, on to the page; and what a model has seen."""

import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from tests.stages.test_predict import (
    AGCNN,
    BARS,
    EQUIVARIANT,
    IDS,
    OPTICAL,
    RADIO,
    SIZE_PX,
    WITHOUT_IMAGE,
    attention,
    blobs,
    calibrated,
    empty_field,
    fill_store,
    make_field,
    save,
    serially,
    with_model,
)

from galgaze.catalogue.columns import catalogue_columns
from galgaze.catalogue.writer import read_provenance
from galgaze.config import check_config
from galgaze.errors import ConfigError
from galgaze.stages.context import Run, read_sources
from galgaze.stages.measure import measure
from galgaze.stages.packs import write_pack
from galgaze.stages.plan import make_plan
from galgaze.stages.predict import predict
from galgaze.stages.report import report
from galgaze.stages.write import write
from galgaze.tasks import TASKS

(ROLE,) = [column for column in catalogue_columns(TASKS[RADIO]) if column.name == "training_role"]
NEAR_DEG = float(re.search(r"within ([\d.]+) arcsec", ROLE.description)[1]) / 3600
TRAINING, VALIDATION = 0, 1


@pytest.fixture(autouse=True)
def no_dask(monkeypatch):
    for stage in ("predict", "measure"):
        monkeypatch.setattr(f"galgaze.stages.{stage}.map_shards", serially)


def written(run: Run) -> pd.DataFrame:
    """Predict, measure and write; the catalogue by source."""
    (task,) = run.config.tasks
    predict(run, "field", task)
    if run.task(task).bars:
        measure(run, "field", task)
    write(run, "field", task)
    return pd.read_parquet(run.layout.catalogue("field", task)).set_index("source_id")


@pytest.fixture(scope="module")
def radio(tmp_path_factory):
    return make_field(tmp_path_factory.mktemp("radio"), RADIO, blobs())


@pytest.fixture(scope="module")
def optical(tmp_path_factory):
    return make_field(tmp_path_factory.mktemp("optical"), OPTICAL, blobs(channels=3))


# ---- kinds of models


@pytest.mark.parametrize(("architecture", "gates"), [(AGCNN, 0), (AGCNN, 1), (AGCNN, 2), (EQUIVARIANT, 3)])
def test_any_number_of_gates_comes_to_the_catalogue_and_the_page(radio, tmp_path, architecture, gates):
    run = with_model(radio, save(tmp_path / "m.safetensors", RADIO, architecture | {"gates": gates}))
    catalogue = written(run).loc[IDS]
    for gate in (1, 2, 3):
        values = attention(catalogue, gate).notna()
        assert values.all(axis=None) if gate <= gates else not values.any(axis=None)
    assert report(run, "field").startswith("field: a page on radio_fr")
    page = run.layout.report("field").read_text()
    assert "11 of 12</strong>sources predicted" in page
    assert page.count("<img ") > 4


def test_all_columns_in_their_order_and_nulls_where_they_mean_something(optical, tmp_path):
    run = with_model(optical, save(tmp_path / "m.safetensors", OPTICAL, BARS))
    written(run)
    table = pq.read_table(run.layout.catalogue("field", OPTICAL))
    columns = catalogue_columns(TASKS[OPTICAL])
    assert table.column_names == [column.name for column in columns]
    frame = table.to_pandas().set_index("source_id")
    assert frame["_healpix_29"].is_monotonic_increasing
    assert frame.loc[WITHOUT_IMAGE, "status"] == "no_coverage"
    always = [column.name for column in columns if not column.null and column.name != "source_id"]
    assert frame.loc[WITHOUT_IMAGE].drop(["ra_deg", "dec_deg", *always]).isna().all()
    null_here = frame.columns[frame.loc[IDS].isna().all()]
    assert {"confidence", "novelty", "probability_spread", "training_role", "bar_length_px"} <= set(null_here)
    assert not [name for name in null_here if name.startswith(("vote_", "prob_", "attention_"))]
    assert list(frame.columns[frame.loc[IDS].isna().any()]) == list(null_here), "all sources alike"


def test_the_page_of_everything_at_once(optical, tmp_path):
    """An ensemble with several views, passes with dropout, calibration and bars."""
    paths = [
        save(tmp_path / f"{seed}.safetensors", OPTICAL, BARS, seed, calibration=calibrated(1.5), test_time_turns=4)
        for seed in (1, 2)
    ]
    bars = {"probability_threshold": 0.0, "samples": 2}
    run = with_model(optical, *paths, bars=bars, uncertainty={"dropout_passes": 3})
    catalogue = written(run).loc[IDS]
    filled = ["confidence", "probability_spread", "mutual_information", "bar_flag", "vote_bar_strong"]
    assert catalogue[filled].notna().all(axis=None)
    provenance = read_provenance(run.layout.catalogue("field", OPTICAL))
    assert [card["test_time_turns"] for card in provenance["model_cards"]] == [4, 4]
    assert provenance["rows_by_status"] == {"ok": 11, "no_coverage": 1}
    report(run, "field")
    page = run.layout.report("field").read_text()
    assert "calibrated</strong>confidence" in page
    assert "uncalibrated</strong>" not in page
    assert all(str(path) in page for path in paths)


@pytest.mark.parametrize("calibrated_first", [True, False])
def test_the_page_says_uncalibrated_where_a_member_is_not(radio, tmp_path, calibrated_first):
    paths = [
        save(tmp_path / "a.safetensors", RADIO, AGCNN, calibration=calibrated(1.5)),
        save(tmp_path / "b.safetensors", RADIO, AGCNN, seed=2),
    ]
    run = with_model(radio, *(paths if calibrated_first else paths[::-1]))
    assert written(run)["confidence"].isna().all()
    report(run, "field")
    assert "uncalibrated</strong>confidence" in run.layout.report("field").read_text()


@pytest.mark.parametrize("task", [RADIO, OPTICAL])
def test_a_field_without_sources_has_a_catalogue_with_all_columns(tmp_path, task):
    run = empty_field(tmp_path, task)
    path = save(tmp_path / "m.safetensors", task, AGCNN if task == RADIO else BARS)
    run = with_model(run, path, bars={"samples": 2} if task == OPTICAL else None)
    assert written(run).empty
    schema = pq.read_schema(run.layout.catalogue("field", task))
    assert [(field.name, field.type) for field in schema] == [(c.name, c.dtype) for c in catalogue_columns(TASKS[task])]
    assert read_provenance(run.layout.catalogue("field", task))["rows"] == 0
    report(run, "field")
    assert "0 of 0</strong>sources predicted" in run.layout.report("field").read_text()


# ---- what the model has seen


def seen(*places) -> dict[str, torch.Tensor]:
    """A model file's extras: (ra, dec, role) each."""
    return {
        "training_position_deg": torch.tensor([place[:2] for place in places], dtype=torch.float64).reshape(-1, 2),
        "training_role": torch.tensor([place[2] for place in places], dtype=torch.uint8),
    }


PLACES = {"plain": (150.0, 2.0), "north": (40.0, 60.0), "at zero": (0.0, -5.0), "far": (200.0, 10.0)}


def field_of_places(folder) -> Run:
    positions = [*PLACES.values(), (10.0, 10.0)]
    return make_field(folder, RADIO, blobs(len(PLACES)), ids=list(PLACES), positions=positions)


def roles(run: Run) -> dict[str, str | None]:
    column = written(run)["training_role"]
    return {name: column[name] if pd.notna(column[name]) else None for name in PLACES}


def test_what_was_trained_on_is_known_by_its_place(tmp_path):
    near = seen(
        (150.0, 2.0 + 0.95 * NEAR_DEG, TRAINING),
        (40.0 + 1.9 * NEAR_DEG, 60.0, VALIDATION),  # 0.95 of it on the sky
        (360.0 - 0.5 * NEAR_DEG, -5.0, TRAINING),
        (200.0, 10.0 + 1.05 * NEAR_DEG, TRAINING),
    )
    run = with_model(field_of_places(tmp_path), save(tmp_path / "m.safetensors", RADIO, AGCNN, extras=near))
    assert roles(run) == {"plain": "training", "north": "validation", "at zero": "training", "far": None}


@pytest.mark.parametrize("order", [(TRAINING, VALIDATION), (VALIDATION, TRAINING)])
def test_training_outweighs_validation(tmp_path, order):
    both = seen(*((150.0, 2.0, role) for role in order))
    run = with_model(field_of_places(tmp_path), save(tmp_path / "m.safetensors", RADIO, AGCNN, extras=both))
    assert roles(run)["plain"] == "training"


def test_a_file_that_tells_nothing_or_knows_one_role_or_none(tmp_path):
    run = field_of_places(tmp_path)
    nobody = dict.fromkeys(PLACES)
    assert roles(with_model(run, save(tmp_path / "1.safetensors", RADIO, AGCNN))) == nobody
    assert roles(with_model(run, save(tmp_path / "2.safetensors", RADIO, AGCNN, extras=seen()))) == nobody
    path = save(tmp_path / "3.safetensors", RADIO, AGCNN, extras=seen((200.0, 10.0, VALIDATION)))
    assert roles(with_model(run, path)) == nobody | {"far": "validation"}


def test_an_ensemble_has_seen_what_any_member_has(tmp_path):
    first = save(
        tmp_path / "1.safetensors", RADIO, AGCNN, 1, extras=seen((150.0, 2.0, TRAINING), (0.0, -5.0, TRAINING))
    )
    second = save(
        tmp_path / "2.safetensors", RADIO, AGCNN, 2, extras=seen((150.0, 2.0, VALIDATION), (40.0, 60.0, VALIDATION))
    )
    third = save(tmp_path / "3.safetensors", RADIO, AGCNN, 3)
    run = with_model(field_of_places(tmp_path), first, second, third)
    assert roles(run) == {"plain": "training", "north": "validation", "at zero": "training", "far": None}


def test_a_model_trained_here_knows_its_table_and_its_file(tmp_path):
    run = field_of_places(tmp_path)
    config = run.config.model_dump()
    config["tasks"][RADIO]["model"] = {"train": {"field": "field"}}
    run = Run(check_config(config))
    make_plan(run, "field")
    save(run.layout.model(RADIO), RADIO, AGCNN, extras=seen((150.0, 2.0, TRAINING), (40.0, 60.0, TRAINING)))
    table = {
        "ra_deg": [200.0, 40.0, np.nan],
        "dec_deg": [10.0, 60.0, 0.0],
        "role": ["validation", "validation", "training"],
    }
    pd.DataFrame(table).to_parquet(run.layout.training_sources(RADIO))
    assert roles(run) == {"plain": "training", "north": "training", "at zero": None, "far": "validation"}


# ---- who served the image


def test_the_catalogue_says_who_served_each_image(radio, tmp_path):
    """The survey of the task, but for the images of the one that stood in."""
    config = with_model(radio, save(tmp_path / "m.safetensors", RADIO, AGCNN)).config.model_dump()
    stand_in = config["surveys"]["sky"]
    config |= {"surveys": {"sky": {"kind": "first", "fallback": "two"}, "two": stand_in}, "results": str(tmp_path)}
    run = Run(check_config(config))
    record = make_plan(run, "field")
    fill_store(run, RADIO, dict(zip(IDS, blobs(), strict=True)), record["shards"], (1, SIZE_PX, SIZE_PX))
    frame = read_sources(run.layout, "field")
    for number, part in frame.groupby("shard"):
        rows = [{"source_id": name, "served_by": {"s03": "two", "s08": "two"}.get(name, "sky"), "status": "ok"}
                for name in part["source_id"]]  # fmt: skip
        if number == record["shards"] - 1:
            rows[-1]["served_by"] = None  # the one without an image
        write_pack(run.layout.fetched("field", "sky", number), rows, lambda row: None)
    survey = written(run)["survey"]
    assert set(survey[survey == "two"].index) == {"s03", "s08"}
    assert set(survey.drop(["s03", "s08"])) == {"sky"}


# ---- what has changed since


def test_the_model_is_the_one_that_predicted(radio, tmp_path):
    path = save(tmp_path / "m.safetensors", RADIO, AGCNN)
    run = with_model(radio, path)
    written(run)
    save(path, RADIO, AGCNN, seed=2)
    with pytest.raises(ConfigError, match=r"m.safetensors: this is not the model .*`galgaze predict`"):
        write(run, "field", RADIO)
    path.unlink()
    with pytest.raises(ConfigError, match=r"m.safetensors: cannot read the model file"):
        write(run, "field", RADIO)


def test_what_has_to_be_run_first(tmp_path):
    run = with_model(
        make_field(tmp_path, OPTICAL, blobs(2, 3), ids=["a", "b"]), save(tmp_path / "m.safetensors", OPTICAL, BARS),
        bars={"samples": 2},
    )  # fmt: skip
    with pytest.raises(ConfigError, match="The stage predict of field optical_morphology has not been run yet"):
        write(run, "field", OPTICAL)
    predict(run, "field", OPTICAL)
    with pytest.raises(ConfigError, match="The stage measure of field optical_morphology has not been run yet"):
        write(run, "field", OPTICAL)
