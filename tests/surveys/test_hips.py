"""hips2fits as a survey: three planes made into one cube, or one plane; what is refused, and whom an error blames."""

import numpy as np
import pytest
from tests.servers.base import Reply, page
from tests.servers.hips import HipsServer, refusal
from tests.servers.skyview import Sky

from galgaze import status
from galgaze.config import HipsSurvey, HttpSettings, OpticalPreparation, RadioPreparation
from galgaze.errors import BadImage, ConfigError, NoCoverage, TransientError
from galgaze.images.preparation import prepare
from galgaze.surveys.base import Source
from galgaze.surveys.legacy import decode_grz
from galgaze.surveys.registry import open_survey

RA, DEC, SCALE = 150.0, 2.0, 0.5
SOURCE, FAR = Source("a", RA, DEC), Source("far", 45.0, -60.0)
IDENTIFIERS = {band: f"CDS/P/DESI-Legacy-Surveys/DR10/{band}" for band in "grz"}
RADIO = {"radio": "CDS/P/FIRST"}
ONE = Sky(((RA, DEC, 1.0), (RA + 2.5 / 3600, DEC + 5 / 3600, 0.5)), RA, DEC, sigma_arcsec=1.0)


def brighter(times):
    return ONE._replace(stars=tuple((ra, dec, peak * times) for ra, dec, peak in ONE.stars))


@pytest.fixture
def server():
    skies = {IDENTIFIERS["g"]: ONE, IDENTIFIERS["r"]: brighter(2), IDENTIFIERS["z"]: brighter(4), "CDS/P/FIRST": ONE}
    with HipsServer(skies) as server:
        yield server


@pytest.fixture
def opened(server, tmp_path):
    surveys = []

    def opened(**changes):
        http = HttpSettings(attempts=2, backoff_s=0, pause_s=0, timeout_s=20, give_up_after=4)
        given = {"kind": "hips2fits", "url": server.url, "hips": IDENTIFIERS, "size_px": 40, "http": http}
        given |= {"pixel_scale_arcsec": SCALE}
        surveys.append(open_survey(HipsSurvey(**given | changes), "me", tmp_path / "hosts", tmp_path / "cache"))
        return surveys[-1]

    yield opened
    for survey in surveys:
        survey.close()


def fetched(survey, source=SOURCE):
    return survey.decode(survey.download(source)[0], source)


def asked(server):
    return [params["hips"][-1] for _, _, params in server.requests]


class TestCube:
    def test_round_trip(self, server, opened):
        survey = opened()
        body, url = survey.download(SOURCE)
        cutout = survey.decode(body, SOURCE)
        assert (cutout.bands, cutout.rendered, cutout.pixels.shape) == ("grz", False, (3, 40, 40))
        assert cutout.pixels.dtype == np.float32
        assert cutout.observed.all()
        assert cutout.centre_px == pytest.approx((19, 19), abs=1e-4), "half a pixel off the middle, as the service does"
        assert cutout.jacobian_arcsec == pytest.approx(np.diag([-SCALE, SCALE]), abs=1e-5)
        assert cutout.pixels[:, 19, 19] == pytest.approx([1, 2, 4], rel=0.01)
        assert cutout.pixels[:, 29, 14] == pytest.approx([0.5, 1, 2], rel=0.02), "north is up, east at lower columns"
        assert len(body) % 2880 == 0
        assert asked(server) == ["g", "r", "z"]
        assert url.startswith(f"{server.url}?")
        assert server.user_agents[0].endswith("(me)")

    def test_it_is_a_cube_as_the_viewers(self, opened):
        body, _ = opened().download(SOURCE)
        cutout = decode_grz(body, SOURCE, shape=(40, 40), pixel_scale_arcsec=SCALE)
        assert cutout.pixels[:, 19, 19] == pytest.approx([1, 2, 4], rel=0.01)
        assert prepare(cutout, OpticalPreparation(field_of_view_arcsec=15, size_px=20)).status == status.OK
        for card in (b"BANDS   = 'grz     '", b"BAND0   = 'g  ", b"BAND2   = 'z  ", b"HISTORY z from HiPS CDS/P/DESI"):
            assert card in body[:5760]

    def test_what_is_asked_for(self, server, opened):
        opened().download(SOURCE)
        assert server.requests[0] == (
            "GET",
            "/hips-image-services/hips2fits",
            {
                "hips": IDENTIFIERS["g"], "width": "40", "height": "40", "projection": "TAN",
                "coordsys": "icrs", "rotation_angle": "0.0", "ra": "150.0000000", "dec": "2.0000000",
                "fov": "0.0055555556", "format": "fits",
            },
        )  # fmt: skip

    @pytest.mark.parametrize(("ra", "dec"), [(359.99999999, -0.5), (1e-6, 1e-6), (12.0, 89.9)])
    def test_positions(self, server, opened, ra, dec):
        source = Source("edge", ra, dec)
        server.skies = {name: Sky(((ra, dec, 1.0),), ra, dec) for name in server.skies}
        assert fetched(opened(), source).centre_px == pytest.approx((19, 19), abs=1e-2)
        assert all("e" not in params["ra"] + params["dec"] for _, _, params in server.requests)

    def test_the_order_of_the_keys_means_nothing(self, opened):
        turned = dict(reversed(IDENTIFIERS.items()))
        assert opened(hips=turned).download(SOURCE)[0] == opened().download(SOURCE)[0]
        assert opened(hips=turned).identity() == opened().identity()
        assert opened(url="http://other").identity() == opened().identity()
        assert opened(hips=IDENTIFIERS | {"g": "x"}).identity() != opened().identity()

    def test_the_cost(self, opened):
        [grz] = opened().ways(np.zeros(10), np.zeros(10))
        [radio] = opened(hips=RADIO).ways(np.zeros(10), np.zeros(10))
        assert (grz.requests, radio.requests, grz.files) == (30, 10, 10)
        assert grz.megabytes == pytest.approx(3 * radio.megabytes)

    def test_planes_that_do_not_lie_on_each_other(self, server, opened, monkeypatch):
        good = server.answer

        def answer(path, params):
            return good(path, params | ({"dec": f"{DEC + 0.2 / 3600}"} if params["hips"].endswith("z") else {}))

        monkeypatch.setattr(server, "answer", answer)
        with pytest.raises(BadImage, match="planes g, r and z that came do not lie on each other"):
            opened().download(SOURCE)


