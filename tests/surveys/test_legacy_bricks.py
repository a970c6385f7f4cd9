"""Cutouts from whole bricks: where things stand in them, which brick a pixel is from, and what is fetched how often."""

import functools
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from tests.servers.legacy_bricks import Brick, BricksServer, Sky, columns_in_row
from tests.surveys.bodies import DEC, QUICK, RA, legacy_settings

from galgaze.errors import BadImage, ConfigError, NoCoverage, TransientError
from galgaze.surveys import brick_files, lanczos
from galgaze.surveys.base import Source
from galgaze.surveys.bricks import BRICKS, brick, brick_ids, bricks_touched
from galgaze.surveys.http import PoliteClient
from galgaze.surveys.legacy import decode_grz
from galgaze.surveys.legacy_bricks import BrickCutter, in_bricks, tree

NOW = 1_800_000_000.0
WEST = Brick("1498p020")  # on both sides of an edge at RA 150
EAST = Brick("1501p020")
EDGE = 150.0


@functools.cache
def sky(name="plain") -> Sky:
    """Made once: their files take a while."""
    star = (0.5, 4.0)
    skies = {
        "plain": Sky(stars=tuple((ra, dec, *star) for ra, dec in PLACES.values())),
        "levels": Sky(levels={"1501p020": 0.01, "1498p020": 0.03}),
        "half": Sky(missing=frozenset({"1498p020"}), stars=((EDGE, 2.0, *star),)),
        "blank": Sky(blank=(("1498p020", (1000, 1900)),), stars=((WEST.ra, 2.0, *star),)),
        "none": Sky(missing=frozenset({"1498p020"})),
        "north": Sky(bands={"dr10/south": "griz"}, stars=((180.2, 50.0, *star), (180.0, 32.375, *star))),
    }
    return skies[name]


PLACES = {
    "inside": (150.0031, 2.0007),
    "seam in RA": (EDGE, 2.03),
    "seam in Dec": (150.02, 2.125),
    "corner": (EDGE, 1.875),
    "RA 0": (0.0, 5.01),
    "RA 360": (359.99999, -10.2),
    "far north": (33.0, 85.0),
    "far south": (271.0, -84.8751),
}


@pytest.fixture
def archive(tmp_path):
    """Opens servers and cutters, and closes them."""
    opened = []

    class Archive:
        def __init__(self, kind="plain", **how):
            self.server = BricksServer(sky(kind) if isinstance(kind, str) else kind, **how)
            self.server.__enter__()
            opened.append(lambda: self.server.__exit__(None))

        def cutter(self, cache="cache", clock=lambda: NOW, **settings):
            settings = {"bricks_url": self.server.url, "mode": "bricks"} | settings
            client = PoliteClient(QUICK, hosts=tmp_path / "hosts", sleep=lambda _: None)
            cutter = BrickCutter(legacy_settings(**settings), client, tmp_path / cache, clock=clock)
            opened.extend([client.close, cutter.close])
            return cutter

    yield Archive
    for close in reversed(opened):
        close()


def at(ra=WEST.ra, dec=WEST.dec):
    return Source("a", ra, dec)


def hdus_of(cutter, source):
    return fits.open(io.BytesIO(cutter.cut(source)[0]))


def decoded(cutter, source):
    settings = cutter.settings
    shape = (settings.size_px, settings.size_px)
    return decode_grz(cutter.cut(source)[0], source, shape, settings.pixel_scale_arcsec)


def star_on(cutout, sigma_px, peak=0.5, sky=0.002):
    """What the sky's star looks like on a cutout centred on it."""
    size = cutout.pixels.shape[-1]
    rows, columns = np.indices((size, size)) - (size - 1) / 2
    return sky + peak * np.exp(-(rows**2 + columns**2) / 2 / sigma_px**2)


def centroid(image):
    image = np.where(image > image.max() / 20, image - np.median(image), 0)
    rows, columns = np.indices(image.shape)
    return (columns * image).sum() / image.sum(), (rows * image).sum() / image.sum()


