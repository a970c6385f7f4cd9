"""Maps of the FIRST cutout servers: what is asked for, what is believed, and who is asked next."""

import os
from pathlib import Path

import numpy as np
import pytest
from tests.servers.base import Reply, page
from tests.servers.first import FirstServer
from tests.surveys.bodies import DEC, QUICK, RA, decoder, first_fits, first_settings, galaxy, no_overlap_fits

from galgaze import status
from galgaze.config import RadioPreparation
from galgaze.errors import BadImage, NoCoverage, ServiceDown, TransientError
from galgaze.images.preparation import prepare
from galgaze.surveys.base import Source
from galgaze.surveys.first import decode_first
from galgaze.surveys.registry import open_survey

SOURCE = Source("a", RA, DEC)
HEADER_90_ARCSEC_OFF = "100_209.593+018.300_0.1616_0048.72.fits.gz"
DOWN = "http://127.0.0.1:9/cgi-bin/firstcutout"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.fits").write_bytes(first_fits())
    return tmp_path


@pytest.fixture
def server(folder):
    with FirstServer(folder) as server:
        yield server


@pytest.fixture
def opened(tmp_path):
    surveys = []

    def opened(*urls, **changes):
        surveys.append(open_survey(first_settings(*urls, **changes), "me", tmp_path / "hosts", tmp_path / "cache"))
        return surveys[-1]

    yield opened
    for survey in surveys:
        survey.close()


