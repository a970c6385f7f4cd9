"""The page of a field: its numbers, its safety, and fields that lack nearly everything."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from galgaze.catalogue.columns import attention_columns, catalogue_columns, probability_column
from galgaze.catalogue.writer import to_arrow, write_catalogue
from galgaze.config import check_config
from galgaze.errors import ConfigError
from galgaze.files import sha256_file
from galgaze.images.store import ShardImages, ensure_store, write_shard
from galgaze.measures.evaluation import expected_calibration_error
from galgaze.report import figures, numbers
from galgaze.report.figures import Bar, Example
from galgaze.report.page import FetchFacts, FieldFacts, ModelFacts, TaskResults, examples_wanted, render_page
from galgaze.status import FETCH_FAILED, OK, STATUSES
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_FR

HOSTILE = '"><script>alert(1)</script>$\\frac{'
FACTS = FieldFacts("my_field", "from the table my.csv", 5, 1, "0.1.0")
CURVE = pd.DataFrame(
    {
        "epoch": [1, 2],
        "learning_rate": 0.1,
        "training_loss": [0.7, 0.4],
        "training_accuracy": [0.5, 0.8],
        "validation_loss": [0.6, 0.5],
        "central": [False, False],
        "validation_accuracy": [0.5, 0.75],
    }
)


# ------------------------------------------------------------------------------------------ inputs


def catalogue_of(task, rows: list[tuple]) -> pd.DataFrame:
    """Rows (source_id, label, predicted class, its probability, training role, status) as a catalogue."""
    frame = pd.DataFrame(None, index=range(len(rows)), columns=[c.name for c in catalogue_columns(task)], dtype=object)
    names = ["source_id", "label", "class_label", "class_probability", "training_role", "status"]
    for position, name in enumerate(names):
        frame[name] = [row[position] for row in rows]
    frame["calibration"] = np.where(frame["class_label"].notna(), "uncalibrated", None)
    frame["class_entropy"] = 1 - frame["class_probability"].astype(float)
    frame["status_reason"] = np.where(frame["status"] == OK, None, "reason: <b>" + HOSTILE)
    for name in task.classes:
        rest = (1 - frame["class_probability"].astype(float)) / (len(task.classes) - 1)
        frame[probability_column(name)] = np.where(frame["class_label"] == name, frame["class_probability"], rest)
    predicted = frame["class_label"].notna()
    for number, column in enumerate(attention_columns()):
        frame.loc[predicted, column.name] = 0.5 + number
    return frame


def radio_rows() -> list[tuple]:
    return [
        ("a", "FRI", "FRI", 0.9, None, OK),
        ("b", "FRI", "FRI", 0.8, "validation", OK),
        ("c", "FRI", "FRII", 0.6, None, OK),
        ("d", "FRII", "FRII", 0.7, None, OK),
        ("trained right", "FRII", "FRII", 0.99, "training", OK),
        ("trained too", "FRII", "FRII", 0.98, "training", OK),
        (HOSTILE, "FRII", None, None, None, FETCH_FAILED),
        ("unlabelled", None, "FRI", 0.55, None, OK),
    ]


def example(source_id: str, saliency: bool = False, channels: int = 1) -> Example:
    image = np.arange(channels * 16 * 16).reshape(channels, 16, 16).astype(np.uint8)
    maps = tuple(np.linspace(0, 1, side * side).reshape(side, side) for side in (4, 8, 16))
    jacobian = np.diag([-1.8, 1.8])
    shown = np.eye(16) if saliency else None
    return Example(source_id, image, maps, (4, 2, 1), np.array([7.5, 7.5]), jacobian, shown)


def results_of(task, catalogue: pd.DataFrame, **changes) -> TaskResults:
    card = {
        "architecture": {"name": "agcnn", "widths": [6, 16, 32, 64]},
        "calibration": None,
        "training_data": {"field": "training_field", "survey": "sky", "training": 12, "validation": 3},
        "metrics": {"validation": {"accuracy": 0.75, "auc": None, "ece": 0.1}, "largest_class_share": 0.5},
    }
    provenance = {"survey": {"kind": "first"}, "preparation": {"kind": "radio_clip"}, "bars": None}
    model = ModelFacts("models/m.safetensors", "abc123", card, 101447, True)
    wanted, bars = examples_wanted(catalogue, task)
    channels = 1 if task is RADIO_FR else 3
    examples = {name: example(name, name in bars, channels) for name in wanted}
    values = {"task": task, "survey": "sky", "catalogue": catalogue, "provenance": provenance, "model": model}
    return TaskResults(**(values | {"curve": CURVE, "examples": examples} | changes))


def page_of(result: TaskResults) -> str:
    return render_page(FACTS, [result])


def text_of(page: str) -> str:
    """What a reader sees, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<style>.*?</style>", "", page)).split())


