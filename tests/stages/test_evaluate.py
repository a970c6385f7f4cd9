"""The verb evaluate: numbers of a known network on small sets, and what it has seen of them."""

import json
import pickle
import sys

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from galgaze import cli
from galgaze.config import OpticalPreparation, RadioPreparation
from galgaze.errors import ConfigError
from galgaze.images.preparation import preparation_identity
from galgaze.models import training
from galgaze.models.model_file import ModelCard, save_model
from galgaze.models.registry import create_network
from galgaze.stages import evaluate as stage
from galgaze.stages.evaluate import describe, evaluate
from galgaze.tasks import TASKS

CODES = ["100", "102", "104", "110", "112", "200", "201", "210", "300", "310"]
ARCHITECTURE = {"name": "agcnn", "widths": [4, 6, 8, 8], "gate_channels": 4}
pytestmark = pytest.mark.filterwarnings("ignore:.*differs from the published file")


def save(path, task="radio_fr", extras=None, channels=None, turns=1, **preparation):
    """A model file with small random weights."""
    torch.manual_seed(1)
    kind = RadioPreparation(**preparation) if task == "radio_fr" else OpticalPreparation(**preparation)
    channels = channels or (1 if task == "radio_fr" else 3)
    classes = list(TASKS[task].classes)
    card = ModelCard(
        task=task,
        architecture=ARCHITECTURE,
        classes=classes,
        channels=channels,
        preparation=preparation_identity(kind),
        test_time_turns=turns,
    )
    save_model(path, create_network(ARCHITECTURE, channels, len(classes)), card, extras)
    return path


def seen(positions, roles):
    return {
        "training_position_deg": torch.tensor(positions, dtype=torch.float64).reshape(-1, 2),
        "training_role": torch.tensor(roles, dtype=torch.uint8),
    }


def radio_image(bright: bool) -> np.ndarray:
    image = np.zeros((150, 150), np.uint8)
    image[70:80, 70:80] = 255
    image[:10] = 200 if bright else 0
    return image


@pytest.fixture
def knowing(monkeypatch):
    """Predict class 1 where the first row is bright: what it is right about is known."""

    def predict_logits(network, image, batch_size, device="cpu"):
        bright = (image[:, :, 0].float().mean(dim=(1, 2)) > 100).long()
        classes = network(image[:1].float()).shape[1]
        return 4.0 * torch.nn.functional.one_hot(bright, classes).float()

    monkeypatch.setattr(training, "predict_logits", predict_logits)


@pytest.fixture
def mirabest(tmp_path):
    """Ten sources at RA 160 to 169, Dec 5; the predictor above errs on the second and the sixth of the eight used."""
    folder = tmp_path / "batches"
    folder.mkdir()
    bright = [False, True, False, False, False, False, True, True, False, False]
    for name in ("data_batch_1", "test_batch"):
        files = [f"./M/{code}_{160 + n}.000+005.000_0.1000_0060.00.png" for n, code in enumerate(CODES)]
        content = {"data": [radio_image(b) for b in bright], "labels": list(range(10)), "filenames": files}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CODES}, protocol=2))
    return folder


