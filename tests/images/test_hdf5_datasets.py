"""The Radio Galaxy Dataset and Galaxy10 DECaLS: HDF5 files, read in slices and with suspicion."""

import io
import os
import re
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.spatial import cKDTree
from tests.real_data import needs_data

from galgaze.config import (
    DirectorySurvey,
    Galaxy10Dataset,
    MirabestDataset,
    OpticalPreparation,
    RadioGalaxyDataset,
    RadioPreparation,
)
from galgaze.errors import ConfigError
from galgaze.fields.sky import chord, unit_vectors
from galgaze.images.datasets import galaxy10, read_labelled_set
from galgaze.images.datasets.radio_galaxy_dataset import scaled_centre
from galgaze.images.preparation import prepare
from galgaze.surveys.base import Source
from galgaze.surveys.registry import open_survey
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_FR

OPTICAL = OpticalPreparation(size_px=32)


def radio(path, split="train"):
    settings = RadioGalaxyDataset(kind="radio_galaxy_dataset", path=str(path))
    return read_labelled_set(settings, RADIO_FR, RadioPreparation(), split)


def optical(path, preparation=OPTICAL):
    return read_labelled_set(Galaxy10Dataset(kind="galaxy10", path=str(path)), OPTICAL_MORPHOLOGY, preparation)


def write(path, columns):
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            if values is not None:
                file.create_dataset(name, data=values)
    return path


# ------------------------------------------------------------------------------- the Radio Galaxy Dataset

LABELS = [0, 1, 2, 3, 1, 0, 0]
SPLITS = [b"train", b"valid", b"train", b"train", b"test", b"train", b"test"]


def radio_maps() -> np.ndarray:
    """Seven maps of 300 px; the brightest pixel lies outside of the centre, and pixel (80, 90) names the map."""
    maps = np.zeros((7, 300, 300), np.uint8)
    for number, image in enumerate(maps):
        image[10, 10] = 255
        image[140:160, 140:160] = 100
        image[80, 90] = 10 * (number + 1)
    return maps


def radio_columns(**changes):
    return {
        "image": radio_maps(),
        "label": np.array(LABELS, np.int8),
        "ra_deg": 100.0 + np.arange(7),
        "dec_deg": -3.0 + np.arange(7),
        "split": np.array(SPLITS),
    } | changes