class NoFigures:
    """In the place of the figures, where a test is about the text: they take most of the time."""

    def __getattr__(self, name):
        return lambda *_: "data:image/png;base64,AAAA"


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr("galgaze.report.page.figures", NoFigures())


# ---------------------------------------------------------------------------------------- the page


def test_counts_by_status_and_class_stand_in_the_page():
    result = results_of(RADIO_FR, catalogue_of(RADIO_FR, radio_rows()))
    text = text_of(page_of(result))
    assert "7 of 8 sources predicted" in text
    assert f"ok 7 87.5 % {STATUSES[OK]}" in text
    assert "fetch_failed 1 12.5 %" in text
    assert all(name in text for name in STATUSES)
    assert numbers.class_counts(result.catalogue, RADIO_FR).to_dict("list") == {
        "predicted": [3, 4],
        "labelled": [3, 4],
    }
    assert "uncalibrated" in text
    assert "101 447 parameters" in text
    assert "training_field" in text
    assert "North is up, east is left." in text


def test_text_from_outside_is_escaped_and_nothing_is_asked_from_outside():
    rows = [*radio_rows(), (HOSTILE + "2", "FRI", "FRI", 0.999, None, OK), ("e", HOSTILE, "FRI", 0.51, None, OK)]
    page = page_of(results_of(RADIO_FR, catalogue_of(RADIO_FR, rows)))
    assert "<script" not in page
    assert "reason: <b>" not in page
    assert "&lt;script&gt;" in page
    assert re.search(r"&#34;&gt;&lt;script&gt;alert\(1\)&lt;/script&gt;\$\\frac{2", page)
    sources = re.findall(r'(?:src|href|url|action)\s*[=(]\s*["\']?([^"\'\s>]*)', page)
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert "default-src 'none'" in page
    assert len(re.findall(r"<img ", page)) == len(re.findall(r'<img src="data:[^"]+" alt="[^"]+">', page))


def test_the_same_input_gives_the_same_page():
    rows = radio_rows()[:2]
    pages = [page_of(results_of(RADIO_FR, catalogue_of(RADIO_FR, rows))) for _ in range(2)]
    assert pages[0] == pages[1]


@pytest.mark.usefixtures("no_figures")
def test_a_section_for_each_task():
    radio = results_of(RADIO_FR, catalogue_of(RADIO_FR, radio_rows()))
    optical = results_of(OPTICAL_MORPHOLOGY, catalogue_of(OPTICAL_MORPHOLOGY, [("a", None, "merging", 0.5, None, OK)]))
    page = render_page(FACTS, [radio, optical])
    assert [page.count(f'id="{name}"') for name in ("radio_fr", "optical_morphology")] == [1, 1]


# ---------------------------------------------------------------------------------------- accuracy


@pytest.mark.usefixtures("no_figures")
def test_accuracy_leaves_out_what_the_model_was_trained_on():
    catalogue = catalogue_of(RADIO_FR, radio_rows())
    held = numbers.held_out(catalogue, RADIO_FR)
    assert set(held.rows["source_id"]) == {"a", "b", "c", "d"}
    assert (held.labelled, held.trained, held.unpredicted, held.validation, held.foreign) == (7, 2, 1, 1, 0)
    quality = numbers.quality(held.rows, RADIO_FR)
    assert (quality.n, quality.accuracy) == (4, 0.75)
    assert (quality.largest_class, quality.largest_share) == ("FRI", 0.75)
    assert quality.matrix.tolist() == [[2, 1], [0, 1]]
    text = text_of(page_of(results_of(RADIO_FR, catalogue)))
    assert "7 of 8 sources have a label, and 4 of these judge the model." in text
    assert "2 are left out because the model was trained on them." in text
    assert "1 have no prediction." in text
    assert "1 of those used are validation sources" in text
    assert "Accuracy 75.0 % " in text


