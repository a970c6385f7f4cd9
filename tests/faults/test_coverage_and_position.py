"""Faults 7 and 26: what was not observed is not taken for sky, and a source stands where its row says."""

import numpy as np
import pytest
from astropy.stats import sigma_clipped_stats

from tests.faults.zoo import Bench
from tests.servers import header
from tests.servers.base import Reply
from tests.servers.legacy_bricks import BricksServer, Sky
from tests.surveys.bodies import SCALE, first_fits, galaxy, legacy_fits, star

# ------------------------------------------------------------------------ 7: not observed


def places_of(names):
    return {name: (150.0 + n, 2.0) for n, name in enumerate(names)}


def blanked(columns, value, bands=slice(None)):
    """A galaxy with so many western columns at a value, in some bands."""
    pixels = galaxy()
    pixels[bands, :, :columns] = value
    return pixels


def send(bench, pixels: dict, invvar: dict | None = None) -> dict:
    """Have the server send these pixels for the sources; gives their rows in the store."""
    for name, values in pixels.items():
        body = legacy_fits(values, *bench.places[name], invvar=(invvar or {}).get(name))
        bench.server.answers[bench.places[name]] = [Reply(200, body, "image/fits")]
    assert bench.fetch() == f"{len(pixels)} ok"
    return bench.shard()


def judged(rows) -> dict:
    """Status and coverage; the reasons and the pixels fit both."""
    for row in rows.values():
        assert row.valid == (row.status == "ok")
        assert row.status_reason == {
            "ok": "",
            "partial_coverage": f"{row.coverage:.0%} of the field of view was observed, 80% are needed",
            "no_coverage": "nothing of the field of view was observed",
        }.get(row.status)
        assert row.is_blank == (row.status != "ok")
    return {name: (row.status, pytest.approx(float(row.coverage), abs=1e-6)) for name, row in rows.items()}


def test_fault_07_zeros_are_no_sky(tmp_path):
    """40 columns become 16: 20 of them 8, and 5 of them 2."""
    pixels = {
        "whole": galaxy(),
        "half": blanked(20, 0),
        "an eighth": blanked(5, 0),
        "half of a band": blanked(20, 0, bands=1),
        "an eighth of a band": blanked(5, 0, bands=1),
        "a band": blanked(40, 0, bands=2),
        "all": blanked(40, 0),
    }
    with Bench(tmp_path, places=places_of(pixels)) as bench:
        rows = send(bench, pixels)
    assert judged(rows) == {
        "whole": ("ok", 1),
        "half": ("partial_coverage", 0.5),
        "an eighth": ("ok", 14 / 16),
        "half of a band": ("partial_coverage", 0.5),
        "an eighth of a band": ("ok", 14 / 16),
        "a band": ("no_coverage", 0),
        "all": ("no_coverage", 0),
    }
    for name in ("an eighth", "an eighth of a band"):
        assert not rows[name].image[:, :, 0].any(), "black, which no sky is"
        assert np.array_equal(rows[name].image[:, :, 4:], rows["whole"].image[:, :, 4:])
    assert rows["whole"].image.min() > 0


def test_fault_07_nan_is_no_sky(tmp_path):
    """A band that the layer lacks there is NaN: in part, or all over."""
    pixels = {
        "half": blanked(20, np.nan),
        "an eighth of a band": blanked(5, np.nan, bands=0),
        "a band": blanked(40, np.nan, bands=2),
        "all": blanked(40, np.nan),
    }
    zeros = {name: np.nan_to_num(values) for name, values in pixels.items()}
    both = []
    for name, sent in (("nan", pixels), ("zeros", zeros)):
        (tmp_path / name).mkdir()
        with Bench(tmp_path / name, places=places_of(pixels)) as bench:
            both.append(send(bench, sent))
    assert judged(both[0]) == judged(both[1])
    assert both[0]["a band"].status == "no_coverage"
    for name, row in both[0].items():
        assert np.array_equal(row.image, both[1][name].image)


def test_fault_07_min_coverage_is_the_users(tmp_path):
    with Bench(tmp_path, places=places_of(["half"]), preparation={"min_coverage": 0.5}) as bench:
        row = send(bench, {"half": blanked(20, 0)})["half"]
    assert (row.status, row.coverage) == ("ok", 0.5)
    assert not row.image[:, :, :7].any()
    assert row.image[:, :, 9:].min() > 0


