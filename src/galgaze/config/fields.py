"""Settings of fields: where the sources come from."""

from typing import Literal

from pydantic import Field, model_validator

from galgaze.config.section import Section
from galgaze.tasks import TASKS


class Columns(Section):
    """How the table at hand names the columns; null: it has none."""

    source_id: str = Field("source_id", description="unique id, read as text")
    ra_deg: str = Field("ra", description="right ascension, degrees, ICRS")
    dec_deg: str = Field("dec", description="declination, degrees, ICRS")
    redshift: str | None = Field(None, description="redshift")
    las_arcsec: str | None = Field(None, description="largest angular size of a radio source, arcsec")
    petrosian_radius_arcsec: str | None = Field(None, description="Petrosian radius, arcsec")
    label: str | None = Field(None, description="known class, to train on and to compare with")


class TableSource(Section):
    """Sources from a file."""

    path: str = Field(description="CSV, Parquet, FITS or VOTable (by ending: .csv .parquet .fits .vot .xml)")
    columns: Columns = Columns()


class Cone(Section):
    """A circle on the sky."""

    ra_deg: float = Field(ge=0, lt=360, description="centre, degrees")
    dec_deg: float = Field(ge=-90, le=90, description="centre, degrees")
    radius_deg: float = Field(gt=0, le=180, description="radius, degrees")


class Box(Section):
    """A box on the sky, sides along RA and Dec."""

    ra_deg: float = Field(ge=0, lt=360, description="centre, degrees")
    dec_deg: float = Field(ge=-90, le=90, description="centre, degrees")
    width_deg: float = Field(gt=0, le=180, description="extent along RA on the sky, degrees")
    height_deg: float = Field(gt=0, le=180, description="extent along Dec, degrees")


class MagnitudeCut(Section):
    """Sources between two magnitudes; those of unknown magnitude are left out."""

    band: Literal["u", "g", "r", "i", "z"] = Field("r", description="noirlab's mag_<band>, sdss's petroMag_<band>")
    brightest: float | None = Field(None, ge=-5, le=50, description="least magnitude (AB); null: no limit")
    faintest: float | None = Field(None, ge=-5, le=50, description="greatest magnitude (AB); null: no limit")

    @model_validator(mode="after")
    def _in_order(self):
        if self.brightest is not None and self.faintest is not None and self.brightest > self.faintest:
            raise ValueError("brightest is the smaller magnitude, and faintest the greater one")
        return self


class RadiusCut(Section):
    """Sources between two sizes; those of unknown size are left out."""

    smallest_arcsec: float | None = Field(
        None, ge=0, le=3600, description="noirlab's shape_r (half of the light), sdss's petroRad_r; null: no limit"
    )
    largest_arcsec: float | None = Field(None, ge=0, le=3600, description="null: no limit")

    @model_validator(mode="after")
    def _in_order(self):
        if None not in (self.smallest_arcsec, self.largest_arcsec) and self.smallest_arcsec > self.largest_arcsec:
            raise ValueError("smallest_arcsec is greater than largest_arcsec")
        return self


class QuerySource(Section):
    """Sources from a public catalogue, asked for once; the answer is kept."""

    service: Literal["vizier", "noirlab", "sdss"] = Field(
        "vizier", description="VizieR, NOIRLab's Astro Data Lab (Legacy Surveys) or SDSS's SkyServer"
    )
    catalogue: str = Field(
        "VIII/92/first14", description="VizieR's name; a table: noirlab ls_dr9.tractor, sdss Galaxy where not given"
    )
    cone: Cone | None = Field(None, description="a circle, or")
    box: Box | None = Field(None, description="a box")
    magnitude: MagnitudeCut | None = Field(None, description="noirlab and sdss: between two magnitudes")
    radius: RadiusCut | None = Field(None, description="noirlab and sdss: between two sizes")
    row_limit: int = Field(10_000, ge=1, le=10_000_000, description="an answer with more rows is refused as cut short")
    constraints: dict[str, str] = Field({}, description="VizieR column filters, such as Fint: '>10'")
    columns: Columns = Columns(source_id="FIRST", ra_deg="RAJ2000", dec_deg="DEJ2000")
    server: str | None = Field(None, description="another host or address of the service; null: its public one")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_service(cls, given):
        names = {
            "noirlab": ("ls_dr9.tractor", {"source_id": "ls_id"}),
            "sdss": ("Galaxy", {"source_id": "objID", "redshift": "z", "petrosian_radius_arcsec": "petroRad_r"}),
        }
        service = given.get("service") if isinstance(given, dict) else None
        if not isinstance(service, str) or service not in names:
            return given
        catalogue, columns = names[service]
        asked = given.get("columns", {})
        return {"catalogue": catalogue, **given, "columns": columns | asked if isinstance(asked, dict) else asked}

    @model_validator(mode="after")
    def _one_region(self):
        if (self.cone is None) == (self.box is None):
            raise ValueError("give either cone or box")
        return self

    @model_validator(mode="after")
    def _cuts_of_the_service(self):
        if self.service == "vizier" and (self.magnitude or self.radius):
            raise ValueError(
                "magnitude and radius are for noirlab and sdss; cut a VizieR catalogue by its own columns, "
                "such as constraints: {rmag: '14..17.77'}"
            )
        if self.service != "vizier" and self.constraints:
            raise ValueError("constraints are for vizier; use magnitude and radius")
        return self


class SimulatedSource(Section):
    """Sources that only the simulated surveys know; their labels are the truth."""

    survey: str = Field(description="the simulated survey (a key of surveys) whose truth gives the labels")
    count: int = Field(ge=0, le=10_000_000, description="number of sources")
    prefix: str = Field("sim", pattern=r"^[A-Za-z0-9_-]{1,32}$", description="ids are <prefix>-0000000 ...")


class FieldSettings(Section):
    """A named set of sources; exactly one of table, query, simulated."""

    table: TableSource | None = Field(None, description="sources from a file")
    query: QuerySource | None = Field(None, description="sources from a public catalogue")
    simulated: SimulatedSource | None = Field(None, description="simulated sources")
    labels: dict[str, str | None] = Field(
        {}, description="from the label column's values to class names; null: not used as a label"
    )
    tasks: list[Literal[tuple(TASKS)]] = Field([], description="what to find out; []: only trained on")
    shard_size: int | None = Field(None, ge=1, le=100_000, description="overrides the general shard_size")

    @model_validator(mode="after")
    def _one_origin(self):
        if sum(origin is not None for origin in (self.table, self.query, self.simulated)) != 1:
            raise ValueError("give exactly one of table, query, simulated")
        return self
