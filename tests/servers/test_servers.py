"""The local survey servers answer as the surveys do, and break as asked."""

import gzip
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from tests.servers import header
from tests.servers.first import FirstServer, parse_position
from tests.servers.legacy import INVVAR, LegacyServer

RA, DEC = 173.8653, 46.4961
FORM = {"RA": "11.59102 46.4961", "Equinox": "J2000", "ImageSize": "4.5", "ImageType": "FITS File"}
GRID = {"ra": 150.0, "dec": 2.0, "layer": "ls-dr9", "pixscale": 0.262, "size": 32, "bands": "grz"}


@pytest.fixture
def first_folder(tmp_path):
    """A small FIRST image as the survey sends it: a tab in a comment, cards for axes that it has not."""
    hdu = fits.PrimaryHDU(np.arange(30 * 30, dtype=np.float32).reshape(30, 30))
    hdu.header.update(
        CTYPE1="RA---SIN", CTYPE2="DEC--SIN", CRVAL1=RA, CRVAL2=DEC, CRPIX1=15.5, CRPIX2=15.5,
        CDELT1=-0.0005, CDELT2=0.0005, CTYPE3="FREQ", CRVAL3=1.4e9, CTYPE4="STOKES", CRVAL4=1.0,
        COMMENT="R. L. White TAB M.D. Gregg",
    )  # fmt: skip
    stream = io.BytesIO()
    hdu.writeto(stream)
    raw = stream.getvalue().replace(b"TAB", b"\t  ")
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(raw))
    elsewhere = header.with_number(header.with_number(raw, "CRVAL1", 0.0), "CRPIX1", 25.5)
    (tmp_path / "b.fits").write_bytes(elsewhere)
    return tmp_path, raw


@pytest.fixture
def legacy_folder(tmp_path):
    """A cube of 40 px with a star a band, one unobserved corner in g, and a truncated copy of it."""
    cube = np.full((3, 40, 40), 0.01, np.float32)
    cube[:, 30, 12] = [1, 2, 3]
    cube[0, :5, :5] = 0
    hdu = fits.PrimaryHDU(cube)
    step = 0.262 / 3600
    hdu.header.update(
        BANDS="grz", CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=2.0, CRPIX1=20.5, CRPIX2=20.5,
        CD1_1=-step, CD1_2=0.0, CD2_1=0.0, CD2_2=step,
    )  # fmt: skip
    hdu.writeto(tmp_path / "whole.fits")
    raw = (tmp_path / "whole.fits").read_bytes()
    (tmp_path / "zz_short.fits").write_bytes(raw[: 2880 * 3])
    return tmp_path


def hdus_of(reply):
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "image/fits"
    assert int(reply.headers["Content-Length"]) == len(reply.content)
    return fits.open(io.BytesIO(reply.content))


