"""MiraBest and FR-DEEP as labelled sets: from folders and archives, with positions, and nothing of theirs run."""

import io
import os
import pickle
import tarfile

import numpy as np
import pandas as pd
import pytest
from tests.real_data import needs_data

from galgaze.config import FrdeepDataset, MirabestDataset, RadioPreparation
from galgaze.errors import ConfigError
from galgaze.images.datasets import batch_files, batches, read_labelled_set
from galgaze.tasks import RADIO_FR

CODES = ["100", "102", "104", "110", "112", "200", "201", "210", "300", "310"]
PREPARATION = RadioPreparation()
pytestmark = pytest.mark.filterwarnings("ignore:.*differs from the published file")


def dumped(value) -> bytes:
    return pickle.dumps(value, protocol=2)


def picture(number: int) -> np.ndarray:
    image = np.zeros((150, 150), np.uint8)
    image[70:80, 70:80] = 255
    image[0, 1] = 100 + number
    return image


def mirabest_files() -> dict[str, bytes]:
    """Two batches of five with every code once; pixel (0, 1) tells which image it is."""
    files = {"batches.meta": dumped({"label_names": CODES, "num_vis": 22500})}
    for batch in (1, 2):
        numbers = range(5 * batch - 5, 5 * batch)
        names = [f"./MiraBest_data/{CODES[n]}_{160 + n}.947{n - 5:+04d}.386_0.0739_0250.34.png" for n in numbers]
        content = {"data": [picture(n) for n in numbers], "labels": list(numbers), "filenames": names}
        files[f"data_batch_{batch}"] = dumped(content)
    return files