@pytest.mark.usefixtures("no_figures")
def test_the_accuracy_and_the_largest_share_are_not_mixed_up():
    rows = [(str(i), "FRI" if i < 6 else "FRII", "FRI" if i < 5 else "FRII", 0.8, None, OK) for i in range(10)]
    text = text_of(page_of(results_of(RADIO_FR, catalogue_of(RADIO_FR, rows))))
    assert "90.0 % accuracy on 10 labelled sources" in text
    assert "60.0 % largest class's share" in text


def test_labels_of_another_task_do_not_count():
    rows = [("a", "merging", "FRI", 0.9, None, OK), ("b", "FRI", "FRI", 0.9, None, OK)]
    held = numbers.held_out(catalogue_of(RADIO_FR, rows), RADIO_FR)
    assert (len(held.rows), held.foreign) == (1, 1)


def test_wilson_interval():
    # (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = 0.8, n = 10, z = 1, by hand
    assert numbers.wilson_interval(8, 10) == pytest.approx(
        ((0.85 - np.sqrt(0.0185)) / 1.1, (0.85 + np.sqrt(0.0185)) / 1.1)
    )
    assert numbers.wilson_interval(3, 3)[1] == 1.0
    assert 0 < numbers.wilson_interval(3, 3)[0] < 1
    assert numbers.wilson_interval(0, 3)[0] == 0.0


def test_a_reliability_curve_has_points_of_equal_numbers_of_sources():
    rng = np.random.default_rng(0)
    probability = pd.Series(0.5 + 0.5 * rng.beta(5, 1, 253))
    right = pd.Series(rng.random(253) < 0.7)
    curve = numbers.reliability_curve(probability, right)
    assert set(curve.points.count) == {25, 26}
    both = np.column_stack([probability, 1 - probability])
    assert curve.error == pytest.approx(expected_calibration_error(both, (~right).to_numpy(int)))
    few = numbers.reliability_curve(probability[:9], right[:9])
    assert few.points.count.tolist() == [9]
    assert few.points.accuracy[0] == pytest.approx(right[:9].mean())


def drawn_figure(monkeypatch, curves: dict) -> Figure:
    drawn = []
    monkeypatch.setattr("galgaze.report.figures.in_style", lambda draw: draw())
    monkeypatch.setattr("galgaze.report.figures.FigureCanvasAgg", lambda figure: drawn.append(figure) or NoCanvas())
    figures.reliability_diagram(curves)
    return drawn[0]


class NoCanvas:
    """In the place of a canvas: the figure itself is looked at."""

    def print_png(self, buffer, metadata):
        pass


def test_the_reliability_diagram_shows_both_curves_with_their_errors(monkeypatch):
    rng = np.random.default_rng(1)
    probability = pd.Series(rng.uniform(0.5, 1, 3000))
    right = pd.Series(rng.random(3000) < probability**3)
    curves = {
        "raw": numbers.reliability_curve(probability, right),
        "mended": numbers.reliability_curve(probability**3, right),
    }
    assert curves["raw"].error > 0.1 > 2 * curves["mended"].error
    figure = drawn_figure(monkeypatch, curves)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "perfectly calibrated",
        *(f"{name}: ECE {curve.error:.3f}" for name, curve in curves.items()),
    ]
    axes, below = figure.axes
    lines = [container.lines[0].get_xydata() for container in axes.containers]
    for line, curve in zip(lines, curves.values(), strict=True):
        np.testing.assert_allclose(line, np.column_stack([curve.points.confidence, curve.points.accuracy]))
    assert len(below.patches) == 2
    assert below.get_xlim()[0] == pytest.approx(0.1)  # 0.5 cubed


# ----------------------------------------------------------------------------------- what may lack


