"""The verb predict: what stands in its columns for each kind of model, and what must not change them.

The small fields and untrained networks made here serve the tests of the later stages too.
"""

import types

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import TypeAdapter
from tests.stages.runs import make_run, write_table
from torch import nn

from galgaze.catalogue.columns import ATTENTION_STATISTICS, attention_column, vote_column, vote_columns
from galgaze.config import PreparationSettings, check_config
from galgaze.errors import ConfigError, TransientError
from galgaze.files import sha256_file, write_marker
from galgaze.images.preparation import preparation_identity
from galgaze.images.store import ShardImages, ensure_store, write_shard
from galgaze.models.dropout_passes import dropout_probabilities
from galgaze.models.model_file import Calibration, ModelCard, load_extras, load_network, save_model
from galgaze.models.novelty import fit_novelty, novelty, novelty_features
from galgaze.models.questions import ANSWERS
from galgaze.models.registry import create_network
from galgaze.models.runtime import to_network_input
from galgaze.stages.context import Run, read_sources
from galgaze.stages.plan import make_plan
from galgaze.stages.predict import part_schema, predict
from galgaze.tasks import OPTICAL_MORPHOLOGY, QUESTIONS, RADIO_FR, TASKS

RADIO, OPTICAL = RADIO_FR.name, OPTICAL_MORPHOLOGY.name
CHANNELS = {RADIO: 1, OPTICAL: 3}
SIZE_PX, SCALE_ARCSEC = 48, 1.8
AGCNN = {"name": "agcnn", "widths": [3, 4, 5, 6], "gate_channels": 4, "gate_pooling": "mean", "dropout": 0.3}
EQUIVARIANT = {"name": "equivariant_agcnn", "group": "C4", "widths": [1, 2, 2, 3], "kernel_size": 3}
BARS = {"name": "bar_network", "widths": [3, 4, 5, 6], "gate_channels": 4}
IDS = [f"s{number:02d}" for number in range(11)]
WITHOUT_IMAGE = "z no image"  # the last row of the second shard


# ---- small fields and models