def frdeep_files() -> dict[str, bytes]:
    """Eleven batches of two, flat as CIFAR-10's rows are, and a test batch."""
    files = {"batches.meta": dumped({"label_names": ["FRI", "FRII"], "num_vis": 22500})}
    for batch in range(1, 12):
        rows = np.stack([picture(batch).ravel(), picture(50 + batch).ravel()])
        names = [f"{batch}_FRICAT_FR1.png", f"{batch}_CoNFIG_FR2.png"]
        files[f"data_batch_{batch}"] = dumped({"data": rows, "labels": [0, 1], "filenames": names})
    files["test_batch"] = dumped({"data": picture(99)[None], "labels": np.array([1])})
    return files


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def packed(path, files, prefix="batches/", mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def mirabest(path, split="train", **more):
    return read_labelled_set(MirabestDataset(kind="mirabest", path=str(path), **more), RADIO_FR, PREPARATION, split)


def frdeep(path, split="train"):
    return read_labelled_set(FrdeepDataset(kind="frdeep", path=str(path)), RADIO_FR, PREPARATION, split)


def same(one, other):
    for name in ("image", "label", "source_id", "ra_deg", "dec_deg"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


class TestMirabest:
    def test_what_is_in_it(self, tmp_path):
        labelled = mirabest(put(tmp_path / "b", mirabest_files()))
        assert (labelled.image.shape, labelled.image.dtype) == ((8, 1, 150, 150), np.uint8)
        assert labelled.label.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
        assert labelled.label.dtype == np.int64
        assert labelled.confident.tolist() == [True, True, True, False, False, True, True, False]
        assert labelled.image[:, 0, 0, 1].tolist() == [100 + n for n in range(8)]
        assert labelled.source_id[0] == "100_160.947-005.386_0.0739_0250.34"
        np.testing.assert_allclose(labelled.ra_deg, 160.947 + np.arange(8))
        assert labelled.dec_deg.tolist() == [-5.386, -4.386, -3.386, -2.386, -1.386, 0.386, 1.386, 2.386]
        assert labelled.votes is None
        description = labelled.description
        assert description["by_class"] == {"FRI": 5, "FRII": 3}
        assert (description["images"], description["left_out"]) == (8, {"hybrid": 2})
        assert sorted(description["sha256"]) == ["batches.meta", "data_batch_1", "data_batch_2"]
        assert "scholarly, educational and private non-commercial" in description["licence"]

    def test_the_confident_ones(self, tmp_path):
        labelled = mirabest(put(tmp_path / "b", mirabest_files()), subset="confident")
        assert labelled.confident.all()
        assert labelled.image[:, 0, 0, 1].tolist() == [100, 101, 102, 105, 106]
        assert len(labelled.source_id) == len(labelled.ra_deg) == 5

    def test_the_folder_above_and_the_archive_are_as_good(self, tmp_path):
        files = mirabest_files()
        expected = mirabest(put(tmp_path / "above" / "batches", files))
        same(mirabest(tmp_path / "above"), expected)
        for name, mode, prefix in [("b.tar.gz", "w:gz", "batches/"), ("b.tar", "w", ""), ("b.txz", "w:xz", "a/b/")]:
            archived = mirabest(packed(tmp_path / name, files, prefix, mode))
            same(archived, expected)
            assert list(archived.description["sha256"]) == [name]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["above", "b.tar", "b.tar.gz", "b.txz"]

    def test_an_id_twice_gets_a_number(self, tmp_path):
        files = mirabest_files()
        files["data_batch_2"] = files["data_batch_1"]
        labelled = mirabest(put(tmp_path / "b", files))
        assert labelled.source_id[:5].tolist() == [name.removesuffix("#2") for name in labelled.source_id[5:]]
        assert len(set(labelled.source_id)) == 10

    def test_without_file_names(self, tmp_path):
        files = mirabest_files() | {"data_batch_1": dumped({"data": [picture(3)] * 2, "labels": [0, 1]})}
        labelled = mirabest(put(tmp_path / "b", files))
        assert labelled.source_id[:2].tolist() == ["data_batch_1-0000", "data_batch_1-0001"]
        assert np.isnan(labelled.ra_deg).tolist() == [True, True, False, False, False]
        assert np.isnan(labelled.dec_deg).tolist() == [True, True, False, False, False]

    def test_codes_as_bytes(self, tmp_path):
        files = mirabest_files() | {"batches.meta": dumped({"label_names": [code.encode() for code in CODES]})}
        assert mirabest(put(tmp_path / "b", files)).label.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]

    def test_the_other_set(self, tmp_path):
        with pytest.raises(ConfigError, match=r"not MiraBest's three-digit codes.*that is kind frdeep"):
            mirabest(put(tmp_path / "b", frdeep_files()))
        with pytest.raises(ConfigError, match=r"names 10 labels.*FR-DEEP has two.*that is kind mirabest"):
            frdeep(put(tmp_path / "c", mirabest_files()))

    def test_images_of_another_size(self, tmp_path):
        files = {"data_batch_1": dumped({"data": [np.eye(64, dtype=np.uint8)], "labels": [0]})}
        folder = put(tmp_path / "b", {"batches.meta": mirabest_files()["batches.meta"]} | files)
        with pytest.raises(ConfigError, match="the images have 64 px, the published ones 150"):
            mirabest(folder)
        put(folder, {"data_batch_2": mirabest_files()["data_batch_2"]})
        with pytest.raises(ConfigError, match="the batches' images have different sizes"):
            mirabest(folder)

    def test_only_hybrids(self, tmp_path):
        files = {"batches.meta": mirabest_files()["batches.meta"]}
        files["data_batch_1"] = dumped({"data": [picture(1)], "labels": [8]})
        with pytest.raises(ConfigError, match=r"no image of it can be used for radio_fr \(FRI, FRII\)"):
            mirabest(put(tmp_path / "b", files))

    def test_the_other_part_is_not_opened(self, tmp_path):
        folder = put(tmp_path / "b", mirabest_files() | {"test_batch": b"never read"})
        assert len(mirabest(folder).label) == 8
        assert len(mirabest(packed(tmp_path / "b.tar", mirabest_files() | {"test_batch": b"no"}, mode="w")).label) == 8
        with pytest.raises(ConfigError, match=r"test_batch: not a pickle of plain arrays"):
            mirabest(folder, "test")

    @needs_data
    @pytest.mark.filterwarnings("error:.*differs from the published file")
    def test_the_published_archive(self, data_folder):
        folder = data_folder / "first/mirabest"
        labelled = mirabest(folder / "batches.tar.gz")
        rows = pd.read_csv(folder / "sources.csv", dtype={"label": str}).set_index("source_id")
        rows = rows[rows["label"].str[0] != "3"]
        assert labelled.image.shape == (1069, 1, 150, 150)
        rows = rows.loc[labelled.source_id]
        np.testing.assert_array_equal(labelled.ra_deg, rows["ra_deg"])
        np.testing.assert_array_equal(labelled.dec_deg, rows["dec_deg"])
        np.testing.assert_array_equal(labelled.label, rows["label"].str[0].astype(int) - 1)
        np.testing.assert_array_equal(labelled.confident, rows["label"].str[1] == "0")
        assert labelled.description["by_class"] == {"FRI": 517, "FRII": 552}


class TestArchives:
    def test_hostile_pickles_in_one(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "owned"),)

        files = mirabest_files() | {"data_batch_2": dumped({"data": [Evil()], "labels": [0]})}
        with pytest.raises(ConfigError, match=r"b.tar.gz/data_batch_2: not a pickle.*which is no array"):
            mirabest(packed(tmp_path / "b.tar.gz", files))
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.6, 0.95])
    def test_truncated(self, tmp_path, part):
        whole = packed(tmp_path / "whole.tar.gz", mirabest_files()).read_bytes()
        (tmp_path / "b.tar.gz").write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ConfigError, match=r"b.tar.gz: (not a whole tar archive|no data_batch_\* there)"):
            mirabest(tmp_path / "b.tar.gz")

    def test_garbage(self, tmp_path):
        (tmp_path / "b.tar.gz").write_bytes(np.random.default_rng(1).bytes(5000))
        with pytest.raises(ConfigError, match=r"not a whole tar archive.*Get it anew, or name the folder"):
            mirabest(tmp_path / "b.tar.gz")

    def test_links_and_paths_lead_nowhere(self, tmp_path):
        outside = put(tmp_path / "outside", mirabest_files())
        path = tmp_path / "b.tar"
        with tarfile.open(path, "w") as archive:
            for name in mirabest_files():
                link = tarfile.TarInfo(f"batches/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, str(outside / name)
                archive.addfile(link)
        with pytest.raises(ConfigError, match=r"no data_batch_\* there"):
            mirabest(path)
        before = sorted(tmp_path.rglob("*"))
        packed(path, mirabest_files(), prefix="../../evil/", mode="w")
        assert len(mirabest(path).label) == 8, "the names in it are names, and no places"
        assert sorted(tmp_path.rglob("*")) == before

    def test_two_sets_in_one(self, tmp_path):
        path = packed(tmp_path / "b.tar", mirabest_files(), "one/", "w")
        packed(path, mirabest_files(), "two/", "a")
        with pytest.raises(ConfigError, match=r"several folders of it \(one, two\)"):
            mirabest(path)
        for name in ("one", "two"):
            put(tmp_path / "folders" / name, mirabest_files())
        with pytest.raises(ConfigError, match=r"several folders below it \(one, two\). Name one"):
            mirabest(tmp_path / "folders")

    def test_one_that_unpacks_without_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(batch_files, "MAX_BYTES", 100_000)
        with pytest.raises(ConfigError, match="unpacks to more than 100000 bytes"):
            mirabest(packed(tmp_path / "b.tar.gz", mirabest_files()))


class TestFrdeep:
    def test_what_is_in_it(self, tmp_path):
        labelled = frdeep(put(tmp_path / "FIRST_PNG_dataset", frdeep_files()))
        assert labelled.image.shape == (22, 1, 150, 150)
        assert labelled.label.tolist() == [0, 1] * 11
        # batch 10 comes after batch 9
        assert labelled.image[::2, 0, 0, 1].tolist() == [100 + n for n in range(1, 12)]
        assert labelled.source_id[:2].tolist() == ["1_FRICAT_FR1", "1_CoNFIG_FR2"]
        assert np.isnan(labelled.ra_deg).all()
        assert np.isnan(labelled.dec_deg).all()
        assert labelled.confident is None
        assert labelled.description["name"] == "FR-DEEP, train"
        same(frdeep(tmp_path), labelled)

    def test_the_test_part(self, tmp_path):
        labelled = frdeep(put(tmp_path / "b", frdeep_files()), "test")
        assert (labelled.label.tolist(), labelled.image[0, 0, 0, 1]) == ([1], 199)

    @pytest.mark.parametrize("names", [None, []])
    def test_label_names_may_lack(self, tmp_path, names):
        files = frdeep_files() | {"batches.meta": dumped({} if names is None else {"label_names": names})}
        assert frdeep(put(tmp_path / "b", files)).label.tolist() == [0, 1] * 11

    @pytest.mark.parametrize(
        ("names", "wrong"),
        [
            (["FRII", "FRI"], "0 is FRII"),
            (["fr2", "fr1"], "0 is FRII"),
            ([b"FR II", b"FR I"], "0 is FRII"),
            (["200", "100"], "0 is FRII"),
            (["one", "FR-I"], "1 is FRI"),
            (["FRII"], "0 is FRII"),
            (["FRI", "FRI"], "1 is FRI"),
        ],
    )
    def test_another_order_is_refused(self, tmp_path, names, wrong):
        files = frdeep_files() | {"batches.meta": dumped({"label_names": names})}
        with pytest.raises(ConfigError, match=rf"so that {wrong}; FR-DEEP's labels are 0 FRI and 1 FRII. Get the") as e:
            frdeep(put(tmp_path / "b", files))
        assert "b'" not in str(e.value)

    @pytest.mark.parametrize(
        "names", [["fri", "frii"], ["FR1", "FR2"], [b"FRI", b"FRII"], ["100", "200"], ["FR-I"], ["one", "two"]]
    )
    def test_the_same_order_in_other_words(self, tmp_path, names):
        files = frdeep_files() | {"batches.meta": dumped({"label_names": names})}
        assert frdeep(put(tmp_path / "b", files)).label.tolist() == [0, 1] * 11

    def test_labels_and_images_must_be_as_many(self, tmp_path):
        files = frdeep_files() | {"data_batch_3": dumped({"data": [picture(1)] * 2, "labels": [0]})}
        with pytest.raises(ConfigError, match=r"data_batch_3: not a FR-DEEP batch \(`data` and `labels` that fit") as e:
            frdeep(put(tmp_path / "b", files))
        assert "1 labels for 2 images" in str(e.value.__cause__)

    def test_wrong_labels(self, tmp_path):
        files = frdeep_files() | {"data_batch_3": dumped({"data": [picture(1)] * 2, "labels": [0, 2]})}
        with pytest.raises(ConfigError, match=r"data_batch_3: not a FR-DEEP batch: 1 labels are none of the"):
            frdeep(put(tmp_path / "b", files))

    def test_damaged(self, tmp_path):
        files = frdeep_files()
        files["data_batch_4"] = files["data_batch_4"][:-100]
        with pytest.raises(ConfigError, match=r"data_batch_4: not a pickle of plain arrays.*it was not executed"):
            frdeep(put(tmp_path / "b", files))

    def test_editions_are_told_apart(self, tmp_path, monkeypatch):
        files = frdeep_files()
        sums = {name: batches.hashlib.md5(content).hexdigest() for name, content in files.items()}
        folder = put(tmp_path / "b", files)
        monkeypatch.setattr(batches, "FRDEEP_FIRST_MD5", sums)
        assert frdeep(folder).description["name"] == "FR-DEEP-F, train"
        monkeypatch.setattr(batches, "FRDEEP_FIRST_MD5", {"batches.meta": sums["batches.meta"]})
        monkeypatch.setattr(batches, "FRDEEP_NVSS_MD5", sums)
        with pytest.warns(UserWarning, match="NVSS images of 15 arcsec a pixel"):
            assert frdeep(folder).description["name"] == "FR-DEEP-N, train"


class TestPublishedSums:
    @pytest.mark.filterwarnings("default")
    def test_each_differing_file_is_told(self, tmp_path):
        with pytest.warns(UserWarning, match="differs from the published file") as told:
            frdeep(put(tmp_path / "b", frdeep_files()))
        assert len(told) == 12

    @pytest.mark.filterwarnings("default")
    def test_batches_that_are_not_there_are_told(self, tmp_path):
        files = mirabest_files()
        path = packed(tmp_path / "b.tar", files, mode="w")
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.index(b"batches/data_batch_2")])  # cut between two files, and still an archive
        with pytest.warns(UserWarning, match="differs from the published files: data_batch_2, data_batch_3.* missing"):
            assert len(mirabest(path).label) == 5

    def test_the_lists_are_whole(self):
        from galgaze.images.datasets import pickles

        for sums, count in [(pickles.MIRABEST_MD5, 7), (pickles.FRDEEP_FIRST_MD5, 11), (pickles.FRDEEP_NVSS_MD5, 11)]:
            assert set(sums) == {f"data_batch_{n}" for n in range(1, count + 1)} | {"batches.meta"}
            assert all(len(value) == 32 for value in sums.values())
            assert len(set(sums.values())) == count + 1