@pytest.mark.parametrize(
    "rows",
    [
        [(str(i), None, "FRI", 0.5 + i / 20, None, OK) for i in range(5)],
        [(str(i), "FRI", None, None, None, FETCH_FAILED) for i in range(5)],
        [(str(i), None, None, None, None, FETCH_FAILED) for i in range(5)],
        [("only", "FRII", "FRII", 0.7, None, OK)],
        [("only", "FRII", "FRII", 0.7, "training", OK)],
        [("only", None, None, None, None, FETCH_FAILED)],
        [],
    ],
    ids=["no labels", "all failed", "failed, no labels", "one", "one, trained on", "one, failed", "none"],
)
@pytest.mark.parametrize("task", [RADIO_FR, OPTICAL_MORPHOLOGY], ids=lambda task: task.name)
def test_a_page_stands_whatever_lacks(rows, task):
    names = dict(zip(RADIO_FR.classes, task.classes, strict=False)) | {None: None}
    rows = [(row[0], names[row[1]], names[row[2]], *row[3:]) for row in rows]
    catalogue = catalogue_of(task, rows)
    bars = {"probability_threshold": 0.5, "samples": 5} if task.barred_class else None
    provenance = {"survey": {}, "preparation": {}, "bars": bars}
    text = text_of(page_of(results_of(task, catalogue, curve=None, truth=None, provenance=provenance)))
    predicted = sum(row[2] is not None for row in rows)
    assert f"{predicted} of {len(rows)} sources predicted" in text
    assert ("No source has a prediction" in text) == (predicted == 0)
    assert "nan" not in re.sub("[a-z]nan|nan[a-z]", "", text)


@pytest.mark.usefixtures("no_figures")
def test_no_labels_and_weights_from_a_file():
    catalogue = catalogue_of(RADIO_FR, [("a", None, "FRI", 0.9, None, OK)])
    model = ModelFacts("mailed.safetensors", "abc", {"architecture": {"name": "agcnn"}, "calibration": None,
                                                     "training_data": {}, "metrics": {}}, 5, False)  # fmt: skip
    text = text_of(page_of(results_of(RADIO_FR, catalogue, curve=None, model=model)))
    assert "No source of this field has a label" in text
    assert "weights from a file" in text
    assert "No training curve" in text


def test_a_calibrated_model():
    catalogue = catalogue_of(RADIO_FR, radio_rows())
    catalogue["confidence"] = catalogue["class_probability"].astype(float) ** 2
    result = results_of(RADIO_FR, catalogue, examples={}, curve=None)
    card = result.model.card | {"calibration": {"method": "temperature", "temperature": 1.5}}
    page = page_of(replace(result, model=replace(result.model, card=card)))
    assert "uncalibrated" not in text_of(page.partition("<details>")[0])
    assert "temperature 1.5" in text_of(page.replace("&nbsp;", " "))
    errors = [numbers.reliability_curve(catalogue[name][:4], pd.Series([True, True, False, True])).error
              for name in ("class_probability", "confidence")]  # fmt: skip
    text = text_of(page)
    assert f"ECE, 15 bins): {errors[0]:.3f} of the network&#39;s own probability; {errors[1]:.3f} of the" in text
    assert "on the same 4 held-out labelled sources" in text
    spread = np.sqrt(2 / np.pi) * np.sqrt([0.81 * 0.19, 0.64 * 0.36, 0.36 * 0.64, 0.49 * 0.51]).sum() / 4
    assert f"even true probabilities would show about {spread:.3f}." in text  # each in a bin of its own
    assert "validation sources, here 1 of the 4." in text
    assert f"its calibration error is {errors[1]:.3f}, that of the network's own probability {errors[0]:.3f}" in text


def test_unknown_pixel_scale():
    catalogue = catalogue_of(RADIO_FR, radio_rows())
    for column in attention_columns():
        if column.unit:
            catalogue[column.name] = None
    result = results_of(RADIO_FR, catalogue)
    blind = {name: replace(shown, jacobian_arcsec=np.full((2, 2), np.nan)) for name, shown in result.examples.items()}
    assert "orientation on the sky is unknown" in text_of(page_of(replace(result, examples=blind)))


# -------------------------------------------------------------------------------------------- bars