class TestMirabest:
    def test_numbers(self, tmp_path, mirabest, knowing):
        model = save(tmp_path / "m.safetensors")
        for split in ("train", "test"):
            result = evaluate(model, f"mirabest:{mirabest}", split, "all")
            assert (result["n"], result["accuracy"]) == (8, 0.75)
            assert result["recall"] == {"FRI": 0.8, "FRII": pytest.approx(2 / 3)}
            assert result["calibration"] == "uncalibrated"
            assert not any("unseen" in name for name in result), "a model that does not tell what it has seen"
        result = evaluate(model, f"mirabest:{mirabest}", "test", "confident")
        assert (result["n"], result["accuracy"]) == (5, pytest.approx(3 / 5))

    def test_what_it_has_seen(self, tmp_path, mirabest, knowing):
        # the first (right) and second (wrong) were trained on, the third (right) validated on; one far off
        positions = [[160.0, 5.0], [161.0, 5.0 + 59 / 3600], [162.0, 5.0 - 30 / 3600], [163.0, 5.0 + 61 / 3600]]
        model = save(tmp_path / "m.safetensors", extras=seen(positions, [0, 0, 1, 0]))
        result = evaluate(model, f"mirabest:{mirabest}", "test", "all")
        assert (result["n"], result["accuracy"]) == (8, 0.75)
        assert (result["n_trained_on"], result["n_validated_on"], result["n_position_unknown"]) == (2, 1, 0)
        assert (result["n_unseen"], result["accuracy_unseen"]) == (5, 0.8)
        lines = describe(result).splitlines()
        assert lines[:4] == ["n          8", "accuracy   0.7500", *lines[2:4]]
        assert lines[-2:] == ["n_unseen         5", "accuracy_unseen  0.8000"]
        assert lines[-4].startswith("n_trained_on     2  (within 60 arcsec of a source that the model was trained on)")

    def test_all_of_it_seen(self, tmp_path, mirabest, knowing):
        model = save(tmp_path / "m.safetensors", extras=seen([[160.0 + n, 5.0] for n in range(10)], [0] * 10))
        result = evaluate(model, f"mirabest:{mirabest}", "test", "all")
        assert (result["n_trained_on"], result["n_unseen"], result["accuracy_unseen"]) == (8, 0, None)
        assert describe(result).endswith("n_unseen         0\naccuracy_unseen  -")

    def test_unknown_positions_are_neither(self, tmp_path, mirabest, knowing):
        content = pickle.loads((mirabest / "test_batch").read_bytes())
        content["filenames"][0] = "nameless.png"
        (mirabest / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
        model = save(tmp_path / "m.safetensors", extras=seen([[161.0, 5.0]], [0]))
        result = evaluate(model, f"mirabest:{mirabest}", "test", "all")
        assert (result["n_trained_on"], result["n_position_unknown"], result["n_unseen"]) == (1, 1, 6)
        assert "n_position_unknown 1" in describe(result)

    def test_nothing_real_in_training(self, tmp_path, mirabest, knowing):
        model = save(tmp_path / "m.safetensors", extras=seen([], []))
        result = evaluate(model, f"mirabest:{mirabest}", "test", "all")
        assert (result["n_unseen"], result["accuracy_unseen"]) == (8, 0.75)

    def test_the_network_itself(self, tmp_path, mirabest):
        """Without the stand-in: the network's own softmax, of images in -1..1."""
        model = save(tmp_path / "m.safetensors")
        first = evaluate(model, f"mirabest:{mirabest}", "test", "all", batch_size=3)
        again = evaluate(model, f"mirabest:{mirabest}", "train", "all", batch_size=64)
        assert first == again
        assert 0 <= first["accuracy"] <= 1

    def test_views_are_averaged_where_the_card_says_so(self, tmp_path):
        image = np.random.default_rng(1).integers(0, 256, (2, 1, 152, 152)).astype(np.uint8)
        turned = np.ascontiguousarray(np.rot90(image, axes=(2, 3)))
        change = {}
        for turns in (1, 4):
            model = save(tmp_path / f"{turns}.safetensors", turns=turns)
            probability = [stage._probabilities(model, pixels, 64) for pixels in (image, turned)]
            change[turns] = np.abs(probability[0] - probability[1]).max()
        assert change[4] < 1e-6 < change[1]

    def test_by_hand(self, tmp_path, mirabest, knowing, monkeypatch, capsys):
        model = save(tmp_path / "m.safetensors", extras=seen([[160.0, 5.0]], [0]))
        words = ["evaluate", "--model", model, "--dataset", f"mirabest:{mirabest}", "--split", "train", "--json"]
        monkeypatch.setattr(sys, "argv", ["galgaze", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
        assert json.loads(capsys.readouterr().out)["n_unseen"] == 7


class TestOtherSets:
    def test_frdeep(self, tmp_path, knowing):
        folder = tmp_path / "f"
        folder.mkdir()
        content = {"data": np.stack([radio_image(b).ravel() for b in (True, False, True)]), "labels": [1, 1, 1]}
        (folder / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["FRI", "FRII"]}, protocol=2))
        model = save(tmp_path / "m.safetensors", extras=seen([[1.0, 1.0]], [0]))
        result = evaluate(model, f"frdeep:{folder}", "test", "all")
        assert (result["n"], result["accuracy"]) == (3, pytest.approx(2 / 3))
        assert (result["n_position_unknown"], result["n_unseen"], result["accuracy_unseen"]) == (3, 0, None)

    def test_radio_galaxy_dataset(self, tmp_path, knowing):
        maps = np.zeros((4, 300, 300), np.uint8)
        maps[:, 75:225, 75:225] = [radio_image(b) for b in (False, True, True, True)]
        with h5py.File(tmp_path / "r.h5", "w") as file:
            file["image"], file["label"] = maps, np.array([0, 1, 0, 3])
            file["ra_deg"], file["dec_deg"] = np.arange(4.0), np.zeros(4)
        model = save(tmp_path / "m.safetensors")
        result = evaluate(model, f"radio_galaxy_dataset:{tmp_path / 'r.h5'}", "train", "all")
        assert (result["n"], result["accuracy"]) == (3, pytest.approx(2 / 3))
        with pytest.raises(ConfigError, match="no row of it is of the split 'test'"):
            evaluate(model, f"radio_galaxy_dataset:{tmp_path / 'r.h5'}", "test", "all")

    def test_galaxy10_has_one_part(self, tmp_path, knowing):
        images = np.random.default_rng(1).integers(0, 30, (3, 64, 64, 3)).astype(np.uint8)
        images[1:, -20:] = 255  # the picture's bottom is the first row
        with h5py.File(tmp_path / "g.h5", "w") as file:
            file["images"], file["ans"] = images, np.array([0, 1, 9])
            file["ra"], file["dec"], file["pxscale"] = np.arange(3.0), np.zeros(3), np.full(3, 67.072 / 64)
        model = save(tmp_path / "m.safetensors", "optical_morphology", size_px=32)
        for split in ("train", "test"):
            result = evaluate(model, f"galaxy10:{tmp_path / 'g.h5'}", split, "all")
            assert (result["n"], result["accuracy"]) == (3, pytest.approx(2 / 3))

    def test_directory_with_positions(self, tmp_path, knowing):
        rng = np.random.default_rng(1)
        for name in "ab":
            Image.fromarray(rng.integers(0, 30, (32, 32, 3), np.uint8)).save(tmp_path / f"{name}.png")
        (tmp_path / "labels.csv").write_text("file,label,ra_deg,dec_deg\na.png,0,10,20\nb.png,1,11,20\n")
        extras = seen([[11.0, 20.001]], [1])
        model = save(tmp_path / "m.safetensors", "optical_morphology", extras=extras, size_px=32)
        result = evaluate(model, f"directory:{tmp_path}", "test", "all")
        assert (result["n"], result["accuracy"]) == (2, 0.5)
        assert (result["n_validated_on"], result["n_unseen"], result["accuracy_unseen"]) == (1, 1, 1.0)


class TestRefusals:
    @pytest.mark.parametrize("dataset", ["mirabest", "mirabest:", "galaxy_zoo:x", ":x", "directory"])
    def test_unknown_kinds(self, tmp_path, dataset):
        with pytest.raises(ConfigError, match=r"expected mirabest:PATH or frdeep:PATH or .* or directory:PATH"):
            evaluate(tmp_path / "m", dataset, "test", "all")

    def test_another_task(self, tmp_path, mirabest):
        model = save(tmp_path / "m.safetensors", "optical_morphology", size_px=32)
        with pytest.raises(ConfigError, match="mirabest holds radio images, and optical_morphology reads optical"):
            evaluate(model, f"mirabest:{mirabest}", "test", "all")

    def test_another_size(self, tmp_path, mirabest):
        model = save(tmp_path / "m.safetensors", size_px=128)
        with pytest.raises(ConfigError, match=r"has size_px 128.*made for other images does not fit this set"):
            evaluate(model, f"mirabest:{mirabest}", "test", "all")

    def test_another_number_of_channels(self, tmp_path, mirabest):
        model = save(tmp_path / "m.safetensors", channels=3)
        with pytest.raises(ConfigError, match=r"reads 3 channels of 150 x 150 px, the set's images have 1 of 150"):
            evaluate(model, f"mirabest:{mirabest}", "test", "all")

    def test_a_card_of_an_unknown_preparation(self, tmp_path, mirabest, monkeypatch):
        model = save(tmp_path / "m.safetensors")
        card = stage.read_card(model).model_copy(update={"preparation": {"kind": "other"}})
        monkeypatch.setattr(stage, "read_card", lambda _: card)
        with pytest.raises(ConfigError, match="the card's preparation is none that galgaze knows"):
            evaluate(model, f"mirabest:{mirabest}", "test", "all")

    def test_a_network_without_classes(self, tmp_path, mirabest, monkeypatch):
        model = save(tmp_path / "m.safetensors")
        card = stage.read_card(model).model_copy(update={"architecture": {"name": "bar_network", "class_head": False}})
        monkeypatch.setattr(stage, "read_card", lambda _: card)
        with pytest.raises(ConfigError, match="answers questions and tells no classes"):
            evaluate(model, f"mirabest:{mirabest}", "test", "all")
