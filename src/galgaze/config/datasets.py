"""Settings of the published labelled sets."""

from typing import Annotated, Literal

from pydantic import Field

from galgaze.config.section import Section


class MirabestDataset(Section):
    """The published MiraBest batches (Porter & Scaife 2023)."""

    kind: Literal["mirabest"]
    path: str = Field(description="folder of data_batch_1 to 7 and batches.meta, the folder above it, or their archive")
    subset: Literal["all", "confident"] = Field("all", description="whether uncertain labels count")


class FrdeepDataset(Section):
    """The published FR-DEEP batches (Tang et al. 2019), of FIRST or NVSS images."""

    kind: Literal["frdeep"]
    path: str = Field(description="folder of data_batch_* and batches.meta, the folder above it, or their archive")


class RadioGalaxyDataset(Section):
    """The Radio Galaxy Dataset (Griese et al. 2023): its FRI and FRII."""

    kind: Literal["radio_galaxy_dataset"]
    path: str = Field(description="the HDF5 file: image, label, ra_deg, dec_deg")


class Galaxy10Dataset(Section):
    """Galaxy10 DECaLS (Leung & Bovy): images, ans, ra, dec, pxscale."""

    kind: Literal["galaxy10"]
    path: str = Field(description="the HDF5 file")


class GalaxyZooDataset(Section):
    """Pictures, and a table of Galaxy Zoo vote fractions."""

    kind: Literal["galaxy_zoo"]
    path: str = Field(description="folder of the pictures")
    table: str = Field("labels.csv", description="CSV or Parquet of votes, looked up from the folder")
    file: str = Field("file", description="its column of files, from the folder; endings may lack")
    pixel_scale_arcsec: float | None = Field(None, gt=0, description="of the pictures; null: each taken whole")


DatasetSettings = Annotated[
    MirabestDataset | FrdeepDataset | RadioGalaxyDataset | Galaxy10Dataset | GalaxyZooDataset,
    Field(discriminator="kind"),
]
