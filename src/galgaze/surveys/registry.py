"""From the configuration's `kind` to the survey. A new survey is one file, and one line here."""

from galgaze.config import SurveySettings
from galgaze.surveys.base import Survey
from galgaze.surveys.http import PoliteClient

REMOTE_KINDS = ("legacy", "first")


def open_survey(settings: SurveySettings, contact: str = "") -> Survey:
    """Make the survey that the settings describe."""
    # imported where needed: a rule for one survey should not load GalSim for another
    if settings.kind == "legacy":
        from galgaze.surveys.legacy import Legacy

        return Legacy(settings, PoliteClient(settings.http, contact))
    if settings.kind == "first":
        from galgaze.surveys.first import First

        return First(settings, PoliteClient(settings.http, contact))
    if settings.kind == "directory":
        from galgaze.surveys.directory import Directory

        return Directory(settings)
    from galgaze.surveys.simulated.surveys import SimulatedFirst, SimulatedLegacy

    return {"simulated_legacy": SimulatedLegacy, "simulated_first": SimulatedFirst}[settings.kind](settings)
