"""Training as a job does it: from images to a model file, stopped and gone on with, and refused where it must be."""

import json
import types

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.stages.runs import make_run, write_table

import galgaze.images.datasets
from galgaze.errors import ConfigError
from galgaze.files import sha256_file
from galgaze.images.datasets import LabelledSet
from galgaze.models import gate_record
from galgaze.models.model_file import ModelCard, knows_its_sources, load_extras, load_network, read_card, save_model
from galgaze.models.splits import near
from galgaze.models.training import predict_logits
from galgaze.stages import train as train_stage
from galgaze.stages.fetch import fetch
from galgaze.stages.plan import make_plan
from galgaze.stages.shard import shard
from galgaze.stages.train import train
from galgaze.stages.training_data import check_training, read_training_data
from galgaze.tasks import OPTICAL_MORPHOLOGY, QUESTIONS

TASK = "optical_morphology"
PREPARATION = {"kind": "optical_composite", "size_px": 32}
AGCNN = {"widths": [4, 6, 8, 10], "gate_channels": 4, "dropout": 0.2}
BARS = {"architecture": "bar_network", "widths": [4, 6, 8, 10], "gate_channels": 4}
QUICK = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "torch_threads": 1, "network": AGCNN}
SIMULATED = {"kind": "simulated_legacy", "size_px": 64, "pixel_scale_arcsec": 1.048}
ANSWERS = sum(len(question.answers) for question in QUESTIONS)


def galaxies(count: int = 100, seed: int = 0, prefix: str = "g") -> LabelledSet:
    """A set of ten classes that differ in colour and size, on a patch of sky of its own."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 10
    rows, columns = np.indices((32, 32)) - 15.5
    size = 2 + 1.5 * (label // 3)
    light = np.exp(-(rows**2 + columns**2) / (2 * size[:, None, None] ** 2))
    colour = np.eye(3)[label % 3] * 0.7 + 0.2
    pixels = light[:, None] * colour[:, :, None, None] + rng.normal(0, 0.02, (count, 3, 32, 32))
    return LabelledSet(
        image=(pixels.clip(0, 1) * 255).astype(np.uint8),
        label=label.astype(np.int64),
        source_id=np.array([f"{prefix}{number}" for number in range(count)]),
        ra_deg=rng.uniform(150, 160, count),
        dec_deg=rng.uniform(0, 5, count),
        votes=None,
        description={"name": "made up", "licence": "none", "sha256": {"file": "0"}},
    )


def voted(labelled: LabelledSet) -> LabelledSet:
    """Without classes; the votes say of what colour it is, and every fifth says nothing of bars."""
    votes = np.zeros((len(labelled.label), ANSWERS), np.float32)
    votes[np.arange(len(votes)), labelled.label % 3] = 1
    votes[:, [4, 6]], votes[:, 7:] = 1, [0.1, 0.2, 0.7]
    votes[::5, 7:] = np.nan
    labelled.votes, labelled.label = votes, np.full_like(labelled.label, -1)
    return labelled


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Stands for the file of a published set; what it holds can be changed."""
    (tmp_path / "set.h5").write_bytes(b"not read")
    (tmp_path / "labels.csv").write_text("not read")
    holds = types.SimpleNamespace(labelled=galaxies())
    monkeypatch.setattr(galgaze.images.datasets, "read_labelled_set", lambda *_: holds.labelled)
    return holds


def run_on_set(folder, results: str = "results", kind: str = "galaxy10", **changes):
    dataset = {"kind": kind, "path": str(folder / "set.h5" if kind == "galaxy10" else folder)}
    return make_run(
        folder,
        {"kind": "directory", "path": str(folder)},
        results=str(folder / results),
        tasks={TASK: task_with(QUICK | {"dataset": dataset} | changes)},
    )


def task_with(training: dict, preparation: dict = PREPARATION) -> dict:
    return {"survey": "sky", "preparation": preparation, "model": {"train": training}}


# ---- from images to a model file