class TestTiling:
    def test_the_real_survey(self):
        """Numbers, names and bounds published with the survey (survey-bricks; the header of 0489m442)."""
        assert BRICKS == 662174
        assert brick_ids(0, 0) == 330368
        assert [brick(number).name for number in (1, 662174)] == ["1800m900", "1800p900"]
        real = brick(100048)
        assert real.name == "0489m442"
        assert (real.ra_deg, real.dec_deg) == (pytest.approx(48.9168278529981, abs=1e-12), -44.25)
        inside, outside = 1e-9, -1e-9
        for margin, is_in in [(inside, True), (outside, False)]:
            ra = np.array([48.7427466150871 + margin, 49.0909090909091 - margin, 48.9, 48.9])
            dec = np.array([-44.25, -44.25, -44.375 + margin, -44.125 - margin])
            assert (brick_ids(ra, dec) == 100048).tolist() == [is_in] * 4

    def test_every_row_fits_the_definition(self):
        """As the test server has it, which was written apart from this."""
        firsts = brick_ids(np.zeros(721), np.arange(721) * 0.25 - 90)
        lasts = brick_ids(np.full(721, -1e-9), np.arange(721) * 0.25 - 90)
        assert (lasts - firsts + 1).tolist() == [columns_in_row(row) for row in range(721)]
        assert np.array_equal(firsts[1:], lasts[:-1] + 1)

    @given(st.integers(1, BRICKS))
    def test_a_brick_holds_its_centre_and_its_name_is_its_own(self, number):
        found = brick(number)
        assert brick_ids(found.ra_deg, found.dec_deg) == number
        other = Brick(found.name)
        assert (other.ra, other.dec) == pytest.approx((found.ra_deg, found.dec_deg), abs=1e-9)
        edge = max(0, abs(other.dec) - 0.125)
        assert (other.ra2 - other.ra1) * np.cos(np.radians(edge)) <= 0.25 + 1e-9 or abs(found.dec_deg) == 90

    @pytest.mark.parametrize(("ra", "same"), [(-0.1, 359.9), (360, 0), (-1e-16, 0), (725, 5)])
    def test_right_ascension_goes_round(self, ra, same):
        if ra == -1e-16:  # its remainder is 360.0
            assert brick_ids(ra, 20.0) == brick_ids(359.9999, 20.0)
        else:
            assert brick_ids(ra, 20.0) == brick_ids(same, 20.0)


class TestPlace:
    @pytest.mark.parametrize("place", PLACES)
    def test_a_star_lands_where_it_belongs(self, archive, place):
        """Of bricks each with its own projection, on the right pixel, at the right brightness."""
        source = at(*PLACES[place])
        cutout = decoded(archive().cutter(size_px=80), source)
        assert cutout.centre_px == pytest.approx((39.5, 39.5), abs=1e-4)
        assert cutout.observed.all()
        for plane in cutout.pixels:
            assert centroid(plane) == pytest.approx((39.5, 39.5), abs=0.02)
            assert np.abs(plane - star_on(cutout, 4.0)).max() < 0.002

    @pytest.mark.parametrize("size_px", [41, 64])
    def test_odd_and_even_sizes(self, archive, size_px):
        cutout = decoded(archive().cutter(size_px=size_px), at(*PLACES["inside"]))
        assert centroid(cutout.pixels[0]) == pytest.approx([(size_px - 1) / 2] * 2, abs=0.02)

    @pytest.mark.parametrize("scale", [0.15, 0.4, 0.524, 0.6, 1.1])
    def test_pixels_of_other_scales_keep_flux_per_native_pixel(self, archive, scale):
        """Halved images (from more than twice the native scale on) are smoothed by 1 px before each halving."""
        cutout = decoded(archive().cutter(size_px=50, pixel_scale_arcsec=scale), at(*PLACES["seam in RA"]))
        halvings = lanczos.halvings(scale, 0.262)
        assert halvings == {0.15: 0, 0.4: 0, 0.524: 0, 0.6: 1, 1.1: 2}[scale]
        blurred = 16 + sum(4.0**step + (4.0 ** (step + 1) - 4.0**step) / 12 for step in range(halvings))
        sigma = np.sqrt(blurred) * 0.262 / scale
        expected = star_on(cutout, sigma, 0.5 * 16 / blurred)
        assert centroid(cutout.pixels[1]) == pytest.approx((24.5, 24.5), abs=0.05)
        assert np.abs(cutout.pixels[1] - expected).max() < 0.008

    def test_north_is_up_and_east_is_left(self, archive):
        (ra, dec), cutter = PLACES["inside"], archive().cutter(size_px=80)
        places = [at(ra, dec - 5 / 3600), at(ra - 5 / 3600, dec)]
        north, east = (centroid(decoded(cutter, place).pixels[0]) for place in places)
        assert north == pytest.approx((39.5, 39.5 + 5 / 0.262), abs=0.1)
        assert east == pytest.approx((39.5 - 5 / 0.262, 39.5), abs=0.1)


