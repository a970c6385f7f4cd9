"""Wrong input: one paragraph that says what to do, an exit code, and no traceback."""

import copy
import re

import pytest

from tests.workflow.runs import SMALL, command, galgaze, run, write_config

pytestmark = pytest.mark.workflow


def refused(folder, change, *, table: str | None = None) -> str:
    """What Snakemake and the command line say to a changed configuration; both must refuse it alike."""
    config = copy.deepcopy(SMALL)
    if table is not None:
        (folder / "table.csv").write_text(table)
        config["fields"]["galaxies"] = {"table": {"path": "table.csv"}, "tasks": ["optical_morphology"]}
    change(config)
    path = write_config(folder, config)
    by_snakemake = run(command(path, "--dry-run"))
    by_hand = galgaze(folder, "plan", "--config", "config.yaml")
    for result in (by_snakemake, by_hand):
        assert result.returncode != 0
        assert "Traceback" not in result.stdout
    said = by_hand.stdout.removeprefix("galgaze: ").strip().splitlines()[-1].removeprefix("  - ")
    assert said in by_snakemake.stdout
    return " ".join(by_hand.stdout.split())


def test_unknown_key(tmp_path):
    said = refused(tmp_path, lambda config: config.update(shardsize=3))
    assert "shardsize: unknown key (did you mean 'shard_size'?)" in said


def test_missing_column(tmp_path):
    said = refused(tmp_path, lambda config: None, table="name,ra,dec\na,1,2\n")
    assert "source_id" in said
    assert "name" in said


def test_duplicate_id(tmp_path):
    said = refused(tmp_path, lambda config: None, table="source_id,ra,dec\na,1,2\nb,1,3\na,4,5\n")
    assert re.search(r"'a'", said)
    assert "row 3" in said or "rows 1" in said


def test_declination_91(tmp_path):
    said = refused(tmp_path, lambda config: None, table="source_id,ra,dec\na,1,2\nb,1,91\n")
    assert "row 2" in said
    assert "91" in said


def test_empty_field(tmp_path):
    assert "no rows" in refused(tmp_path, lambda config: None, table="source_id,ra,dec\n")


def test_missing_table(tmp_path):
    def change(config):
        config["fields"]["galaxies"] = {"table": {"path": "nowhere.csv"}, "tasks": ["optical_morphology"]}

    assert "nowhere.csv" in refused(tmp_path, change)


def test_missing_weights(tmp_path):
    def change(config):
        config["tasks"]["radio_fr"]["model"] = {"weights": "nowhere.safetensors"}

    said = refused(tmp_path, change)
    assert "nowhere.safetensors: cannot read the model file" in said


def test_weights_that_are_no_model(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"\x80\x04not safetensors at all")

    def change(config):
        config["tasks"]["radio_fr"]["model"] = {"weights": "weights.safetensors"}

    assert "this is not a galgaze model file" in refused(tmp_path, change)


def test_unreadable_fits_table(tmp_path):
    (tmp_path / "table.fits").write_text("<html>not found</html>")

    def change(config):
        config["fields"]["galaxies"] = {"table": {"path": "table.fits"}, "tasks": ["optical_morphology"]}

    assert "table.fits" in refused(tmp_path, change)


def test_no_configuration(tmp_path):
    result = galgaze(tmp_path, "plan")
    assert result.returncode == 2
    assert "config.yaml: cannot read the configuration" in result.stdout
    assert "Traceback" not in result.stdout