def test_a_set_becomes_a_model(published, tmp_path):
    run = run_on_set(tmp_path, epochs=8)
    line = train(run, TASK)
    assert line.startswith(f"{TASK}: trained 8 epochs, validation accuracy 0.")

    network, card = load_network(run.layout.model(TASK))
    assert card.architecture["name"] == "agcnn"
    assert card.questions == []
    assert card.training_data["name"] == "made up"
    assert card.training_data["training"] + card.training_data["validation"] == 100
    assert card.training_data["by_class"] == dict.fromkeys(OPTICAL_MORPHOLOGY.classes, 10)
    assert not run.layout.checkpoint(TASK).exists()
    last = torch.load(run.layout.last_epoch(TASK), weights_only=True)
    assert len(last["curve"]) == len(pd.read_csv(run.layout.training_curve(TASK)))

    sources = pd.read_parquet(run.layout.training_sources(TASK))
    assert list(sources.columns) == ["source_id", "ra_deg", "dec_deg", "label", "role"]
    assert sources.groupby("label")["role"].value_counts().unstack()["validation"].tolist() == [2] * 10

    chosen = (sources["role"] == "validation").to_numpy()
    logits = predict_logits(network, torch.from_numpy(published.labelled.image[chosen]))
    right = logits.argmax(1).numpy() == published.labelled.label[chosen]
    scores = card.metrics["validation"]
    assert scores["accuracy"] == pytest.approx(right.mean())
    assert scores["accuracy"] > 0.3
    assert scores["n"] == 20
    assert {"auc", "ece", "ece_calibrated"} <= set(scores)
    assert card.calibration.method == "temperature"

    curve = pd.read_csv(run.layout.training_curve(TASK))
    assert curve["epoch"].tolist() == list(range(1, 9))
    assert {"validation_question_loss", "gate_1_entropy", "gate_3_blank_share"} <= set(curve.columns)
    assert card.metrics["best_epoch"] == curve.loc[curve["validation_loss"].idxmin(), "epoch"]
    assert card.metrics["gates"][0]["entropy"] == pytest.approx(curve["gate_1_entropy"].iloc[-1])
    assert train(run, TASK) == f"{TASK}: already trained"


def test_the_model_file_says_where_it_has_looked(published, tmp_path):
    published.labelled.ra_deg[:5] = np.nan
    run = run_on_set(tmp_path)
    train(run, TASK)
    extras = load_extras(run.layout.model(TASK))
    sources = pd.read_parquet(run.layout.training_sources(TASK)).dropna(subset="ra_deg")
    assert extras["training_position_deg"].shape == (95, 2)
    position = extras["training_position_deg"][extras["training_role"] == 1].numpy()
    expected = sources.loc[sources["role"] == "validation", ["ra_deg", "dec_deg"]].to_numpy()
    assert sorted(map(tuple, position)) == sorted(map(tuple, expected))
    assert {"feature_mean", "feature_precision", "feature_distance"} <= set(extras)


def test_the_same_run_gives_the_same_file(published, tmp_path):
    runs = [run_on_set(tmp_path, name) for name in ("first", "second")]
    for run in runs:
        train(run, TASK)
    assert len({sha256_file(run.layout.model(TASK)) for run in runs}) == 1


def test_what_is_learnt_from_decides_whether_it_is_done_again(published, tmp_path):
    run = run_on_set(tmp_path, epochs=1)
    train(run, TASK)
    published.labelled.label[[0, 1]] = published.labelled.label[[1, 0]]
    assert "trained 1 epochs" in train(run, TASK)
    published.labelled.image[0, 0, 0, 0] ^= 1
    assert "trained 1 epochs" in train(run, TASK)
    assert "already" in train(run, TASK)


# ---- stopped


class Stopped(Exception):
    pass


def stop_after(monkeypatch, epoch: int) -> None:
    def say(line: str) -> None:
        if f"epoch {epoch} of" in line:
            raise Stopped

    monkeypatch.setattr(train_stage, "say", say)


