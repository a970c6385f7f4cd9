"""One finished small run, which the other tests compare with or copy."""

import pytest

from tests.workflow.runs import SMALL, snakemake, write_config


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Folder of a finished run on two cores."""
    folder = tmp_path_factory.mktemp("finished")
    snakemake(write_config(folder, SMALL))
    return folder
