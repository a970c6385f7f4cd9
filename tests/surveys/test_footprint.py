"""Footprints: tables of bricks against brute force, MOCs of cones, and files that are neither."""

import gzip
import io
import json
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mocpy import MOC, TimeMOC
from tests.servers.base import Reply, SurveyServer, page
from tests.servers.header import separations_arcsec

from galgaze.config import HttpSettings, SkyviewSurvey
from galgaze.errors import ConfigError, TransientError
from galgaze.surveys.footprint import EDGE_DEG, BrickFootprint, load_footprint
from galgaze.surveys.http import PoliteClient
from galgaze.surveys.registry import open_survey

NOBODY = np.zeros(0)
INSIDE, OUTSIDE = (np.array([10.1]), np.array([20.1])), (np.array([200.0]), np.array([-20.0]))


def table(ra1, ra2, dec1, dec2, upper=False, **others) -> bytes:
    """A FITS table of bricks."""
    columns = {"ra1": ra1, "ra2": ra2, "dec1": dec1, "dec2": dec2}
    columns = {
        name.upper() if upper else name: np.atleast_1d(np.asarray(column, float)) for name, column in columns.items()
    }
    columns |= {name: np.atleast_1d(np.asarray(column, np.int16)) for name, column in others.items()}
    kinds = {"f": "D", "i": "I"}
    made = [fits.Column(name, kinds[column.dtype.kind], array=column) for name, column in columns.items()]
    return written(fits.BinTableHDU.from_columns(made))


def written(*hdus) -> bytes:
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(stream)
    return stream.getvalue()


def saved(moc, kind, tmp_path) -> bytes:
    moc.save(tmp_path / f"saved.{kind}", format=kind, overwrite=True)
    return (tmp_path / f"saved.{kind}").read_bytes()


def cone(ra=10.0, dec=20.0, radius=1.0, order=9):
    return MOC.from_cone(lon=ra * u.deg, lat=dec * u.deg, radius=radius * u.deg, max_depth=order)


@pytest.fixture
def client(tmp_path):
    http = HttpSettings(attempts=2, backoff_s=0, pause_s=0, timeout_s=20)
    client = PoliteClient(http, hosts=tmp_path / "hosts")
    yield client
    client.close()


@pytest.fixture
def load(client, tmp_path):
    def load(body: bytes):
        (tmp_path / "footprint").write_bytes(body)
        return load_footprint(str(tmp_path / "footprint"), client, tmp_path / "cache")

    return load


