"""Settings of the surveys, and of how public services are asked."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from galgaze.config.section import Address, Section
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_MORPHOLOGIES, check_mix

COARSEST_INVVAR_ARCSEC = 0.5  # the viewer drops invvar and maskbits, silently, about there


class HttpSettings(Section):
    """How to ask a public service: politely, and not for ever.

    What is said of a host holds for all jobs and runs together that share the folder `hosts`.
    """

    attempts: int = Field(4, ge=1, le=10, description="tries for one request before it counts as failed")
    backoff_s: float = Field(1.0, ge=0, description="seconds before the second try, about; doubles with every try")
    backoff_max_s: float = Field(60.0, ge=0, description="longest wait between two tries, Retry-After included")
    timeout_s: float = Field(60.0, gt=0, description="seconds without a byte after which a try has failed")
    deadline_s: float = Field(900.0, gt=0, description="seconds for one request in all: its tries and its waits")
    connections: int = Field(2, ge=1, le=16, description="requests in the works at one host at a time")
    pause_s: float = Field(0.2, ge=0, description="least seconds between the starts of two requests to one host")
    give_up_after: int = Field(
        10, ge=1, description="failed requests in a row to a host after which jobs stop, to be resumed later"
    )
    cool_down_s: float = Field(
        60.0, ge=0, description="seconds after giving up in which no job asks the host; then one may try"
    )
    megabytes_per_s: float = Field(
        5.0, gt=0, description="expected speed of downloads; for estimates, and to choose between cutouts and bricks"
    )


class RemoteSurvey(Section):
    """What all services on the network have in common."""

    http: HttpSettings = HttpSettings()
    footprint: str | None = Field(
        None,
        description="file or address of the survey's footprint, a MOC (FITS, JSON or ASCII) or a table of bricks: "
        "sources outside of it are not asked for; null: the service is asked",
    )
    fallback: str | None = Field(
        None, description="another survey (a key of surveys) to ask for a source when this one fails"
    )


class LegacySurvey(RemoteSurvey):
    """DESI Legacy Imaging Surveys (DECaLS); nanomaggies, through the viewer's cutout service or whole bricks."""

    kind: Literal["legacy"]
    url: Address = Field("https://www.legacysurvey.org/viewer", description="address of the viewer")
    layer: str = Field("ls-dr9", description="the viewer's layer (data release), always sent")
    bands: str = Field("grz", description="grz, or griz (ls-dr10 and ls-dr10-south only; i is kept, and not looked at)")
    size_px: int = Field(256, ge=16, le=512, description="side of the cutout in pixels")
    pixel_scale_arcsec: float = Field(0.262, gt=0.05, lt=5, description="arcsec a pixel; 0.262 is native")
    invvar: bool = Field(
        False, description="ask for inverse variances too: what was observed is then known; twice the bytes"
    )
    maskbits: bool = Field(
        False, description="ask for the mask too: pixels that are bad in all exposures of a band count as not observed"
    )
    mode: Literal["auto", "cutouts", "bricks"] = Field(
        "auto",
        description="cutouts: one request a source; bricks: whole images of 0.25 degrees, cut here; auto: what costs "
        "less time for the field",
    )
    bricks_url: Address = Field(
        "https://portal.nersc.gov/cfs/cosmo/data/legacysurvey", description="address above dr9/south/coadd/..."
    )
    # A place known to be covered tells an outage from the edge of the survey: the service answers
    # "500" in both cases.
    probe_ra_deg: float = Field(190.1086, ge=0, lt=360, description="RA of a position that the service surely covers")
    probe_dec_deg: float = Field(1.2005, ge=-90, le=90, description="Dec of a position that the service surely covers")

    @model_validator(mode="after")
    def _service_can(self):
        if self.bands not in ("grz", "griz"):
            raise ValueError(f"bands: expected grz or griz, in this order (found {self.bands!r})")
        if self.bands == "griz" and self.layer not in ("ls-dr10", "ls-dr10-south"):
            raise ValueError(
                f"bands: the layer {self.layer} has no i band, and the viewer would send others without a word; "
                "use grz, or the layer ls-dr10-south"
            )
        if (self.invvar or self.maskbits) and self.pixel_scale_arcsec > COARSEST_INVVAR_ARCSEC:
            raise ValueError(
                f"pixel_scale_arcsec: the viewer sends invvar and maskbits for pixels up to {COARSEST_INVVAR_ARCSEC} "
                "arcsec only; use smaller pixels, or leave invvar and maskbits out"
            )
        return self