def test_fault_07_with_weights_a_zero_is_a_measurement(tmp_path):
    """And without a weight nothing is one, whatever stands there."""
    weight = np.ones((3, 40, 40), np.float32)
    none = blanked(20, 0) * 0 + weight
    none[:, :, :20] = 0
    pixels = {"true zeros": blanked(20, 0), "no weight": galaxy(), "rubbish": blanked(20, 1e4)}
    pixels |= {"zeros": blanked(20, 0), "infinite": blanked(20, np.inf)}
    weights = dict.fromkeys(pixels, none) | {"true zeros": weight}
    with Bench(tmp_path, places=places_of(pixels), survey={"invvar": True}) as bench:
        rows = send(bench, pixels, weights)
    assert judged(rows) == {"true zeros": ("ok", 1), **dict.fromkeys(list(pixels)[1:], ("partial_coverage", 0.5))}
    assert rows["true zeros"].image[:, :, :7].min() > 0, "the colour of the empty sky"
    (tmp_path / "half").mkdir()
    with Bench(
        tmp_path / "half", places=places_of(pixels), survey={"invvar": True}, preparation={"min_coverage": 0.4}
    ) as bench:
        rows = send(bench, pixels, weights)
    for name in ("rubbish", "zeros", "infinite"):
        assert np.array_equal(rows[name].image, rows["no weight"].image)


SIZE, MAP = 100, 300
EDGE = {"middle": 150.7, "an eighth": MAP - 37.3, "a quarter": MAP - 24.3, "half": MAP + 0.7}


def first_map(edge: dict):
    """A noisy map with a source for each place near its eastern or western edge; with the places."""
    noise = np.random.default_rng(8).normal(0, 1e-3, (MAP, MAP))
    rows = {name: 40.7 + 70 * n for n, name in enumerate(edge)}
    for name, column in edge.items():
        noise += star(MAP, min(column, MAP - 4), rows[name], 2.0, 0.02)
    body = first_fits(noise.astype(np.float32))
    wcs = header.celestial_wcs(header.parse_header(body)[0])
    spots = wcs.wcs_pix2world([[edge[name], rows[name]] for name in edge], 0)
    return body, {name: tuple(map(float, spot)) for name, spot in zip(edge, spots, strict=True)}


def test_fault_07_beyond_the_edge_of_a_map_of_first(tmp_path):
    """The server sends NaN or 0 there; neither counts for the noise, by which the map is clipped."""
    places = {name: column for name, column in EDGE.items() if name != "half"}
    body, spots = first_map(places)
    found = []
    for blank in (np.nan, 0.0):
        folder = tmp_path / str(blank)
        folder.mkdir()
        how = {"files": {"map.fits": body}, "size_px": SIZE, "server": {"cut": True, "blank": blank}}
        with Bench(folder, "first", spots, **how) as bench:
            assert bench.fetch() == "3 ok"
            found.append(bench.shard())
            cutout = bench.decoded("an eighth")
    for rows in found:
        # the middle one's rows begin within the map; the first one's begin 10 below it
        share = (SIZE - 9) / SIZE
        assert {name: row.status for name, row in rows.items()} == {
            "middle": "ok", "an eighth": "ok", "a quarter": "partial_coverage",
        }  # fmt: skip
        assert rows["middle"].coverage == pytest.approx(share)
    for name in places:
        assert np.array_equal(found[0][name].image, found[1][name].image)
        assert found[0][name].coverage == found[1][name].coverage
    row = found[0]["an eighth"]
    assert np.array_equal(row.image[0], clipped(cutout.pixels[0], cutout.observed))
    assert not np.array_equal(row.image[0], clipped(cutout.pixels[0], cutout.observed | True))


def clipped(plane, counted):
    """Bowles et al. 2021's image, with the noise of the pixels that count."""
    sigma = sigma_clipped_stats(plane[counted], sigma=3.0, maxiters=5)[2]
    image = np.where(plane > 3 * sigma, plane, 0)
    return (image / image.max() * 255).astype(np.uint8)


# ------------------------------------------------------------------------ 26: where a source stands


STARS = [(64.0, 64.0), (63.5, 63.5), (50.3, 71.8), (80.25, 45.6)]  # pixels of the server's image, 0-based
AWAY = np.array([1.3, -0.9])  # arcsec east and north: how far a star is from the source beside it
WIDE = 128