def test_a_stopped_training_goes_on_to_the_same_model(published, tmp_path, monkeypatch, capsys):
    options = {"weight_average": 0.9, "label_smoothing": 0.1, "class_balance": True, "epochs": 4}
    whole, stopped = (run_on_set(tmp_path, name, **options) for name in ("whole", "stopped"))
    train(whole, TASK)
    with monkeypatch.context() as context:
        stop_after(context, 2)
        with pytest.raises(Stopped):
            train(stopped, TASK)
    assert stopped.layout.checkpoint(TASK).exists()
    assert not stopped.layout.model(TASK).exists()
    capsys.readouterr()
    train(stopped, TASK)
    assert "going on after epoch 2" in capsys.readouterr().err
    assert sha256_file(stopped.layout.model(TASK)) == sha256_file(whole.layout.model(TASK))
    curves = [run.layout.training_curve(TASK).read_text() for run in (whole, stopped)]
    assert curves[0] == curves[1]


def logged(run) -> dict[str, list[tuple[int, float]]]:
    log = EventAccumulator(str(run.layout.training_log(TASK)))
    log.Reload()
    return {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in log.Tags()["scalars"]}


def test_the_log_has_every_epoch_once(published, tmp_path, monkeypatch):
    run = run_on_set(tmp_path)
    real = train_stage.write_bytes

    def killed_before_the_second_checkpoint(path, content):
        if path == run.layout.checkpoint(TASK) and path.exists():
            raise Stopped
        real(path, content)

    with monkeypatch.context() as context:
        context.setattr(train_stage, "write_bytes", killed_before_the_second_checkpoint)
        with pytest.raises(Stopped):
            train(run, TASK)
    assert [step for step, _ in logged(run)["loss/training"]] == [1, 2]
    train(run, TASK)
    log, curve = logged(run), pd.read_csv(run.layout.training_curve(TASK))
    for tag, column in {
        "loss/training": "training_loss",
        "loss/validation": "validation_loss",
        "accuracy/validation": "validation_accuracy",
        "learning_rate": "learning_rate",
        "gate_2/area_share": "gate_2_area_share",
    }.items():
        assert [step for step, _ in log[tag]] == [1, 2, 3], tag
        np.testing.assert_allclose([value for _, value in log[tag]], curve[column], rtol=1e-5)
    published.labelled.label[:] = published.labelled.label[::-1].copy()
    train(run, TASK)
    assert [step for step, _ in logged(run)["loss/training"]] == [1, 2, 3]


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_used(published, tmp_path, monkeypatch, capsys):
    run = run_on_set(tmp_path)
    with monkeypatch.context() as context:
        stop_after(context, 2)
        with pytest.raises(Stopped):
            train(run, TASK)
    published.labelled.image[0, 0, 0, 0] ^= 1
    capsys.readouterr()
    train(run, TASK)
    assert "going on" not in capsys.readouterr().err
    published.labelled.image[0, 0, 0, 0] ^= 1
    run.layout.checkpoint(TASK).write_bytes(b"half a checkpoint")
    assert "trained 3 epochs" in train(run, TASK)


def test_a_collapsed_gate_is_told_once(published, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gate_record, "FLAT_CONTRAST", 1e9)  # every map is flat
    run = run_on_set(tmp_path, central_epochs=1)
    train(run, TASK)
    lines = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert len(lines) == 3
    assert all(f"attention collapsed by epoch 2: gate {n} has gone blank" in lines[n - 1] for n in (1, 2, 3))
    metrics = read_card(run.layout.model(TASK)).metrics
    assert len(metrics["warnings"]) == 3
    assert metrics["gates"][0]["blank_share"] == 1


# ---- views of an image, calibration


