"""SkyView as a survey: what is asked for and how often, what counts as no coverage, and what is refused."""

from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import numpy as np
import pytest
from tests.servers.base import Reply, page
from tests.servers.skyview import FORM_PATH, RUN_PATH, Sky, SkyviewServer, result

from galgaze import status
from galgaze.config import HttpSettings, RadioPreparation, SkyviewSurvey
from galgaze.errors import BadImage, ConfigError, NoCoverage, ServiceDown, TransientError
from galgaze.images.preparation import prepare
from galgaze.surveys.base import Source
from galgaze.surveys.registry import open_survey

RA, DEC = 161.2647751, 2.0
SOURCE, FAR = Source("a", RA, DEC), Source("far", 45.0, -60.0)
NORTH_EAST = (RA + 18 / 3600, DEC + 27 / 3600, 0.005)  # 10 px east, 15 px north
SKY = Sky(((RA, DEC, 0.02), NORTH_EAST), RA, DEC)


@pytest.fixture
def server():
    with SkyviewServer(SKY) as server:
        yield server


@pytest.fixture
def opened(server, tmp_path):
    surveys = []

    def opened(**changes):
        http = HttpSettings(attempts=2, backoff_s=0, pause_s=0, timeout_s=20, give_up_after=4)
        settings = SkyviewSurvey(**{"kind": "skyview", "url": server.url, "size_px": 60, "http": http} | changes)
        surveys.append(open_survey(settings, "me", tmp_path / "hosts", tmp_path / "cache"))
        return surveys[-1]

    yield opened
    for survey in surveys:
        survey.close()


def paths(server):
    return [path for _, path, _ in server.requests]


class TestDownload:
    def test_round_trip(self, server, opened):
        survey = opened()
        body, url = survey.download(SOURCE)
        assert b"\t" in body, "the body is kept as it was served"
        cutout = survey.decode(body, SOURCE)
        assert (cutout.bands, cutout.rendered, cutout.pixels.shape) == ("", False, (1, 60, 60))
        assert cutout.observed.all()
        assert cutout.centre_px == pytest.approx((29.5, 29.5), abs=1e-3)
        assert cutout.jacobian_arcsec == pytest.approx(np.diag([-1.8, 1.8]), abs=1e-4)
        plane = cutout.pixels[0]
        assert plane[29:31, 29:31].min() > 0.015, "the source stands in the middle"
        assert plane[44:46, 19:21].min() > 0.004, "north is at higher rows, east at lower columns"
        assert url.startswith(server.url.replace("basicform", "runquery") + "?")
        assert set(server.user_agents) == {server.user_agents[0]}
        assert server.user_agents[0].endswith("(me)")

    def test_what_is_asked_for(self, server, opened):
        opened().download(SOURCE)
        method, _, params = server.requests[1]
        wanted = {
            "Position": "161.2647751 2.0000000", "survey": "VLA FIRST (1.4 GHz)", "pixels": "60", "size": "0.03",
            "imscale": "0.03", "projection": "Tan", "coordinates": "J2000", "float": "on",
        }  # fmt: skip
        assert method == "GET"
        assert {name: params[name] for name in wanted} == wanted
        assert params["Sampler"] == "_skip_", "the form's own default"

    @pytest.mark.parametrize(("ra", "dec", "sent"), [(359.99999999, -0.5, "0.0000000 -0.5000000"), (1e-6, -1e-6, None)])
    def test_positions_are_in_fixed_point(self, server, opened, ra, dec, sent):
        source = Source("edge", ra, dec)
        server.sky = Sky(((ra, dec, 0.02),), ra, dec)
        survey = opened()
        assert survey.decode(survey.download(source)[0], source).centre_px == pytest.approx((29.5, 29.5), abs=1e-3)
        assert server.requests[1][2]["Position"] == (sent or "0.0000010 -0.0000010")

    def test_two_requests_a_source_and_the_form_once(self, server, opened):
        survey = opened()
        sources = [Source(str(number), RA + number * 1e-3, DEC) for number in range(6)]
        with ThreadPoolExecutor(4) as pool:
            bodies = [body for body, _ in pool.map(survey.download, sources)]
        assert paths(server).count(FORM_PATH) == 1
        assert len(server.requests) == 1 + 2 * len(sources)
        assert len(set(bodies)) == len(sources)
        for source, body in zip(sources, bodies, strict=True):
            assert survey.decode(body, source).centre_px == pytest.approx((29.5, 29.5), abs=1e-3)

    def test_the_cost(self, opened):
        [cost] = opened().ways(np.zeros(10), np.zeros(10))
        assert (cost.way, cost.requests, cost.files) == ("cutouts", 20, 10)
        assert 0.3 < cost.megabytes < 1

    def test_identity(self, opened):
        identity = opened().identity()
        assert opened(url="http://other").identity() == identity
        others = [{"survey": "NVSS"}, {"size_px": 61}, {"pixel_scale_arcsec": 2.0}]
        assert all(opened(**change).identity() != identity for change in others)

    def test_an_unknown_survey_costs_one_request(self, server, opened):
        with pytest.raises(
            ConfigError, match=r"no survey 'VLA FIRST \(1.4GHz\)'\. Correct `survey`.*Near .*VLA FIRST \(1.4 GHz\)"
        ):
            opened(survey="VLA FIRST (1.4GHz)").download(SOURCE)
        assert paths(server) == [FORM_PATH]