class TestRadioGalaxyDataset:
    def test_what_is_in_it(self, tmp_path):
        labelled = radio(write(tmp_path / "r.h5", radio_columns()))
        assert (labelled.image.shape, labelled.image.dtype) == ((3, 1, 150, 150), np.uint8)
        assert labelled.label.tolist() == [0, 1, 0]
        assert labelled.ra_deg.tolist() == [100, 101, 105]
        assert labelled.source_id.tolist()[0] == "rgd_100.000000-03.000000"
        # the centre's own maximum becomes 255, and pixels stay where they are
        assert labelled.image.max(axis=(1, 2, 3)).tolist() == [255] * 3
        assert labelled.image[:, 0, 80 - 75, 90 - 75].tolist() == [int(n * 10 / 100 * 255) for n in (1, 2, 6)]
        assert (labelled.image[:, 0, 65:85, 65:85] == 255).all()
        description = labelled.description
        assert description["by_class"] == {"FRI": 2, "FRII": 1}
        assert description["left_out"] == {"compact": 1, "bent": 1, "no_signal": 0}
        assert list(description["sha256"]) == ["r.h5"]
        assert "MIT" in description["licence"]

    def test_the_test_part_only_when_asked_for(self, tmp_path):
        path = write(tmp_path / "r.h5", radio_columns())
        labelled = radio(path, "test")
        assert (labelled.label.tolist(), labelled.ra_deg.tolist()) == ([1, 0], [104, 106])
        with pytest.raises(ConfigError, match=r"no row of it is of the split 'test'"):
            radio(write(tmp_path / "s.h5", radio_columns(split=None)), "test")
        assert len(radio(tmp_path / "s.h5").label) == 5

    def test_as_published_a_group_a_source(self, tmp_path):
        columns = radio_columns()
        with h5py.File(tmp_path / "p.h5", "w") as file:
            for row in (6, 5, 4, 3, 2, 1, 0):
                group = file.create_group(f"data_{row}")
                image = group.create_dataset("Img", data=columns["image"][row])
                image.attrs["RA"], image.attrs["DEC"] = columns["ra_deg"][row], columns["dec_deg"][row]
                group["Label_literature"] = LABELS[row]
                group["Split_literature"] = SPLITS[row].decode()
        published, table = radio(tmp_path / "p.h5"), radio(write(tmp_path / "r.h5", columns))
        for name in ("image", "label", "source_id", "ra_deg", "dec_deg"):
            np.testing.assert_array_equal(getattr(published, name), getattr(table, name))
        assert radio(tmp_path / "p.h5", "test").label.tolist() == [1, 0]

    def test_unknown_positions_and_twins(self, tmp_path):
        ra = np.array([100, 100, 1, 1, 1, np.nan, 1.0])
        labelled = radio(write(tmp_path / "r.h5", radio_columns(ra_deg=ra, dec_deg=np.full(7, 5.0))))
        assert labelled.source_id.tolist() == ["rgd_100.000000+05.000000", "rgd_100.000000+05.000000#2", "rgd_5"]
        assert np.isnan(labelled.ra_deg).tolist() == np.isnan(labelled.dec_deg).tolist() == [False, False, True]

    def test_maps_without_signal_are_left_out(self, tmp_path):
        maps = radio_maps()
        maps[0, 75:225, 75:225] = 7
        labelled = radio(write(tmp_path / "r.h5", radio_columns(image=maps)))
        assert (labelled.ra_deg.tolist(), labelled.description["left_out"]["no_signal"]) == ([101, 105], 1)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"ra_deg": None, "label": None}, r"no dataset label, ra_deg in it \(it holds dec_deg, image, split\)"),
            ({"image": None}, r"no dataset image in it"),
            ({"label": np.array([0, 1, 4, 0, 0, 0, 0])}, r"1 labels are none of the classes 0 to 3.* 4 \(row 2\)"),
            ({"label": np.array([0, 1, -1, 0, 0, 0, 0])}, r"none of the classes 0 to 3.* -1 \(row 2\)"),
            ({"label": np.array([0, 0.5, 1, 0, 0, 0, 0])}, r"none of the classes 0 to 3.* 0.5 \(row 1\)"),
            ({"label": np.zeros(6, int)}, r"labels \(6,\), but images of shape \(7, 300, 300\)"),
            ({"label": np.int8(1)}, r"labels \(\), but images of shape"),
            ({"ra_deg": np.zeros(6)}, r"6 right ascensions and 7 declinations"),
            ({"split": np.array(SPLITS[:6])}, r"label, positions and split differ in length"),
            ({"dec_deg": np.array([0, 0, 0, 91.0, 0, 0, 0])}, r"position in row 3 is on no sky.*Dec 91.0"),
            ({"label": np.array([2, 3, 2, 3, 2, 2, 2])}, r"no image of it can be used for radio_fr"),
            ({"image": radio_maps()[:, :140]}, r"image 0: expected at least 150 px a side, found.*\(140, 300\)"),
            ({"image": radio_maps().astype(np.float32) * np.nan}, r"image 0: an image holds NaN or infinite pixels"),
            ({"image": radio_maps() * 0.5}, r"image 0: the images must hold whole numbers from 0 to 255"),
        ],
    )
    def test_unfit_files(self, tmp_path, changes, message):
        with pytest.raises(ConfigError, match=message):
            radio(write(tmp_path / "r.h5", radio_columns(**changes)))

    def test_whole_numbers_of_another_type_are_as_good(self, tmp_path):
        one = radio(write(tmp_path / "r.h5", radio_columns()))
        other = radio(write(tmp_path / "s.h5", radio_columns(image=radio_maps().astype(np.float64))))
        np.testing.assert_array_equal(one.image, other.image)

    def test_scaling(self):
        image = np.random.default_rng(1).integers(20, 90, (301, 300)).astype(np.uint8)
        scaled = scaled_centre(image, "here")
        centre = image[75:225, 75:225].astype(float)
        np.testing.assert_array_equal(
            scaled, np.floor((centre - centre.min()) / (centre.max() - centre.min()) * 255 + 1e-9)
        )
        np.testing.assert_array_equal(scaled_centre(scaled, "here"), scaled)

    @needs_data
    def test_the_real_one_against_mirabest(self, data_folder):
        """The same sources, the same orientation, the same clip; but what was clipped away was also subtracted."""
        ours = radio(data_folder / "first/radio_galaxy_dataset.h5")
        assert ours.description["by_class"] == {"FRI": 356, "FRII": 708}
        assert (ours.image.max(axis=(1, 2, 3)) == 255).all()
        settings = MirabestDataset(kind="mirabest", path=str(data_folder / "first/mirabest/batches.tar.gz"))
        mirabest = read_labelled_set(settings, RADIO_FR, RadioPreparation())
        tree = cKDTree(unit_vectors(mirabest.ra_deg, mirabest.dec_deg))
        distance, nearest = tree.query(unit_vectors(ours.ra_deg, ours.dec_deg))
        pairs = np.flatnonzero(distance < chord(60))
        assert len(pairs) == 598
        assert (ours.label[pairs] == mirabest.label[nearest[pairs]]).mean() > 0.98
        close = np.flatnonzero(distance < chord(2))[:150]
        correlation = {
            turned: np.median([_correlation(turn(ours.image[i, 0]), mirabest.image[nearest[i], 0]) for i in close])
            for turned, turn in {"not": lambda a: a, "mirrored": np.fliplr, "turned": lambda a: a[::-1, ::-1]}.items()
        }
        assert correlation["not"] > 0.95
        assert max(correlation["mirrored"], correlation["turned"]) < 0.8
        faintest = [
            np.median([_faintest(s.image[i, 0]) for i in rows])
            for s, rows in ((ours, close), (mirabest, nearest[close]))
        ]
        assert faintest[0] < 2 < 5 < faintest[1]