def test_scores_and_temperature_are_those_of_all_views(published, tmp_path):
    run = run_on_set(tmp_path, test_time_turns=8, epochs=4)
    train(run, TASK)
    network, card = load_network(run.layout.model(TASK))
    assert card.test_time_turns == 8
    image = torch.from_numpy(published.labelled.image)
    logits = predict_logits(network, image)
    torch.testing.assert_close(logits, predict_logits(network, image.rot90(1, (2, 3))), rtol=1e-4, atol=1e-4)
    sources = pd.read_parquet(run.layout.training_sources(TASK))
    chosen = np.flatnonzero(sources["role"] == "validation")
    label = torch.from_numpy(published.labelled.label[chosen])

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits[chosen] / temperature, label))

    fitted = card.calibration.temperature
    assert loss(fitted) <= loss(1.0)
    assert loss(fitted) < min(loss(fitted * 1.7), loss(fitted / 1.7))


# ---- one set after another


def test_fine_tuning_never_validates_on_what_the_first_training_saw(published, tmp_path):
    first = run_on_set(tmp_path, "first")
    train(first, TASK)
    known = load_extras(first.layout.model(TASK))
    learnt = known["training_position_deg"][known["training_role"] == 0].numpy()

    second_set = galaxies(120, 5, "other")
    earlier = published.labelled
    second_set.ra_deg[:60], second_set.dec_deg[:60] = earlier.ra_deg[:60], earlier.dec_deg[:60] + 20 / 3600
    published.labelled = second_set
    second = run_on_set(tmp_path, "second", initial_weights=str(first.layout.model(TASK)), seed=4)
    train(second, TASK)

    sources = pd.read_parquet(second.layout.training_sources(TASK))
    seen = near(sources["ra_deg"], sources["dec_deg"], *learnt.T)
    assert seen.sum() >= 40
    assert set(sources["role"][seen]) == {"training"}
    assert (sources["role"] == "validation").sum() > 5
    extras = load_extras(second.layout.model(TASK))
    assert len(extras["training_role"]) == 220
    learnt_now = extras["training_position_deg"][extras["training_role"] == 0].numpy()
    assert near(*learnt.T, *learnt_now.T).all()
    assert near(*sources.loc[sources["role"] == "training", ["ra_deg", "dec_deg"]].to_numpy().T, *learnt_now.T).all()
    card = read_card(second.layout.model(TASK))
    assert card.training_data["initial_weights"]["sha256"] == sha256_file(first.layout.model(TASK))


def test_fine_tuning_starts_from_the_weights(published, tmp_path):
    first = run_on_set(tmp_path, "first", epochs=10, test_time_turns=4)
    train(first, TASK)
    published.labelled = galaxies(100, 3, "other")  # of the same classes, elsewhere
    published.labelled.ra_deg += 50
    slow = {"epochs": 1, "learning_rate": 1e-6}
    cold, warm = (
        run_on_set(tmp_path, name, **slow, **more)
        for name, more in (("cold", {}), ("warm", {"initial_weights": str(first.layout.model(TASK))}))
    )
    for run in (cold, warm):
        train(run, TASK)
    accuracy = [read_card(run.layout.model(TASK)).metrics["validation"]["accuracy"] for run in (cold, warm)]
    assert accuracy[1] > accuracy[0] + 0.15


def test_where_everything_was_seen_before_nothing_is_left_to_validate_on(published, tmp_path):
    first = run_on_set(tmp_path, "first", validation_fraction=0.01)
    train(first, TASK)
    path = first.layout.model(TASK)
    extras = load_extras(path)
    extras["training_role"][:] = 0
    network, card = load_network(path)
    save_model(path, network, card, extras)
    second = run_on_set(tmp_path, "second", initial_weights=str(path))
    with pytest.raises(ConfigError, match=r"100 of the 100 sources stand within 60 arcsec .* nothing is left"):
        train(second, TASK)


# ---- questions


def test_a_network_can_learn_from_votes_alone(published, tmp_path):
    voted(published.labelled)
    run = run_on_set(tmp_path, kind="galaxy_zoo", network=BARS | {"class_head": False}, epochs=2)
    line = train(run, TASK)
    assert "question loss on validation sources" in line
    card = read_card(run.layout.model(TASK))
    assert card.questions == ["smooth_or_featured", "disk_edge_on", "has_spiral_arms", "bar"]
    assert card.calibration is None
    assert "validation" not in card.metrics
    assert card.training_data["by_class"] == {"unlabelled": 100}
    assert pd.read_parquet(run.layout.training_sources(TASK))["label"].isna().all()