def test_radio(server, opened):
    survey = opened(hips=RADIO, pixel_scale_arcsec=1.0)
    cutout = fetched(survey)
    assert (cutout.bands, cutout.pixels.shape, len(server.requests)) == ("", (1, 40, 40), 1)
    assert cutout.pixels[0, 19, 19] == pytest.approx(1, rel=0.01)
    assert prepare(cutout, RadioPreparation(size_px=30)).status == status.OK


class TestNoCoverage:
    def test_nothing_there(self, server, opened):
        with pytest.raises(NoCoverage, match=r"the HiPS CDS/P/DESI-Legacy-Surveys/DR10/g \(g\) has nothing there"):
            opened().download(FAR)
        assert asked(server) == ["g"], "the answer is final, and no other plane can mend it"

    def test_a_missing_plane(self, server, opened):
        server.skies[IDENTIFIERS["z"]] = ONE._replace(ra=10.0)
        with pytest.raises(NoCoverage, match=r"\(z\) has nothing there"):
            opened().download(SOURCE)

    def test_planes_that_cover_other_halves(self, server, opened):
        server.skies[IDENTIFIERS["g"]] = ONE._replace(ra=RA + 21 / 3600, radius_arcsec=20)
        server.skies[IDENTIFIERS["z"]] = ONE._replace(ra=RA - 21 / 3600, radius_arcsec=20)
        with pytest.raises(NoCoverage, match="no pixel was observed in all of g, r and z"):
            opened().download(SOURCE)

    def test_nan_is_what_was_not_observed(self, server, opened):
        server.skies[IDENTIFIERS["r"]] = brighter(2)._replace(ra=RA + 8 / 3600, radius_arcsec=10)
        cutout = fetched(opened())
        assert 0.2 < cutout.observed.mean() < 0.8
        assert not cutout.pixels[:, ~cutout.observed].any()
        prepared = prepare(cutout, OpticalPreparation(field_of_view_arcsec=20, size_px=20))
        assert prepared.status == status.PARTIAL_COVERAGE


class TestErrors:
    def test_an_unknown_hips(self, server, opened):
        wrong = IDENTIFIERS | {"r": "CDS/P/Nothing/r"}
        with pytest.raises(
            ConfigError, match=r"^hips\.r: hips2fits refuses 'CDS/P/Nothing/r' with HTTP 400: Bad HiPS: CDS/P"
        ):
            opened(hips=wrong).download(SOURCE)
        assert asked(server) == ["g", "r"]

    def test_a_keyword_that_fits_several(self, opened):
        with pytest.raises(
            ConfigError, match=r"^hips\.radio: for 'CDS/P/DESI-Legacy-Surveys' hips2fits took 'CDS/P/DESI.*/DR10/g'"
        ):
            opened(hips={"radio": "CDS/P/DESI-Legacy-Surveys"}).download(SOURCE)

    def test_the_same_name_in_other_words(self, server, opened):
        assert fetched(opened(hips={"radio": "ivo://CDS/P/FIRST"})).observed.all()

    @pytest.mark.parametrize(
        ("reply", "error"),
        [
            (Reply(404, b"CDS/P/FIRST: no such HiPS", "text/plain"), ConfigError),
            (refusal(422, "Invalid parameter", "hips"), ConfigError),
            (
                page("The requested URL /hips-image-services/hips2fits was not found on this server", 404),
                TransientError,
            ),
            (Reply(400, b'["a list"]', "application/json"), TransientError),
            (page("Access denied by the proxy", 403), TransientError),
            (refusal(403, "Forbidden", "too many requests"), TransientError),
            (refusal(501, "Not implemented", "CDS/P/FIRST"), TransientError),
            (refusal(500, "Internal error", "CDS/P/FIRST"), TransientError),
        ],
    )
    def test_whom_an_error_blames(self, server, opened, monkeypatch, reply, error):
        monkeypatch.setattr(server, "answer", lambda *_: reply)
        with pytest.raises(error, match=f"HTTP {reply.status}"):
            opened(hips=RADIO).download(SOURCE)
        assert len(server.requests) == (2 if reply.status == 500 else 1)

    @pytest.mark.parametrize("fault", ["503", "reset", "html", "truncate", "truncate_no_length:5760"])
    def test_a_plane_is_asked_for_again(self, server, opened, fault):
        server.faults += ["ok", fault]
        assert fetched(opened()).observed.all()
        assert asked(server) == ["g", "r", "r", "z"]

    def test_html_for_ever(self, server, opened):
        server.faults += ["html"] * 2
        with pytest.raises(BadImage, match="not a FITS file"):
            opened().download(SOURCE)

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"width": "39"}, r"\(1, 40, 39\) pixels came, \(1, 40, 40\) were asked for"),
            ({"fov": "0.006"}, "0.5400 arcsec a pixel came, 0.5 were asked for"),
            ({"dec": "2.0005"}, "px off the centre"),
        ],
    )
    def test_something_else_than_asked_for(self, server, opened, changes, match):
        server.changes = changes
        with pytest.raises(BadImage, match=match):
            opened().download(SOURCE)
        assert asked(server) == ["g", "g"]