def blobs(count: int = len(IDS), channels: int = 1, size_px: int = SIZE_PX, seed: int = 3) -> np.ndarray:
    """Images (N, C, H, W) uint8, each of three smooth blobs and some noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((size_px, size_px)) - (size_px - 1) / 2
    light = rng.normal(0, 0.02, (count, channels, size_px, size_px))
    for _ in range(3):
        x, y = rng.normal(0, size_px / 8, (2, count, 1, 1))
        width, ratio = rng.uniform(2, size_px / 10, (count, 1, 1)), rng.uniform(0.3, 1, (count, 1, 1))
        blob = np.exp(-(((columns - x) / width) ** 2 + ((rows - y) / (ratio * width)) ** 2) / 2)
        light += blob[:, None] * rng.uniform(0.2, 1, (count, channels, 1, 1))
    return (light.clip(0, 1) * 255).astype(np.uint8)


def make_field(folder, task: str, image: np.ndarray, ids: list[str] = IDS, positions=None, shard_size: int = 6) -> Run:
    """A field that is planned and prepared, of these images and one source more that has none."""
    names = [*ids, WITHOUT_IMAGE] if len(ids) else []
    positions = positions or [(150.0 + 0.01 * number, 2.0) for number in range(len(names))]
    write_table(folder / "table.csv", [(name, *place) for name, place in zip(names, positions, strict=True)])
    kind = "radio_clip" if task == RADIO else "optical_composite"
    prepared = {"kind": kind, "size_px": image.shape[-1]}
    tasks = {task: {"survey": "sky", "preparation": prepared, "model": {"weights": "none"}}}
    run = make_run(folder, {"kind": "directory", "path": str(folder)}, task=task, shard_size=shard_size, tasks=tasks)
    record = make_plan(run, "field")
    fill_store(run, task, dict(zip(ids, image, strict=True)), record["shards"], image.shape[1:])
    return run


def fill_store(run: Run, task: str, image: dict[str, np.ndarray], shards: int, shape: tuple[int, int, int]) -> None:
    """What the stage shard would write."""
    name, size = run.images("field", task).store, run.shard_size("field")
    frame = read_sources(run.layout, "field")
    if shards:
        ensure_store(run.layout.store("field", name), shards, size, shape, {})
    for shard, part in frame.groupby("shard"):
        rows = ShardImages.empty(size, shape)
        for source_id, row in zip(part["source_id"], part["position"], strict=True):
            rows.source_id[row] = source_id
            rows.valid[row] = source_id in image
            rows.status[row] = "ok" if rows.valid[row] else "no_coverage"
            if rows.valid[row]:
                rows.image[row] = image[source_id]
                rows.coverage[row], rows.pixel_scale_arcsec[row] = 1, SCALE_ARCSEC
                rows.centre_px[row] = (shape[-1] - 1) / 2
                rows.jacobian_arcsec[row] = np.diag([-SCALE_ARCSEC, SCALE_ARCSEC])
        written = write_shard(run.layout.store("field", name), shard, rows)
        write_marker(run.layout.store_marker("field", name, shard), {}, written)


def with_model(run: Run, *paths, **settings) -> Run:
    """The same field with these model files, and other settings of the task; radio or optical, as the run."""
    config = run.config.model_dump()
    (task,) = config["tasks"]
    weights = str(paths[0]) if len(paths) == 1 else [str(path) for path in paths]
    config["tasks"][task] |= {"model": {"weights": weights}, **settings}
    return Run(check_config(config))


def save(path, task: str, architecture: dict, seed: int = 1, size_px: int = SIZE_PX, extras=None, **card):
    """A model file of an untrained network that tells images apart."""
    torch.manual_seed(seed)
    classes = list(TASKS[task].classes)
    network = create_network(architecture, CHANNELS[task], len(classes))
    settle(network, to_network_input(torch.from_numpy(blobs(8, CHANNELS[task], size_px, seed=100 + seed))))
    kind = {"kind": "radio_clip"} if task == RADIO else {"kind": "optical_composite"}
    preparation = TypeAdapter(PreparationSettings).validate_python(kind | {"size_px": size_px})
    values = {
        "task": task,
        "architecture": architecture,
        "classes": classes,
        "channels": CHANNELS[task],
        "preparation": preparation_identity(preparation),
        "questions": [question.name for question in QUESTIONS] if architecture["name"] == "bar_network" else [],
    }
    save_model(path, network, ModelCard(**(values | card)), extras)
    return path


def settle(network: nn.Module, image: torch.Tensor) -> None:
    """Batch statistics of these images (B, C, H, W), and outputs of linear layers of mean 0 and deviation 2 on them."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()(image)
        network.eval()
        for layer in [module for module in network.modules() if isinstance(module, nn.Linear)]:
            outputs = []
            hook = layer.register_forward_hook(lambda *call, seen=outputs: seen.append(call[-1]))
            network(image)
            hook.remove()
            scale = 2 / outputs[0].std(dim=0).clamp_min(1e-6)
            layer.bias.data = (layer.bias - outputs[0].mean(dim=0)) * scale
            layer.weight.data *= scale[:, None]


def serially(function, arguments: dict[int, tuple], *_) -> int:
    """In the place of `galgaze.stages.shards.map_shards`: here, without Dask."""
    return sum(function(*values) for values in arguments.values())


@pytest.fixture(autouse=True)
def no_dask(monkeypatch):
    monkeypatch.setattr("galgaze.stages.predict.map_shards", serially)


def predicted(run: Run) -> pd.DataFrame:
    """The parts, by source; the one without an image left out."""
    (task,) = run.config.tasks
    predict(run, "field", task)
    parts = sorted(run.layout.parts("field", task, "predict").glob("*.parquet"))
    frame = pd.concat([pq.read_table(path).to_pandas() for path in parts]).set_index("source_id").sort_index()
    assert list(frame.reset_index()) == part_schema(task).names
    lost = frame.loc[WITHOUT_IMAGE].drop(["status", "coverage_fraction"])
    assert lost.isna().all()
    return frame.drop(WITHOUT_IMAGE)


def probabilities(frame: pd.DataFrame) -> np.ndarray:
    """(N, K)"""
    return frame.filter(regex="^prob_").to_numpy(float)


def attention(frame: pd.DataFrame, gate: int) -> pd.DataFrame:
    return frame[[attention_column(name, gate) for name, *_ in ATTENTION_STATISTICS]]