class FirstSurvey(RemoteSurvey):
    """VLA FIRST, 1.4 GHz, through its cutout server; Jy/beam, 1.8 arcsec a pixel."""

    kind: Literal["first"]
    urls: list[Address] = Field(
        [
            "https://sundog.stsci.edu/cgi-bin/firstcutout",
            "https://third.ucllnl.org/cgi-bin/firstcutout",
        ],
        min_length=1,
        description="cutout servers, asked in this order; .../firstcutout and .../firstimage have forms of their own",
    )
    size_px: int = Field(
        300, ge=33, le=1024, description="side in pixels of 1.8 arcsec; 300 as in the published preparation"
    )


class SkyviewSurvey(RemoteSurvey):
    """One survey of NASA's SkyView, resampled onto the grid asked for; radio maps as FIRST's."""

    kind: Literal["skyview"]
    url: Address = Field("https://skyview.gsfc.nasa.gov/current/cgi/basicform.pl", description="address of the form")
    survey: str = Field("VLA FIRST (1.4 GHz)", description="SkyView's name of the survey")
    size_px: int = Field(300, ge=33, le=1024, description="side of the cutout in pixels")
    pixel_scale_arcsec: float = Field(1.8, gt=0.05, lt=20, description="arcsec a pixel")


class HipsSurvey(RemoteSurvey):
    """HiPS images through CDS's hips2fits: any survey that has them, resampled, not meant for photometry."""

    kind: Literal["hips2fits"]
    url: Address = Field("https://alasky.cds.unistra.fr/hips-image-services/hips2fits", description="address")
    hips: dict[str, str] = Field(
        {
            "g": "CDS/P/DESI-Legacy-Surveys/DR10/g",
            "r": "CDS/P/DESI-Legacy-Surveys/DR10/r",
            "z": "CDS/P/DESI-Legacy-Surveys/DR10/z",
        },
        min_length=1,
        description="HiPS identifier of each of the bands g, r, z; or one only, under the name radio",
    )
    size_px: int = Field(256, ge=16, le=1024, description="side of the cutout in pixels")
    pixel_scale_arcsec: float = Field(0.262, gt=0.05, lt=20, description="arcsec a pixel")

    @field_validator("hips")
    @classmethod
    def _known_bands(cls, hips):
        if set(hips) not in ({"g", "r", "z"}, {"radio"}):
            raise ValueError(f"expected the keys g, r and z, or radio alone (found {', '.join(hips)})")
        return hips


class DirectorySurvey(Section):
    """Cutouts that are already on disk, one file a source, named after its id."""

    kind: Literal["directory"]
    path: str = Field(description="folder that holds <source_id>.fits, .fits.gz, .jpg, .jpeg or .png")
    pixel_scale_arcsec: float | None = Field(
        None,
        gt=0,
        description="arcsec a pixel of JPEG and PNG files; null: unknown, then no lengths in arcsec",
    )


class SimulatedLegacySurvey(Section):
    """A simulated twin of `legacy`, drawn with GalSim; needs no network."""

    kind: Literal["simulated_legacy"]
    seed: int = Field(1, ge=0, description="another seed is another sky")
    size_px: int = Field(256, ge=16, le=512, description="side of the cutout in pixels")
    pixel_scale_arcsec: float = Field(0.262, gt=0.05, lt=5, description="arcsec a pixel")
    mix: dict[str, float] | None = Field(
        None, description="relative share of each of the ten classes; those left out do not occur; null: all equal"
    )
    artefact_fraction: float = Field(
        0.03, ge=0, le=1, description="share of images with a bleed or satellite trail, a missing band or a blank part"
    )

    @field_validator("mix")
    @classmethod
    def _known_classes(cls, mix):
        if mix is not None:
            check_mix(mix, OPTICAL_MORPHOLOGY.classes)
        return mix


class SimulatedFirstSurvey(Section):
    """A simulated twin of `first`; needs no network."""

    kind: Literal["simulated_first"]
    seed: int = Field(1, ge=0, description="another seed is another sky")
    size_px: int = Field(300, ge=33, le=1024, description="side in pixels of 1.8 arcsec")
    mix: dict[str, float] | None = Field(
        None,
        description="relative share of each morphology (fri, wide_angle_tail, narrow_angle_tail, frii, double_double, "
        "hybrid, compact); those left out do not occur; null: about as in MiraBest",
    )

    @field_validator("mix")
    @classmethod
    def _known_morphologies(cls, mix):
        if mix is not None:
            check_mix(mix, tuple(RADIO_MORPHOLOGIES))
        return mix


SurveySettings = Annotated[
    LegacySurvey
    | FirstSurvey
    | SkyviewSurvey
    | HipsSurvey
    | DirectorySurvey
    | SimulatedLegacySurvey
    | SimulatedFirstSurvey,
    Field(discriminator="kind"),
]
