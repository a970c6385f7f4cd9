"""The configuration: typed, documented here once, and checked before any work begins.

``config.yaml`` is an instance of `Config`; ``workflow/config.schema.json`` is generated from it (``galgaze schema``).
Science stands in the configuration; cores, memory and partitions stand in ``workflow/profiles``.
"""

from galgaze.config.datasets import (
    DatasetSettings,
    FrdeepDataset,
    Galaxy10Dataset,
    GalaxyZooDataset,
    MirabestDataset,
    RadioGalaxyDataset,
)
from galgaze.config.fields import (
    Box,
    Columns,
    Cone,
    FieldSettings,
    MagnitudeCut,
    QuerySource,
    RadiusCut,
    SimulatedSource,
    TableSource,
)
from galgaze.config.loading import check_config, config_json_schema, load_config
from galgaze.config.networks import (
    EQUIVARIANT_WIDTHS,
    AgcnnSettings,
    AttentionVggSettings,
    BarNetworkSettings,
    EquivariantSettings,
    NetworkSettings,
    Normalisation,
)
from galgaze.config.surveys import (
    COARSEST_INVVAR_ARCSEC,
    DirectorySurvey,
    FirstSurvey,
    HipsSurvey,
    HttpSettings,
    LegacySurvey,
    RemoteSurvey,
    SimulatedFirstSurvey,
    SimulatedLegacySurvey,
    SkyviewSurvey,
    SurveySettings,
)
from galgaze.config.tasks import (
    Augmentation,
    BarSettings,
    ModelSettings,
    OpticalPreparation,
    PreparationSettings,
    RadioPreparation,
    TaskSettings,
    TrainSettings,
    UncertaintySettings,
)
from galgaze.config.whole import Config

__all__ = [
    "COARSEST_INVVAR_ARCSEC",
    "EQUIVARIANT_WIDTHS",
    "AgcnnSettings",
    "AttentionVggSettings",
    "Augmentation",
    "BarNetworkSettings",
    "BarSettings",
    "Box",
    "Columns",
    "Cone",
    "Config",
    "DatasetSettings",
    "DirectorySurvey",
    "EquivariantSettings",
    "FieldSettings",
    "FirstSurvey",
    "FrdeepDataset",
    "Galaxy10Dataset",
    "GalaxyZooDataset",
    "HipsSurvey",
    "HttpSettings",
    "LegacySurvey",
    "MagnitudeCut",
    "MirabestDataset",
    "ModelSettings",
    "NetworkSettings",
    "Normalisation",
    "OpticalPreparation",
    "PreparationSettings",
    "QuerySource",
    "RadioGalaxyDataset",
    "RadioPreparation",
    "RadiusCut",
    "RemoteSurvey",
    "SimulatedFirstSurvey",
    "SimulatedLegacySurvey",
    "SimulatedSource",
    "SkyviewSurvey",
    "SurveySettings",
    "TableSource",
    "TaskSettings",
    "TrainSettings",
    "UncertaintySettings",
    "check_config",
    "config_json_schema",
    "load_config",
]
