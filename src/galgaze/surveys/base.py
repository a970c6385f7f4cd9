"""What every survey does: turn a source into bytes, and bytes into a checked cutout."""

import abc
import collections
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from galgaze.surveys.http import PoliteClient


@dataclass(frozen=True)
class Source:
    """One row of a field, as far as images need it."""

    source_id: str
    ra_deg: float
    dec_deg: float
    las_arcsec: float = float("nan")


@dataclass(frozen=True)
class Cutout:
    """An image centred on a source, checked and in one orientation.

    Rows run from south to north and columns from east to west where the sky is upright (FITS order); the
    Jacobian says it exactly.

    Attributes
    ----------
    pixels : numpy.ndarray
        (C, H, W) float32 fluxes, or (3, H, W) uint8 red, green, blue where `rendered`.
    bands : str
        One letter a channel, ``grz``; empty for a radio map.
    rendered : bool
        The pixels are a picture already (JPEG, PNG), not fluxes.
    observed : numpy.ndarray
        (H, W) bool: where the survey has data.
    centre_px : tuple of float
        Column and row of the source, 0-based, pixel centres at whole numbers.
    jacobian_arcsec : numpy.ndarray
        (2, 2): d(east, north) / d(column, row), arcsec a pixel; NaN where unknown.
    """

    pixels: np.ndarray
    bands: str
    rendered: bool
    observed: np.ndarray
    centre_px: tuple[float, float]
    jacobian_arcsec: np.ndarray

    @property
    def pixel_scale_arcsec(self) -> float:
        """Side of a pixel."""
        return pixel_side(self.jacobian_arcsec)


def pixel_side(jacobian: np.ndarray) -> float:
    """Side of a pixel, the square root of its area, in the Jacobian's unit; NaN where that is unknown."""
    (east_x, east_y), (north_x, north_y) = jacobian
    return float(np.sqrt(abs(east_x * north_y - east_y * north_x)))


@dataclass(frozen=True)
class Cost:
    """What it takes to fetch some sources in one way, when nothing is cached.

    Attributes
    ----------
    way : str
        ``cutouts``: a request a source; ``bricks``: whole images, cut here.
    requests : int
        To public servers.
    megabytes : float
        To download, about.
    seconds : float
        At the configured rate and speed.
    files : int
        That the cache will hold.
    """

    way: str
    requests: int
    megabytes: float
    seconds: float
    files: int


class Survey(abc.ABC):
    """Who serves the images. One file a survey, and a line in the registry.

    Attributes
    ----------
    remote : bool
        Whether `download` asks a public server; such bodies are cached, and such jobs are few at a time.
    """

    remote = False

    def __init__(self, settings):
        self.settings = settings

    @abc.abstractmethod
    def identity(self) -> dict:
        """Everything but the source that decides the bytes; plain data, hashed into cache and markers."""

    @abc.abstractmethod
    def download(self, source: Source) -> tuple[bytes, str]:
        """Get bytes for one source that `decode` accepts, and the address they came from; threads may call it.

        Raises
        ------
        NoCoverage, BadImage
            To be recorded in the source's row.
        TransientError
            When retries did not help.
        ServiceDown
            When nothing more should be asked for now.
        ConfigError
            When no source can succeed (unknown layer).
        """

    @abc.abstractmethod
    def decode(self, body: bytes, source: Source) -> Cutout:
        """Check and read what `download` gave. Raises `BadImage` or `NoCoverage`."""

    def close(self) -> None:  # noqa: B027 (most surveys hold nothing open)
        """Let go of connections."""


class RemoteSurvey(Survey):
    """A service on the network.

    Parameters
    ----------
    settings : galgaze.config.RemoteSurvey
        Of the survey.
    client : PoliteClient
        Asks; threads share it.
    cache : path
        Folder of what is kept between runs; footprints and bricks go below it too.
    no_coverage_days : float
        For how long it is believed that something is not there.
    """

    remote = True
    keeps_itself = False  # whether what it downloads is kept in a form of its own (bricks)
    bytes_a_pixel = 4

    def __init__(self, settings, client: PoliteClient, cache: str | Path, no_coverage_days: float = 90.0):
        super().__init__(settings)
        self._client, self._cache, self._no_coverage_days = client, Path(cache), no_coverage_days

    @property
    def counts(self) -> collections.Counter:
        """Requests, bytes and tries in vain of this process so far, see `PoliteClient`."""
        return self._client.counts

    def ways(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> list[Cost]:
        """The ways to get cutouts at these positions (N,), with their costs; the first is taken unless it is `auto`."""
        count = len(ra_deg)
        requests = count * self.requests_a_source()
        return [self.cost("cutouts", requests, count * self.bytes_a_source() / 1e6, count)]

    def cost(self, way: str, requests: int, megabytes: float, files: int) -> Cost:
        """With the time it takes: what is slower, the rate of requests or the download."""
        http = self.settings.http
        return Cost(way, requests, megabytes, max(requests * http.pause_s, megabytes / http.megabytes_per_s), files)

    def requests_a_source(self) -> int:
        """Requests for one cutout."""
        return 1

    def bytes_a_source(self) -> int:
        """Bytes of one cutout, about: pixels and a header."""
        return self.settings.size_px**2 * self.bytes_a_pixel + 5760

    def choose(self, way: str) -> None:
        """Take one of the `ways` from now on."""

    def outside(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
        """Whether each position (N,) lies outside of the configured footprint; nowhere, where there is none."""
        if self.settings.footprint is None or len(ra_deg) == 0:
            return np.zeros(len(ra_deg), bool)
        return ~self._footprint.covers(ra_deg, dec_deg)

    @functools.cached_property
    def _footprint(self):
        from galgaze.surveys.footprint import load_footprint  # mocpy takes a second to import

        return load_footprint(self.settings.footprint, self._client, self._cache)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()
