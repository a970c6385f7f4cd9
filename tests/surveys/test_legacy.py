"""Cutouts of the Legacy Surveys viewer: what is asked for, what is believed, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from tests.servers import header
from tests.servers.base import Reply
from tests.servers.legacy import LegacyServer
from tests.surveys.bodies import DEC, RA, SCALE, galaxy, legacy_fits, legacy_settings, no_overlap_fits

from galgaze import status
from galgaze.config import HttpSettings, OpticalPreparation
from galgaze.errors import BadImage, ConfigError, NoCoverage, TransientError
from galgaze.images.preparation import prepare
from galgaze.surveys.base import Source
from galgaze.surveys.legacy import decode_grz
from galgaze.surveys.registry import open_survey

SOURCE = Source("a", RA, DEC)
FAR = Source("far", 10.0, -60.0)
PREPARATION = OpticalPreparation(field_of_view_arcsec=40 * SCALE, size_px=20)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "a.fits").write_bytes(legacy_fits())
    with LegacyServer(tmp_path) as server:
        yield server


@pytest.fixture
def opened(server):
    surveys = []

    def opened(**changes):
        surveys.append(open_survey(legacy_settings(server.url, **changes), "me"))
        return surveys[-1]

    yield opened
    for survey in surveys:
        survey.close()


def fetched(survey, source=SOURCE):
    return survey.decode(survey.download(source)[0], source)


class TestDownload:
    def test_round_trip(self, server, opened):
        survey = opened()
        body, url = survey.download(SOURCE)
        cutout = survey.decode(body, SOURCE)
        assert np.array_equal(cutout.pixels, galaxy())
        assert cutout.pixels.dtype == np.float32
        assert (cutout.bands, cutout.rendered) == ("grz", False)
        assert cutout.observed.all()
        assert cutout.centre_px == pytest.approx((19.5, 19.5), abs=1e-4)
        assert cutout.jacobian_arcsec == pytest.approx(np.diag([-SCALE, SCALE]), abs=1e-6)
        assert cutout.pixel_scale_arcsec == pytest.approx(SCALE)
        assert url.startswith(f"{server.url}/cutout.fits?")
        assert server.user_agents[0].endswith("(me)")

    @pytest.mark.parametrize("layer", ["ls-dr9", "ls-dr10-south"])
    def test_layer_and_bands_are_always_sent(self, server, opened, layer):
        fetched(opened(layer=layer))
        [(method, path, params)] = server.requests
        assert (method, path) == ("GET", "/viewer/cutout.fits")
        assert params == {
            "ra": "150.0000000", "dec": "2.0000000", "layer": layer, "pixscale": "0.262", "size": "40",
            "bands": "grz",
        }  # fmt: skip

    def test_the_layer_is_part_of_the_identity_and_the_address_is_not(self):
        identities = [
            open_survey(legacy_settings(url, layer=layer)).identity()
            for url, layer in [("http://a", "ls-dr9"), ("http://b", "ls-dr9"), ("http://a", "ls-dr10")]
        ]
        assert identities[0] == identities[1] != identities[2]

    def test_just_below_360_degrees(self, server, opened):
        with pytest.raises(NoCoverage):
            opened().download(Source("edge", 359.99999999, -60.0))
        assert server.requests[0][2]["ra"] == "0.0000000"

    def test_unknown_layer(self, opened):
        with pytest.raises(ConfigError, match=r"knows no layer 'ls-dr99'.*ls-dr8, ls-dr9, ls-dr10.*-north"):
            opened(layer="ls-dr99").download(SOURCE)

    def test_other_scale_is_resampled_by_the_service(self, opened):
        cutout = fetched(opened(pixel_scale_arcsec=0.5, size_px=20))
        assert cutout.pixels.shape == (3, 20, 20)
        assert cutout.pixel_scale_arcsec == pytest.approx(0.5)

    def test_500_while_the_service_lives_is_no_coverage(self, server, opened):
        with pytest.raises(NoCoverage, match="500 here while the service answers elsewhere"):
            opened().download(FAR)
        assert [params["ra"][:3] for _, _, params in server.requests] == ["10.", "10.", "150"]

    @pytest.mark.parametrize("probe", ["500", "404", "html"])
    def test_500_while_it_is_down_is_not(self, server, opened, probe):
        server.faults += ["500"] * 2 + [probe] * 2
        with pytest.raises(TransientError, match=r"500, and no image of the probe position.*is down"):
            opened().download(SOURCE)

    def test_an_outage_after_a_living_moment_is_not_no_coverage(self, server, opened):
        survey = opened()
        with pytest.raises(NoCoverage):
            survey.download(FAR)
        server.faults += ["500"] * 9
        with pytest.raises(TransientError, match="is down"):
            survey.download(FAR)

    @pytest.mark.parametrize("code", ["400", "403", "404", "501"])
    def test_other_errors_do_not_condemn_the_source(self, server, opened, code):
        server.faults.append(code)
        with pytest.raises(TransientError, match=rf"HTTP {code} from http.*Status {code}"):
            opened().download(SOURCE)

    def test_cutouts_switched_off(self, server, opened, monkeypatch):
        monkeypatch.setattr(server, "answer", lambda *_: Reply(200, b"No cutouts enabled"))
        with pytest.raises(TransientError, match="switched off"):
            opened().download(SOURCE)

    def test_truncated_with_length_is_asked_for_again(self, server, opened):
        server.faults.append("truncate")
        assert np.array_equal(fetched(opened()).pixels, galaxy())
        assert len(server.requests) == 2

    def test_429_with_a_day(self, server):
        survey = open_survey(legacy_settings(server.url, http=HttpSettings(attempts=4, pause_s=0)))
        server.faults.append("429:86400")
        with pytest.raises(TransientError, match="come back in 86400 s"):
            survey.download(SOURCE)
        assert len(server.requests) == 1
        survey.close()


class TestRefused:
    """Bodies that came with 200."""

    def refused(self, body, match, error=BadImage, **changes):
        survey = open_survey(legacy_settings(**changes))
        with pytest.raises(error, match=match):
            survey.decode(body, SOURCE)

    def test_html(self, server, opened):
        server.faults.append("html")
        with pytest.raises(BadImage, match=r"not a FITS file, it starts with: '<html>"):
            fetched(opened())

    @pytest.mark.parametrize("size", [0, 1, 80, 2880])
    def test_nearly_nothing(self, size):
        self.refused(legacy_fits()[:size], "not a FITS file|truncated")

    @pytest.mark.parametrize("blocks", [1, 2, 5, 7])
    def test_cut_at_a_block_without_content_length(self, server, opened, blocks):
        server.faults.append(f"truncate_no_length:{2880 * blocks}")
        assert 2880 * blocks < len(legacy_fits())
        with pytest.raises(BadImage, match="truncated"):
            fetched(opened())

    def test_one_byte_of_data_short(self):
        whole = len(fits.Header.fromstring(legacy_fits()).tostring()) + 3 * 40 * 40 * 4
        survey = open_survey(legacy_settings())
        self.refused(legacy_fits()[: whole - 1], rf"truncated: {whole - 1} bytes of the {whole}")
        assert survey.decode(legacy_fits(), SOURCE).observed.all()

    def test_bands(self):
        self.refused(legacy_fits(galaxy(bands=4), bands="griz"), r"bands 'griz' came, 'grz' were asked for")
        self.refused(legacy_fits(bands="zrg"), "bands 'zrg' came, 'grz'")
        self.refused(legacy_fits(bands=""), "bands '' came, 'grz'")
        self.refused(legacy_fits(galaxy(bands=2)), r"shape \(2, 40, 40\) does not fit the bands 'grz'")
        self.refused(legacy_fits(galaxy(bands=1)[0]), r"shape \(40, 40\) does not fit")

    def test_size(self):
        self.refused(legacy_fits(), r"\(40, 40\) pixels came, \(41, 41\) were asked for", size_px=41)
        self.refused(legacy_fits(galaxy()[:, :39]), r"\(39, 40\) pixels came, \(40, 40\)")

    def test_scale(self):
        self.refused(legacy_fits(scale=0.5), r"0.5000 arcsec a pixel came, 0.262 were asked for")

    def test_off_centre(self):
        self.refused(legacy_fits(dec=DEC + 2 * SCALE / 3600), r"stands 2.0 px off the centre")
        self.refused(legacy_fits(ra=RA + 1), "off the centre of what came")
        self.refused(legacy_fits(ra=RA + 180), "off the centre|not on the image's plane|unusable coordinates")

    @pytest.mark.parametrize(
        "cards", [{"CTYPE1": "X", "CTYPE2": "Y"}, {"CDELT1": 0.0}, {"CRVAL1": float("1e300")}, {"CTYPE2": "RA---TAN"}]
    )
    def test_coordinates(self, cards):
        self.refused(legacy_fits(**cards), r"coordinates \(WCS\)|off the centre|arcsec a pixel came")

    def test_no_overlap(self):
        self.refused(no_overlap_fits(), r"nothing overlaps this position \(OVERLAP = F\)", NoCoverage)

    def test_no_image(self):
        empty = no_overlap_fits().replace(b"OVERLAP =                    F", b"OVERLAP =                    T")
        self.refused(empty, "no image in the FITS file")

    @pytest.mark.parametrize("value", [np.inf, -np.inf, 1e30])
    def test_infinite(self, value):
        pixels = galaxy()
        pixels[1, 3, 4] = value
        self.refused(legacy_fits(pixels), "infinite or absurd values")

    def test_double_precision_beyond_single(self):
        self.refused(legacy_fits(galaxy().astype(float) * 1e60), "infinite or absurd values")

    def test_constant(self):
        self.refused(legacy_fits(np.full((3, 40, 40), 2.5, np.float32)), r"constant \(2.5\)")
        pixels = galaxy()
        pixels[2] = 7
        self.refused(legacy_fits(pixels), r"a band of it, is constant \(7\)")


def coverage_of(pixels):
    cutout = open_survey(legacy_settings()).decode(legacy_fits(pixels), SOURCE)
    return prepare(cutout, PREPARATION)


def test_zeros_are_no_sky():
    prepared = coverage_of(np.zeros((3, 40, 40), np.float32))
    assert (prepared.status, prepared.coverage) == (status.NO_COVERAGE, 0)
    assert "nothing of the field of view was observed" in prepared.status_reason
    half = galaxy()
    half[:, :, 20:] = 0
    prepared = coverage_of(half)
    assert (prepared.status, prepared.coverage) == (status.PARTIAL_COVERAGE, pytest.approx(0.5, abs=0.03))
    assert prepared.status_reason == "50% of the field of view was observed, 80% are needed"
    assert not prepared.pixels[:, :, 11:].any()


def test_a_missing_band_is_no_coverage():
    for nothing in (0, np.nan):
        pixels = galaxy()
        pixels[1] = nothing
        prepared = coverage_of(pixels)
        assert (prepared.status, prepared.pixels.any()) == (status.NO_COVERAGE, False)


def test_a_few_bad_pixels_are_none_the_less_ok():
    pixels = galaxy()
    pixels[0, :4, :4] = np.nan
    pixels[2, 10, 10] = 0
    prepared = coverage_of(pixels)
    assert prepared.status == status.OK
    assert prepared.coverage == pytest.approx(0.99)


# ---- files as the viewer served them


@pytest.fixture(scope="module")
def folder():
    root = os.environ.get("GALGAZE_TEST_DATA")
    if not root:
        pytest.skip("GALGAZE_TEST_DATA (a folder with decals/fits) is not set")
    return Path(root, "decals/fits")


def test_real_files(folder):
    files = {path.name: path.read_bytes() for path in header.fits_files(folder)}
    found = {}
    for name, body in files.items():
        values, size = header.parse_header(body)
        ra, dec = header.centre(values)
        scale = values["CD2_2"] * 3600
        settings = legacy_settings(size_px=values["NAXIS1"], pixel_scale_arcsec=scale)
        survey, source = open_survey(settings), Source(name, ra, dec)
        if len(body) < size:
            with pytest.raises(BadImage, match=f"truncated: {len(body)} bytes of the"):
                survey.decode(body, source)
            found[name] = status.BAD_IMAGE
            continue
        cutout = survey.decode(body, source)
        field_of_view = values["NAXIS1"] * scale
        found[name] = prepare(cutout, OpticalPreparation(field_of_view_arcsec=field_of_view)).status
    expected = dict.fromkeys(files, status.OK)
    expected["example_incomplete.fits"] = status.BAD_IMAGE
    expected["example_bad_pix.fits"] = status.PARTIAL_COVERAGE
    assert found == expected


def test_real_files_over_http(folder):
    positions = {path.name: (10.0 * n, 1.0 * n) for n, path in enumerate(header.fits_files(folder), start=1)}
    with LegacyServer(folder, positions) as server:
        for name, (ra, dec) in positions.items():
            survey = open_survey(legacy_settings(server.url, size_px=128))
            source = Source(name, ra, dec)
            body, _ = survey.download(source)
            if name == "example_incomplete.fits":
                with pytest.raises(BadImage, match="truncated"):
                    survey.decode(body, source)
            else:
                assert survey.decode(body, source).pixel_scale_arcsec == pytest.approx(SCALE)
            survey.close()


def test_decode_takes_any_size_and_scale_where_none_was_asked_for():
    cutout = decode_grz(legacy_fits(galaxy(56), scale=0.4), SOURCE)
    assert cutout.pixels.shape == (3, 56, 56)
    assert cutout.pixel_scale_arcsec == pytest.approx(0.4)
    with pytest.raises(BadImage, match="off the centre"):
        decode_grz(legacy_fits(ra=RA + 0.01), SOURCE)
