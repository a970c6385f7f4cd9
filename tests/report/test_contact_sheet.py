"""Contact sheets: which sources stand in which row, how images are turned, and the page's section."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from galgaze.report.contact_sheet import (
    HEADING_PX,
    LABEL_PX,
    PANEL_GAP_PX,
    SheetRow,
    choose_sources,
    display_colours,
    row_name,
    sheet_png,
)
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_FR

MORPHOLOGY = ["fri_wide_angle_tail", None, "frii", "fri", "hybrid", "double_double", "fri"]
TRUTH = pd.DataFrame(
    {
        "source_id": list("abcdefg"),
        "class_label": ["FRI", "FRI", "FRII", "FRI", None, "FRII", "FRI"],
        "morphology": MORPHOLOGY,
    }
)


def test_a_row_for_each_type_of_each_class_the_plain_one_first():
    assert choose_sources(TRUTH, RADIO_FR, 6) == [
        ("FRI", None, ["b"]),
        ("FRI", "fri", ["d", "g"]),
        ("FRI", "fri_wide_angle_tail", ["a"]),
        ("FRII", "frii", ["c"]),
        ("FRII", "double_double", ["f"]),
        (None, "hybrid", ["e"]),  # no class, but drawn
    ]
    assert choose_sources(TRUTH, RADIO_FR, 1)[1] == ("FRI", "fri", ["d"])


def test_without_types_a_row_a_class_even_an_empty_one():
    assert choose_sources(TRUTH.drop(columns="morphology"), RADIO_FR, 2) == [
        ("FRI", None, ["a", "b"]),
        ("FRII", None, ["c", "f"]),
    ]
    truth = pd.DataFrame({"source_id": ["a"], "class_label": ["merging"], "morphology": ["x"]})
    rows = choose_sources(truth, OPTICAL_MORPHOLOGY, 2)
    assert [(name, ids) for name, _, ids in rows if ids] == [("merging", ["a"])]
    assert [name for name, *_ in rows] == list(OPTICAL_MORPHOLOGY.classes)


def test_row_names_do_not_say_the_class_twice():
    assert row_name("FRI", "fri_wide_angle_tail") == "FRI\nwide angle tail"
    assert row_name("FRII", "frii") == "FRII"
    assert row_name("FRII", "double_double") == "FRII\ndouble double"
    assert row_name("barred_spiral", None) == "barred spiral"


def test_radio_is_shown_as_its_square_root_and_colours_as_they_are():
    image = np.full((3, 2, 2), 51, np.uint8)
    assert np.allclose(display_colours(image), 0.2)
    assert np.allclose(display_colours(image[:1]), np.sqrt(0.2))
    assert display_colours(image[:1]).shape == (2, 2, 3)


def test_images_stand_in_their_own_pixels_with_the_last_row_on_top():
    north = np.zeros((3, 20, 20), np.uint8)
    north[0, 15:] = 255  # red at the end of the rows, which is the north
    rows = [SheetRow("a", ([north], [])), SheetRow("b", ([north, north], [north]))]
    picture = np.asarray(Image.open(io.BytesIO(sheet_png(rows, ("one", "two")))).convert("RGB"))
    first = picture[HEADING_PX : HEADING_PX + 20, LABEL_PX : LABEL_PX + 20]
    assert np.array_equal(first, north.transpose(1, 2, 0)[::-1])
    pitch = 20 + PANEL_GAP_PX
    below = picture[HEADING_PX + pitch : HEADING_PX + pitch + 20, LABEL_PX + pitch : LABEL_PX + pitch + 20]
    assert np.array_equal(below, first)
    assert (picture == [255, 0, 0]).all(axis=2).sum() == 4 * 100  # four images in all
