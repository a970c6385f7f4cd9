"""Cutouts of the Legacy Surveys viewer: what is asked for, what is believed, and what is refused."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from tests.servers import header
from tests.servers.base import Reply
from tests.servers.legacy import LegacyServer
from tests.surveys.bodies import DEC, QUICK, RA, SCALE, decoder, galaxy, legacy_fits, legacy_settings, no_overlap_fits

from galgaze import status
from galgaze.config import HttpSettings, OpticalPreparation
from galgaze.errors import BadImage, ConfigError, NoCoverage, ServiceDown, TransientError
from galgaze.images.preparation import prepare
from galgaze.surveys.base import Source
from galgaze.surveys.legacy import decode_grz
from galgaze.surveys.legacy_bricks import BrickCutter
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
def opened(server, tmp_path):
    surveys = []

    def opened(url=None, **changes):
        settings = legacy_settings(url or server.url, **changes)
        surveys.append(open_survey(settings, "me", tmp_path / "hosts", tmp_path / "cache"))
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
            decoder(legacy_settings(url, layer=layer)).identity()
            for url, layer in [("http://a", "ls-dr9"), ("http://b", "ls-dr9"), ("http://a", "ls-dr10")]
        ]
        assert identities[0] == identities[1] != identities[2]

    def test_what_else_is_asked_for_is_part_of_the_identity(self):
        asked = [{}, {"invvar": True}, {"maskbits": True}, {"invvar": True, "maskbits": True}, {"bands": "griz"}]
        identities = [decoder(legacy_settings(layer="ls-dr10", **changes)).identity() for changes in asked]
        assert len({str(identity) for identity in identities}) == len(asked)
        assert identities[0] == {
            "kind": "legacy", "layer": "ls-dr10", "bands": "grz", "size_px": 40, "pixel_scale_arcsec": 0.262,
        }, "as before there were more: what is in a cache stays good"  # fmt: skip
        same = [decoder(legacy_settings(mode=mode)).identity() for mode in ("auto", "cutouts", "bricks")]
        assert same[0] == same[1] == same[2]

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
            opened(http=QUICK.model_copy(update={"attempts": 5})).download(FAR)
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
        with pytest.raises(ServiceDown, match="switched off"):
            opened().download(SOURCE)
        assert len(server.requests) == 1, "it has said so"

    def test_unknown_layer_is_asked_for_once(self, server, opened):
        with pytest.raises(ConfigError):
            opened(layer="ls-dr99").download(SOURCE)
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "fault", ["truncate", "html", "truncate_no_length", "truncate_no_length:2880", "truncate_no_length:0"]
    )
    def test_no_image_is_asked_for_again(self, server, opened, fault):
        server.faults.append(fault)
        assert np.array_equal(fetched(opened()).pixels, galaxy())
        assert len(server.requests) == 2

    def test_unknown_words_are_no_fault_of_the_source(self, server, opened):
        server.faults += ["html"] * 4
        with pytest.raises(TransientError, match=r"not a FITS file, it starts with: '<html>") as error:
            opened().download(SOURCE)
        assert not isinstance(error.value, ServiceDown)
        assert len(server.requests) == QUICK.attempts

    def test_429_with_a_day(self, server, opened):
        survey = opened(http=HttpSettings(attempts=4, pause_s=0))
        server.faults.append("429:86400")
        with pytest.raises(ServiceDown, match="come back in 86400 s"):
            survey.download(SOURCE)
        assert len(server.requests) == 1


class TestRefused:
    """Bodies that came with 200."""

    def refused(self, body, match, error=BadImage, **changes):
        with pytest.raises(error, match=match):
            decoder(legacy_settings(**changes)).decode(body, SOURCE)

    def test_html(self):
        self.refused(b"<html><p>Something", r"not a FITS file, it starts with: '<html>")

    @pytest.mark.parametrize("size", [0, 1, 80, 2880])
    def test_nearly_nothing(self, size):
        self.refused(legacy_fits()[:size], "not a FITS file|truncated")

    @pytest.mark.parametrize("blocks", [1, 2, 5, 7])
    def test_cut_at_a_block_without_content_length(self, server, opened, blocks):
        server.faults += [f"truncate_no_length:{2880 * blocks}"] * 4
        assert 2880 * blocks < len(legacy_fits())
        with pytest.raises(BadImage, match="truncated"):
            opened().download(SOURCE)
        assert len(server.requests) == QUICK.attempts

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (legacy_fits(galaxy(bands=4), bands="griz"), "bands 'griz' came, 'grz'"),
            (legacy_fits(galaxy(30)), r"\(30, 30\) pixels came"),
            (legacy_fits(np.full((3, 40, 40), 2.5, np.float32)), "constant"),
        ],
    )
    def test_a_whole_file_of_something_else_is_not_asked_for_again(self, server, opened, monkeypatch, body, reason):
        monkeypatch.setattr(server, "answer", lambda *_: Reply(200, body))
        with pytest.raises(BadImage, match=reason):
            opened().download(SOURCE)
        assert len(server.requests) == 1

    def test_one_byte_of_data_short(self):
        whole = len(fits.Header.fromstring(legacy_fits()).tostring()) + 3 * 40 * 40 * 4
        survey = decoder(legacy_settings())
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
    return prepare(decoder(legacy_settings()).decode(legacy_fits(pixels), SOURCE), PREPARATION)


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
        survey, source = decoder(settings), Source(name, ra, dec)
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


def test_real_files_over_http(folder, opened):
    positions = {path.name: (10.0 * n, 1.0 * n) for n, path in enumerate(header.fits_files(folder), start=1)}
    with LegacyServer(folder, positions) as server:
        survey = opened(server.url, size_px=128)
        for name, (ra, dec) in positions.items():
            source = Source(name, ra, dec)
            if name == "example_incomplete.fits":
                with pytest.raises(BadImage, match="truncated"):
                    survey.download(source)
            else:
                assert fetched(survey, source).pixel_scale_arcsec == pytest.approx(SCALE)


def test_decode_takes_any_size_and_scale_where_none_was_asked_for():
    cutout = decode_grz(legacy_fits(galaxy(56), scale=0.4), SOURCE)
    assert cutout.pixels.shape == (3, 56, 56)
    assert cutout.pixel_scale_arcsec == pytest.approx(0.4)
    with pytest.raises(BadImage, match="off the centre"):
        decode_grz(legacy_fits(ra=RA + 0.01), SOURCE)


# ---- more bands, inverse variances and masks

ALL = {"layer": "ls-dr10-south", "bands": "griz", "invvar": True, "maskbits": True}
GRIZ = galaxy(bands=4)
WEIGHTS = np.full((4, 40, 40), 62500, np.float32)
CLEAN = np.zeros((40, 40), np.int32)


def decoded(pixels=GRIZ, invvar=WEIGHTS, maskbits=CLEAN, settings=ALL):
    body = legacy_fits(pixels, bands="griz", invvar=invvar, maskbits=maskbits)
    return decoder(legacy_settings(**settings)).decode(body, SOURCE)


class TestMore:
    def test_round_trip(self, server, opened):
        survey = opened(**ALL)
        body, url = survey.download(SOURCE)
        params = server.requests[0][2]
        assert params["bands"] == "griz"
        assert {"invvar", "maskbits"} <= params.keys()
        assert "invvar=" in url
        with fits.open(io.BytesIO(body)) as hdus:
            assert [hdu.header["IMAGETYP"] for hdu in hdus] == ["IMAGE", "INVVAR", "MASKBITS"]
            assert hdus[0].data.shape == hdus[1].data.shape == (4, 40, 40)
        cutout = survey.decode(body, SOURCE)
        assert cutout.bands == "grz", "i stays in the bytes"
        assert np.array_equal(cutout.pixels, galaxy())
        assert cutout.observed.all()

    @pytest.mark.parametrize("changes", [{"invvar": True}, {"maskbits": True}])
    def test_only_what_is_asked_for_is_sent_for(self, server, opened, changes):
        survey = opened(**changes)
        survey.download(SOURCE)
        assert {"invvar", "maskbits"} & server.requests[0][2].keys() == changes.keys()
        with pytest.raises(NoCoverage):
            survey.download(FAR)
        assert not {"invvar", "maskbits"} & server.requests[-1][2].keys(), "the probe needs an image only"

    @pytest.mark.parametrize(
        "changes", [{}, {"invvar": True}, {"maskbits": True}, ALL, ALL | {"size_px": 27}, {"size_px": 33}]
    )
    def test_the_cost_is_what_comes(self, opened, changes):
        survey = opened(**changes)
        body, _ = survey.download(SOURCE)
        assert survey.bytes_a_source() == len(body)
        assert survey.requests_a_source() == 1

    def test_order_of_the_bands(self):
        pixels = GRIZ[[0, 1, 3, 2]]
        with pytest.raises(BadImage, match="bands 'grzi' came, 'griz' were asked for"):
            decoder(legacy_settings(**ALL)).decode(legacy_fits(pixels, bands="grzi"), SOURCE)
        with pytest.raises(BadImage, match="bands 'grz' came, 'griz' were asked for"):
            decoder(legacy_settings(**ALL)).decode(legacy_fits(), SOURCE)

    def test_zero_with_a_weight_is_a_measurement(self):
        pixels = GRIZ.copy()
        pixels[:, 3, 4] = pixels[0, 5, 6] = 0
        assert decoded(pixels).observed.all()
        assert (~decoded(pixels, settings=ALL | {"invvar": False}).observed).sum() == 2

    def test_no_weight_is_no_measurement(self):
        """In any of g r z; what i has does not matter."""
        weights = WEIGHTS.copy()
        for band, (column, value) in enumerate([(0, 0), (1, -1), (2, 0), (3, np.nan)]):
            weights[band, 7, column] = value
        observed = decoded(invvar=weights).observed
        assert observed[7, :5].tolist() == [False, False, True, False, True]
        assert observed.sum() == 1600 - 3
        assert not decoded(invvar=weights).pixels[:, ~observed].any()
        assert prepare(decoded(invvar=0 * WEIGHTS), PREPARATION).status == status.NO_COVERAGE

    def test_mask(self):
        """Bits 5, 6 and 7 are ALLMASK_G, _R and _Z; a bright star (1), a galaxy (12) or i (15) are no reason."""
        mask = CLEAN.copy()
        mask[2, :16] = 1 << np.arange(16)
        observed = decoded(maskbits=mask).observed
        assert np.flatnonzero(~observed[2]).tolist() == [5, 6, 7]
        assert observed.sum() == 1600 - 3
        assert np.array_equal(decoded(maskbits=mask.astype(np.int16)).observed, observed)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"invvar": None}, r"no HDU INVVAR came, which was asked for \(IMAGETYP of what came: IMAGE, MASKBITS\)"),
            ({"maskbits": None}, r"no HDU MASKBITS came.*IMAGE, INVVAR\)"),
            ({"invvar": None, "maskbits": None}, r"no HDU INVVAR and MASKBITS came.*: IMAGE\)"),
            ({"invvar": WEIGHTS[:3]}, r"INVVAR: shape \(3, 40, 40\) came, \(4, 40, 40\) was expected"),
            ({"maskbits": CLEAN[1:]}, r"MASKBITS: shape \(39, 40\) came, \(40, 40\) was expected"),
            ({"maskbits": CLEAN.astype(np.float32)}, "MASKBITS: >f4 came, whole numbers were expected"),
        ],
    )
    def test_refused(self, changes, reason):
        with pytest.raises(BadImage, match=reason):
            decoded(**changes)

    def test_an_empty_hdu(self):
        body = io.BytesIO(legacy_fits(GRIZ, bands="griz", maskbits=CLEAN))
        with fits.open(body) as hdus:
            hdus.insert(1, fits.ImageHDU(None, fits.Header({"IMAGETYP": "INVVAR"})))
            stream = io.BytesIO()
            hdus.writeto(stream)
        with pytest.raises(BadImage, match=r"INVVAR: shape None came"):
            decoder(legacy_settings(**ALL)).decode(stream.getvalue(), SOURCE)

    def test_cut_between_two_hdus(self, server, opened):
        """The file is whole, as far as its headers tell; but what was asked for is missing."""
        survey = opened(**ALL)
        length = len(legacy_fits(GRIZ, bands="griz"))
        for hdus in (1, 2):
            server.faults += [f"truncate_no_length:{hdus * length}"] * QUICK.attempts
            with pytest.raises(BadImage, match=r"no HDU .*MASKBITS came"):
                survey.download(SOURCE)
        assert len(server.requests) == 2 * QUICK.attempts
        server.faults.append(f"truncate_no_length:{length}")
        assert survey.decode(survey.download(SOURCE)[0], SOURCE).observed.all()

    @pytest.mark.parametrize("cut", [100, 3000, 28000])
    def test_cut_inside_of_another_hdu(self, server, opened, cut):
        length = len(legacy_fits(GRIZ, bands="griz"))
        server.faults += [f"truncate_no_length:{length + cut}"] * QUICK.attempts
        with pytest.raises(BadImage, match="truncated"):
            opened(**ALL).download(SOURCE)
        assert len(server.requests) == QUICK.attempts

    def test_too_coarse(self, server, opened):
        """What configuration refuses, the service would leave out without a word."""
        survey = opened()
        survey.settings = survey.settings.model_copy(update={"invvar": True, "pixel_scale_arcsec": 0.53, "size_px": 19})
        with pytest.raises(BadImage, match=r"no HDU INVVAR came.*leaves it out for coarse pixels"):
            survey.download(SOURCE)


# ---- the seam of two surveys

SEAM = 32.375


@pytest.fixture
def seam(tmp_path):
    """A northern and a southern file of the same place, unlike each other, and the server's traps."""
    folder = tmp_path / "seam"
    folder.mkdir()
    for name, seed in (("north", 1), ("south", 2)):
        body = legacy_fits(galaxy(200, seed=seed), RA, SEAM)
        (folder / f"{name}-a.fits").write_bytes(body)
    with LegacyServer(folder) as server:
        yield server