def sky_of(make, scale):
    """A file a star, with one source on it, and another one beside it."""
    files, places = {}, {}
    for n, place in enumerate(STARS):
        body = make(n, place)
        files[f"{n}.fits"] = body
        ra, dec = header.celestial_wcs(header.parse_header(body)[0]).wcs_pix2world([place], 0)[0]
        places[f"on {n}"] = (float(ra), float(dec))
        shift = AWAY * scale / SCALE / 3600
        places[f"beside {n}"] = (float(ra - shift[0] / np.cos(np.radians(dec))), float(dec - shift[1]))
    return files, places


def check_positions(rows, away, reach_px):
    for name, row in rows.items():
        assert row.status == "ok"
        offset = away if name.startswith("beside") else np.zeros(2)
        expected = row.centre_px + np.linalg.inv(row.jacobian_arcsec.astype(float)) @ offset
        found = centroid(row.image.astype(float).sum(axis=0), expected, reach_px)
        assert found == pytest.approx(expected, abs=0.1), name


def centroid(image, expected, reach_px):
    """Centre of light around a place (column, row), above the background."""
    rows, columns = np.indices(image.shape)
    near = np.hypot(columns - expected[0], rows - expected[1]) < reach_px
    light = np.where(near, image - np.median(image[~near]), 0)
    return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()


@pytest.mark.parametrize("size_px", [40, 41])
@pytest.mark.parametrize("scale", [SCALE, 0.3, 0.2])
def test_fault_26_a_star_on_the_stored_image_of_legacy(tmp_path, size_px, scale):
    def make(n, place):
        noise = np.random.default_rng(n).normal(0, 1e-5, (3, WIDE, WIDE))
        return legacy_fits((0.05 * star(WIDE, *place, 2.0) + noise).astype(np.float32), 150.0 + n, 30.0 + n)

    files, places = sky_of(make, SCALE)
    prepared = {"size_px": size_px - 9, "field_of_view_arcsec": size_px * scale}
    survey = {"pixel_scale_arcsec": scale}
    with Bench(tmp_path, places=places, files=files, size_px=size_px, survey=survey, preparation=prepared) as bench:
        assert bench.fetch() == f"{len(places)} ok"
        rows = bench.shard()
    step = size_px * scale / (size_px - 9)
    for row in rows.values():
        assert row.centre_px.tolist() == [(size_px - 10) / 2] * 2
        assert row.jacobian_arcsec == pytest.approx(np.diag([-step, step]), abs=1e-4)
    check_positions(rows, AWAY, 8 * SCALE / step)


@pytest.mark.parametrize("size_px", [40, 41])
@pytest.mark.parametrize("prepared_px", [34, 35])
def test_fault_26_a_star_on_the_stored_image_of_first(tmp_path, size_px, prepared_px):
    """The servers cut whole pixels, so that the source stands beside the middle; the row says by how much."""

    def make(n, place):
        noise = np.random.default_rng(n).normal(0, 1e-5, (WIDE, WIDE))
        return first_fits((0.05 * star(WIDE, *place, 2.0) + noise).astype(np.float32), 150.0 + n, 30.0 + n)

    files, places = sky_of(make, 1.8)
    how = {"size_px": size_px, "server": {"cut": True}, "preparation": {"size_px": prepared_px}}
    with Bench(tmp_path, "first", places, files, **how) as bench:
        assert bench.fetch() == f"{len(places)} ok"
        rows = bench.shard()
    check_positions(rows, AWAY * 1.8 / SCALE, 10)
    centres = np.array([row.centre_px for row in rows.values()])
    assert np.abs(centres - (prepared_px - 1) / 2).max() <= 0.5 + 1e-4
    assert len({tuple(centre) for centre in centres.round(3)}) > 2


def test_fault_26_a_star_on_an_image_that_was_cut_from_bricks(tmp_path):
    places = {"inside": (150.0631, 2.0107), "other pixel": (150.0501, 1.9713)}
    stars = tuple((*place, 0.05, 3.0) for place in places.values())
    with (
        BricksServer(Sky(stars=stars)) as bricks,
        Bench(tmp_path, places=places, preparation={"size_px": 33}) as bench,
    ):
        bench.configure(mode="bricks", bricks_url=bricks.url)
        assert bench.fetch() == "2 ok"
        check_positions(bench.shard(), AWAY, 12)
        assert bench.server.requests == []
        assert len(bricks.requests) == 3, "a file a band"
