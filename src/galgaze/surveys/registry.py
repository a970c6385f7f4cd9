"""From the configuration's `kind` to the survey. A new survey is one file, and one line here."""

from importlib import import_module
from pathlib import Path

from galgaze.config import SurveySettings
from galgaze.surveys.base import Survey
from galgaze.surveys.http import PoliteClient

# imported where needed: a rule for one survey should not load GalSim for another
REMOTE = {
    "legacy": ("galgaze.surveys.legacy", "Legacy"),
    "first": ("galgaze.surveys.first", "First"),
    "skyview": ("galgaze.surveys.skyview", "Skyview"),
    "hips2fits": ("galgaze.surveys.hips", "Hips"),
}
LOCAL = {
    "directory": ("galgaze.surveys.directory", "Directory"),
    "simulated_legacy": ("galgaze.surveys.simulated.surveys", "SimulatedLegacy"),
    "simulated_first": ("galgaze.surveys.simulated.surveys", "SimulatedFirst"),
}


def open_survey(
    settings: SurveySettings,
    contact: str = "",
    hosts: str | Path | None = None,
    cache: str | Path = "results/cache",
    no_coverage_days: float = 90.0,
) -> Survey:
    """Make the survey that the settings describe; nothing is asked yet.

    Parameters
    ----------
    settings : SurveySettings
        A survey of the configuration.
    contact, hosts, cache, no_coverage_days
        As in the configuration: who asks, where the limits of the hosts are kept, and the downloads, and how long it
        is believed that something is not there.
    """
    module, made = (REMOTE | LOCAL)[settings.kind]
    survey = getattr(import_module(module), made)
    if settings.kind in LOCAL:
        return survey(settings)
    return survey(settings, PoliteClient(settings.http, contact, hosts), cache, no_coverage_days)