@pytest.mark.parametrize(
    ("changes", "absent"),
    [({"layer": "ls-dr9"}, 0.0), (ALL | {"layer": "ls-dr10"}, 0.0), (ALL | {"layer": "ls-dr10"}, np.nan)],
)
@pytest.mark.parametrize("off_px", [-60, -3, 0, 3, 60])
def test_on_and_beside_the_seam(seam, opened, changes, absent, off_px):
    """g r z are whole everywhere, also where i is missing."""
    seam.absent = absent
    source = Source("a", RA, SEAM + off_px * SCALE / 3600)
    survey = opened(seam.url, **changes)
    cutout = fetched(survey, source)
    assert cutout.observed.all()
    assert (cutout.bands, cutout.pixels.shape) == ("grz", (3, 40, 40))
    rows = slice(80 + off_px, 120 + off_px)
    north, south = (galaxy(200, seed=seed)[:, rows, 80:120] for seed in (1, 2))
    is_north = (np.arange(40) + off_px >= 20)[:, None]
    assert cutout.pixels == pytest.approx(np.where(is_north, north, south), abs=2e-4)


# ---- ways


class TestWays:
    RA_DEG, DEC_DEG = np.full(500, RA), np.full(500, DEC)

    def test_the_quicker_one_is_first(self, opened):
        survey = opened(http=QUICK.model_copy(update={"pause_s": 10.0}))
        many = survey.ways(self.RA_DEG, self.DEC_DEG)
        assert [cost.way for cost in many] == ["bricks", "cutouts"]
        assert many[0].seconds < many[1].seconds == 5000
        assert (many[1].requests, many[1].files) == (500, 500)
        assert many[1].megabytes == pytest.approx(500 * survey.bytes_a_source() / 1e6)
        assert [cost.way for cost in survey.ways(self.RA_DEG[:1], self.DEC_DEG[:1])] == ["cutouts", "bricks"]

    @pytest.mark.parametrize("mode", ["cutouts", "bricks"])
    def test_only_what_is_asked_for(self, opened, mode):
        assert [cost.way for cost in opened(mode=mode).ways(self.RA_DEG, self.DEC_DEG)] == [mode]

    def test_a_layer_without_bricks(self, opened):
        survey = opened(layer="ls-dr9-model")
        assert [cost.way for cost in survey.ways(self.RA_DEG, self.DEC_DEG)] == ["cutouts"]
        with pytest.raises(ConfigError, match=r"'ls-dr9-model' cannot be cut from bricks"):
            opened(layer="ls-dr9-model", mode="bricks")

    def test_choose(self, server, opened, monkeypatch):
        cut = []

        def take(self, source):
            cut.append(source)
            return legacy_fits(), "bricks:"

        monkeypatch.setattr(BrickCutter, "cut", take)
        survey = opened()
        survey.choose("bricks")
        assert survey.download(SOURCE)[1] == "bricks:"
        survey.choose("cutouts")
        assert survey.download(SOURCE)[1].startswith(server.url)
        assert opened(mode="bricks").download(SOURCE)[1] == "bricks:"
        assert (len(cut), len(server.requests)) == (2, 1)

    def test_what_bricks_give_is_checked_too(self, opened, monkeypatch):
        monkeypatch.setattr(BrickCutter, "cut", lambda *_: (legacy_fits(galaxy(30)), "bricks:"))
        with pytest.raises(BadImage, match=r"\(30, 30\) pixels came"):
            opened(mode="bricks").download(SOURCE)