class TestFirst:
    @pytest.mark.parametrize(
        "form",
        [
            FORM | {"MaxImSize": "2048"},
            FORM | {"RA": "11 35 27.67 46 29 46.0"},
            FORM | {"RA": "11:35:27.67 +46:29:46"},
            FORM | {"RA": "11h35m27.67s", "Dec": "+46d29m46s"},
            FORM | {"RA": "11.5910", "Dec": "46.4961"},
        ],
    )
    def test_sends_the_bytes(self, first_folder, form):
        folder, raw = first_folder
        with FirstServer(folder) as server:
            reply = httpx.post(server.url, data=form)
        assert reply.content == raw
        assert b"\t" in reply.content
        assert reply.headers["Content-Type"] == "image/x-fits"
        assert int(reply.headers["Content-Length"]) == len(raw)
        assert server.requests == [("POST", "/cgi-bin/firstcutout", form)]

    def test_cirada_form(self, first_folder):
        folder, raw = first_folder
        params = {"RA": "11h35m27.67s +46d29m46s", "ImageType": "FITS Image", "Download": 1, "FITS": 1}
        with FirstServer(folder) as server:
            url = server.url.replace("firstcutout", "firstimage/post")
            assert httpx.get(url, params=params).content == raw
            assert httpx.get(url.replace("/post", ""), params=params | {"Dec": ""}).content == raw
            assert httpx.get(url, params=params | {"FITS": 0}).content.startswith(b"GIF")

    def test_centre_off_the_reference_pixel(self, first_folder):
        folder, _ = first_folder
        ra = 10 * 0.0005 / np.cos(np.radians(DEC))
        with FirstServer(folder) as server:
            hit = httpx.post(server.url, data=FORM | {"RA": f"{ra / 15:.7f} {DEC}"})
            miss = httpx.post(server.url, data=FORM | {"RA": f"{(ra + 0.015) / 15:.7f} {DEC}"})
        assert hit.content == (folder / "b.fits").read_bytes()
        assert "not covered by the FIRST survey" in miss.text

    def test_the_map_that_contains_the_position_answers(self, first_folder):
        """Also off its centre: a map of 30 px reaches 27 arcsec, its inner part 18.9."""
        folder, raw = first_folder
        with FirstServer(folder) as server:
            for off_arcsec, inside in [(18, True), (20, False)]:
                reply = httpx.post(server.url, data=FORM | {"RA": f"11.59102 {DEC + off_arcsec / 3600:.6f}"})
                assert (reply.content == raw) == inside
                assert ("not covered" in reply.text) != inside

    @pytest.mark.parametrize("blank", [np.nan, 0.0])
    def test_a_part_is_cut_and_blank_beyond_the_map(self, first_folder, blank):
        """Of a map of 30 px, 15 px around a place 10 px north of its centre: the last two rows lie beyond."""
        folder, _ = first_folder
        form = FORM | {"RA": f"11.59102 {DEC + 0.0048:.6f}", "ImageSize": "0.45", "MaxImSize": "1024"}
        with FirstServer(folder, cut=True, blank=blank) as server:
            body = httpx.post(server.url, data=form).content
            small = httpx.post(server.url, data=form | {"MaxImSize": "9"}).content
            missed = httpx.post(server.url, data=form | {"RA": f"11.59102 {DEC + 0.012:.6f}"}).text
        values, size = header.parse_header(body)
        assert (values["NAXIS1"], values["NAXIS2"], size) == (15, 15, len(body))
        assert header.parse_header(small)[0]["NAXIS1"] == 9
        place = header.celestial_wcs(values).wcs_world2pix([[RA, DEC + 0.0048]], 0)[0]
        assert place == pytest.approx([7, 7], abs=0.6)
        pixels = np.frombuffer(body, ">f4", 225, len(body) - header.BLOCK).reshape(15, 15)
        left = round(15.5 - values["CRPIX1"])
        assert left in (7, 8)
        assert np.array_equal(pixels[:13], np.arange(900.0).reshape(30, 30)[17:, left : left + 15])
        assert np.array_equal(pixels[13:], np.full((2, 15), blank), equal_nan=True)
        assert "not covered" in missed

    @pytest.mark.parametrize(
        "ra",
        ["", "x", "nan nan", "173.8653 46.4961", "11.5 91", "4e-05 2.0", "11.5", "11 72 0 1 0 0", "1 2 3"],
    )
    def test_malformed(self, first_folder, ra):
        with FirstServer(first_folder[0]) as server:
            reply = httpx.post(server.url, data=FORM | {"RA": ra})
        assert reply.status_code == 200
        assert reply.headers["Content-Type"].startswith("text/html")
        assert "Error: could not parse coordinates" in reply.text

    def test_no_coverage_and_no_gif(self, first_folder):
        with FirstServer(first_folder[0]) as server:
            outside = httpx.post(server.url, data=FORM | {"RA": "3.0 -60.0"})
            gif = httpx.post(server.url, data=FORM | {"ImageType": "GIF Image"})
            assert httpx.get(server.url + "x").status_code == 404
        assert (outside.status_code, gif.status_code) == (200, 200)
        assert "not covered by the FIRST survey" in outside.text
        assert (gif.headers["Content-Type"], gif.content[:3]) == ("image/gif", b"GIF")

    def test_signs(self):
        assert parse_position("0 0 1.5 -0 30 0") == pytest.approx((0.00625, -0.5))
        assert parse_position("1 30.0 -10 30.0") == pytest.approx((22.5, -10.5))


