"""Labelled sets: published pickles are read and never run, folders are not left."""

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.real_data import unpacked_mirabest

from galgaze.config import OpticalPreparation, RadioPreparation
from galgaze.errors import ConfigError
from galgaze.images.datasets import read_array_pickle, read_labelled_directory, read_mirabest
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_FR

CODES = ["100", "102", "104", "110", "112", "200", "201", "210", "300", "310"]


def dump(path, value):
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.fixture
def batches(tmp_path):
    """Two batches of five with every code once; pixel (0, 1) of an image tells which it is."""
    folder = tmp_path / "batches"
    folder.mkdir()
    dump(folder / "batches.meta", {"label_names": CODES, "num_vis": 64})
    for number in (1, 2):
        indices = range(5 * number - 5, 5 * number)
        data = [np.full((8, 8), 10 * index, np.uint8) for index in indices]
        for image, index in zip(data, indices, strict=True):
            image[0, 1] = 200 + index
        dump(folder / f"data_batch_{number}", {"data": data, "labels": list(indices), "filenames": ["x"] * 5})
    return folder


pytestmark = pytest.mark.filterwarnings("ignore:.*differs from the published file")


class TestPickles:
    def test_arrays_lists_and_text(self, tmp_path):
        value = {"a": np.arange(6).reshape(2, 3), "b": [np.str_("x"), 1, None], "c": np.float32(1.5), "d": b"\xff"}
        for protocol in range(5):
            (tmp_path / "p").write_bytes(pickle.dumps(value, protocol=protocol))
            back = read_array_pickle(tmp_path / "p")
            assert np.array_equal(back["a"], value["a"])
            assert back["b"] == ["x", 1, None]
            assert back["c"] == 1.5

    @pytest.mark.parametrize("where", ["top", "inside", "in_array"])
    def test_code_is_not_run(self, tmp_path, where):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "owned"),)

        values = {"top": Evil(), "inside": {"data": [1, Evil()]}, "in_array": {"data": np.array([Evil()], object)}}
        dump(tmp_path / "data_batch_1", values[where])
        with pytest.raises(
            ConfigError, match=r"not a pickle of plain arrays \(it wants \w+.mkdir, which is no array\)"
        ):
            read_array_pickle(tmp_path / "data_batch_1")
        assert not (tmp_path / "owned").exists()
        pickle.loads((tmp_path / "data_batch_1").read_bytes())
        assert (tmp_path / "owned").exists(), "a careless reader would have run it"

    @pytest.mark.parametrize(
        "code",
        [
            b"cbuiltins\neval\n(S'1+1'\ntR.",
            b"cbuiltins\ngetattr\n(cnumpy\ndtype\nS'__base__'\ntR.",
            b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
            b"cnumpy.f2py\nrun_main\n.",
        ],
    )
    def test_neither_are_other_callables(self, tmp_path, code):
        (tmp_path / "p").write_bytes(code)
        with pytest.raises(ConfigError, match="which is no array"):
            read_array_pickle(tmp_path / "p")

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(end=st.floats(0, 0.999))
    def test_truncated(self, tmp_path, end):
        content = pickle.dumps({"data": np.arange(50), "labels": [1, 2]}, protocol=2)
        (tmp_path / "p").write_bytes(content[: int(end * len(content))])
        with pytest.raises(ConfigError, match="not a pickle of plain arrays"):
            read_array_pickle(tmp_path / "p")

    def test_not_a_dictionary_not_there(self, tmp_path):
        dump(tmp_path / "p", [1])
        with pytest.raises(ConfigError, match="expected a dictionary, found list"):
            read_array_pickle(tmp_path / "p")
        with pytest.raises(ConfigError, match="cannot be read"):
            read_array_pickle(tmp_path / "missing")

    @pytest.mark.filterwarnings("default")
    def test_another_sum_than_the_published_is_told(self, tmp_path):
        dump(tmp_path / "data_batch_1", {})
        with pytest.warns(UserWarning, match="data_batch_1 differs from the published file"):
            read_array_pickle(tmp_path / "data_batch_1")