class TestDownload:
    def test_round_trip(self, server, opened):
        survey = opened(server.url)
        body, url = survey.download(SOURCE)
        assert b"\t" in body, "the body is kept as it was served"
        cutout = survey.decode(body, SOURCE)
        assert np.array_equal(cutout.pixels, galaxy(bands=1) * np.float32(0.01))
        assert (cutout.bands, cutout.rendered, url) == ("", False, server.url)
        assert cutout.observed.all()
        assert cutout.centre_px == pytest.approx((19.5, 19.5), abs=1e-4)
        assert cutout.jacobian_arcsec == pytest.approx(np.diag([-1.8, 1.8]), abs=1e-5)

    def test_form(self, server, opened):
        opened(server.url, size_px=300)
        opened(server.url).download(SOURCE)
        [(method, path, form)] = server.requests
        assert (method, path) == ("POST", "/cgi-bin/firstcutout")
        assert form == {
            "RA": "10.00000000 +2.0000000", "Equinox": "J2000", "ImageSize": "1.2", "ImageType": "FITS File",
            "MaxImSize": "40",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("ra", "dec", "sent"),
        [
            (1e-5, -0.5, "0.00000067 -0.5000000"),
            (10.4509, -9.28, "0.69672667 -9.2800000"),
            (0.0, -1e-6, "0.00000000 -0.0000010"),
            (359.99999999, 0.0, "0.00000000 +0.0000000"),
            (359.999, 57.5, "23.99993333 +57.5000000"),
        ],
    )
    def test_positions_are_hours_in_fixed_point(self, folder, opened, ra, dec, sent):
        (folder / "a.fits").write_bytes(first_fits(ra=ra, dec=dec))
        with FirstServer(folder) as server:
            source = Source("edge", ra, dec)
            survey = opened(server.url)
            cutout = survey.decode(survey.download(source)[0], source)
        assert server.requests[0][2]["RA"] == sent
        assert cutout.centre_px == pytest.approx((19.5, 19.5), abs=1e-3)

    def test_not_covered(self, server, opened):
        with pytest.raises(NoCoverage, match=r"says: .*The position is not covered by the FIRST survey"):
            opened(server.url, DOWN).download(Source("far", 45.0, -60.0))
        assert len(server.requests) == 1, "the answer is final: no other host is asked"

    def test_other_pages_send_it_to_the_next_host(self, folder, server, opened, monkeypatch):
        text = "Sorry, the archive is down for maintenance outside working hours; no image service today"
        monkeypatch.setattr(server, "answer", lambda *_: page(text))
        with FirstServer(folder) as second:
            assert opened(server.url, second.url).download(SOURCE)[1] == second.url
        with pytest.raises(TransientError) as error:
            opened(server.url, DOWN).download(SOURCE)
        assert f"{server.url}: HTTP 200: {text}" in str(error.value)
        assert f"{DOWN}: ConnectError" in str(error.value)

    @pytest.mark.parametrize("words", ["NoContent", "502 Bad Gateway", "No resource"])
    def test_known_words_of_trouble_are_not_asked_for_twice(self, folder, server, opened, monkeypatch, words):
        monkeypatch.setattr(server, "answer", lambda *_: Reply(200, words.encode()))
        with FirstServer(folder) as second:
            assert opened(server.url, second.url).download(SOURCE)[1] == second.url
        assert len(server.requests) == 1

    def test_unknown_words_may_pass(self, server, opened):
        server.faults.append("html")
        assert opened(server.url).download(SOURCE)[0] == first_fits()
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        "fault", ["503", "500", "404", "html", "reset", "429:86400", "truncate", "truncate_no_length:5760"]
    )
    def test_the_second_host_is_asked_when_the_first_is_in_trouble(self, folder, server, opened, fault):
        server.faults += [fault] * 2
        with FirstServer(folder) as second:
            body, url = opened(server.url, second.url).download(SOURCE)
        assert (body, url) == (first_fits(), second.url)

    @pytest.mark.parametrize("body", [b"", b"GIF87a", no_overlap_fits()])
    def test_what_is_no_image_sends_it_on(self, folder, server, opened, monkeypatch, body):
        monkeypatch.setattr(server, "answer", lambda *_: Reply(200, body, "image/x-fits"))
        with FirstServer(folder) as second:
            assert opened(server.url, second.url).download(SOURCE)[1] == second.url

    @pytest.mark.parametrize("blocks", [1, 2, 3])
    def test_a_truncated_map_is_refused(self, server, opened, blocks):
        """Also at the end of a block, and without a length: the header says how much there should be."""
        assert 2880 * blocks < len(first_fits())
        server.faults.append(f"truncate_no_length:{2880 * blocks}")
        assert opened(server.url).download(SOURCE)[0] == first_fits()
        server.faults += [f"truncate_no_length:{2880 * blocks}"] * QUICK.attempts
        with pytest.raises(BadImage, match="truncated"):
            opened(server.url).download(SOURCE)
        assert len(server.requests) == 2 + QUICK.attempts

    def test_truncated_here_and_down_there(self, server, opened):
        """That may pass: the source is not condemned."""
        server.faults += ["truncate_no_length:5760"] * QUICK.attempts
        with pytest.raises(TransientError, match=r"truncated.*; .*ConnectError"):
            opened(server.url, DOWN).download(SOURCE)

    def test_both_down(self, opened):
        with pytest.raises(TransientError, match=r"ConnectError.*; .*ConnectError") as error:
            opened(DOWN, DOWN).download(SOURCE)
        assert not isinstance(error.value, ServiceDown)

    def test_a_host_that_is_left_alone_is_passed_over(self, folder, server, opened):
        """At once; and the service is down only when all of them are."""
        survey = opened(server.url, DOWN)
        server.faults.append("429:86400")
        with pytest.raises(TransientError, match=r"come back in 86400 s.*; .*ConnectError"):
            survey.download(SOURCE)
        with FirstServer(folder) as second:
            for _ in range(3):
                assert opened(server.url, second.url).download(SOURCE)[1] == second.url
        for _ in range(QUICK.give_up_after - 1):
            with pytest.raises(TransientError):
                survey.download(SOURCE)
        with pytest.raises(ServiceDown, match=r"come back.*; .*failed 3 times in a row"):
            survey.download(SOURCE)
        assert len(server.requests) == 1

    def test_the_hosts_are_not_part_of_the_identity(self, opened):
        assert opened("http://a").identity() == opened("http://b").identity()
        assert opened("http://a").identity() != opened("http://a", size_px=41).identity()