class TestBricks:
    @given(data=st.data())
    @settings(max_examples=60)
    def test_against_brute_force(self, data):
        """Bricks that overlap, wrap and touch; edges on a coarse grid, positions on and off them."""
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        count = data.draw(st.integers(1, 30))
        ra1, width = rng.integers(0, 24, count) * 15.0, rng.integers(1, 24, count) * 15.0
        ra2 = ra1 + width if data.draw(st.booleans()) else (ra1 + width) % 360
        dec1 = rng.integers(-6, 6, count) * 15.0
        dec2 = np.minimum(dec1 + rng.integers(1, 4, count) * 15.0, 90)
        ra = np.concatenate([rng.integers(0, 25, 40) * 15.0, rng.uniform(0, 360, 40), [0.0, 1e-9, 360 - 1e-9]])
        dec = np.concatenate([rng.integers(-6, 7, 40) * 15.0, rng.uniform(-90, 90, 40), [-90.0, 0.0, 90.0]])
        east_of = (ra[:, None] - ra1 + EDGE_DEG / 2) % 360
        on = (east_of <= (width + EDGE_DEG)) & (dec[:, None] >= dec1) & (dec[:, None] <= dec2)
        on |= (dec[:, None] == 90) & (dec2 == 90) | (dec[:, None] == -90) & (dec1 == -90)
        assert np.array_equal(BrickFootprint(ra1, ra2, dec1, dec2).covers(ra, dec), on.any(axis=1))

    @given(ra=st.floats(0, 360), dec=st.floats(-90, 90))
    @example(359.99, 0.0)
    @example(0.01, 0.0)
    @example(0.0, 90.0)
    @example(360.0, -90.0)
    def test_a_grid_of_the_sky_covers_all_of_it(self, ra, dec):
        sky = BrickFootprint(*whole_sky())
        assert sky.covers(np.array([ra]), np.array([dec])).all()

    @given(number=st.integers(0, 200), across=st.floats(0.01, 0.99), up=st.floats(0.01, 0.99))
    def test_a_hole_in_it(self, number, across, up):
        bricks = whole_sky()
        ra1, ra2, dec1, dec2 = bricks[:, number]
        position = np.array([ra1 + across * (ra2 - ra1)]), np.array([dec1 + up * (dec2 - dec1)])
        assert BrickFootprint(*bricks[:, [number]]).covers(*position).all()
        assert not BrickFootprint(*np.delete(bricks, number, axis=1)).covers(*position).any()

    def test_over_ra_0(self, load):
        for edges in ((359.5, 0.5), (359.5, 360.5), (-0.5, 0.5)):
            footprint = load(table(*edges, -1, 1))
            ra = np.array([359.49, 359.51, 359.99, 360.0, 0.0, 0.01, 0.49, 0.51, 180.0])
            assert footprint.covers(ra, 0 * ra).tolist() == [False, *[True] * 6, False, False]

    def test_at_a_pole_ra_means_nothing(self, load):
        footprint = load(table([0, 0], [90, 90], [88, -90], [90, -89]))
        ra, dec = np.array([10.0, 200, 200, 200, 200]), np.array([89.0, 89, 90, -90, -89.9])
        assert footprint.covers(ra, dec).tolist() == [True, False, True, True, False]

    @pytest.mark.parametrize("upper", [False, True])
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_exposures_and_the_bricks_that_touch(self, load, upper, pack):
        """A row of five bricks and one above: exposures in the third alone; one lacks z alone."""
        ra1, dec1 = np.array([0, 1, 2, 3, 4, 3]) * 1.0, np.array([0, 0, 0, 0, 0, 1]) * 1.0
        seen = np.array([0, 0, 5, 3, 0, 0])
        body = table(ra1, ra1 + 1, dec1, dec1 + 1, upper, nexp_g=seen, nexp_r=seen, nexp_z=seen * (ra1 == 2))
        footprint = load(pack(body))
        ra, dec = np.array([0.5, 1.5, 2.5, 3.5, 4.5, 3.5, 2.5]), np.array([0.5, 0.5, 0.5, 0.5, 0.5, 1.5, 1.5])
        assert footprint.covers(ra, dec).tolist() == [False, True, True, True, False, True, False]

    def test_without_exposures_every_brick_counts(self, load):
        footprint = load(table([0, 1], [1, 2], [0, 0], [1, 1], brickid=[1, 2]))
        assert footprint.covers(np.array([0.5, 1.5, 2.5]), np.array([0.5] * 3)).tolist() == [True, True, False]

    def test_as_many_as_the_surveys_tables_have(self, load):
        bricks = np.array(whole_sky(0.4))
        assert bricks.shape[1] > 250_000
        seen = (np.cos(np.radians(bricks[0])) > 0) * 1  # half of the sky
        footprint = load(table(*bricks, nexp_g=seen, nexp_r=seen, nexp_z=seen))
        rng = np.random.default_rng(1)
        ra, dec = rng.uniform(0, 360, 20_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
        covered = footprint.covers(ra, dec)
        far = (np.abs(dec) < 80) & (np.abs(np.abs((ra + 180) % 360 - 180) - 90) > 8)  # from the edges at RA 90 and 270
        assert np.array_equal(covered[far], (np.cos(np.radians(ra)) > 0)[far])


def whole_sky(side=15.0):
    """Edges (4, M) of a grid as the Legacy Surveys': rows of Dec, each of a whole number of bricks."""
    edges = []
    for south in np.arange(-90, 90, side):
        north = min(south + side, 90)
        count = max(3, int(np.ceil(360 / side * np.cos(np.radians(min(abs(south), abs(north)))))))
        west = np.arange(count) * 360 / count
        edges.append([west, west + 360 / count, np.full(count, south), np.full(count, north)])
    return np.concatenate(edges, axis=1)


class TestMoc:
    @given(
        ra=st.floats(0, 360), dec=st.sampled_from([-90.0, -89.99, -45.0, 0.0, 41.8, 89.0, 90.0]) | st.floats(-90, 90),
        radius=st.floats(0.2, 5.0), seed=st.integers(0, 1000),
    )  # fmt: skip
    @example(359.99, 0.0, 1.0, 1)
    @example(0.01, 0.0, 1.0, 1)
    @settings(max_examples=30)
    def test_a_cone(self, tmp_path_factory, ra, dec, radius, seed):
        """All of it is covered, and some cells around it; nothing further away."""
        from galgaze.surveys.footprint import MocFootprint

        footprint = MocFootprint(cone(ra, dec, radius, order=8))
        rng = np.random.default_rng(seed)
        ras, decs = rng.uniform(0, 360, 300), np.degrees(np.arcsin(rng.uniform(-1, 1, 300)))
        offsets = rng.uniform(-2 * radius, 2 * radius, (2, 300))
        near = np.clip(dec + offsets[1], -90, 90)
        ras = np.concatenate([ras, (ra + offsets[0] / np.maximum(np.cos(np.radians(near)), 0.01)) % 360, [ra]])
        decs = np.concatenate([decs, near, [dec]])
        away = separations_arcsec(ra, dec, ras, decs) / 3600
        covered = footprint.covers(ras, decs)
        assert covered[away < radius - 1e-6].all()
        assert not covered[away > radius + 3 * 0.4].any(), "cells of order 8 are 0.23 degrees wide, 0.4 across"

    def test_all_formats_say_the_same(self, load, tmp_path):
        moc = cone()
        rng = np.random.default_rng(1)
        ra, dec = 10 + rng.uniform(-3, 3, 2000), 20 + rng.uniform(-3, 3, 2000)
        bodies = [saved(moc, kind, tmp_path) for kind in ("fits", "json", "ascii")]
        bodies += [gzip.compress(bodies[0]), old_fits(moc)]
        answers = [load(body).covers(ra, dec) for body in bodies]
        assert 0.1 < answers[0].mean() < 0.5
        assert all(np.array_equal(answer, answers[0]) for answer in answers)

    def test_cells_that_touch_count(self, load):
        """Cell 0 of order 5: positions in its neighbours are covered, those behind them are not."""
        from cdshealpix.nested import healpix_to_lonlat, neighbours

        footprint = load(b"5/1000")
        around = neighbours(1000, 5).ravel().astype(np.uint64)
        lon, lat = healpix_to_lonlat(around, 5)
        assert footprint.covers(lon.deg, lat.deg).all()
        behind = np.setdiff1d(np.unique(neighbours(around, 5).astype(np.uint64)), around)
        lon, lat = healpix_to_lonlat(behind, 5)
        assert not footprint.covers(lon.deg, lat.deg).any()

    def test_finer_cells_than_order_11_are_made_coarser(self, load, tmp_path):
        """A position 2 arcmin off a MOC of cells of 0.2 arcsec may be on a ragged edge; one 10 arcmin off is not."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            footprint = load(saved(cone(radius=0.01, order=20), "fits", tmp_path))
        dec = 20 + np.array([0, 0.01 + 1 / 60, 0.01 + 10 / 60])
        assert footprint.covers(np.full(3, 10.0), dec).tolist() == [True, True, False]

    def test_poles_and_turns(self, load, tmp_path):
        footprint = load(saved(cone(0, 90, 2), "fits", tmp_path))
        ra, dec = np.array([0.0, 123, 359.99, 360, -10, 50]), np.array([90.0, 90, 89, 89, 89, 80])
        assert footprint.covers(ra, dec).tolist() == [True] * 5 + [False]


def old_fits(moc) -> bytes:
    """As written before MOC 2.0: cells as one number each."""
    cells = np.asarray(moc.uniq_hpx, np.int64)
    hdu = fits.BinTableHDU.from_columns([fits.Column("UNIQ", "K", array=cells)])
    hdu.header.update({"PIXTYPE": "HEALPIX", "ORDERING": "NUNIQ", "COORDSYS": "C", "MOCORDER": 9})
    return written(hdu)


def test_no_positions(load, tmp_path):
    for body in (table(0, 1, 0, 1), saved(cone(), "json", tmp_path)):
        answer = load(body).covers(NOBODY, NOBODY)
        assert (answer.shape, answer.dtype) == ((0,), bool)


class TestUnusable:
    def refused(self, load, body, match):
        with pytest.raises(
            ConfigError, match=f"(?s)footprint: .*{match}.*Correct `footprint` of the survey, or leave it out"
        ):
            load(body)

    @pytest.mark.parametrize("body", [b"", b" \n", gzip.compress(b"")])
    def test_empty(self, load, body):
        self.refused(load, body, "is empty")

    @pytest.mark.parametrize(
        "body",
        [b"<html>Not found</html>", b"ra,dec\n1,2\n", b"\xff\xfe\x00", b"SIMPLE", b'["a"]', b"31/1", b"1/999", b"5/1-"],
    )
    def test_neither(self, load, body):
        self.refused(load, body, "is no footprint, or damaged")

    @pytest.mark.parametrize("text", ["5/", "{}", '{"5": []}'])
    def test_a_moc_of_nothing(self, load, text):
        self.refused(load, text.encode(), "is an empty MOC")

    @pytest.mark.parametrize(
        "moc", [{"3": [1, 768]}, {"3": [-1]}, {"30": [1]}, {"a": [1]}, {"3": 1}, {"3": [1.5]}, {"3": "12"}]
    )
    def test_a_moc_of_cells_that_do_not_exist(self, load, moc):
        self.refused(load, json.dumps(moc).encode(), "is no MOC")

    def test_a_cut_moc(self, load, tmp_path):
        """mocpy reads what there is without a word."""
        body = saved(cone(), "fits", tmp_path)
        for size in (2880, 5760, 6000):
            assert size < len(body)
            self.refused(load, body[:size], "truncated|damaged|neither")

    @pytest.mark.parametrize("value", [-1, 2**62, 12345])
    def test_a_moc_with_damaged_cells(self, load, tmp_path, value):
        """mocpy takes them, or panics."""
        with fits.open(io.BytesIO(saved(cone(), "fits", tmp_path))) as hdus:
            hdus[1].data["RANGE"][20] = value
            self.refused(load, written(hdus[1]), "is a damaged MOC")

    def test_a_moc_of_something_else(self, load, tmp_path):
        self.refused(load, saved(TimeMOC.from_str("10/1-3"), "fits", tmp_path), "is a MOC of TIME, not of the sky")
        with fits.open(io.BytesIO(saved(cone(), "fits", tmp_path))) as hdus:
            hdus[1].header["COORDSYS"] = "G"
            self.refused(load, written(hdus[1]), "other coordinates than ICRS")

    def test_tables(self, load):
        self.refused(load, table([], [], [], []), "is a table of no bricks")
        self.refused(
            load, table([0, 1], [1, 2], [0, 0], [1, 1], nexp_g=[1, 0], nexp_r=[0, 1]), "without exposures in all bands"
        )
        for wrong in ([0, 1, 1, 0], [np.nan, 1, 0, 1], [0, 1, -91, 1], [0, 1, 0, 91]):
            self.refused(load, table(*np.array([[0, 1, 0, 1], wrong]).T), "bricks without sense, the first in row 2")
        other = fits.BinTableHDU.from_columns(
            [fits.Column("ra", "D", array=[1.0]), fits.Column("dec", "D", array=[1.0])]
        )
        self.refused(load, written(other), r"neither a MOC nor bricks \(columns: ra, dec\)")
        self.refused(load, written(), r"columns: none")

    def test_cut_tables(self, load):
        body = table(*whole_sky(5.0))
        for damaged in (body[:8000], gzip.compress(body)[:1000]):
            self.refused(load, damaged, "truncated|is damaged")

    def test_no_file(self, client, tmp_path):
        for where in (tmp_path / "nothing.fits", tmp_path):
            with pytest.raises(ConfigError, match=rf"footprint: the file {where} cannot be read.*Expected is a MOC"):
                load_footprint(str(where), client, tmp_path)


class FileServer(SurveyServer):
    """One body, whatever is asked for."""

    path = "/moc.fits"
    body = b""

    def answer(self, path, params):
        return Reply(200, self.body, "application/fits") if self.body else page("Not found", 404)


class TestAddress:
    @pytest.fixture
    def server(self, tmp_path):
        with FileServer() as server:
            server.body = saved(cone(), "fits", tmp_path)
            yield server

    @pytest.fixture
    def load(self, server, client, tmp_path):
        return lambda: load_footprint(server.url, client, tmp_path / "cache")

    @pytest.fixture
    def kept(self, tmp_path):
        return lambda: [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]

    def test_downloaded_once(self, server, load, kept):
        for _ in range(2):
            footprint = load()
            assert footprint.covers(*INSIDE).all()
            assert not footprint.covers(*OUTSIDE).any()
        assert len(server.requests) == 1
        [path] = kept()
        assert (path.parent.name, path.read_bytes()) == ("footprints", server.body)

    @pytest.mark.parametrize(
        "fault", ["503", "reset", "html", "truncate", "truncate_no_length", "truncate_no_length:0"]
    )
    def test_asked_for_again(self, server, load, kept, fault):
        server.faults.append(fault)
        assert load().covers(*INSIDE).all()
        assert len(server.requests) == 2
        assert kept()[0].read_bytes() == server.body

    def test_never_a_footprint(self, server, load, kept):
        server.faults += ["html"] * 2
        with pytest.raises(
            ConfigError, match=r"footprint: what came from http.*/moc.fits is no footprint.*Correct `footprint`"
        ):
            load()
        assert (len(server.requests), kept()) == (2, [])

    def test_not_there(self, server, load, kept):
        server.body = b""
        with pytest.raises(ConfigError, match=r"footprint: HTTP 404 from http.*/moc.fits.*Correct `footprint`"):
            load()
        assert (len(server.requests), kept()) == (1, [])

    @pytest.mark.parametrize("code", ["500", "503"])
    def test_down(self, server, load, kept, code):
        server.faults += [code] * 2
        with pytest.raises(TransientError, match=f"HTTP {code}"):
            load()
        assert kept() == []

    def test_a_kept_file_that_decayed(self, server, load, kept):
        load()
        kept()[0].write_bytes(server.body[:4000])
        assert load().covers(*INSIDE).all()
        assert len(server.requests) == 2
        assert kept()[0].read_bytes() == server.body

    def test_a_survey_with_one(self, server, tmp_path):
        for footprint, answer, count in ((server.url, [False, True], 1), (None, [False, False], 1)):
            settings = SkyviewSurvey(kind="skyview", url="http://127.0.0.1:9", footprint=footprint)
            survey = open_survey(settings, "me", tmp_path / "hosts", tmp_path / "cache")
            assert survey.outside(np.array([10.1, 200.0]), np.array([20.1, -20.0])).tolist() == answer
            assert survey.outside(NOBODY, NOBODY).tolist() == []
            assert len(server.requests) == count
            survey.close()
