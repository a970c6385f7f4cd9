"""The verb contact-sheet: a simulated sky, beside real images in a folder."""

import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.stages.runs import LEGACY, make_run

from galgaze import cli
from galgaze.config import OpticalPreparation, RadioPreparation
from galgaze.errors import ConfigError
from galgaze.images.datasets import LabelTable, read_labelled_directory
from galgaze.stages import contact_sheet as stage
from galgaze.stages.contact_sheet import RealFolder, contact_sheet, parse_label_map
from galgaze.surveys.base import Cutout, Survey
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_FR

SIMULATED = {"kind": "simulated_first", "size_px": 60}


class Sky(Survey):
    """A simulated sky of squares, two classes by turns; every fifth source is at the edge."""

    def identity(self):
        return {}

    def truth(self, source_id):
        number = int(source_id.split("-")[1])
        return {"class_label": ("FRI", "FRII")[number % 2], "morphology": ("wide", "narrow")[number % 4 // 2]}

    def download(self, source):
        return source.source_id.encode(), "here"

    def decode(self, body, source):
        number = int(body.decode().split("-")[1])
        pixels = np.random.default_rng(number).normal(0, 1, (1, 60, 60)).astype(np.float32)
        pixels[0, 28:32, 28:32] = 100
        observed = np.full((60, 60), number % 5 != 0)
        return Cutout(pixels * observed, "", False, observed, (29.5, 29.5), np.diag([-1.8, 1.8]))


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path, SIMULATED, task="radio_fr")
    run._surveys["sky"] = Sky(None)
    return run


@pytest.fixture
def drawn(monkeypatch):
    """What was to be drawn: the rows and headings given to the figure."""
    calls = []

    def sheet_png(rows, headings, note=""):
        calls.append((rows, headings))
        return b"png"

    monkeypatch.setattr("galgaze.report.contact_sheet.sheet_png", sheet_png)
    return calls


@pytest.fixture
def folder(tmp_path):
    """Five pictures and their table, named and labelled in their own way."""
    folder = tmp_path / "real_set"
    folder.mkdir()
    rng = np.random.default_rng(2)
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(folder / f"p{number}.png")
    rows = {"name": [f"p{number}" for number in range(5)], "code": ["100", "200", "100", "300", "200"]}
    pd.DataFrame(rows).to_csv(tmp_path / "codes.csv", index=False)
    return folder


CODES = LabelTable("../codes.csv", "name", "code", {"100": "FRI", "200": "FRII"})


class TestStage:
    def test_the_file_is_written(self, run, tmp_path):
        line = contact_sheet(run, "radio_fr", tmp_path / "new" / "sheet.png", per_class=2)
        assert line.endswith("sheet.png: 8 simulated images of sky in 4 rows")
        with Image.open(tmp_path / "new" / "sheet.png") as picture:
            assert picture.height > 4 * 40

    def test_a_row_for_each_class_and_type_of_images_as_the_network_sees_them(self, run, tmp_path, drawn):
        contact_sheet(run, "radio_fr", tmp_path / "sheet.png", per_class=3)
        [(rows, headings)] = drawn
        assert [row.name for row in rows] == ["FRI\nnarrow", "FRI\nwide", "FRII\nnarrow", "FRII\nwide"]
        assert [[len(group) for group in row.groups] for row in rows] == [[3]] * 4
        assert headings == ("simulated: sky, as the network sees it",)
        for row in rows:
            for image in row.groups[0]:  # none is from the survey's edge
                assert (image.shape, image.dtype, image.max()) == ((1, 40, 40), np.uint8, 255)

    def test_the_prefix_chooses_the_sources(self, run, tmp_path, drawn):
        sky = run.survey("sky")
        asked = []
        sky.download = lambda source: (asked.append(source.source_id), Sky.download(sky, source))[1]
        contact_sheet(run, "radio_fr", tmp_path / "sheet.png", per_class=1, prefix="other")
        assert asked
        assert all(name.startswith("other-") for name in asked)

    def test_real_images_stand_beside_those_of_their_class(self, run, tmp_path, drawn, folder):
        line = contact_sheet(run, "radio_fr", tmp_path / "sheet.png", real=RealFolder(folder, CODES), per_class=1)
        [(rows, headings)] = drawn
        assert line.endswith("4 simulated images of sky in 4 rows, 4 real ones beside them")
        assert headings[1] == f"real: {folder.parent.name}/real_set, by class alone"
        expected, label, _ = read_labelled_directory(folder, RADIO_FR, RadioPreparation(size_px=40), None, CODES)
        shown = [row.groups[1][0] for row in rows]  # the two rows of a class share its images
        assert np.array_equal(shown, np.concatenate([expected[label == 0], expected[label == 1]]))

    def test_other_surveys_are_refused(self, tmp_path):
        run = make_run(tmp_path, LEGACY, surveys={"sky": LEGACY, "drawn": {"kind": "simulated_legacy"}})
        with pytest.raises(
            ConfigError, match=r"survey 'sky' is not simulated \(kind legacy\).*Simulated in this .*: drawn; choose"
        ):
            contact_sheet(run, "optical_morphology", tmp_path / "sheet.png")
        with pytest.raises(ConfigError, match=r"survey 'nowhere' is not in the configuration"):
            contact_sheet(run, "optical_morphology", tmp_path / "sheet.png", survey="nowhere")
        with pytest.raises(ConfigError, match=r"task 'radio_fr' is not in the configuration \(optical_morphology\)"):
            contact_sheet(run, "radio_fr", tmp_path / "sheet.png")
        assert not (tmp_path / "sheet.png").exists()

    def test_a_survey_of_another_task_is_refused(self):
        with pytest.raises(ConfigError, match="sources are FRI, FRII; none of them is a class of optical_morphology"):
            stage.draw_truth(Sky(None), OPTICAL_MORPHOLOGY, 1, "a")


class TestRealFolders:
    def test_a_missing_column(self, run, tmp_path, folder):
        listing = LabelTable("../codes.csv", "file", "code")
        with pytest.raises(ConfigError, match="needs rows with the columns file and code; it has name, code"):
            contact_sheet(run, "radio_fr", tmp_path / "sheet.png", real=RealFolder(folder, listing))

    def test_labels_outside_of_the_map_are_not_used(self, folder):
        _, label, left_out = read_labelled_directory(folder, RADIO_FR, RadioPreparation(size_px=20), None, CODES)
        assert (label.tolist(), left_out) == ([0, 1, 0, 1], [])
        nothing = LabelTable("../codes.csv", "name", "code", {"400": "FRI"})
        with pytest.raises(ConfigError, match="no row has one of the labels 400 in its column code"):
            read_labelled_directory(folder, RADIO_FR, RadioPreparation(size_px=20), None, nothing)

    def test_so_many_of_each_class(self, folder):
        _, label, _ = read_labelled_directory(folder, RADIO_FR, RadioPreparation(size_px=20), None, CODES, 1)
        assert label.tolist() == [0, 1]

    def test_fits_files_are_read_where_the_table_has_positions(self, tmp_path):
        run = make_run(tmp_path, {"kind": "simulated_legacy", "size_px": 64})
        from galgaze.surveys.base import Source

        source = Source("one", 150.0, 2.0)
        (tmp_path / "one.fits").write_bytes(run.survey("sky").download(source)[0])
        preparation = OpticalPreparation(size_px=16, field_of_view_arcsec=16)
        table = tmp_path / "labels.csv"
        table.write_text("file,label,ra_deg,dec_deg\none,merging,150.0,2.0\n")
        image, label, _ = read_labelled_directory(tmp_path, OPTICAL_MORPHOLOGY, preparation)
        assert (image.shape, label.tolist()) == ((1, 3, 16, 16), [1])
        table.write_text("file,label\none,merging\n")
        with pytest.raises(ConfigError, match="none of the 1 files"):
            read_labelled_directory(tmp_path, OPTICAL_MORPHOLOGY, preparation)

    def test_the_map_of_labels(self):
        assert parse_label_map("100=FRI, 200 = FRII") == {"100": "FRI", "200": "FRII"}
        assert parse_label_map(None) is None
        for text in ("100", "", "100=", "=FRI", "100=FRI,", "1=2=3"):
            with pytest.raises(ConfigError, match="expected pairs such as 100=FRI,200=FRII"):
                parse_label_map(text)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(make_run(tmp_path, LEGACY).config.model_dump_json())
    words = ["galgaze", "contact-sheet", str(tmp_path / "a.png"), "--config", str(config), "--task"]
    monkeypatch.setattr(sys, "argv", [*words, "optical_morphology"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "is not simulated (kind legacy)" in capsys.readouterr().err