class TestFirstimage:
    """The other form: by GET, sexagesimal, and without a field for the number of pixels."""

    @pytest.mark.parametrize("path", ["firstimage", "firstimage/post"])
    def test_round_trip(self, server, opened, path):
        url = server.url.replace("firstcutout", path)
        survey = opened(url)
        body, came_from = survey.download(SOURCE)
        assert (body, came_from) == (first_fits(), url)
        assert server.requests == [
            (
                "GET",
                f"/cgi-bin/{path}",
                {
                    "RA": "10 00 00.0000 +02 00 00.0000", "Dec": "", "Equinox": "J2000", "ImageSize": "1.2",
                    "ImageType": "FITS Image", "Download": "1", "FITS": "1",
                },
            )
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("ra", "dec", "sent"),
        [
            (173.8653, 46.4961, "11 35 27.6720 +46 29 45.9600"),
            (0.0, -0.5, "00 00 00.0000 -00 30 00.0000"),
            (359.9999999, 1.0, "00 00 00.0000 +01 00 00.0000"),
            (359.999999, -9.99999999, "23 59 59.9998 -10 00 00.0000"),
        ],
    )
    def test_positions(self, folder, opened, ra, dec, sent):
        (folder / "a.fits").write_bytes(first_fits(ra=ra, dec=dec))
        with FirstServer(folder) as server:
            survey, source = opened(server.url.replace("firstcutout", "firstimage")), Source("edge", ra, dec)
            cutout = survey.decode(survey.download(source)[0], source)
        assert server.requests[0][2]["RA"] == sent
        assert cutout.centre_px == pytest.approx((19.5, 19.5), abs=1e-3)

    def test_not_covered(self, server, opened):
        with pytest.raises(NoCoverage, match="not covered"):
            opened(server.url.replace("firstcutout", "firstimage"), DOWN).download(Source("far", 45.0, -60.0))
        assert len(server.requests) == 1


class TestEdgeOfAMap:
    """The server cuts from one map, and leaves blank what lies beyond it."""

    @pytest.fixture(params=[np.nan, 0.0])
    def wide(self, tmp_path, request):
        folder = tmp_path / "wide"
        folder.mkdir()
        (folder / "a.fits").write_bytes(first_fits(galaxy(120, bands=1)[0]))
        with FirstServer(folder, cut=True, blank=request.param) as server:
            yield server

    @pytest.mark.parametrize("form", ["firstcutout", "firstimage"])
    def test_in_the_middle(self, wide, opened, form):
        survey = opened(wide.url.replace("firstcutout", form))
        cutout = survey.decode(survey.download(SOURCE)[0], SOURCE)
        assert cutout.observed.all()
        assert cutout.pixels.shape == (1, 40, 40)

    def test_near_the_edge(self, wide, opened):
        source = Source("edge", RA, DEC + 50 * 1.8 / 3600)
        survey = opened(wide.url)
        cutout = survey.decode(survey.download(source)[0], source)
        assert cutout.observed.mean() == pytest.approx(0.75, abs=0.03)
        assert not cutout.pixels[:, ~cutout.observed].any()
        prepared = prepare(cutout, RadioPreparation(size_px=40))
        assert prepared.status == status.PARTIAL_COVERAGE
        assert prepared.coverage == pytest.approx(0.75, abs=0.03)

    @pytest.mark.parametrize("blank", [np.nan, 0.0])
    def test_blank_all_over_is_not_no_coverage(self, folder, server, opened, monkeypatch, blank):
        """It may be observed, on the neighbour's map; every host would send the same."""
        body = first_fits(np.full((40, 40), blank, np.float32))
        monkeypatch.setattr(server, "answer", lambda *_: Reply(200, body))
        with FirstServer(folder) as second:
            with pytest.raises(BadImage, match=r"^blank: the edge of the survey's map, or not observed$"):
                opened(server.url, second.url).download(SOURCE)
            assert (len(server.requests), second.requests) == (1, [])


