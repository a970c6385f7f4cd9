"""A patch of sky on which components are put, and which is then seen through the seeing.

Light comes in two ways: patterns painted on the patch, and spectra (bodies and points that are known in
Fourier space). All meet there, so that a band costs one transform. Light that leaves the patch comes back in
on the other side, too faint to be seen.
"""

from functools import lru_cache

import galsim
import numpy as np
from scipy import fft

NATIVE_PIXEL_ARCSEC = 0.262
FRAME_ARCSEC = 75.4  # the least side of a patch, so that the sky does not depend on the image's size
MARGIN_PX = 16  # to each side, so that the seeing finds no edge
MOFFAT_BETA = 3.5
PSF_STEP_ARCSEC = 0.02  # seeing is rounded to it, so that its spectra can be kept
ACCURACY = galsim.GSParams(folding_threshold=1e-2, maxk_threshold=1e-2, kvalue_accuracy=1e-4)


class Canvas:
    """A square patch of native pixels around the source, large enough for an image of this size.

    Attributes
    ----------
    east, north : numpy.ndarray
        (1, N) and (N, 1) offsets of the pixels from the source in arcsec; column 0 is east, row 0 is south.
    patterns : numpy.ndarray
        (3, N, N) light painted so far.
    """

    def __init__(self, side_px: int):
        self.side = side_px
        self.n = fft.next_fast_len(
            max(int(np.ceil(FRAME_ARCSEC / NATIVE_PIXEL_ARCSEC)), side_px + 2 * MARGIN_PX), real=True
        )
        self.n += (self.n - side_px) % 2
        self.start = (self.n - side_px) // 2
        offset = (np.arange(self.n) - (self.n - 1) / 2) * NATIVE_PIXEL_ARCSEC
        self.east, self.north = -offset[None, :], offset[:, None]
        self.kx = 2 * np.pi * fft.rfftfreq(self.n, NATIVE_PIXEL_ARCSEC)
        self.ky = 2 * np.pi * fft.fftfreq(self.n, NATIVE_PIXEL_ARCSEC)
        self.centre_arcsec = (self.n - 1) / 2 * NATIVE_PIXEL_ARCSEC
        self.patterns = np.zeros((3, self.n, self.n))
        self.spectra = np.zeros((3, self.n, self.n // 2 + 1), complex)

    def _waves(self, east, north) -> tuple[np.ndarray, np.ndarray]:
        """Return the two factors of the Fourier transform of points at these places."""
        along_x = np.exp(-1j * np.outer(np.subtract(self.centre_arcsec, east), self.kx))
        along_y = np.exp(-1j * np.outer(np.add(self.centre_arcsec, north), self.ky))
        return along_x, along_y

    def add_pattern(self, flux, brightness: np.ndarray):
        """Add light of these fluxes (3,) distributed as this array, (N, N) or (3, N, N), over the patch."""
        brightness = np.broadcast_to(brightness, self.patterns.shape)
        for pattern, band_flux, plane in zip(self.patterns, flux, brightness, strict=True):
            total = plane.sum()
            if total > 0:
                pattern += band_flux / total * plane

    def add_sersic(self, flux, index, half_light_radius, axis_ratio, position_angle_deg, east=0.0, north=0.0):
        """Add a Sersic body; its half-light radius is that along the major axis."""
        profile = galsim.Sersic(
            index, half_light_radius=half_light_radius * np.sqrt(axis_ratio), gsparams=ACCURACY
        ).shear(q=axis_ratio, beta=(90 + position_angle_deg) * galsim.degrees)
        along_x, along_y = self._waves([east], [north])
        spectrum = _spectrum(profile, self.n) * along_y.T * along_x
        for plane, band_flux in zip(self.spectra, flux, strict=True):
            plane += band_flux * spectrum

    def add_blobs(self, fluxes: np.ndarray, east, north, sigma_arcsec=None):
        """Add round Gaussian blobs, or points where no widths are given; fluxes are (blobs, 3)."""
        along_x, along_y = self._waves(east, north)
        if sigma_arcsec is not None:
            along_x *= np.exp(-0.5 * np.outer(sigma_arcsec, self.kx) ** 2)
            along_y *= np.exp(-0.5 * np.outer(sigma_arcsec, self.ky) ** 2)
        for spectrum, flux in zip(self.spectra, fluxes.T, strict=True):
            spectrum += (along_y * flux[:, None]).T @ along_x

    def add_chain(self, flux, chain, sigma_arcsec):
        """Add blobs that share a flux (3,) by their weights; the chain is east, north and weights."""
        east, north, weights = chain
        fluxes = np.outer(weights / weights.sum(), flux)
        self.add_blobs(fluxes, east, north, np.broadcast_to(sigma_arcsec, len(weights)))

    def dim(self, optical_depth_r: np.ndarray, share_behind: float = 1.0):
        """Dim what is painted so far by dust of this depth in r, in front of a share of the light."""
        for pattern, relative in zip(self.patterns, DUST_DEPTH_RELATIVE_TO_R, strict=True):
            pattern *= 1 - share_behind * (1 - np.exp(-relative * optical_depth_r))

    def seen(self, psf_fwhm_arcsec) -> np.ndarray:
        """Return the patch through the seeing, a width a band: (3, side, side), nanomaggies a native pixel."""
        spectra = fft.rfft2(self.patterns)
        spectra += self.spectra
        for spectrum, fwhm in zip(spectra, psf_fwhm_arcsec, strict=True):
            spectrum *= _psf_spectrum(round(fwhm / PSF_STEP_ARCSEC), self.n)
        stop = self.start + self.side
        return fft.irfft2(spectra, s=(self.n, self.n))[:, self.start : stop, self.start : stop]


DUST_DEPTH_RELATIVE_TO_R = (1.40, 1.0, 0.56)  # g, r, z; Cardelli, Clayton & Mathis 1989 for R_V = 3.1


def _spectrum(profile: galsim.GSObject, n: int) -> np.ndarray:
    """Return the profile's Fourier transform in the layout of ``rfft2``."""
    bounds = galsim.BoundsI(0, n // 2, -(n // 2), (n - 1) // 2)
    image = galsim.ImageCD(bounds, scale=2 * np.pi / (n * NATIVE_PIXEL_ARCSEC))
    return fft.ifftshift(profile.drawKImage(image=image, recenter=False).array, axes=0)


@lru_cache(maxsize=128)
def _psf_spectrum(fwhm_steps: int, n: int) -> np.ndarray:
    # The seeing as measured in an image has the pixel in it already.
    profile = galsim.Moffat(MOFFAT_BETA, fwhm=fwhm_steps * PSF_STEP_ARCSEC, gsparams=ACCURACY)
    return _spectrum(profile, n).real