class TestLegacy:
    def test_header_and_star(self, legacy_folder):
        with LegacyServer(legacy_folder) as server:
            [hdu] = hdus_of(httpx.get(server.url + "/fits-cutout", params=GRID | {"size": 40}))
        assert hdu.data.shape == (3, 40, 40)
        assert hdu.data.dtype == ">f4"
        assert hdu.header["BANDS"] == "grz"
        assert [hdu.header[f"BAND{n}"] for n in range(3)] == list("grz")
        assert hdu.header["CRPIX1"] == hdu.header["CRPIX2"] == 20.5
        assert hdu.header["CD1_1"] == pytest.approx(-0.262 / 3600)
        assert hdu.header["CD2_2"] == pytest.approx(0.262 / 3600)
        assert hdu.header["VERSION"] == "DR9"
        assert "DATE" not in hdu.header
        assert np.array_equal(hdu.data, fits.getdata(legacy_folder / "whole.fits"))
        assert server.requests[0][:2] == ("GET", "/viewer/fits-cutout")
        assert server.requests[0][2]["size"] == "40"

    def test_a_star_lands_where_the_header_says(self, legacy_folder):
        """The star's sky position, asked for as the centre at another scale, is where the light is."""
        source = header.parse_header((legacy_folder / "whole.fits").read_bytes())[0]
        ra, dec = header.celestial_wcs(source).wcs_pix2world([[12, 30]], 0)[0]
        params = GRID | {"ra": ra, "dec": dec, "size": 21, "pixscale": 0.1, "bands": "zr"}
        with LegacyServer(legacy_folder) as server:
            image = hdus_of(httpx.get(server.url + "/cutout.fits", params=params))[0]
        assert image.header["BANDS"] == "zr"
        assert image.data[:, 10, 10] == pytest.approx([3, 2], rel=1e-5)
        assert image.data.max(axis=(1, 2)) == pytest.approx([3, 2], rel=1e-5)

    def test_unobserved_is_zero_there_and_in_invvar(self, legacy_folder):
        params = GRID | {"size": 60, "invvar": "", "maskbits": ""}
        with LegacyServer(legacy_folder) as server:
            with hdus_of(httpx.get(server.url + "/cutout.fits", params=params)) as hdus:
                image, invvar, mask = hdus
                assert [h.header["IMAGETYP"] for h in hdus] == ["IMAGE", "INVVAR", "MASKBITS"]
                assert mask.data.shape == (60, 60)
                assert np.array_equal(invvar.data, np.where(image.data == 0, 0, INVVAR))
                assert np.count_nonzero(image.data[1]) == 1600
                assert np.count_nonzero(image.data[0]) == 1600 - 25
            with hdus_of(httpx.get(server.url + "/cutout.fits", params=params | {"pixscale": 0.524})) as hdus:
                assert len(hdus) == 1

    def test_traps(self, legacy_folder):
        with LegacyServer(legacy_folder) as server, httpx.Client() as client:

            def get(path="/cutout.fits", without=(), **changes):
                params = {name: value for name, value in (GRID | changes).items() if name not in without}
                return client.get(server.url + path, params=params)

            assert (get(layer="ls-dr99").status_code, get(layer="ls-dr99").text) == (200, "no such layer")
            assert (get(without=["ra"]).status_code, get(without=["ra"]).text) == (
                400,
                "Need ra,dec keywords",
            )
            assert get(ra=10.0).status_code == 500
            assert get(size="big").status_code == 500
            assert get("/nothing").status_code == 404
            assert hdus_of(get(bands="griz"))[0].header["BANDS"] == "grz"
            assert hdus_of(get(bands="qrz", without=["layer"]))[0].header["BANDS"] == "grz"
            assert hdus_of(get(bands="r"))[0].data.shape == (32, 32)
            assert hdus_of(get(width=4000, height=2))[0].data.shape == (3, 2, 3000)
            south = hdus_of(get(bands="griz", layer="ls-dr10-south"))[0]
            assert south.header["BANDS"] == "griz"
            r, i, z = south.data[1:]
            assert np.array_equal(i, (r + z) / 2)
            assert i.any()

    @pytest.mark.parametrize("absent", [0.0, np.nan])
    def test_the_seam(self, tmp_path, absent):
        """North of Dec 32.375 other files, without i; the layers of one side know only theirs."""
        step = 0.262 / 3600
        for side, value in (("north", 2.0), ("south", 5.0)):
            hdu = fits.PrimaryHDU(np.full((3, 60, 60), value, np.float32))
            hdu.header.update(
                BANDS="grz", CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=180.0, CRVAL2=32.375, CRPIX1=30.5,
                CRPIX2=30.5, CD1_1=-step, CD1_2=0.0, CD2_1=0.0, CD2_2=step,
            )  # fmt: skip
            hdu.writeto(tmp_path / f"{side}-a.fits")
        params = GRID | {"ra": 180.0, "dec": 32.375, "size": 20}
        with LegacyServer(tmp_path) as server, httpx.Client() as client:
            server.absent = absent

            def cube(layer, bands="griz"):
                changes = {"layer": layer, "bands": bands}
                return hdus_of(client.get(server.url + "/cutout.fits", params=params | changes))[0].data

            assert np.unique(cube("ls-dr9-north")).tolist() == [2]
            assert np.unique(cube("ls-dr9-south")).tolist() == np.unique(cube("ls-dr10-south")).tolist() == [5]
            assert (cube("ls-dr9").shape, cube("ls-dr10").shape) == ((3, 20, 20), (4, 20, 20))
            for plane in cube("ls-dr10")[[0, 1, 3]]:
                assert np.unique(plane[:10]).tolist() == [5]
                assert np.unique(plane[10:]).tolist() == [2]
            i = cube("ls-dr10")[2]
            assert np.unique(i[:10]).tolist() == [5]
            assert np.array_equal(i[10:], np.full((10, 20), absent), equal_nan=True)

    def test_jpeg(self, legacy_folder):
        with LegacyServer(legacy_folder) as server:
            reply = httpx.get(server.url + "/jpeg-cutout", params=GRID | {"size": 40})
            blank = httpx.get(server.url + "/cutout.jpg", params=GRID | {"ra": 10.0})
        assert reply.headers["Content-Type"] == blank.headers["Content-Type"] == "image/jpeg"
        picture = np.asarray(Image.open(io.BytesIO(reply.content)))
        assert picture.shape == (40, 40, 3)
        brightest = np.unravel_index(picture.sum(axis=2).argmax(), (40, 40))
        assert np.allclose(brightest, (39 - 30, 12), atol=1), "north is up, east is left"
        assert blank.status_code == 200
        assert np.ptp(np.asarray(Image.open(io.BytesIO(blank.content)))) == 0

    def test_positions_and_truncated_files(self, legacy_folder):
        short = (legacy_folder / "zz_short.fits").read_bytes()
        positions = {"zz_short.fits": (210.5, -3.25)}
        with LegacyServer(legacy_folder, positions) as server:
            assert httpx.get(server.url + "/cutout.fits", params=GRID).status_code == 500
            reply = httpx.get(server.url + "/cutout.fits", params=GRID | {"ra": 210.5, "dec": -3.25})
        assert len(reply.content) == len(short) == int(reply.headers["Content-Length"])
        values, size = header.parse_header(reply.content)
        assert size > len(short)
        assert header.centre(values) == (210.5, -3.25)
        with LegacyServer(legacy_folder, {"whole.fits": (359.9999, 89.0)}) as server:
            params = GRID | {"ra": 0.0001, "dec": 89.0, "size": 24}
            assert hdus_of(httpx.get(server.url + "/cutout.fits", params=params))[0].data.all()


