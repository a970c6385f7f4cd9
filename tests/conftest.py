"""Fixtures for all tests."""

import os
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("galgaze", deadline=None)  # machines are noisy: no test is about time
hypothesis.settings.load_profile("galgaze")
# Tests run side by side and draw no windows.
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session", autouse=True)
def _own_hosts(tmp_path_factory):
    """The limits of hosts are kept with the user; tests are not the user."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache_home"))


@pytest.fixture
def data_folder() -> Path:
    """The folder of real data; use with `tests.real_data.needs_data`."""
    return Path(os.environ["GALGAZE_TEST_DATA"]).resolve()