class TestNoCoverage:
    @pytest.mark.parametrize(
        ("without", "match", "requests"),
        [
            ("error page", r"no images of VLA FIRST \(1.4 GHz\) there", 2),
            ("dead link", r"no images of VLA FIRST \(1.4 GHz\) there", 2),
            ("blank", "holds nothing", 3),
        ],
    )
    def test_all_its_ways_to_say_so(self, server, opened, without, match, requests):
        server.without = without
        with pytest.raises(NoCoverage, match=match):
            opened().download(FAR)
        assert len(server.requests) == requests, "the answer is final"

    def test_a_part_is_for_the_preparation_to_judge(self, server, opened):
        server.sky = SKY._replace(ra=RA + 30 / 3600, radius_arcsec=60)
        survey = opened()
        cutout = survey.decode(survey.download(SOURCE)[0], SOURCE)
        assert 0.3 < cutout.observed.mean() < 0.9
        assert prepare(cutout, RadioPreparation(size_px=60)).status == status.PARTIAL_COVERAGE

    @pytest.mark.parametrize(
        "text", ["<h2> Error processing survey: FIRST</h2><p>Error: null<p>", "", "<a href='x.jpg'>JPEG</a>"]
    )
    def test_other_trouble_is_not_no_coverage(self, server, opened, monkeypatch, text):
        good = server.answer
        monkeypatch.setattr(
            server, "answer", lambda path, params: result("", text) if path == RUN_PATH else good(path, params)
        )
        with pytest.raises(
            TransientError, match=r"no FITS file; SkyView says: .*" + ("Error: null" if "null" in text else "")
        ):
            opened().download(SOURCE)
        assert paths(server) == [FORM_PATH, RUN_PATH, RUN_PATH]

    def test_a_dead_link_without_a_reason(self, server, opened, monkeypatch):
        text = "<a href=../../tempspace/fits/skv1.fits>FITS</a>"
        good = server.answer
        monkeypatch.setattr(
            server, "answer", lambda path, params: result("", text) if path == RUN_PATH else good(path, params)
        )
        with pytest.raises(TransientError, match=r"HTTP 404 from http.*/tempspace/fits/skv1.fits"):
            opened().download(SOURCE)


class TestTrouble:
    @pytest.mark.parametrize("step", [0, 1, 2])
    @pytest.mark.parametrize("fault", ["503", "reset", "html", "truncate", "truncate_no_length:200"])
    def test_each_step_is_tried_again(self, server, opened, step, fault):
        server.faults += ["ok"] * step + [fault]
        survey = opened()
        assert survey.decode(survey.download(SOURCE)[0], SOURCE).observed.all()
        assert len(server.requests) == 4

    @pytest.mark.parametrize(("step", "error"), [(0, TransientError), (1, TransientError), (2, BadImage)])
    def test_html_for_ever(self, server, opened, step, error):
        server.faults += ["ok"] * step + ["html"] * 2
        with pytest.raises(error, match=r"expected, this came: Something|no FITS file|not a FITS file"):
            opened().download(SOURCE)

    @pytest.mark.parametrize("step", [0, 1, 2])
    def test_forbidden(self, server, opened, step):
        server.faults += ["ok"] * step + ["403"]
        with pytest.raises(TransientError, match="HTTP 403"):
            opened().download(SOURCE)

    def test_a_form_that_failed_is_asked_for_again(self, server, opened):
        survey = opened()
        server.faults += ["503"] * 2
        with pytest.raises(TransientError):
            survey.download(SOURCE)
        assert survey.download(SOURCE)[0].startswith(b"SIMPLE")

    def test_told_to_come_back_tomorrow(self, server, opened):
        server.faults += ["ok", "429:86400"]
        survey = opened()
        for _ in range(2):
            with pytest.raises(ServiceDown):
                survey.download(SOURCE)
        assert len(server.requests) == 2


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"pixels": "59"}, r"\(1, 59, 59\) pixels came, \(1, 60, 60\) were asked for"),
            ({"size": "0.031"}, "1.8600 arcsec a pixel came, 1.8 were asked for"),
            ({"Position": f"{RA} {DEC + 4 / 3600}"}, "2.2 px off the centre"),
        ],
    )
    def test_something_else_than_asked_for(self, server, opened, changes, match):
        server.changes = changes
        with pytest.raises(BadImage, match=match):
            opened().download(SOURCE)
        assert len(server.requests) == 4, "the image was asked for twice"

    def test_a_constant_map(self, server, opened, monkeypatch):
        monkeypatch.setattr(
            Sky, "image", lambda self, cards, shape: (np.full(shape, 7, np.float32), np.ones(shape, bool))
        )
        with pytest.raises(BadImage, match=r"constant \(7\)"):
            opened().download(SOURCE)


def test_the_pages_that_astroquery_keeps(server, opened, monkeypatch):
    """Pages of the real service; the one that answers was asked for three surveys."""
    folder = files("astroquery.skyview") / "tests/data"
    if not (folder / "query_page.html").is_file():
        pytest.skip("astroquery was installed without its test data")
    good = server.answer
    kept = {FORM_PATH: "query_page.html", RUN_PATH: "results.html"}

    def answer(path, params):
        if path == "/tempspace/fits/skv6724208473423_1.fits":
            return good(*made)
        return Reply(200, (folder / kept[path]).read_bytes()) if path in kept else page("Not found", 404)

    opened().download(SOURCE)
    made = ("/tempspace/fits/skv1000.fits", {})
    monkeypatch.setattr(server, "answer", answer)
    survey = opened()
    assert survey.decode(survey.download(SOURCE)[0], SOURCE).observed.all()
    params = server.requests[4][2]
    assert (params["survey"], params["Deedger"], params["scaling"]) == ("VLA FIRST (1.4 GHz)", "_skip_", "Linear")
    with pytest.raises(ConfigError, match="no survey 'VLASS'"):
        opened(survey="VLASS").download(SOURCE)