def simulated_run(folder, training: dict, count: int = 60):
    mix = dict.fromkeys(OPTICAL_MORPHOLOGY.classes, 1)
    field = {"simulated": {"survey": "sky", "count": count, "prefix": "s"}, "tasks": [TASK]}
    preparation = {"kind": "optical_composite", "size_px": 32, "field_of_view_arcsec": 67}
    tasks = {TASK: task_with(QUICK | {"field": "field"} | training, preparation)}
    return make_run(folder, SIMULATED | {"mix": mix}, field=field, shard_size=60, tasks=tasks)


def prepare_field(run) -> None:
    for number in range(make_plan(run, "field")["shards"]):
        fetch(run, "field", "sky", number)
        shard(run, "field", TASK, number)


def test_a_simulated_field_brings_its_votes_and_no_positions(tmp_path):
    run = simulated_run(tmp_path, {"network": BARS, "epochs": 2})
    prepare_field(run)
    data = read_training_data(run, TASK)
    truth = pd.read_parquet(run.layout.truth("field")).set_index("source_id").loc[data.frame["source_id"]]
    barred = (truth["bar_strength"] == "strong").to_numpy()
    assert data.votes[barred, 7].min() > data.votes[~barred, 7].max()  # strong bars
    assert [OPTICAL_MORPHOLOGY.classes[index] for index in data.frame["label"]] == truth["class_label"].tolist()
    train(run, TASK)
    card = read_card(run.layout.model(TASK))
    assert len(card.questions) == 4
    assert card.training_data["field"] == "field"
    assert card.metrics["validation_question_loss"] > 0
    assert card.metrics["validation"]["n"] == card.training_data["validation"]
    assert len(load_extras(run.layout.model(TASK))["training_role"]) == 0
    assert knows_its_sources(card)


def test_a_field_with_a_table_of_votes(tmp_path):
    """Sources with a class, with votes, with both; those with neither are not used."""
    run = simulated_run(tmp_path, {}, 20)
    survey = run.survey("sky")
    (tmp_path / "images").mkdir()
    from galgaze.surveys.base import Source

    rows = []
    for number in range(20):
        body, _ = survey.download(Source(f"s-{number:07d}", 150.0, 2.0))
        (tmp_path / "images" / f"x{number}.fits").write_bytes(body)
        rows.append((f"x{number}", 150.0, 2.0, "merging" if number < 8 else ""))
    write_table(tmp_path / "table.csv", rows)
    pd.DataFrame(
        {"source_id": [f"x{n}" for n in range(4, 16)], "bar_strong": 0.5, "bar_weak": 0.25, "bar_no": 0.25}
    ).to_csv(tmp_path / "votes.csv", index=False)
    training = QUICK | {"field": "field", "network": BARS, "votes": str(tmp_path / "votes.csv")}
    run = make_run(
        tmp_path / "run",
        {"kind": "directory", "path": str(tmp_path / "images")},
        field={"table": {"path": str(tmp_path / "table.csv"), "columns": {"label": "label"}}, "tasks": [TASK]},
        shard_size=20,
        tasks={TASK: task_with(training, PREPARATION | {"field_of_view_arcsec": 60})},
    )
    prepare_field(run)
    data = read_training_data(run, TASK)
    assert data.frame["source_id"].tolist() == [f"x{number}" for number in range(16)]
    assert data.frame["label"].tolist() == [1] * 8 + [-1] * 8
    assert np.isnan(data.votes[:4]).all()
    assert data.votes[4:, 7].tolist() == [0.5] * 12
    assert data.real
    with pytest.raises(ConfigError, match="class_head: false"):
        train(run, TASK)


# ---- what cannot be trained on