def _correlation(one, other) -> float:
    return np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1]


def _faintest(image) -> int:
    return image[image > 0].min()


# -------------------------------------------------------------------------------------------- Galaxy10


def pictures(count=12) -> np.ndarray:
    """Real galaxies where there are any, else noise; (N, 256, 256, 3)."""
    root = os.environ.get("GALGAZE_TEST_DATA")
    if root:
        folder = Path(root, "decals/galaxy10_sample")
        files = pd.read_csv(folder / "labels.csv")["file"][::4][:count]
        return np.stack([np.asarray(Image.open(folder / "images" / file).convert("RGB")) for file in files])
    return np.random.default_rng(1).integers(0, 256, (count, 256, 256, 3)).astype(np.uint8)


def optical_columns(count=12, **changes):
    return {
        "images": pictures(count),
        "ans": np.arange(count, dtype=np.uint8) % 10,
        "ra": 10.0 + np.arange(count),
        "dec": -5.0 + np.arange(count),
        "redshift": np.full(count, 0.1),
        "pxscale": np.full(count, 0.262),
    } | changes


class TestGalaxy10:
    def test_what_is_in_it(self, tmp_path):
        labelled = optical(write(tmp_path / "g.h5", optical_columns()))
        assert (labelled.image.shape, labelled.image.dtype) == ((12, 3, 32, 32), np.uint8)
        assert labelled.label.tolist() == [*range(10), 0, 1]
        assert labelled.source_id.tolist()[::11] == ["galaxy10_00000", "galaxy10_00011"]
        assert labelled.ra_deg.tolist() == [10.0 + n for n in range(12)]
        assert labelled.dec_deg.tolist() == [-5.0 + n for n in range(12)]
        assert labelled.votes is None
        assert labelled.description["by_class"]["disturbed"] == 2
        assert list(labelled.description["sha256"]) == ["g.h5"]

    def test_prepared_as_a_picture_on_disk_is(self, tmp_path):
        """Colours, orientation and scale are those that the survey `directory` gives to the same picture."""
        scales = np.array([0.262, 0.25, 0.524])
        columns = optical_columns(3, pxscale=scales)
        labelled = optical(write(tmp_path / "g.h5", columns))
        for row, scale in enumerate(scales):
            stream = io.BytesIO()
            Image.fromarray(columns["images"][row]).save(stream, "PNG")
            survey = open_survey(DirectorySurvey(kind="directory", path=str(tmp_path), pixel_scale_arcsec=scale))
            cutout = survey.decode(stream.getvalue(), Source("a", 0, 0))
            np.testing.assert_array_equal(labelled.image[row], prepare(cutout, OPTICAL).pixels)

    def test_north_is_the_last_row_and_red_the_first_channel(self, tmp_path):
        images = np.zeros((1, 256, 256, 3), np.uint8)
        images[0, :64, :, 0] = 200  # the picture's top, north, in red
        images[0, :, :64, 2] = 100  # its left, east, in blue
        labelled = optical(write(tmp_path / "g.h5", optical_columns(1, images=images)))
        red, green, blue = labelled.image[0].astype(int)
        assert red[28, 16] == 200
        assert red[4, 16] == 0
        assert blue[16, 4] == 100
        assert blue[16, 28] == 0
        assert green.max() == 0

    def test_a_scale_of_its_own(self, tmp_path):
        """A disc of the same size on the sky covers as many pixels, whatever the picture's scale."""
        rows, columns = np.indices((256, 256)) - 127.5
        radius_px = [60, 30]
        images = np.stack(
            [np.repeat(np.where(np.hypot(rows, columns) < r, 200, 0)[..., None], 3, 2) for r in radius_px]
        )
        scales = np.array([0.262, 0.524])
        labelled = optical(write(tmp_path / "g.h5", optical_columns(2, images=images.astype(np.uint8), pxscale=scales)))
        area = (labelled.image[:, 0] > 100).sum(axis=(1, 2))
        expected = np.pi * (60 * 0.262 / (OPTICAL.field_of_view_arcsec / 32)) ** 2
        np.testing.assert_allclose(area, expected, rtol=0.08)

    @pytest.mark.parametrize("scale", [np.nan, 0.0, -1.0])
    def test_an_unknown_scale_takes_the_picture_whole(self, tmp_path, scale):
        unknown = optical(write(tmp_path / "g.h5", optical_columns(1, pxscale=np.array([scale]))))
        whole = optical(write(tmp_path / "h.h5", optical_columns(1, pxscale=np.array([0.262]))))
        np.testing.assert_array_equal(unknown.image, whole.image)

    def test_what_the_preparation_refuses_is_left_out(self, tmp_path):
        images = pictures(4)
        images[1] = 9
        columns = optical_columns(4, images=images, pxscale=np.array([0.262, 0.262, 0.2, 0.262]))
        labelled = optical(write(tmp_path / "g.h5", columns))
        assert labelled.source_id.tolist() == ["galaxy10_00000", "galaxy10_00003"]
        assert labelled.label.tolist() == [0, 3]
        assert labelled.description["left_out"] == {"no_signal": 1, "partial_coverage": 1}
        all_of_them = OpticalPreparation(size_px=32, min_coverage=0.5)
        assert optical(tmp_path / "g.h5", all_of_them).label.tolist() == [0, 2, 3]

    def test_it_is_read_in_slices(self, tmp_path, monkeypatch):
        with h5py.File(tmp_path / "g.h5", "w") as file:
            file.create_dataset("images", (400, 256, 256, 3), np.uint8, chunks=(20, 256, 256, 3), fillvalue=0)
            for name in ("ans", "ra", "dec", "pxscale"):
                file[name] = np.zeros(400)
        monkeypatch.setattr(galaxy10, "prepare", lambda cutout, _: prepare(cutout, OpticalPreparation(size_px=16)))
        monkeypatch.setattr(galaxy10, "SLICE", 10)
        seen = []
        monkeypatch.setattr(galaxy10, "picture_cutout", lambda *a: seen.append(1) or _small_cutout())
        tracemalloc.start()
        labelled = optical(tmp_path / "g.h5", OpticalPreparation(size_px=16))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(labelled.label) == len(seen) == 400
        assert peak < 400 * 256 * 256 * 3 / 4

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"pxscale": None, "ans": None}, r"no dataset ans, pxscale in it \(it holds dec, images, ra, redshift\)"),
            ({"ans": np.arange(12)}, r"g.h5, ans: 2 labels are none of the classes 0 to 9.* 10 \(row 10\)"),
            (
                {"ans": np.arange(11) % 10},
                r"expected images \(N, 256, 256, 3\) and a value for each; found.*ans \(11,\)",
            ),
            ({"images": pictures()[..., 0]}, r"found images \(12, 256, 256\)"),
            ({"ra": np.float64(1)}, r"found images.* ra \(\), dec"),
            ({"ra": np.full(12, 400.0)}, r"position in row 0 is on no sky"),
            ({"images": pictures().astype(np.float32) + np.inf}, r"images from 0: an image holds NaN or infinite"),
            ({"images": pictures() / np.float32(255)}, r"images from 0: the images must hold whole numbers"),
        ],
    )
    def test_unfit_files(self, tmp_path, changes, message):
        with pytest.raises(ConfigError, match=message):
            optical(write(tmp_path / "g.h5", optical_columns(**changes)))

    def test_positions_may_be_unknown(self, tmp_path):
        labelled = optical(write(tmp_path / "g.h5", optical_columns(2, dec=np.array([np.nan, 1.0]))))
        assert np.isnan(labelled.ra_deg).tolist() == np.isnan(labelled.dec_deg).tolist() == [True, False]


