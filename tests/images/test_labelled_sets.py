"""The door to the published sets: what does not fit is refused with what to do; pictures with votes."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.real_data import needs_data

from galgaze.config import (
    Galaxy10Dataset,
    GalaxyZooDataset,
    MirabestDataset,
    OpticalPreparation,
    RadioGalaxyDataset,
    RadioPreparation,
)
from galgaze.errors import ConfigError
from galgaze.images.datasets import LabelTable, read_labelled_folder, read_labelled_set
from galgaze.images.datasets.checks import count_by_class, to_positions, unique_ids
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_FR

OPTICAL = OpticalPreparation(size_px=16)


class TestWhatFits:
    @pytest.mark.parametrize(
        ("settings", "task", "preparation", "message"),
        [
            (
                MirabestDataset(kind="mirabest", path="x"),
                OPTICAL_MORPHOLOGY,
                OPTICAL,
                r"mirabest holds radio images, and optical_morphology reads optical ones. Name one of galaxy10, ",
            ),
            (
                Galaxy10Dataset(kind="galaxy10", path="x"),
                RADIO_FR,
                RadioPreparation(),
                r"galaxy10 holds optical.* one of mirabest, frdeep, radio_galaxy_dataset, or use the set for optical",
            ),
            (
                MirabestDataset(kind="mirabest", path="x"),
                RADIO_FR,
                RadioPreparation(size_px=128),
                r"published prepared: 150 px, clipped at 3 sigma, not masked; .* has size_px 128. Set size_px: 150 in",
            ),
            (
                RadioGalaxyDataset(kind="radio_galaxy_dataset", path="x"),
                RADIO_FR,
                RadioPreparation(clip_sigma=5, mask_las=True),
                r"has clip_sigma 5.0, mask_las true. Set clip_sigma: 3.0, mask_las: false in the task's preparation",
            ),
        ],
    )
    def test_refusals(self, settings, task, preparation, message):
        with pytest.raises(ConfigError, match=message):
            read_labelled_set(settings, task, preparation)

    def test_coverage_may_differ(self, tmp_path):
        settings = MirabestDataset(kind="mirabest", path=str(tmp_path))
        with pytest.raises(ConfigError, match=r"no data_batch_\* there"):
            read_labelled_set(settings, RADIO_FR, RadioPreparation(min_coverage=0.3))


class TestShared:
    def test_unique_ids(self):
        assert unique_ids(["a", "b", "a", "a#2", "a", "b"]).tolist() == ["a", "b", "a#3", "a#2", "a#4", "b#2"]
        assert unique_ids(["a", "a"]).dtype.kind == "U"
        assert len(unique_ids([])) == 0

    def test_positions(self):
        ra, dec = to_positions([361 - 1, -10, np.inf, 5], [90, -90, 0, np.nan], "here")
        np.testing.assert_array_equal(ra, [0, 350, np.nan, np.nan])
        np.testing.assert_array_equal(dec, [90, -90, np.nan, np.nan])
        with pytest.raises(ConfigError, match=r"here: the position in row 1 is on no sky: RA 0.0, Dec 90.1"):
            to_positions([0, 0], [0, 90.1], "here")
        with pytest.raises(ConfigError, match="here: positions must be numbers"):
            to_positions(["12h"], ["1"], "here")

    def test_counts(self):
        assert count_by_class(np.array([1, 1, -1]), RADIO_FR) == {"FRI": 0, "FRII": 2, "unlabelled": 1}
        assert count_by_class(np.array([-1, -1]), RADIO_FR) == {"unlabelled": 2}


def jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


HEAD = "smooth-or-featured_smooth_fraction,smooth-or-featured_featured-or-disk_fraction"
HEAD = f"{HEAD},smooth-or-featured_artifact_fraction,bar_strong_fraction,bar_weak_fraction,bar_no_fraction"


@pytest.fixture
def zoo(tmp_path):
    """Three pictures with votes, one without, and one that is none; the table is in another order than the files."""
    folder = tmp_path / "zoo"
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(["J1+2.5", "J2", "J3", "J4"]):
        (folder / "images" / f"{name}.png").write_bytes(jpeg(number))
    (folder / "images" / "broken.png").write_bytes(b"no picture")
    rows = [
        "images/J3.png,30.5,-1.5,0.2,0.7,0.1,0.5,0.25,0.25",
        "images/broken.png,1,1,0.2,0.7,0.1,0.5,0.25,0.25",
        "images/J1+2.5.png,10.5,,0.5,0.5,0,,,",
        "images/J2,20.5,2.5,0,1,0,0,0,1",
        "images/J4.png,5,5,,,,,,",
    ]
    (folder / "labels.csv").write_text("\n".join([f"file,ra,dec,{HEAD}", *rows]) + "\n")
    return folder


def read_zoo(folder, **more):
    settings = GalaxyZooDataset(kind="galaxy_zoo", path=str(folder), **more)
    return read_labelled_set(settings, OPTICAL_MORPHOLOGY, OPTICAL)


class TestGalaxyZoo:
    def test_what_is_in_it(self, zoo):
        labelled = read_zoo(zoo)
        assert (labelled.image.shape, labelled.image.dtype) == ((3, 3, 16, 16), np.uint8)
        assert labelled.source_id.tolist() == ["J3", "J1+2.5", "J2"]
        assert labelled.label.tolist() == [-1, -1, -1]
        assert (labelled.votes.shape, labelled.votes.dtype) == ((3, 10), np.float32)
        np.testing.assert_allclose(labelled.votes[0, :3], [0.2, 0.7, 0.1], atol=1e-6)
        np.testing.assert_allclose(labelled.votes[:, 7:], [[0.5, 0.25, 0.25], [np.nan] * 3, [0, 0, 1]], atol=1e-6)
        np.testing.assert_array_equal(labelled.ra_deg, [30.5, np.nan, 20.5])
        np.testing.assert_array_equal(labelled.dec_deg, [-1.5, np.nan, 2.5])
        assert labelled.description["by_class"] == {"unlabelled": 3}
        assert labelled.description["left_out"] == {"unusable": 1}
        assert sorted(labelled.description["sha256"]) == ["files", "labels.csv"]

    def test_images_are_those_of_a_labelled_folder(self, zoo):
        (zoo / "other.csv").write_text("name,class\nimages/J3,2\nimages/J1+2.5,1\nimages/J2,0\n")
        listing = LabelTable("other.csv", "name", "class")
        labelled, _ = read_labelled_folder(zoo, OPTICAL_MORPHOLOGY, OPTICAL, None, listing)
        np.testing.assert_array_equal(read_zoo(zoo).image, labelled.image)

    def test_a_changed_picture_changes_the_description(self, zoo):
        before = read_zoo(zoo).description["sha256"]
        (zoo / "images" / "J2.png").write_bytes(jpeg(9))
        after = read_zoo(zoo).description["sha256"]
        assert before["files"] != after["files"]
        assert before["labels.csv"] == after["labels.csv"]

    def test_another_table(self, zoo):
        table = pd.read_csv(zoo / "labels.csv").rename(columns={"file": "picture", "ra": "RA"})
        table.to_parquet(zoo.parent / "votes.parquet")
        labelled = read_zoo(zoo, table="../votes.parquet", file="picture", pixel_scale_arcsec=5.0)
        assert labelled.source_id.tolist() == ["J3", "J1+2.5", "J2"]
        assert np.isnan(labelled.ra_deg).all()

    def test_unfit_ones(self, zoo):
        with pytest.raises(ConfigError, match=r"nowhere: there is no such folder. It must hold the pictures"):
            read_zoo(zoo / "nowhere")
        with pytest.raises(ConfigError, match=r"none.csv: there is no such file"):
            read_zoo(zoo, table="none.csv")
        with pytest.raises(ConfigError, match=r"labels.csv: no column .*name.* it has file, ra, dec"):
            read_zoo(zoo, file="name")
        (zoo / "labels.csv").write_text(f"file,{HEAD}\nimages/broken.png,1,0,0,0,0,1\n../x.png,1,0,0,0,0,1\n")
        with pytest.raises(ConfigError, match=r"none of the 2 files with votes.*broken.*leads out of the folder"):
            read_zoo(zoo)

    @needs_data
    def test_real_pictures(self, data_folder, tmp_path):
        folder = data_folder / "decals/gz_decals"
        rows = pd.read_csv(folder / "labels.csv").head(8)
        rows.to_csv(tmp_path / "some.csv", index=False)
        labelled = read_zoo(folder, table=str(tmp_path / "some.csv"))
        assert labelled.image.shape == (8, 3, 16, 16)
        assert labelled.source_id.tolist() == rows["id_str"].tolist()
        featured = rows["smooth-or-featured_featured-or-disk_fraction"]
        np.testing.assert_allclose(labelled.votes[:, 1], featured, rtol=1e-6)
        np.testing.assert_allclose(labelled.ra_deg, rows["ra"])
        assert np.isnan(labelled.votes[:, 7:]).all(), "none of bars"


class TestFolder:
    def test_positions_and_ids(self, tmp_path):
        for name in ("a", "b"):
            (tmp_path / f"{name}.png").write_bytes(jpeg(1))
        (tmp_path / "labels.csv").write_text("file,label,ra_deg,dec_deg\na.png,1,10,20\nb,0,,3\na.png,2,11,21\n")
        labelled, left_out = read_labelled_folder(tmp_path, OPTICAL_MORPHOLOGY, OPTICAL)
        assert labelled.source_id.tolist() == ["a.png", "b", "a.png#2"]
        np.testing.assert_array_equal(labelled.ra_deg, [10, np.nan, 11])
        np.testing.assert_array_equal(labelled.dec_deg, [20, np.nan, 21])
        assert left_out == []
        (tmp_path / "labels.csv").write_text("file,label,ra_deg,dec_deg\na.png,1,10,120\n")
        with pytest.raises(ConfigError, match=r"labels.csv: the position in row 0 is on no sky"):
            read_labelled_folder(tmp_path, OPTICAL_MORPHOLOGY, OPTICAL)
