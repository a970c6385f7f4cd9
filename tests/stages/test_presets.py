"""Presets: ready configurations that the checks accept; whatever the path; messages that say what is needed."""

import sys

import pytest
import yaml

from galgaze import cli
from galgaze.config import check_config, load_config
from galgaze.errors import ConfigError
from galgaze.stages.context import Run
from galgaze.stages.presets import FOLDER, PRESETS, list_presets, make_preset, write_preset
from galgaze.stages.validate import check_run


@pytest.fixture
def data(tmp_path):
    """For each preset something of the kind that it expects."""
    (tmp_path / "file").write_text("")
    (tmp_path / "labels.csv").write_text("")  # the table of galaxy_zoo
    return {name: tmp_path / "file" if "file" in preset.expected else tmp_path for name, preset in PRESETS.items()}


def trained(config):
    (settings,) = config.tasks.values()
    return settings.model.train


@pytest.mark.parametrize("name", PRESETS)
class TestEach:
    def test_the_checks_accept_it(self, name, data, tmp_path):
        write_preset(name, data[name], tmp_path / "new" / "my.yaml")
        config = load_config(tmp_path / "new" / "my.yaml")
        check_run(Run(config))
        train = trained(config)
        path = train.dataset.path if train.dataset else config.fields[train.field].table.path
        assert path == str(data[name])
        assert (train.dataset.kind if train.dataset else name) == name

    def test_it_runs_as_it_stands(self, name, data):
        """Nothing of the network is needed to catalogue, and nobody's own files."""
        config = check_config(yaml.safe_load(make_preset(name, data[name])))
        (task,) = config.tasks
        run_on = [field for field in config.fields.values() if field.tasks]
        assert [field.simulated.count for field in run_on] == [64]
        assert config.surveys[config.tasks[task].survey].kind.startswith("simulated")
        assert "legacy" in config.surveys or "first" in config.surveys, "a real survey is at hand"

    @pytest.mark.parametrize(
        "odd", ["a b: #c", 'quo"te', "apo'strophe", "back\\slash", "Ünïcödé", "@DATA@", "new\nline"]
    )
    def test_any_path(self, name, odd, tmp_path):
        path = tmp_path / odd
        path.mkdir()
        if "folder" not in PRESETS[name].expected:
            path = path / "set.h5"
            path.write_text("")
        config = check_config(yaml.safe_load(make_preset(name, path)))
        train = trained(config)
        assert (train.dataset.path if train.dataset else config.fields[train.field].table.path) == str(path)

    def test_every_key_is_commented(self, name):
        """A line that opens something new says what it is."""
        lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
        assert lines[0].startswith("# Trains ")
        assert f"galgaze preset {name} --data" in lines[1]
        assert max(map(len, lines)) <= 120
        opening = [line for line in lines if line.strip() and not line.startswith("#") and "#" not in line]
        assert len(opening) < 0.45 * len(lines)

    def test_missing_data(self, name, tmp_path):
        published = PRESETS[name].data
        assert "http" in published
        with pytest.raises(ConfigError, match=rf"galgaze preset {name}: give --data, the path of ") as caught:
            make_preset(name, None)
        assert published in str(caught.value)
        with pytest.raises(ConfigError, match=r"nowhere: there is nothing of this name. It must be ") as caught:
            make_preset(name, tmp_path / "nowhere")
        assert published in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"this is a folder. It must be the HDF5 file Galaxy10_DECals.h5"):
        make_preset("galaxy10", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"this is a file. It must be a folder of pictures"):
        make_preset("galaxy_zoo", tmp_path / "file")


@pytest.mark.parametrize("name", ["", "mira", "../mirabest", "mirabest.yaml"])
def test_unknown_names(name, tmp_path):
    with pytest.raises(ConfigError, match=r"There is no preset '.*'. There are:\n  mirabest: FRI.*") as caught:
        make_preset(name, tmp_path)
    assert all(f"  {known}: " in str(caught.value) for known in PRESETS)


def test_the_folder_holds_them_all():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(PRESETS)
    assert all(name in list_presets() for name in PRESETS)


def test_radio_presets_leave_the_preparation_as_published(data):
    for name in ("mirabest", "frdeep", "radio_galaxy_dataset"):
        preparation = check_config(yaml.safe_load(make_preset(name, data[name]))).tasks["radio_fr"].preparation
        assert (preparation.size_px, preparation.clip_sigma, preparation.mask_las) == (150, 3.0, False)


def test_the_positions_are_read_as_a_labelled_field(tmp_path):
    from galgaze.stages.context import read_sources
    from galgaze.stages.plan import make_plan
    from galgaze.tasks import OPTICAL_MORPHOLOGY

    rows = [f"{n},{10 + n},{n},{n}" for n in range(10)]
    (tmp_path / "p.csv").write_text("\n".join(["g10_index,ra,dec,galaxy10_class", *rows]) + "\n")
    text = make_preset("galaxy10_positions", tmp_path / "p.csv")
    run = Run(check_config(yaml.safe_load(text) | {"results": str(tmp_path / "r"), "cache": str(tmp_path / "c")}))
    make_plan(run, "galaxy10")
    plan = read_sources(run.layout, "galaxy10")
    assert plan["label"].tolist() == list(OPTICAL_MORPHOLOGY.classes)
    assert run.training_images("optical_morphology").survey == "legacy"


class TestVerb:
    def galgaze(self, monkeypatch, *words):
        monkeypatch.setattr(sys, "argv", ["galgaze", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code

    def test_print_and_write(self, tmp_path, monkeypatch, capsys):
        assert self.galgaze(monkeypatch, "preset", "mirabest", "--data", tmp_path) == 0
        printed = capsys.readouterr().out
        out = tmp_path / "my.yaml"
        assert self.galgaze(monkeypatch, "preset", "mirabest", "--data", tmp_path, "--out", out) == 0
        assert out.read_text() == printed
        assert f"galgaze check --config {out}" in "".join(capsys.readouterr())
        assert self.galgaze(monkeypatch, "check", "--config", out) == 0

    def test_nothing_is_overwritten(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "my.yaml").write_text("mine")
        code = self.galgaze(monkeypatch, "preset", "mirabest", "--data", tmp_path, "--out", tmp_path / "my.yaml")
        assert (code, (tmp_path / "my.yaml").read_text()) == (2, "mine")
        assert "exists already" in capsys.readouterr().err

    def test_names(self, monkeypatch, capsys):
        assert self.galgaze(monkeypatch, "preset", "--list") == 0
        assert "https://zenodo.org/records/10845026" in capsys.readouterr().out
        assert self.galgaze(monkeypatch, "preset", "no_such") == 2
        assert "There are:" in capsys.readouterr().err