class TestMirabest:
    def test_hybrids_are_left_out(self, batches):
        image, label = read_mirabest(batches, "train", "all")
        assert (image.shape, image.dtype, label.dtype) == ((8, 1, 8, 8), np.uint8, np.int64)
        assert label.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
        assert image[:, 0, 0, 1].tolist() == [200 + n for n in range(8)], "rows stay in their order"

    def test_confident(self, batches):
        image, label = read_mirabest(batches, "train", "confident")
        assert label.tolist() == [0, 0, 0, 1, 1]
        assert image[:, 0, 0, 1].tolist() == [200, 201, 202, 205, 206]

    def test_test_part(self, batches):
        with pytest.raises(ConfigError, match=r"no test_batch there. Unpack the published MiraBest batches"):
            read_mirabest(batches, "test", "all")
        (batches / "data_batch_2").rename(batches / "test_batch")
        assert read_mirabest(batches, "test", "all")[1].tolist() == [1, 1, 1]

    def test_missing(self, batches, tmp_path):
        for nowhere in (tmp_path / "batches" / "nothing", tmp_path / "empty"):
            (tmp_path / "empty").mkdir(exist_ok=True)
            with pytest.raises(ConfigError, match=r"no data_batch_\* there"):
                read_mirabest(nowhere, "train", "all")
        (batches / "batches.meta").unlink()
        with pytest.raises(ConfigError, match=r"batches.meta: cannot be read"):
            read_mirabest(batches, "train", "all")

    @pytest.mark.parametrize(
        "batch",
        [
            {},
            {"data": [], "labels": []},
            {"data": [np.zeros((8, 8))] * 2, "labels": [0]},
            {"data": [np.zeros((8, 8))], "labels": [99]},
            {"data": [np.zeros((8, 8))], "labels": [-1]},
            {"data": [np.zeros((8, 8))], "labels": [0.5]},
            {"data": [np.zeros((8, 8))], "labels": ["FRI"]},
            {"data": [np.full((8, 8), np.nan)], "labels": [0]},
            {"data": [np.full((8, 8), 256)], "labels": [0]},
            {"data": [np.zeros((8, 7))], "labels": [0]},
            {"data": [np.zeros((8, 8)), np.zeros((9, 9))], "labels": [0, 0]},
            {"data": "text", "labels": [0]},
            {"data": 5, "labels": [0]},
        ],
    )
    def test_no_batch(self, batches, batch):
        dump(batches / "data_batch_2", batch)
        with pytest.raises(ConfigError, match=r"data_batch_2: not a MiraBest batch"):
            read_mirabest(batches, "train", "all")

    @pytest.mark.filterwarnings("error:.*differs from the published file")
    def test_the_published_batches(self, tmp_path):
        root = os.environ.get("GALGAZE_TEST_DATA")
        if not root:
            pytest.skip("GALGAZE_TEST_DATA (a folder with first/mirabest) is not set")
        folder = Path(root, "first/mirabest")
        batches = unpacked_mirabest(Path(root), tmp_path)
        codes = pd.read_csv(folder / "sources.csv", dtype={"label": str})["label"]
        for subset, wanted in [
            ("all", codes[codes.str[0] != "3"]),
            ("confident", codes[codes.str[:2].isin(["10", "20"])]),
        ]:
            image, label = read_mirabest(batches, "train", subset)
            assert image.shape == (len(wanted), 1, 150, 150)
            assert np.bincount(label).tolist() == [(wanted.str[0] == "1").sum(), (wanted.str[0] == "2").sum()]


class TestDirectory:
    PREPARATION = OpticalPreparation(size_px=16)

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "set"
        (folder / "sub").mkdir(parents=True)
        rng = np.random.default_rng(1)
        for name in ("a.png", "b.jpg", "sub/c.png", "../secret.png"):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(folder / name)
        (folder / "broken.jpg").write_bytes((folder / "b.jpg").read_bytes()[:300])
        Image.fromarray(np.full((20, 20, 3), 7, np.uint8)).save(folder / "flat.png")
        return folder

    def read(self, folder, rows, task=OPTICAL_MORPHOLOGY, preparation=PREPARATION, head="file,label"):
        (folder / "labels.csv").write_text("\n".join([head, *rows]) + "\n")
        return read_labelled_directory(folder, task, preparation)

    def test_names_and_numbers(self, folder):
        image, label, left_out = self.read(folder, ["a.png,Merging", "b.jpg,9", "sub/c.png, disturbed "])
        assert (image.shape, image.dtype) == ((3, 3, 16, 16), np.uint8)
        assert (label.tolist(), left_out) == ([1, 9, 0], [])

    def test_radio(self, folder):
        rows = ["a.png,FRII", "b.jpg,fri"]
        image, label, _ = self.read(folder, rows, RADIO_FR, RadioPreparation(size_px=20))
        assert (image.shape, label.tolist()) == ((2, 1, 20, 20), [1, 0])

    @pytest.mark.parametrize("label", ["spiral", "10", "-1", "1.0", "²"])
    def test_unknown_labels(self, folder, label):
        with pytest.raises(
            ConfigError, match=rf"the label '{label}' is no class of optical_morphology. Use disturbed.*0 to 9"
        ):
            self.read(folder, [f"a.png,{label}"])

    @pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "link.png"])
    def test_the_folder_is_not_left(self, folder, name):
        (folder / "link.png").symlink_to(folder.parent / "secret.png")
        _, label, left_out = self.read(folder, ["a.png,0", f"{name},1", f"{folder.parent}/secret.png,1"])
        assert label.tolist() == [0]
        assert [line.split(": ")[1] for line in left_out] == ["the file's name leads out of the folder"] * 2

    def test_unusable_files_are_left_out_with_reasons(self, folder):
        rows = ["a.png,0", "broken.jpg,1", "missing.png,1", "flat.png,1", "sub,1"]
        _, label, left_out = self.read(folder, rows)
        assert label.tolist() == [0]
        reasons = dict(line.split(": ", 1) for line in left_out)
        assert reasons["broken.jpg"].startswith("unreadable picture")
        assert "No such file" in reasons["missing.png"]
        assert reasons["flat.png"] == "the colour composite is constant"
        assert "Is a directory" in reasons["sub"]
        with pytest.raises(ConfigError, match=r"none of the 1 files in labels.csv is a usable image.*broken.jpg"):
            self.read(folder, ["broken.jpg,1"])

    def test_tables(self, folder):
        with pytest.raises(ConfigError, match=r"labels.csv: not found. It must list the images: columns file, label"):
            read_labelled_directory(folder, OPTICAL_MORPHOLOGY, self.PREPARATION)
        with pytest.raises(ConfigError, match="needs rows with the columns file and label; it has name, class"):
            self.read(folder, ["a.png,0"], head="name,class")
        with pytest.raises(ConfigError, match="needs rows"):
            self.read(folder, [])
        (folder / "labels.csv").write_bytes(b"file,label\n\xff\xfe,\x00\n")
        with pytest.raises(ConfigError, match="cannot be read as CSV"):
            read_labelled_directory(folder, OPTICAL_MORPHOLOGY, self.PREPARATION)
