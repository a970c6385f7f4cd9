"""Cones and boxes of queries against the sphere itself, at the seam of RA and at the poles too."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from galgaze import fields
from galgaze.config import QuerySource
from galgaze.errors import ConfigError
from tests.servers.sdss import SdssServer
from tests.servers.tap import TapServer

CENTRES = [
    (180.0, 30.0),
    (0.05, -5.0),
    (359.95, 60.0),
    (0.0, 0.0),
    (77.7, 88.5),
    (190.0, 87.0),
    (301.0, -89.4),
    (12.0, 90.0),
]


def scattered(ra: float, dec: float, count: int = 400) -> np.ndarray:
    """Positions (count, 2) in degrees within about 3 degrees of a centre."""
    random = np.random.default_rng(7)
    centre = SkyCoord(ra, dec, unit="deg")
    angles, separations = random.uniform(0, 360, count), 3 * np.sqrt(random.uniform(size=count))
    sky = centre.directional_offset_by(angles * centre.ra.unit, separations * centre.ra.unit)
    return np.column_stack([sky.ra.deg % 360, sky.dec.deg])


def found(service: str, positions: np.ndarray, tmp_path, **region) -> set[int]:
    """Which of the positions a service's answer to a region holds."""
    if service == "noirlab":
        rows = [(index, *position, "EXP", 1, 16.0, 15.0, 5.0) for index, position in enumerate(positions.tolist())]
        server = TapServer(rows)
    else:
        rows = [(index, *position, 1, 3, 16.0, 15.0, 5.0, 0) for index, position in enumerate(positions.tolist())]
        server = SdssServer(rows)
    with server:
        query = QuerySource(service=service, server=server.url, **region)
        fields.resolve_query(query, tmp_path / "answer.ecsv")
    frame = fields.read_query(tmp_path / "answer.ecsv", query, {}, None)
    kept = frame["source_id"].astype(int)
    np.testing.assert_array_equal(frame[["ra_deg", "dec_deg"]], positions[kept])
    return set(kept)


@pytest.mark.parametrize("service", ["noirlab", "sdss"])
@pytest.mark.parametrize("centre", CENTRES)
def test_cone(service, centre, tmp_path):
    positions = scattered(*centre)
    separations = SkyCoord(positions, unit="deg").separation(SkyCoord(*centre, unit="deg")).deg
    inside = set(np.flatnonzero(separations <= 1.5).tolist())
    assert 50 < len(inside) < 200
    cone = {"ra_deg": centre[0], "dec_deg": centre[1], "radius_deg": 1.5}
    assert found(service, positions, tmp_path, cone=cone) == inside


@pytest.mark.parametrize("service", ["noirlab", "sdss"])
@pytest.mark.parametrize("centre", [*CENTRES[:4], (77.7, 88.2)])
def test_box(service, centre, tmp_path):
    positions = scattered(*centre)
    east = ((positions[:, 0] - centre[0] + 180) % 360 - 180) * np.cos(np.radians(centre[1]))
    north = positions[:, 1] - centre[1]
    inside = set(np.flatnonzero((np.abs(east) <= 1.5) & (np.abs(north) <= 1)).tolist())
    assert 50 < len(inside) < 200
    box = {"ra_deg": centre[0], "dec_deg": centre[1], "width_deg": 3, "height_deg": 2}
    assert found(service, positions, tmp_path, box=box) == inside


@pytest.mark.parametrize("service", ["noirlab", "sdss"])
def test_a_box_all_around_the_sky(service, tmp_path):
    positions = np.array([[ra, 89.0] for ra in (0.0, 90.0, 179.9, 180.1, 270.0, 359.9)])
    box = {"ra_deg": 5, "dec_deg": 89, "width_deg": 6.3, "height_deg": 1}
    assert len(found(service, positions, tmp_path, box=box)) == len(positions)


@pytest.mark.parametrize("service", ["noirlab", "sdss"])
@pytest.mark.parametrize("dec", [89.8, -89.8])
def test_a_box_over_a_pole(service, dec, tmp_path):
    box = {"ra_deg": 5, "dec_deg": dec, "width_deg": 1, "height_deg": 1}
    with pytest.raises(ConfigError, match=r"query\.box: .* over a pole\. Ask for a cone there"):
        fields.resolve_query(QuerySource(service=service, box=box, server="http://nowhere"), tmp_path / "a")


@pytest.mark.parametrize("service", ["noirlab", "sdss"])
def test_small_cones_keep_their_precision(service, tmp_path):
    offsets = np.array([0.0, 0.99, 1.01, 5.0]) / 3600
    positions = np.column_stack([150.1 + offsets / np.cos(np.radians(2.2)), np.full(4, 2.2)])
    cone = {"ra_deg": 150.1, "dec_deg": 2.2, "radius_deg": 1 / 3600}
    assert found(service, positions, tmp_path, cone=cone) == {0, 1}