def refused(run, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        train(run, TASK)
    assert not run.layout.model(TASK).exists()
    assert not run.layout.checkpoint(TASK).exists()


def spoil(labelled: LabelledSet, how: str) -> None:
    if how == "label":
        labelled.label[7] = 10
    elif how == "one class":
        labelled.label[:] = 3
    elif how == "none":
        labelled.label[:] = -1
    elif how == "nan":
        labelled.image = labelled.image.astype(np.float32)
        labelled.image[3, 0, 1, 1] = np.nan
    elif how == "channels":
        labelled.image = labelled.image[:, :1]
    elif how == "size":
        labelled.image = labelled.image[:, :, :30, :30]
    elif how == "twice":
        labelled.source_id[1] = labelled.source_id[0]
    elif how == "few":
        labelled.label[:] = np.where(np.arange(100) < 98, labelled.label % 9, 9)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("label", r"1 labels are no classes of optical_morphology, the first of them 10 \(g7\); expected are 0 to 9"),
        ("one class", "the classes disturbed, merging, round_smooth, cigar_smooth, .* have fewer than 2 sources"),
        ("none", r"no image of .*set.h5 has a class of optical_morphology \(disturbed, "),
        ("nan", "an image holds NaN or infinite pixels"),
        ("channels", "must be uint8, 3 channels of 32 x 32 px .* found uint8, 1 x 32 x 32"),
        ("size", "found uint8, 3 x 30 x 30"),
        ("twice", "do not belong together one to one"),
        ("few", "the classes edge_on_with_bulge have fewer than 2 sources"),
    ],
)
def test_a_set_that_cannot_be_trained_on_is_refused(published, tmp_path, how, match):
    spoil(published.labelled, how)
    refused(run_on_set(tmp_path), match)


@pytest.mark.parametrize("value", [np.inf, -0.1, 3.0])
def test_votes_that_are_no_fractions_are_refused(published, tmp_path, value):
    voted(published.labelled).votes[4, 2] = value
    run = run_on_set(tmp_path, kind="galaxy_zoo", network=BARS | {"class_head": False})
    refused(run, rf"votes must be fractions from 0 to 1, or empty; g4 has {value}")


def test_votes_on_nothing_are_refused(published, tmp_path):
    voted(published.labelled).votes[:] = np.nan
    refused(run_on_set(tmp_path, kind="galaxy_zoo", network=BARS | {"class_head": False}), "no source .* has votes")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dataset": {"kind": "galaxy10", "path": "gone.h5"}}, r"dataset.path: gone.h5 is not there"),
        (
            {"dataset": {"kind": "mirabest", "path": "."}},
            "mirabest is no set for optical_morphology; those are: galaxy10",
        ),
        ({"network": BARS}, "galaxy10 has no votes, and a bar_network learns to answer"),
        ({"network": {"gates": 0, "flattened_px": 64}}, "flattened_px: 64, but the images are prepared with 32 px"),
        ({"network": {"gates": 0, "flattened_px": 32}, "central_epochs": 1}, "reads whole images only"),
        ({"initial_weights": "gone.safetensors"}, "gone.safetensors: cannot read the model file"),
    ],
)
def test_what_the_configuration_tells_is_found_without_reading(published, tmp_path, changes, match):
    published.labelled = None
    with pytest.raises(ConfigError, match=match):
        check_training(run_on_set(tmp_path, **changes), TASK)


def test_a_set_of_votes_needs_a_network_that_answers(published, tmp_path):
    for network in (AGCNN, BARS):
        with pytest.raises(ConfigError, match=r"galaxy_zoo has votes and no classes.*class_head: false"):
            check_training(run_on_set(tmp_path, kind="galaxy_zoo", network=network), TASK)
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(ConfigError, match=r"dataset.table: .*labels.csv is not there"):
        check_training(run_on_set(tmp_path, kind="galaxy_zoo", network=BARS | {"class_head": False}), TASK)


def field_run(folder, **changes):
    write_table(folder / "table.csv", [("a", 1.0, 2.0)])
    return make_run(
        folder, {"kind": "directory", "path": str(folder)}, tasks={TASK: task_with({"field": "field"} | changes)}
    )


