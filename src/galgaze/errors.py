"""Errors, sorted by who must act.

==================  ==========================================================================
`ConfigError`       the user, before any work: a key, a table, a weights file is wrong
`TransientError`    nobody: the outside world failed, was retried, and the run can be resumed
`ServiceDown`       nobody: a host failed so often that it is left alone for now; the run can be resumed
`NoCoverage`        nobody: the survey has no data there; recorded in the source's row
`BadImage`          nobody: what was served cannot be used; recorded in the source's row
==================  ==========================================================================

Anything else that is raised is a bug of galgaze.
"""


class GalgazeError(Exception):
    """Root of the errors whose message is written for the person at the terminal."""

    exit_code = 1


class ConfigError(GalgazeError):
    """The user must act: says what is wrong where, what was expected, and what to do."""

    exit_code = 2


class TransientError(GalgazeError):
    """The outside world failed after retries; nothing is lost, and the same command resumes."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class ServiceDown(TransientError):
    """A host is not asked any more for now, by any job: it failed too often, or said when to come back."""


class SourceError(GalgazeError):
    """One source cannot be used; its row says so and the run goes on.

    Parameters
    ----------
    reason : str
        What happened, for the catalogue's ``status_reason``.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class NoCoverage(SourceError):
    """The survey has no data at this position."""


class BadImage(SourceError):
    """The survey served something that is not a usable image."""