class TestFaults:
    @pytest.fixture
    def server(self, first_folder):
        with FirstServer(first_folder[0]) as server:
            yield server

    @pytest.fixture
    def post(self, server):
        with httpx.Client(timeout=0.3, headers={"User-Agent": "test/1"}) as client:
            yield lambda: client.post(server.url, data=FORM)

    def test_consumed_one_a_request(self, server, post, first_folder):
        server.faults += ["503", "ok", "429", "429:", "429:86400", "html"]
        replies = [post() for _ in range(7)]
        assert [r.status_code for r in replies] == [503, 200, 429, 429, 429, 200, 200]
        assert [r.headers.get("Retry-After") for r in replies[2:5]] == ["1", None, "86400"]
        assert "html" in replies[5].text
        assert replies[1].content == replies[6].content == first_folder[1]
        assert (len(server.requests), server.faults, server.most_at_once) == (7, [], 1)
        assert server.user_agents == ["test/1"] * 7
        assert server.times == sorted(server.times)

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("reset", httpx.ReadError),
            ("truncate", httpx.RemoteProtocolError),
            ("stall", httpx.ReadTimeout),
        ],
    )
    def test_broken(self, server, post, first_folder, fault, error):
        server.faults.append(fault)
        with pytest.raises(error):
            post()
        assert post().content == first_folder[1]

    def test_truncated_unsaid(self, server, post, first_folder):
        _, raw = first_folder
        server.faults += ["truncate_no_length", "truncate_no_length:2880"]
        half, block = post(), post()
        assert (half.status_code, "Content-Length" in half.headers) == (200, False)
        assert (half.content, block.content) == (raw[: len(raw) // 2], raw[:2880])

    def test_a_drip_beats_the_read_timeout(self, server, post, first_folder):
        server.faults.append("drip:0.6")
        start = time.monotonic()
        assert post().content == first_folder[1]
        assert time.monotonic() - start > 0.5

    def test_an_unknown_fault_is_loud(self, first_folder):
        server = FirstServer(first_folder[0])
        server.faults.append("typo")
        with server:
            assert httpx.post(server.url, data=FORM).status_code == 500
            assert "unknown fault 'typo'" in server.bugs.pop()
            server.bugs.append("a bug")
            with pytest.raises(RuntimeError, match="a bug"):
                server.raise_bugs()
            server.bugs.clear()

    def test_leaving_waits_for_nobody(self, first_folder):
        start = time.monotonic()
        with FirstServer(first_folder[0]) as server, httpx.Client(timeout=0.1) as client:
            client.post(server.url, data=FORM)
            server.faults.append("stall:60")
            with pytest.raises(httpx.ReadTimeout):
                client.post(server.url, data=FORM)
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("module", ["first", "legacy"])
def test_command(module, tmp_path):
    """It prints its URL on one line and serves until killed."""
    command = [sys.executable, "-m", f"tests.servers.{module}", "--folder", tmp_path]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            assert httpx.get(url, params={"RA": "1.5 1.5", "ImageType": "FITS"}).status_code in (200, 404)
        finally:
            process.kill()


def real_folder(path):
    root = os.environ.get("GALGAZE_TEST_DATA")
    if not root or not Path(root, path).is_dir():
        pytest.skip(f"GALGAZE_TEST_DATA names no folder with {path}")
    return Path(root, path)


HEADER_90_ARCSEC_OFF = "100_209.593+018.300_0.1616_0048.72.fits.gz"


def test_real_first():
    folder = real_folder("first/mirabest/fits")
    with FirstServer(folder) as server, httpx.Client() as client:
        for path in {*header.fits_files(folder)[::100], folder / HEADER_90_ARCSEC_OFF}:
            name_ra, name_dec = float(path.name[4:11]), float(path.name[11:19])
            reply = client.post(server.url, data=FORM | {"RA": f"{name_ra / 15:.6f} {name_dec}"})
            assert reply.content == gzip.decompress(path.read_bytes())


def test_real_legacy():
    folder = real_folder("decals/fits")
    positions = {path.name: (10.0 * n, 1.0 * n) for n, path in enumerate(header.fits_files(folder), start=1)}
    with LegacyServer(folder, positions) as server, httpx.Client() as client:
        for path, (ra, dec) in zip(header.fits_files(folder), positions.values(), strict=True):
            values, size = header.parse_header(path.read_bytes())
            params = {"ra": ra, "dec": dec, "size": values["NAXIS1"], "pixscale": values["CD2_2"] * 3600}
            reply = client.get(server.url + "/cutout.fits", params=GRID | params)
            assert reply.status_code == 200
            if path.stat().st_size < size:
                assert len(reply.content) == path.stat().st_size
            else:
                assert np.array_equal(fits.getdata(io.BytesIO(reply.content)), fits.getdata(path))
