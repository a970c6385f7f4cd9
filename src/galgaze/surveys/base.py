"""What every survey does: turn a source into bytes, and bytes into a checked cutout."""

import abc
from dataclasses import dataclass

import numpy as np


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
        """Get the bytes for one source, and the address they came from.

        Raises
        ------
        NoCoverage, BadImage
            To be recorded in the source's row.
        TransientError
            When retries did not help.
        ConfigError
            When no source can succeed (unknown layer).
        """

    @abc.abstractmethod
    def decode(self, body: bytes, source: Source) -> Cutout:
        """Check and read what `download` gave. Raises `BadImage` or `NoCoverage`."""

    def close(self) -> None:  # noqa: B027 (most surveys hold nothing open)
        """Let go of connections."""