class TestForm:
    def test_as_the_viewers(self, archive):
        with hdus_of(archive().cutter(invvar=True, maskbits=True, size_px=48), at(360 + RA, DEC)) as hdus:
            header = hdus[0].header
            assert [hdu.header["IMAGETYP"] for hdu in hdus] == ["image", "INVVAR", "MASKBITS"]
            assert [hdu.data.shape for hdu in hdus] == [(3, 48, 48), (3, 48, 48), (48, 48)]
            assert [hdu.data.dtype.name for hdu in hdus] == ["float32", "float32", "int32"]
            assert [header[card] for card in ("BANDS", "BAND0", "BAND1", "BAND2")] == ["grz", "g", "r", "z"]
            assert [header[card] for card in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2")] == [24.5, 24.5, RA, DEC]
            assert (header["CTYPE1"], header["VERSION"]) == ("RA---TAN", "DR9")
            assert [header["CD2_2"], -header["CD1_1"]] == pytest.approx([0.262 / 3600] * 2)

    def test_only_what_is_asked_for_is_fetched(self, archive):
        files = {}
        for name, asked in {"plain": {}, "more": {"invvar": True, "maskbits": True}}.items():
            opened = archive()
            opened.cutter(name, **asked).cut(at())
            start = "dr9/south/coadd/149/1498p020/legacysurvey-1498p020-"
            files[name] = [path.removeprefix(start) for path in opened.server.asked_for()]
        images = [f"image-{band}.fits.fz" for band in "grz"]
        assert files["plain"] == images
        assert sorted(files["more"]) == sorted([*images, *(f"invvar-{b}.fits.fz" for b in "grz"), "maskbits.fits.fz"])

    def test_masks_are_of_the_nearest_pixel(self, archive):
        """The test bricks' bit 0x20 begins at their middles."""
        with hdus_of(archive().cutter(maskbits=True), at()) as hdus:
            expected = np.zeros((40, 40), int)
            expected[20:, 20:] = 0x20
            assert np.array_equal(hdus["PRIMARY"].data != 0, np.ones((3, 40, 40), bool))
            assert np.array_equal(hdus[1].data, expected)

    def test_the_same_bytes_every_time(self, archive):
        opened, source = archive(), at(*PLACES["corner"])
        assert len({opened.cutter(cache).cut(source) for cache in ("a", "a", "b")}) == 1


class TestOverlaps:
    def test_each_pixel_is_of_its_own_brick(self, archive):
        """Neighbours have other levels here; at the seam there is neither a mean nor a gap."""
        cutter = archive("levels").cutter(size_px=60)
        with hdus_of(cutter, at(EDGE, 2.0)) as hdus:
            image = hdus[0].data[0]
        assert np.allclose(image[:, :30], 0.01, atol=1e-4)  # east is left
        assert np.allclose(image[:, 30:], 0.03, atol=1e-4)

    def test_where_a_brick_is_missing_its_neighbours_image_goes_on(self, archive):
        cutter = archive("half").cutter(size_px=300, invvar=True, maskbits=True)
        cutout = decoded(cutter, at(EDGE, 2.0))
        # the eastern brick's image ends where its own projection says: 1800 px from its centre
        end = 150 + (1800 - (EAST.ra2 - EAST.ra1) / 2 * np.cos(np.radians(2.0)) * 3600 / 0.262)
        assert cutout.observed[:, : int(end) - 1].all()
        assert not cutout.observed[:, int(end) + 2 :].any()
        assert np.all(cutout.pixels[:, :, int(end) + 2 :] == 0)
        assert np.abs(cutout.pixels[0] - star_on(cutout, 4.0))[:, : int(end) - 4].max() < 0.002
        with hdus_of(cutter, at(EDGE, 2.0)) as hdus:
            assert np.array_equal(hdus[1].data[0] > 0, cutout.observed)

    def test_what_is_blank_within_a_brick_is_exactly_zero(self, archive):
        """Columns up to 1899 of the image are blank, so a star in the middle is seen in part only."""
        cutter = archive("blank").cutter(size_px=240, invvar=True)
        cutout = decoded(cutter, at(WEST.ra, 2.0))
        assert np.array_equal(cutout.observed, np.broadcast_to(np.arange(240) >= 220, (240, 240)))
        with hdus_of(cutter, at(WEST.ra, 2.0)) as hdus:
            assert np.array_equal(hdus[1].data[2] > 0, cutout.observed)

    def test_nothing_at_all(self, archive):
        opened = archive("none")
        with pytest.raises(NoCoverage, match="no brick of ls-dr9 has data here"):
            opened.cutter().cut(at())


class TestLayers:
    @pytest.mark.parametrize(
        ("layer", "ra", "dec", "expected"),
        [
            ("ls-dr9", 180, 50, "dr9/north"), ("ls-dr9", 180, 32.5, "dr9/north"), ("ls-dr9", 180, 32.25, "dr9/south"),
            ("ls-dr9", 30, 33.0, "dr9/south"), ("ls-dr8-north", 180, 10, "dr8/north"),
            ("ls-dr10", 180, 50, "dr9/north"), ("ls-dr10", 180, 10, "dr10/south"),
            ("ls-dr10-north", 180, 50, "dr9/north"), ("ls-dr10-south", 180, 50, "dr10/south"),
        ],
    )  # fmt: skip
    def test_where_a_layer_stands(self, layer, ra, dec, expected):
        assert tree(layer, brick(int(brick_ids(ra, dec)))) == expected
        assert in_bricks(layer)

    @pytest.mark.parametrize("layer", ["ls-dr10-grz", "ls-dr9-model", "ls-dr11", "sdss"])
    def test_others_are_refused(self, archive, layer):
        assert not in_bricks(layer)
        with pytest.raises(ConfigError, match=f"'{layer}' cannot be cut from bricks"):
            archive().cutter(layer=layer)

    def test_there_is_no_i_band_in_the_north(self, archive):
        """And it is not asked for; across the border, the south part gives what its images reach."""
        opened = archive("north")
        cutter = opened.cutter(layer="ls-dr10", bands="griz")
        with hdus_of(cutter, at(180.2, 50.0)) as hdus:
            assert hdus[0].header["BANDS"] == "griz"
            assert [bool(plane.any()) for plane in hdus[0].data] == [True, True, False, True]
        assert {path[:9] for path in opened.server.asked_for()} == {"dr9/north"}
        assert len(opened.server.requests) == 3 == cutter.cost(np.array([180.2]), np.array([50.0]))[0]

    def test_across_the_border_of_two_parts(self, archive):
        opened = archive("north")
        cutout = decoded(opened.cutter(size_px=80), at(180.0, 32.375))
        assert centroid(cutout.pixels[2]) == pytest.approx((39.5, 39.5), abs=0.02)
        assert {path[:9] for path in opened.server.asked_for()} == {"dr9/north", "dr9/south"}


class TestFetching:
    def test_each_file_once(self, archive):
        opened = archive()
        cutter, rng = opened.cutter(), np.random.default_rng(1)
        for _ in range(5):
            cutter.cut(at(WEST.ra + rng.uniform(-0.1, 0.1), WEST.dec + rng.uniform(-0.1, 0.1)))
        opened.cutter().cut(at())  # a later run
        assert len(opened.server.requests) == 3

    def test_threads_and_jobs_at_once(self, archive):
        opened = archive(delay=0.05)
        cutters, bodies = [opened.cutter(), opened.cutter()], []
        threads = [
            threading.Thread(target=lambda cutter: bodies.append(cutter.cut(at(*PLACES["corner"]))), args=[cutter])
            for cutter in cutters * 3
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asked = opened.server.asked_for()
        assert len(asked) == len(set(asked)) == 4 * 3
        assert len(bodies) == 6
        assert len(set(bodies)) == 1

    def test_few_files_stay_open(self, archive, tmp_path):
        cutter = archive().cutter(invvar=True)
        for place in ("inside", "corner", "RA 0"):
            cutter.cut(at(*PLACES[place]))
        held = [file.path for file in psutil.Process().open_files() if file.path.endswith(".fits.fz")]
        assert 0 < len(held) <= brick_files.OPEN_FILES < len(list((tmp_path / "cache").rglob("*.fits.fz")))
        cutter.close()
        assert not [file for file in psutil.Process().open_files() if file.path.endswith(".fits.fz")]

    @pytest.mark.parametrize("fault", ["503", "429:0", "reset", "truncate", "truncate_no_length:201600", "html"])
    def test_a_fault_that_passes(self, archive, tmp_path, fault):
        opened = archive()
        whole = opened.cutter("other").cut(at())
        opened.server.faults = ["ok", fault]
        assert opened.cutter().cut(at()) == whole
        assert len(opened.server.requests) == 3 + 4
        assert len(list((tmp_path / "cache").rglob("*.fz"))) == 3

    @pytest.mark.parametrize(
        ("instead", "message"),
        [
            (("1498p020", "image", "r"), r"FILTERX 'r' came, 'g' was asked for"),
            (("1498p020", "invvar", "g"), r"IMTYPE 'invvar' came, 'image' was asked for"),
            (("1501p020", "image", "g"), r"CRVAL1 = 150\.\d+ came, 149\.\d+ was expected of brick 1498p020"),
        ],
    )
    def test_another_file_than_asked_for_is_refused_and_not_asked_for_again(self, archive, tmp_path, instead, message):
        opened = archive(instead={("1498p020", "image", "g"): instead})
        cutter = opened.cutter()
        for _ in range(3):
            with pytest.raises(BadImage, match=f"legacysurvey-1498p020-image-g.fits.fz: {message}"):
                cutter.cut(at())
        assert len(opened.server.requests) == QUICK.attempts
        assert not list((tmp_path / "cache").rglob("*.fz"))

    def test_another_size_is_refused(self, archive):
        opened = archive(Sky(side=1200))
        with pytest.raises(BadImage, match=r"of \(1200, 1200\) pixels came, \(3600, 3600\) were expected"):
            opened.cutter().cut(at())

    @pytest.mark.parametrize("damage", ["flip", "cut", "no checksum"])
    def test_a_damaged_file_is_fetched_again(self, archive, tmp_path, damage):
        opened = archive()
        whole = opened.cutter().cut(at())
        path = next((tmp_path / "cache").rglob("*-image-r.fits.fz"))
        content = bytearray(path.read_bytes())
        content[-4000] ^= 1
        if damage == "no checksum":
            path.with_name(path.name + ".sha256").unlink()
        else:
            path.write_bytes(content if damage == "flip" else content[:-5760])
        asked = len(opened.server.requests)
        assert opened.cutter().cut(at()) == whole
        assert opened.server.asked_for()[asked:] == [path.relative_to(tmp_path / "cache" / "bricks").as_posix()]

    def test_a_file_taken_away_meanwhile_is_fetched_again(self, archive, tmp_path):
        opened = archive()
        cutter = opened.cutter()
        whole = cutter.cut(at())
        next((tmp_path / "cache").rglob("*-image-r.fits.fz")).unlink()
        assert cutter.cut(at()) == whole
        assert len(opened.server.requests) == 4

    def test_killed_in_the_middle_of_a_download(self, archive, tmp_path):
        opened = archive()
        opened.server.faults = ["ok", "stall:30"]
        script = (
            "from tests.surveys.bodies import *; from pathlib import Path\n"
            "from galgaze.surveys.legacy_bricks import BrickCutter, PoliteClient, Source\n"
            f"settings, folder = legacy_settings(bricks_url={opened.server.url!r}), Path({str(tmp_path)!r})\n"
            "client = PoliteClient(QUICK, hosts=folder / 'hosts')\n"
            f"BrickCutter(settings, client, folder / 'cache').cut(Source('a', {WEST.ra}, {WEST.dec}))\n"
        )
        job = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
        while len(opened.server.requests) < 2 or not list((tmp_path / "cache").rglob(".*-image-r.fits.fz.*.partial")):
            assert job.poll() is None
            time.sleep(0.02)
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        assert [path.name[-15:] for path in (tmp_path / "cache").rglob("*.fz")] == ["image-g.fits.fz"]
        opened.server.faults = []
        assert opened.cutter().cut(at()) == opened.cutter("other").cut(at())
        assert len(opened.server.requests) == 2 + 2 + 3
        assert not list((tmp_path / "cache").rglob("*.partial"))


class TestNotObserved:
    def test_is_remembered_for_a_while(self, archive, tmp_path):
        opened = archive("none")
        asked = []
        for days in (0, 89, 91, 92):
            cutter = opened.cutter(clock=lambda days=days: NOW + days * 86400)
            for _ in range(2):
                with pytest.raises(NoCoverage):
                    cutter.cut(at())
            asked.append(len(opened.server.requests))
        # three bands, and once a process that asks, a brick that is surely there
        assert asked == [4, 4, 8, 8]
        assert len(list((tmp_path / "cache").rglob("*.absent"))) == 3
        assert not list((tmp_path / "cache").rglob("*.fz"))

    def test_an_archive_that_is_gone_is_no_lack_of_coverage(self, archive, tmp_path):
        opened = archive()
        cutter = opened.cutter(bricks_url=f"{opened.server.url}/moved")
        for _ in range(2):
            with pytest.raises(TransientError, match="HTTP 404, although this brick is surely covered"):
                cutter.cut(at())
        assert not list((tmp_path / "cache").rglob("*.absent"))

    @pytest.mark.parametrize("fault", ["403", "500"])
    def test_other_refusals_are_no_lack_of_coverage(self, archive, fault):
        opened = archive()
        opened.server.faults = [fault] * 2
        with pytest.raises(TransientError, match=f"HTTP {fault} from .*/1498p020/"):
            opened.cutter().cut(at())

    def test_a_half_written_tombstone_says_nothing(self, archive, tmp_path):
        opened = archive()
        folder = tmp_path / "cache/bricks/dr9/south/coadd/149/1498p020"
        folder.mkdir(parents=True)
        tombstone = folder / "legacysurvey-1498p020-image-g.fits.fz.absent"
        tombstone.write_text('{"url": ')
        opened.cutter().cut(at())
        assert len(opened.server.requests) == 3
        assert not tombstone.exists()


class TestCost:
    @pytest.mark.parametrize(
        ("more", "files", "megabytes"),
        [({}, 3, 33), ({"invvar": True}, 6, 66), ({"invvar": True, "maskbits": True}, 7, 66.5)],
    )
    def test_is_what_cutting_asks_for(self, archive, more, files, megabytes):
        opened = archive()
        cutter = opened.cutter(**more)
        for place, bricks in {"inside": 1, "seam in RA": 2, "corner": 4, "RA 0": 2}.items():
            before = len(opened.server.requests)
            cutter_of_its_own = opened.cutter(f"cache of {place}", **more)
            cutter_of_its_own.cut(at(*PLACES[place]))
            ra, dec = (np.array([value]) for value in PLACES[place])
            requests, size, kept = cutter.cost(ra, dec)
            assert requests == bricks * files == len(opened.server.requests) - before
            assert size == pytest.approx(bricks * megabytes)
            assert kept == 2 * requests

    def test_a_brick_counts_once(self, archive):
        rng = np.random.default_rng(0)
        ra, dec = WEST.ra + rng.uniform(-0.1, 0.1, 1000), WEST.dec + rng.uniform(-0.1, 0.1, 1000)
        cutter = archive().cutter()
        assert cutter.cost(ra, dec)[0] == cutter.cost(ra[:1], dec[:1])[0] == 3
        assert cutter.cost(ra[:0], dec[:0]) == (0, 0, 0)

    @pytest.mark.parametrize("dec", [0.0, 63.1, -89.99, 90.0])
    def test_large_cutouts_touch_what_their_pixels_do(self, dec):
        side = 512 * 2.0 / 3600
        plane = lambda ra, dec: brick_ids(*brick_plane_of(ra, dec, side))  # noqa: E731
        for ra in (0.0, 77.7):
            assert bricks_touched(np.array([ra]), np.array([dec]), side).tolist() == np.unique(plane(ra, dec)).tolist()


def brick_plane_of(ra, dec, side_deg, points=401):
    """A fine grid over a cutout."""
    from galgaze.surveys.bricks import tangent_plane

    rows, columns = np.indices((points, points))
    plane = tangent_plane(ra, dec, points, side_deg * 3600 / (points - 1))
    return plane.wcs_pix2world(columns.ravel(), rows.ravel(), 0)


class TestLanczos:
    def test_whole_pixels_are_left_alone(self):
        image = np.random.default_rng(0).normal(size=(9, 11)).astype(np.float32)
        rows, columns = np.indices(image.shape)
        assert np.allclose(lanczos.lanczos3(image, columns.ravel(), rows.ravel()).reshape(9, 11), image, atol=1e-6)

    def test_a_level_stays_a_level(self):
        positions = np.random.default_rng(0).uniform(-1, 12, (2, 500))
        assert np.allclose(lanczos.lanczos3(np.full((12, 12), 3.0), *positions), 3.0)

    def test_a_half_pixel_step(self):
        """sinc(d) sinc(d/3) at d = 0.5, 1.5, 2.5 is 0.6079, -0.1351, 0.0243, made to sum to one."""
        image = np.zeros((9, 9))
        image[4, 4] = 1
        found = lanczos.lanczos3(image, np.array([4.5, 5.5, 6.5, 7.5]), np.full(4, 4.0))
        assert found == pytest.approx(np.array([0.60793, -0.13509, 0.02432, 0]) / 0.99432, abs=1e-4)