def _small_cutout():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[3] = 5
    return galaxy10.Cutout(
        pixels.transpose(2, 0, 1), "rgb", True, np.ones((16, 16), bool), (7.5, 7.5), np.full((2, 2), np.nan)
    )


# -------------------------------------------------------------------------------------------- any of them


@pytest.mark.parametrize(
    ("read", "columns", "origin"),
    [
        (radio, radio_columns, "github.com/floriangriese/RadioGalaxyDataset"),
        (optical, lambda: optical_columns(3), "zenodo.org/records/10845026"),
    ],
)
class TestFiles:
    def test_missing(self, tmp_path, read, columns, origin):
        with pytest.raises(ConfigError, match=rf"no.h5: there is no such file. It is .*{re.escape(origin)}"):
            read(tmp_path / "no.h5")

    @pytest.mark.parametrize("part", [0, 0.001, 0.3, 0.9])
    def test_truncated(self, tmp_path, read, columns, origin, part):
        whole = write(tmp_path / "a.h5", columns()).read_bytes()
        (tmp_path / "a.h5").write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ConfigError, match=rf"a.h5: not a whole HDF5 file \(.*{re.escape(origin)}"):
            read(tmp_path / "a.h5")

    def test_garbage_inside(self, tmp_path, read, columns, origin):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, values in columns().items():
                file.create_dataset(name, data=values, compression="gzip", chunks=values.shape)
        content = bytearray((tmp_path / "a.h5").read_bytes())
        middle = len(content) // 2
        content[middle : middle + 2000] = bytes(2000)
        (tmp_path / "a.h5").write_bytes(bytes(content))
        with pytest.raises(ConfigError, match=r"a.h5: not a whole HDF5 file"):
            read(tmp_path / "a.h5")

    def test_nothing_outside_of_it_is_read(self, tmp_path, read, columns, origin):
        secret = write(tmp_path / "secret.h5", columns())
        name = next(iter(columns()))
        rest = {key: value for key, value in columns().items() if key != name}
        with h5py.File(write(tmp_path / "link.h5", rest), "a") as file:
            file[name] = h5py.ExternalLink(str(secret), name)
        with h5py.File(write(tmp_path / "soft.h5", rest), "a") as file:
            file[name] = h5py.SoftLink("/label")
        with h5py.File(write(tmp_path / "virtual.h5", rest), "a") as file:
            values = columns()[name]
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[:] = h5py.VirtualSource(str(secret), name, values.shape)
            file.create_virtual_dataset(name, layout)
        with h5py.File(write(tmp_path / "raw.h5", rest), "a") as file:
            file.create_dataset(name, values.shape, values.dtype, external=[(str(secret), 0, values.nbytes)])
        for kind in ("link", "soft", "virtual", "raw"):
            with pytest.raises(ConfigError, match=rf"{kind}.h5: {name} leads out of the file, and is not followed"):
                read(tmp_path / f"{kind}.h5")

    def test_a_group_where_a_dataset_should_be(self, tmp_path, read, columns, origin):
        name, *_ = columns()
        path = write(tmp_path / "a.h5", {key: value for key, value in columns().items() if key != name})
        with h5py.File(path, "a") as file:
            file.create_group(name)
        with pytest.raises(ConfigError, match=rf"no dataset {name} in it"):
            read(path)