class TestDecode:
    @pytest.fixture
    def survey(self):
        return decoder(first_settings(DOWN))

    def test_a_smaller_map_is_accepted_and_its_coverage_told(self, survey):
        cutout = survey.decode(first_fits(galaxy(34, bands=1)[0]), SOURCE)
        assert cutout.pixels.shape == (1, 34, 34)
        prepared = prepare(cutout, RadioPreparation(size_px=40))
        assert prepared.coverage == pytest.approx((34 / 40) ** 2)
        assert (prepared.status, prepared.pixels.shape) == (status.PARTIAL_COVERAGE, (1, 40, 40))

    def test_a_larger_map_is_refused(self, survey):
        with pytest.raises(BadImage, match=r"\(42, 42\) pixels came, 40 were asked for"):
            survey.decode(first_fits(galaxy(42, bands=1)[0]), SOURCE)
        assert survey.decode(first_fits(galaxy(41, bands=1)[0]), SOURCE).pixels.shape == (1, 41, 41)

    def test_axes(self, survey):
        assert survey.decode(first_fits(galaxy(bands=1)), SOURCE).pixels.shape == (1, 40, 40)
        with pytest.raises(BadImage, match=r"a map of shape \(2, 40, 40\) came, two axes"):
            survey.decode(first_fits(galaxy(bands=2)), SOURCE)

    def test_scale_and_position(self, survey):
        with pytest.raises(BadImage, match=r"2.000 arcsec a pixel came, FIRST has 1.8"):
            survey.decode(first_fits(scale=2.0), SOURCE)
        with pytest.raises(BadImage, match="does not stand on the map"):
            survey.decode(first_fits(dec=DEC + 0.02), SOURCE)

    def test_the_edge_of_the_parent_map(self, survey):
        for blank in (0, np.nan):
            pixels = galaxy(bands=1)[0]
            pixels[:, :10] = blank
            cutout = survey.decode(first_fits(pixels), SOURCE)
            assert np.array_equal(cutout.observed, pixels == pixels if blank else pixels != 0)
            assert np.isfinite(cutout.pixels).all()

    def test_useless_maps(self, survey):
        with pytest.raises(BadImage, match=r"constant \(0.5\)"):
            survey.decode(first_fits(np.full((40, 40), 0.5, np.float32)), SOURCE)
        pixels = galaxy(bands=1)[0]
        pixels[3, 3] = np.inf
        with pytest.raises(BadImage, match="infinite"):
            survey.decode(first_fits(pixels), SOURCE)
        with pytest.raises(BadImage, match="blank"):
            survey.decode(first_fits(np.zeros((40, 40), np.float32)), SOURCE)

    def test_tabs_of_the_data_stay(self, survey):
        """Only the header is repaired: the byte 9 stands in the pixels too."""
        pixels = galaxy(bands=1)[0]
        value = pixels[5, 5] = np.frombuffer(b"\x3e\t\t\t", ">f4")[0]
        raw = first_fits(pixels)
        assert b"\x3e\t\t\t" in raw
        assert survey.decode(raw, SOURCE).pixels[0, 5, 5] == value


def test_real_files_over_http(opened):
    root = os.environ.get("GALGAZE_TEST_DATA")
    if not root:
        pytest.skip("GALGAZE_TEST_DATA (a folder with first/mirabest) is not set")
    folder = Path(root, "first/mirabest/fits")
    files = [*sorted(folder.glob("*.fits.gz"))[::70], folder / HEADER_90_ARCSEC_OFF]
    found = {}
    with FirstServer(folder) as server:
        survey = opened(server.url, size_px=300)
        for path in files:
            source = Source(path.name, float(path.name[4:11]), float(path.name[11:19]))
            cutout = survey.decode(survey.download(source)[0], source)
            found[path.name] = prepare(cutout, RadioPreparation()).status
    odd = found.pop(HEADER_90_ARCSEC_OFF)
    assert odd == status.PARTIAL_COVERAGE, "its map is centred 90 arcsec away"
    assert set(found.values()) == {status.OK}


def test_a_fits_of_a_directory_may_have_any_size():
    assert decode_first(first_fits(galaxy(90, bands=1)[0]), SOURCE).pixels.shape == (1, 90, 90)