def assert_same(one: pd.DataFrame, other: pd.DataFrame, leave_out=("model_sha256",)) -> None:
    pd.testing.assert_frame_equal(
        one.drop(columns=list(leave_out)), other.drop(columns=list(leave_out)), rtol=1e-5, atol=1e-5
    )


def examined(path, image: np.ndarray) -> list:
    """What the network itself says of each image (N, C, H, W), one after the other."""
    network, _ = load_network(path)
    with torch.inference_mode():
        return [network.examine(to_network_input(torch.from_numpy(one)[None])) for one in image]


def calibrated(temperature: float) -> Calibration:
    return Calibration(method="temperature", temperature=temperature)


def softmax(logits: torch.Tensor, temperature: float = 1.0) -> np.ndarray:
    return torch.softmax(logits.double() / temperature, dim=1).numpy()


def said(path, image: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Class probabilities (N, K)."""
    return np.concatenate([softmax(one.logits, temperature) for one in examined(path, image)])


@pytest.fixture(scope="module")
def radio(tmp_path_factory):
    """A field of eleven radio images in two shards; and the images."""
    image = blobs()
    return types.SimpleNamespace(run=make_field(tmp_path_factory.mktemp("radio"), RADIO, image), image=image)


@pytest.fixture(scope="module")
def optical(tmp_path_factory):
    image = blobs(channels=3)
    return types.SimpleNamespace(run=make_field(tmp_path_factory.mktemp("optical"), OPTICAL, image), image=image)


# ---- one network


def test_a_network_without_calibration(optical, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, AGCNN)
    frame = predicted(with_model(optical.run, path))
    expected = said(path, optical.image)
    assert len(np.unique(expected.argmax(axis=1))) > 1, "a network that tells nothing apart tests nothing"
    np.testing.assert_allclose(probabilities(frame), expected, atol=1e-5)
    assert frame["class_label"].tolist() == [OPTICAL_MORPHOLOGY.classes[k] for k in expected.argmax(axis=1)]
    np.testing.assert_allclose(frame["class_probability"], expected.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(frame["class_margin"], np.diff(np.sort(expected))[:, -1], atol=1e-5)
    entropy = -(expected * np.log(expected)).sum(axis=1) / np.log(10)
    np.testing.assert_allclose(frame["class_entropy"], entropy, atol=1e-5)
    assert (frame["bar_probability"] == frame["prob_barred_spiral"]).all()
    nulls = ["confidence", "probability_spread", "mutual_information", "novelty"]
    assert frame[[*nulls, *(column.name for column in vote_columns())]].isna().all(axis=None)
    assert set(frame["calibration"]) == {"uncalibrated"}
    assert set(frame["model_sha256"]) == {sha256_file(path)}
    assert attention(frame, 1).notna().all(axis=None)


def test_confidence_is_the_calibrated_probability_of_the_class(radio, tmp_path):
    path = save(tmp_path / "m.safetensors", RADIO, AGCNN, calibration=calibrated(2.5))
    frame = predicted(with_model(radio.run, path))
    raw, confident = said(path, radio.image), said(path, radio.image, temperature=2.5)
    np.testing.assert_allclose(probabilities(frame), raw, atol=1e-5)
    np.testing.assert_allclose(frame["confidence"], confident[np.arange(len(raw)), raw.argmax(axis=1)], atol=1e-5)
    assert set(frame["calibration"]) == {"temperature"}
    assert not {"bar_probability", vote_column(*ANSWERS[0])} & set(frame), "columns of another task"


def test_novelty(radio, tmp_path):
    path = knowing(tmp_path / "m.safetensors")
    found = predicted(with_model(radio.run, path))["novelty"]
    inputs = [to_network_input(torch.from_numpy(one)[None]) for one in radio.image]
    features = [novelty_features(*pair) for pair in zip(examined(path, radio.image), inputs, strict=True)]
    np.testing.assert_allclose(found, novelty(torch.cat(features), load_extras(path)), atol=1e-4)
    assert found.between(0, 1).all()
    assert found.std() > 0.01


def knowing(path, **card):
    """A model file that tells, beside the classes, how sure it is and what it knows."""
    save(path, RADIO, AGCNN)
    label, validation = torch.arange(40) % 2, torch.from_numpy(blobs(60, seed=10))
    extras = fit_novelty(load_network(path)[0], torch.from_numpy(blobs(40, seed=9)), label, validation)
    return save(path, RADIO, AGCNN, extras=extras, calibration=calibrated(0.8), **card)


def test_numbers_do_not_depend_on_the_batch_or_on_a_rerun(radio, tmp_path):
    path, passes = knowing(tmp_path / "m.safetensors"), {"uncertainty": {"dropout_passes": 5}}
    alone = with_model(radio.run, path, batch_size=1, **passes)
    one = predicted(alone)
    assert one.drop(columns="status_reason").drop(columns="image_sha256").notna().all(axis=None)
    part = alone.layout.part("field", RADIO, "predict", 0)
    before = part.stat().st_mtime_ns
    assert predict(alone, "field", RADIO) == "field radio_fr: already predicted"
    together = with_model(radio.run, path, batch_size=64, **passes)
    assert predict(together, "field", RADIO) == "field radio_fr: already predicted", "batch_size changes no result"
    assert part.stat().st_mtime_ns == before
    part.unlink()
    assert predict(together, "field", RADIO) == "field radio_fr: 6 sources predicted in 1 shards, 1 kept"
    alone.layout.part("field", RADIO, "predict", 1).unlink()
    assert_same(predicted(together), one, leave_out=())


def test_numbers_do_not_depend_on_the_order_of_the_sources(radio, tmp_path):
    path = knowing(tmp_path / "m.safetensors")
    order = np.random.default_rng(5).permutation(len(IDS))
    mixed = make_field(tmp_path, RADIO, radio.image[order], ids=[IDS[k] for k in order], shard_size=4)
    passes = {"uncertainty": {"dropout_passes": 5}}
    assert_same(
        predicted(with_model(mixed, path, **passes)), predicted(with_model(radio.run, path, **passes)), leave_out=()
    )


def test_another_model_or_another_uncertainty_is_predicted_anew(radio, tmp_path):
    first, second = (save(tmp_path / f"{seed}.safetensors", RADIO, AGCNN, seed) for seed in (1, 2))
    for run in (
        with_model(radio.run, first),
        with_model(radio.run, second),
        with_model(radio.run, second, uncertainty={"dropout_passes": 2}),
        with_model(radio.run, second, uncertainty={"dropout_passes": 2, "seed": 2}),
    ):
        assert predict(run, "field", RADIO) == "field radio_fr: 11 sources predicted in 2 shards, 0 kept"


# ---- ensembles


def test_an_ensemble_gives_the_mean(radio, tmp_path):
    paths = [save(tmp_path / f"{seed}.safetensors", RADIO, AGCNN, seed) for seed in (1, 2)]
    frame = predicted(with_model(radio.run, *paths))
    members = np.stack([said(path, radio.image) for path in paths])
    mean, best = members.mean(axis=0), members.mean(axis=0).argmax(axis=1)
    np.testing.assert_allclose(probabilities(frame), mean, atol=1e-5)
    assert frame["class_label"].tolist() == [RADIO_FR.classes[k] for k in best]
    spread = np.abs(members[0] - members[1])[np.arange(len(best)), best] / 2
    np.testing.assert_allclose(frame["probability_spread"], spread, atol=1e-5)
    assert spread.max() > 0.05
    assert (frame["mutual_information"] > 0).all()

    single = predicted(with_model(radio.run, paths[0]))
    assert not set(frame["model_sha256"]) & {sha256_file(path) for path in paths}
    assert not np.allclose(attention(frame, 1), attention(single, 1))


def test_equal_members_give_what_one_gives(radio, tmp_path):
    path, twin = knowing(tmp_path / "m.safetensors"), tmp_path / "twin.safetensors"
    twin.write_bytes(path.read_bytes())
    both, one = predicted(with_model(radio.run, path, twin)), predicted(with_model(radio.run, path))
    disagreement = ["probability_spread", "mutual_information"]
    assert one[disagreement].isna().all(axis=None)
    np.testing.assert_allclose(both[disagreement].astype(float), 0, atol=1e-9)
    assert_same(both, one, leave_out=["model_sha256", *disagreement])


def test_the_confidence_of_an_ensemble_needs_every_member_s_calibration(radio, tmp_path):
    temperatures = (0.5, 4.0)
    paths = [save(tmp_path / f"{t}.safetensors", RADIO, AGCNN, calibration=calibrated(t)) for t in temperatures]
    frame = predicted(with_model(radio.run, *paths))
    own = [said(path, radio.image, t) for path, t in zip(paths, temperatures, strict=True)]
    best = probabilities(frame).argmax(axis=1)
    np.testing.assert_allclose(frame["confidence"], np.mean(own, axis=0)[np.arange(len(best)), best], atol=1e-5)
    uncalibrated = save(tmp_path / "u.safetensors", RADIO, AGCNN)
    for members in ([paths[0], uncalibrated], [uncalibrated, paths[0]]):
        frame = predicted(with_model(radio.run, *members))
        assert frame["confidence"].isna().all()
        assert set(frame["calibration"]) == {"uncalibrated"}


def test_the_hash_of_an_ensemble_is_that_of_all_members(radio, tmp_path):
    paths = [save(tmp_path / f"{seed}.safetensors", RADIO, AGCNN, seed) for seed in (1, 2)]
    run = with_model(radio.run, *paths)
    first = predicted(run)
    save(paths[1], RADIO, AGCNN, seed=3)
    second = predicted(run)
    assert first["model_sha256"].nunique() == second["model_sha256"].nunique() == 1
    assert first["model_sha256"].iloc[0] != second["model_sha256"].iloc[0]
    assert not np.allclose(probabilities(first), probabilities(second))


def test_members_that_do_not_fit_are_refused(radio, tmp_path):
    first = save(tmp_path / "1.safetensors", RADIO, AGCNN)
    fewer = save(tmp_path / "2.safetensors", RADIO, AGCNN | {"gates": 2})
    with pytest.raises(ConfigError, match=r"2.safetensors: its attention gates are not those of .*1.safetensors"):
        predict(with_model(radio.run, first, fewer), "field", RADIO)
    larger = save(tmp_path / "3.safetensors", RADIO, AGCNN, size_px=64)
    with pytest.raises(
        ConfigError, match=r"3.safetensors: .* prepared otherwise \(size_px: model 64, configuration 48"
    ):
        predict(with_model(radio.run, first, larger), "field", RADIO)
    other = save(tmp_path / "4.safetensors", OPTICAL, AGCNN)
    with pytest.raises(ConfigError, match=r"4.safetensors: the model is for optical_morphology"):
        predict(with_model(radio.run, first, other), "field", RADIO)
    with pytest.raises(ConfigError, match="an ensemble needs model files, each once"):
        with_model(radio.run, first, first)


# ---- dropout


def test_passes_with_dropout(optical, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, AGCNN | {"dropout": 0.6})
    columns = ["probability_spread", "mutual_information"]
    frame = predicted(with_model(optical.run, path, uncertainty={"dropout_passes": 20, "seed": 4}))
    network, _ = load_network(path)
    passes = dropout_probabilities(network, to_network_input(torch.from_numpy(optical.image)), 20, seed=4).numpy()
    best = probabilities(frame).argmax(axis=1)
    assert (best != passes.mean(axis=0).argmax(axis=1)).any(), "else this does not tell whose class is meant"
    np.testing.assert_allclose(
        frame["probability_spread"], passes[:, np.arange(len(best)), best].std(axis=0), atol=1e-5
    )
    assert (frame["mutual_information"] > 0).all()
    whole = predicted(with_model(optical.run, path))
    assert whole[columns].isna().all(axis=None)
    assert_same(whole, frame, leave_out=columns)


def test_an_ensemble_s_members_are_thinned_each_for_itself(radio, tmp_path):
    path, twin = save(tmp_path / "1.safetensors", RADIO, AGCNN), tmp_path / "2.safetensors"
    twin.write_bytes(path.read_bytes())
    frame = predicted(with_model(radio.run, path, twin, uncertainty={"dropout_passes": 1}))
    assert (frame["probability_spread"] > 0).any(), "the same member twice, thinned in two ways"


# ---- attention


@pytest.mark.parametrize("normalisation", ["range_norm", "std_mean_norm", "sigmoid", "softmax", "tanh"])
def test_attention_statistics_of_every_normalisation(radio, tmp_path, normalisation):
    path = save(tmp_path / "m.safetensors", RADIO, AGCNN | {"normalisation": normalisation})
    frame = predicted(with_model(radio.run, path))
    for gate in (1, 2, 3):
        entropy, peak, area, offset = attention(frame, gate).to_numpy(float).T
        assert np.isfinite([entropy, peak, area, offset]).all()
        assert ((entropy > 0) & (entropy <= 1)).all()
        assert (peak >= 1).all()
        assert ((area > 0) & (area <= (SIZE_PX * SCALE_ARCSEC) ** 2 * 1.0001)).all()
        assert (offset < SIZE_PX * SCALE_ARCSEC).all()


def test_a_gate_that_sees_nothing_has_no_statistics(radio, tmp_path):
    path = save(tmp_path / "m.safetensors", RADIO, AGCNN | {"normalisation": "tanh"}, test_time_turns=16)
    network, card = load_network(path)
    network.network.attention[0].psi.weight.data *= 0
    network.network.attention[0].psi.bias.data -= 100  # -1 everywhere, in every view
    save_model(path, network.network, card)
    frame = predicted(with_model(radio.run, path))
    assert attention(frame, 1).isna().all(axis=None)
    assert attention(frame, 2).notna().all(axis=None)
    assert frame["class_label"].notna().all()


@pytest.mark.parametrize("gates", [0, 1, 2])
@pytest.mark.parametrize(("task", "architecture"), [(RADIO, AGCNN), (RADIO, EQUIVARIANT), (OPTICAL, BARS)])
def test_gates_that_a_network_does_not_have_are_null(radio, optical, tmp_path, task, architecture, gates):
    run = {RADIO: radio, OPTICAL: optical}[task].run
    path = save(tmp_path / "m.safetensors", task, architecture | {"gates": gates})
    frame = predicted(with_model(run, path))
    for gate in (1, 2, 3):
        there = attention(frame, gate).notna()
        assert there.all(axis=None) if gate <= gates else not there.any(axis=None)
    assert frame["class_label"].notna().all()


def point_source(size_px: int) -> np.ndarray:
    """A round source in the very middle, the same under all turns and mirrors. (1, 1, H, W) uint8."""
    rows, columns = np.indices((size_px, size_px)) - (size_px - 1) / 2
    return (255 * np.exp(-(rows**2 + columns**2) / 18)).astype(np.uint8)[None, None]


def offsets(tmp_path, size_px: int, architecture: dict, **card) -> np.ndarray:
    """Of a point source in the middle, arcsec, a gate."""
    path = save(tmp_path / "m.safetensors", RADIO, architecture, size_px=size_px, **card)
    run = make_field(tmp_path, RADIO, point_source(size_px), ids=["point"])
    frame = predicted(with_model(run, path))
    return frame[[attention_column("centroid_offset_arcsec", gate) for gate in (1, 2, 3)]].to_numpy(float)[0]


@pytest.mark.parametrize("size_px", [46, 48, 54, 45, 47])
def test_maps_of_a_padded_image_are_centred_on_the_source(tmp_path, size_px):
    assert offsets(tmp_path, size_px, EQUIVARIANT) == pytest.approx([0, 0, 0], abs=0.01)


@pytest.mark.parametrize("size_px", [48, 54, 47])
def test_maps_averaged_over_turns_are_centred_on_the_source(tmp_path, size_px):
    """Where pooling drops an edge, one view's map lies to one side; their mean does not."""
    assert offsets(tmp_path, size_px, AGCNN, test_time_turns=8) == pytest.approx([0, 0, 0], abs=0.01)


def test_turned_views_do_not_see_how_the_image_lies(tmp_path):
    image = blobs(1)[0]
    turned = [np.rot90(image, quarters, axes=(1, 2)) for quarters in range(4)]
    turned += [one[:, :, ::-1] for one in turned]
    run = make_field(tmp_path, RADIO, np.stack(turned), ids=[f"t{number}" for number in range(8)])
    paths = [save(tmp_path / f"{turns}.safetensors", RADIO, AGCNN, test_time_turns=turns) for turns in (1, 8)]
    once, averaged = (predicted(with_model(run, path)) for path in paths)
    assert np.ptp(probabilities(once), axis=0).max() > 1e-3
    np.testing.assert_allclose(np.ptp(probabilities(averaged), axis=0), 0, atol=1e-5)
    for gate in (1, 2, 3):  # the maps turn with the image
        np.testing.assert_allclose(attention(averaged, gate), attention(averaged, gate).iloc[[0] * 8], rtol=1e-4)


# ---- questions


def test_answers_to_questions(optical, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, BARS)
    frame = predicted(with_model(optical.run, path))
    columns = {question.name: [vote_column(question.name, a) for a in question.answers] for question in QUESTIONS}
    for names in columns.values():
        np.testing.assert_allclose(frame[names].astype(float).sum(axis=1), 1, atol=1e-5)
        assert frame[names].std().max() > 1e-3
    from_above = frame["vote_smooth_or_featured_featured"] * frame["vote_disk_edge_on_no"]
    bar = from_above * (frame["vote_bar_strong"] + frame["vote_bar_weak"])
    np.testing.assert_allclose(frame["bar_probability"], bar, atol=1e-5)
    assert not np.allclose(frame["bar_probability"], frame["prob_barred_spiral"])
    answers = torch.cat([one.answers for one in examined(path, optical.image)]).double()
    np.testing.assert_allclose(frame[columns["bar"]], torch.softmax(answers[:, 7:], dim=1), atol=1e-5)


def test_answers_of_an_ensemble(optical, tmp_path):
    paths = [save(tmp_path / f"{seed}.safetensors", OPTICAL, BARS, seed) for seed in (1, 2)]
    frame = predicted(with_model(optical.run, *paths))
    one, other = (predicted(with_model(optical.run, path)) for path in paths)
    names = [column.name for column in vote_columns()] + ["bar_probability"]
    np.testing.assert_allclose(frame[names], (one[names] + other[names]) / 2, atol=1e-5)


def test_a_network_of_questions_alone_names_no_class(optical, tmp_path):
    path = save(tmp_path / "m.safetensors", OPTICAL, BARS | {"class_head": False})
    frame = predicted(with_model(optical.run, path, uncertainty={"dropout_passes": 2}))
    of_classes = ["class_label", "class_probability", "calibration", "class_entropy", "class_margin"]
    assert frame[[*of_classes, "probability_spread", "mutual_information"]].isna().all(axis=None)
    assert np.isnan(probabilities(frame)).all()
    assert set(frame["model_sha256"]) == {sha256_file(path)}
    whole = predicted(with_model(optical.run, save(tmp_path / "w.safetensors", OPTICAL, BARS)))
    filled = ["bar_probability", *(column.name for column in vote_columns())]
    assert frame[filled].notna().all(axis=None)
    assert whole[filled + of_classes].notna().all(axis=None)
    assert attention(frame, 1).notna().all(axis=None)


# ---- what is not there


def empty_field(folder, task: str) -> Run:
    simulated = {"simulated": {"survey": "sky", "count": 0}, "tasks": [task]}
    kinds = {RADIO: ("simulated_first", "radio_clip"), OPTICAL: ("simulated_legacy", "optical_composite")}
    survey, preparation = kinds[task]
    prepared = {"kind": preparation, "size_px": SIZE_PX}
    tasks = {task: {"survey": "sky", "preparation": prepared, "model": {"weights": "none"}}}
    run = make_run(folder, {"kind": survey}, task=task, field=simulated, tasks=tasks)
    assert make_plan(run, "field")["shards"] == 0
    return run


def test_a_field_without_sources(tmp_path):
    run = with_model(empty_field(tmp_path, RADIO), save(tmp_path / "m.safetensors", RADIO, AGCNN))
    assert predict(run, "field", RADIO) == "field radio_fr: 0 sources predicted in 0 shards, 0 kept"
    assert predict(run, "field", RADIO) == "field radio_fr: already predicted"


def test_what_has_to_be_run_first(tmp_path):
    image = blobs(2)
    run = make_field(tmp_path, RADIO, image, ids=["a", "b"])
    with pytest.raises(ConfigError, match=r"none: cannot read the model file"):
        predict(run, "field", RADIO)
    run = with_model(run, save(tmp_path / "m.safetensors", RADIO, AGCNN))
    marker = run.layout.store_marker("field", run.images("field", RADIO).store, 0)
    store = run.layout.store("field", run.images("field", RADIO).store)
    chunk = store / "image" / "c" / "0" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(TransientError, match="missing or changed since it was written"):
        predict(run, "field", RADIO)
    assert not marker.exists()
    with pytest.raises(ConfigError, match="run `galgaze shard`"):
        predict(run, "field", RADIO)
    run.layout.plan_record("field").unlink()
    with pytest.raises(ConfigError, match="no plan yet"):
        predict(run, "field", RADIO)