def test_votes_of_fields(tmp_path):
    check_training(field_run(tmp_path), TASK)
    with pytest.raises(ConfigError, match=r"the field field has no answers. Name a CSV or Parquet table"):
        check_training(field_run(tmp_path, network=BARS), TASK)
    with pytest.raises(ConfigError, match=r"votes: gone.csv is not there"):
        check_training(field_run(tmp_path, network=BARS, votes="gone.csv"), TASK)
    with pytest.raises(ConfigError, match=r"the network agcnn answers no questions. Leave votes out"):
        check_training(field_run(tmp_path, votes="gone.csv"), TASK)
    with pytest.raises(ConfigError, match=r"the simulated field field has its own. Leave votes out"):
        check_training(simulated_run(tmp_path, {"network": BARS, "votes": "gone.csv"}), TASK)
    check_training(simulated_run(tmp_path, {"network": BARS}), TASK)


def test_questions_are_not_asked_of_radio_images(tmp_path):
    tasks = {
        "radio_fr": {
            "survey": "sky",
            "preparation": {"kind": "radio_clip", "size_px": 64},
            "model": {"train": {"field": "field", "network": BARS}},
        }
    }
    run = make_run(tmp_path, {"kind": "directory", "path": str(tmp_path)}, task="radio_fr", tasks=tasks)
    with pytest.raises(ConfigError, match="questions are asked of optical images, not of radio_fr's"):
        check_training(run, "radio_fr")


@pytest.mark.parametrize(
    ("card", "match"),
    [
        (
            {"architecture": {"name": "bar_network"}},
            r"another network \(name: model bar_network, configuration agcnn\)",
        ),
        ({"widths": [6, 16, 32, 64]}, r"widths: model \[6, 16, 32, 64\], configuration \[4, 6, 8, 10\]"),
        ({"channels": 1}, "reads images of 1 channels, those of optical_morphology have 3"),
        ({"size_px": 64}, "size_px: model 64, configuration 32"),
        ({"task": "radio_fr", "classes": ["FRI", "FRII"]}, "the model is for radio_fr"),
        ({"classes": ["a", "b"]}, r"the model's classes are \['a', 'b'\]"),
        ({"dropout": 0.9}, None),
    ],
)
def test_initial_weights_must_fit(published, tmp_path, card, match):
    run = run_on_set(tmp_path, initial_weights=str(tmp_path / "initial.safetensors"))
    plain = run.train_settings(TASK).model_copy(update={"initial_weights": None})
    good = train_stage._first_card(
        TASK, run.task(TASK).preparation,
        types.SimpleNamespace(
            frame=pd.DataFrame({"label": [0], "validation": [True]}), description={}, real=False
        ),
        plain, {"initial_weights": None},
    )  # fmt: skip
    values = json.loads(good.model_dump_json())
    for key, value in card.items():
        part = values["architecture"] if key in ("widths", "dropout") else values
        part = values["preparation"] if key == "size_px" else part
        part[key] = value
    save_model(tmp_path / "initial.safetensors", torch.nn.Linear(1, 1), ModelCard(**values))
    with pytest.raises(ConfigError, match=match or "the weights do not fit the model's card"):
        check_training(run, TASK)


def test_what_the_network_cannot_read_is_found_before_training(published, tmp_path):
    network = {"architecture": "attention_vgg", "widths": [2, 2, 2, 2, 2, 2]}
    refused(run_on_set(tmp_path, network=network, central_epochs=1), "attention_vgg .*cannot read .*16")


def test_whatever_a_network_says_of_images_it_cannot_read_is_told(published, tmp_path, monkeypatch):
    def examine(self, image):
        raise RuntimeError("a kernel larger than the image")

    monkeypatch.setattr("galgaze.models.agcnn.AGCNN.examine", examine)
    refused(run_on_set(tmp_path), "agcnn cannot read images of 32 px: a kernel larger than the image. Change size_px")
