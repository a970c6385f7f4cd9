"""The real labelled images for the benchmarks: their counts, labels, and the two halves, which must never change."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from benchmarks import real_images
from scipy.spatial import cKDTree

from galgaze.config import OpticalPreparation, RadioPreparation
from galgaze.errors import ConfigError
from galgaze.fields.sky import chord, unit_vectors
from tests.real_data import needs_data

OPTICAL, RADIO = OpticalPreparation(size_px=32), RadioPreparation()


def test_a_missing_folder_is_named(tmp_path):
    for load, preparation, path in [
        (real_images.galaxy10_sample, OPTICAL, "decals/galaxy10_sample/labels.csv"),
        (real_images.sdss_bars, OPTICAL, "decals/sdss_r_band/labels.csv"),
        (real_images.mirabest, RADIO, "first/mirabest/sources.csv"),
    ]:
        with pytest.raises(ConfigError, match=rf"{path}: not found. DATA must be the folder of real data"):
            load(tmp_path, preparation)


def test_a_missing_column_or_image_is_named(tmp_path):
    folder = tmp_path / "decals/galaxy10_sample"
    (folder / "images").mkdir(parents=True)
    (folder / "labels.csv").write_text("file,class\na.jpg,1\n")
    with pytest.raises(ConfigError, match="has no column galaxy10_class; expected are file, galaxy10_class"):
        real_images.galaxy10_sample(tmp_path, OPTICAL)
    (folder / "labels.csv").write_text("file,galaxy10_class\na.jpg,1\n")
    with pytest.raises(ConfigError, match=r"images/a.jpg: expected an image of the set here"):
        real_images.galaxy10_sample(tmp_path, OPTICAL)


def test_galaxy10_halves_alternate_in_the_order_of_the_hashes():
    files = pd.Series([f"f{number}.jpg" for number in range(7)])
    label = np.array([1, 0, 0, 1, 0, 1, 1])
    report = real_images.galaxy10_report_half(files, label)
    ranked = sorted(zip(label, files, report, strict=True), key=lambda row: (row[0], _sha256(row[1])))
    assert [row[2] for row in ranked] == [False, True, False, True, False, True, False]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_unknown_half():
    with pytest.raises(ConfigError, match="'test' is not one of steer, report, both"):
        real_images.half_mask(np.array([True]), "test")


@needs_data
def test_galaxy10(data_folder):
    images = real_images.galaxy10_sample(data_folder, OPTICAL)
    assert (images.image.shape, images.image.dtype) == ((50, 3, 32, 32), np.uint8)
    assert np.bincount(images.label).tolist() == [5] * 10
    assert all(name.startswith(f"class_{label}_") for name, label in zip(images.name, images.label, strict=True))
    assert np.bincount(images.label[images.report]).tolist() == [2, 3] * 5
    # the halves stand for good: what was steered by must not be reported on
    steer = sorted(images.half("steer").name)
    assert _sha256(" ".join(steer))[:12] == "d9cb5dadc4bb"
    assert set(steer) | set(images.half("report").name) == set(images.half("both").name)


@needs_data
def test_sdss_bars(data_folder):
    images = real_images.sdss_bars(data_folder, OPTICAL)
    assert images.image.shape == (78, 3, 32, 32)
    assert (images.image[:, 0] == images.image[:, 2]).all()  # grey
    assert images.label.tolist() == [1] * 29 + [0] * 49
    assert np.bincount(images.label[images.report]).tolist() == [26, 14]
    assert _sha256(" ".join(sorted(images.half("steer").name)))[:12] == "af0e051ef7c7"


@needs_data
def test_mirabest_rows(data_folder):
    rows, confident = (real_images.mirabest_rows(data_folder, only) for only in (False, True))
    assert (len(rows), len(confident)) == (1068, 728)
    assert sorted(set(confident["label"])) == ["100", "102", "104", "200", "201"]
    assert sorted(set(rows["label"]) - set(confident["label"])) == ["110", "112", "210"]
    both = rows.merge(confident, on="source_id")
    assert (both["report_x"] == both["report_y"]).all()
    assert int(confident["report"].sum()) == 354
    steer = sorted(confident.loc[~confident["report"], "source_id"])
    assert _sha256(" ".join(steer))[:12] == "a1a571ea049f"


@needs_data
def test_no_two_neighbours_of_mirabest_stand_on_two_sides(data_folder):
    rows = real_images.mirabest_rows(data_folder, confident_only=False)
    tree = cKDTree(unit_vectors(rows["ra_deg"].to_numpy(float), rows["dec_deg"].to_numpy(float)))
    report = rows["report"].to_numpy(bool)
    for first, second in tree.query_pairs(chord(30.0)):
        assert report[first] == report[second]


@needs_data
def test_mirabest_images_are_those_that_galgaze_prepares(data_folder, monkeypatch):
    few = real_images.mirabest_rows(data_folder).groupby("label").head(2)
    monkeypatch.setattr(real_images, "mirabest_rows", lambda *_: few)
    images = real_images.mirabest(data_folder, RADIO)
    assert (images.image.shape, images.image.dtype) == ((len(few), 1, 150, 150), np.uint8)
    assert images.name == few["source_id"].tolist()
    assert images.label.tolist() == [int(code[0]) - 1 for code in few["label"]]
    assert (images.image.max(axis=(1, 2, 3)) == 255).all()
    assert (images.image == 0).mean() > 0.9  # the clip leaves sources, and little else