def barred() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Five barred spirals, measured 1.5 times too long and turned by 4 degrees, and the truth of four."""
    rows = [(f"s{i}", "barred_spiral", "barred_spiral", 0.9 - i / 100, None, OK) for i in range(5)]
    catalogue = catalogue_of(OPTICAL_MORPHOLOGY, rows)
    true = np.array([4.0, 6.0, 8.0, 12.0, np.nan])
    angle = np.array([178.0, 10.0, 20.0, 30.0, np.nan])
    catalogue["bar_flag"] = [0.0, 0.0, 0.0, 1.0, 2.0]
    catalogue["bar_flag_reason"] = [None, None, None, "off_centre,fragmented", "round"]
    catalogue["bar_length_arcsec"] = 1.5 * true
    catalogue["bar_length_px"] = 3 * true
    catalogue["bar_position_angle_deg"] = (angle + 4) % 180
    truth = pd.DataFrame(
        {"source_id": catalogue["source_id"], "bar_length_arcsec": true, "bar_position_angle_deg": angle}
    )
    return catalogue, truth


BARS_ON = {"survey": {}, "preparation": {}, "bars": {"probability_threshold": 0.5, "samples": 5}}


def test_bars_against_the_truth():
    catalogue, truth = barred()
    bars = numbers.measured_bars(catalogue, truth.sample(frac=1, random_state=1))
    good, both = numbers.bar_agreement(bars)
    assert (good["n"], both["n"]) == (3, 4)
    assert both["ratio"] == pytest.approx([1.5] * 3)
    assert both["pearson"] == pytest.approx(1)
    assert both["turn_deg"] == pytest.approx(4)  # 178 to 2 degrees is 4, not 176
    assert [row["count"] for row in numbers.flag_counts(bars)] == [3, 1, 1]
    assert numbers.flag_counts(bars)[1]["reasons"] == "fragmented 1, off_centre 1"
    result = results_of(OPTICAL_MORPHOLOGY, catalogue, truth=truth, provenance=BARS_ON)
    text = text_of(page_of(result))
    assert "good and suspect (0, 1) 4 1.00 1.50 1.50 to 1.50 4.0°" in text
    assert "4 sources truly have a bar; 4 of them were measured, and 1 without one." in text


@pytest.mark.parametrize("unit", ["arcsec", "px only", "none"])
def test_bars_without_truth(unit):
    catalogue, _ = barred()
    if unit != "arcsec":
        catalogue[["bar_length_arcsec", "bar_position_angle_deg"]] = np.nan
    if unit == "none":
        catalogue["bar_length_px"] = np.nan
    catalogue["label"] = None  # fewer figures
    page = page_of(results_of(OPTICAL_MORPHOLOGY, catalogue, provenance=BARS_ON, examples={}, curve=None))
    assert "The true lengths are not known here." in page
    assert "5 sources with a bar probability" in page
    assert "measured against true" not in page
    assert ("Histogram of measured bar lengths" in page) == (unit != "none")


def test_angle_differences_are_those_of_axes():
    difference = numbers.angle_difference_deg([1, 179, 90, 45], [179, 1, 0, 45])
    assert difference.tolist() == [2, -2, -90, 0]


@pytest.mark.parametrize(("angle", "direction"), [(0, (0, 1)), (90, (-1, 0)), (45, (-1, 1))])
def test_a_bar_is_drawn_with_north_up_and_east_left(angle, direction):
    axes = Figure().add_subplot()
    figures._draw_bar(axes, example("a"), Bar(3.6, angle), 0, "red", "-")
    (column, row) = axes.lines[0].get_data()
    drawn = np.array([column[1] - column[0], row[1] - row[0]])
    assert drawn == pytest.approx(2 * np.array(direction) / np.hypot(*direction))  # 3.6 arcsec are 2 px
    assert np.mean([column, row], axis=1) == pytest.approx([7.5 + figures.FRAME] * 2)


# ---------------------------------------------------------------------------------------- examples


def test_examples_are_chosen_by_probability_and_then_by_id():
    rows = [
        ("b", None, "FRI", 0.9, None, OK),
        ("a", None, "FRI", 0.9, None, OK),
        ("c", None, "FRI", 0.95, None, OK),
        ("d", None, "FRII", 0.6, None, OK),
        ("e", None, None, None, None, FETCH_FAILED),
    ]
    catalogue = catalogue_of(RADIO_FR, rows)
    assert numbers.most_confident(catalogue, RADIO_FR) == ["c", "a", "d"]
    assert numbers.least_certain(catalogue) == ["d", "a", "b", "c"]
    assert numbers.most_confident(catalogue.sample(frac=1, random_state=3), RADIO_FR) == ["c", "a", "d"]
    assert examples_wanted(catalogue, RADIO_FR) == (["c", "a", "d", "b"], [])


def test_a_coarse_map_lies_over_the_pixels_it_spans():
    coarse = np.zeros((4, 4))
    coarse[1, 2] = 1
    fine = figures.enlarged(coarse, 4, (18, 18))  # two pixels are left over, as after pooling
    row, column = np.indices(fine.shape)
    centre = (fine * row).sum() / fine.sum(), (fine * column).sum() / fine.sum()
    assert centre == pytest.approx((5.5, 9.5))  # the middle of rows 4 to 7 and columns 8 to 11


# ----------------------------------------------------------------------------------------- the stage


@pytest.fixture
def run(tmp_path):
    """A field of three sources, by hand: plan, store, model and catalogue."""
    (tmp_path / "cutouts").mkdir()
    return _make_run(tmp_path, {"kind": "directory", "path": str(tmp_path / "cutouts")}, {"table": {"path": "few.csv"}})


def _make_run(tmp_path, survey: dict, origin: dict):
    from galgaze.models.model_file import ModelCard, save_model
    from galgaze.models.registry import build_network
    from galgaze.stages.context import Run

    weights = tmp_path / "m.safetensors"
    settings = {
        "results": str(tmp_path / "results"),
        "surveys": {"mine": survey},
        "fields": {"few": {**origin, "tasks": ["radio_fr"]}},
        "tasks": {
            "radio_fr": {
                "survey": "mine",
                "preparation": {"kind": "radio_clip", "size_px": 24},
                "model": {"weights": str(weights)},
            }
        },
    }
    run = Run(check_config(settings))
    card = ModelCard(
        task="radio_fr",
        architecture={"name": "agcnn", "widths": [2, 2, 2, 2], "gate_pooling": "mean"},
        classes=["FRI", "FRII"],
        channels=1,
        preparation={},
    )
    save_model(weights, build_network(card), card)
    _write_field(run, ["one", HOSTILE, "gone"], sha256_file(weights))
    return run


def _write_field(run, ids: list[str], model_sha256: str) -> None:
    layout = run.layout
    layout.plan(field := "few").mkdir(parents=True)
    plan = pd.DataFrame({"source_id": ids, "shard": 0, "position": range(3)})
    plan.to_parquet(layout.plan_shard(field, 0))
    layout.plan_record(field).write_text(json.dumps({"shards": 1, "sources": 3, "shard_size": 3}))
    rows = ShardImages.empty(3, (1, 24, 24))
    rows.image[:2] = np.random.default_rng(1).integers(0, 255, (2, 1, 24, 24))
    rows.valid[:2] = True
    rows.source_id[:] = ids
    rows.centre_px[:] = 11.5
    rows.jacobian_arcsec[:] = np.diag([-1.8, 1.8])
    store = layout.store(field, run.images(field, "radio_fr").store)
    store.parent.mkdir(parents=True)
    ensure_store(store, 1, 3, (1, 24, 24), {})
    write_shard(store, 0, rows)
    table = [(ids[0], None, "FRI", 0.9, None, OK), (ids[1], None, "FRII", 0.8, None, OK)]
    frame = catalogue_of(RADIO_FR, [*table, (ids[2], None, None, None, None, FETCH_FAILED)])
    frame["model_sha256"] = np.where(frame["class_label"].notna(), model_sha256, None)
    given = {"ra_deg": 1.0, "dec_deg": 2.0, "_healpix_29": 3, "survey": "mine", "coverage_fraction": 1.0}
    frame = frame.assign(**given, pipeline_version="0")
    provenance = {"survey": {"kind": "directory"}, "preparation": {"kind": "radio_clip"}, "bars": None}
    write_catalogue(layout.catalogue(field, "radio_fr"), to_arrow(frame, catalogue_columns(RADIO_FR)), provenance)


def test_the_stage_writes_the_page(run):
    from galgaze.stages.report import report

    assert report(run, "few").startswith("few: a page on radio_fr")
    first = run.layout.report("few").read_bytes()
    text = text_of(first.decode())
    assert "3 sources in 1 shard; from the table few.csv" in text
    assert "2 of 3 sources predicted" in text
    assert b"The simulated sky" not in first
    assert first.count(b'class="example"') == 4  # two confident, and the same two again by uncertainty
    assert b"<script" not in first
    report(run, "few")
    assert run.layout.report("few").read_bytes() == first


def test_the_page_of_a_simulated_field_shows_its_sky(tmp_path):
    from galgaze.stages.report import report

    run = _make_run(tmp_path, {"kind": "simulated_first"}, {"simulated": {"survey": "mine", "count": 3}})
    ids = ["one", HOSTILE, "gone"]
    truth = pd.DataFrame({"source_id": ids, "class_label": ["FRII", "FRI", "FRII"], "morphology": ["x_y", None, "x_y"]})
    truth.to_parquet(run.layout.truth("few"))
    report(run, "few")
    page = run.layout.report("few").read_text()
    assert "The simulated sky" in page
    assert "truth.parquet" in page
    assert "Images of simulated sources by true class: FRI 1, FRII x y 1." in page  # "gone" has no image
    run.layout.truth("few").unlink()
    report(run, "few")
    assert "The simulated sky" not in run.layout.report("few").read_text()


def test_the_stage_refuses_another_model_than_the_catalogue_s(run):
    from galgaze.stages.report import report

    path = run.models("radio_fr")[0]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ConfigError, match="this is not the model that the catalogue of few radio_fr was made with"):
        report(run, "few")
    assert not run.layout.report("few").exists()


def test_the_stage_says_what_has_to_be_run_first(run):
    from galgaze.stages.report import report

    run.layout.catalogue("few", "radio_fr").unlink()
    with pytest.raises(ConfigError, match="galgaze write"):
        report(run, "few")
    run.layout.plan_record("few").unlink()
    with pytest.raises(ConfigError, match="galgaze plan"):
        report(run, "few")
    with pytest.raises(ConfigError, match="not in the configuration"):
        report(run, "other")


def test_an_image_that_went_missing_is_not_shown_as_black(run):
    from galgaze.stages.report import report

    store = run.layout.store("few", run.images("few", "radio_fr").store)
    for chunk in (store / "image" / "c").rglob("0"):
        if chunk.is_file():
            chunk.unlink()
    with pytest.raises(ConfigError, match="is not in the store"):  # no marker stands for it
        report(run, "few")


@pytest.mark.usefixtures("no_figures")
class TestFetching:
    FACTS = FetchFacts(
        way="bricks",
        expected={"requests": 5028, "megabytes": 55_300.0, "seconds": 11_061.0, "files": 10_056},
        others={"cutouts": {"requests": 20_000, "megabytes": 15_800.0, "seconds": 4000.0, "files": 20_000}},
        jobs=2,
        requests=5041,
        megabytes=54_999.0,
        seconds=12_000.0,
        in_vain={"HTTP 503": 13},
        served_by={"legacy": 900, "hips": 3},
    )

    def test_what_was_expected_and_what_it_took(self):
        page = page_of(results_of(RADIO_FR, catalogue_of(RADIO_FR, radio_rows()), fetching=self.FACTS))
        row = page[page.index("<th>Fetching</th>") : page.index("<th>Preparation</th>")]
        text = " ".join(re.sub("<[^>]*>", "", row).replace("&nbsp;", " ").split())
        assert "as bricks; expected for the whole field: 5028 requests, 55.3 GB, 3.1 h, 10056 files" in text
        assert "(as cutouts: 20000 requests, 15.8 GB, 67 min)" in text
        assert "2 jobs: 5041 requests, 55.0 GB, 3.3 h" in text
        assert "tries in vain: HTTP 503 13" in text
        assert "images by survey: legacy 900, hips 3" in text

    def test_nothing_is_said_of_local_images(self):
        assert "<th>Fetching</th>" not in page_of(results_of(RADIO_FR, catalogue_of(RADIO_FR, radio_rows())))
