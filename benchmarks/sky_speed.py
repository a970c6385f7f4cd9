"""Simulated cutouts a second on one core.

    OMP_NUM_THREADS=1 python -m benchmarks.sky_speed [--count 100]

Each line: what is drawn, cutouts a second of processor time (as the survey serves them: drawn, written as FITS) and, in
brackets, of the drawing alone. Processor time rather than the clock's, so that other work on the machine disturbs less;
two busy threads on one core still slow each other down. Spectra of the seeing are cached: a first pass warms them.
"""

import argparse
import time
from collections.abc import Callable

from galgaze.config import SimulatedFirstSurvey, SimulatedLegacySurvey
from galgaze.surveys.base import Source, Survey
from galgaze.surveys.registry import open_survey
from galgaze.surveys.simulated import optical, radio
from galgaze.tasks import OPTICAL_MORPHOLOGY, RADIO_MORPHOLOGIES

OPTICAL_SIZES = ((64, 0.262), (128, 0.524), (150, 0.262), (256, 0.262))  # px, arcsec a pixel
RADIO_SIZES = (64, 150, 300)  # px


def rate(draw: Callable[[str], object], count: int) -> float:
    """Calls a second of processor time; the names of the first pass are not drawn again."""
    for number in range(count // 4):
        draw(f"warm-up-{number}")
    start = time.process_time()
    for number in range(count):
        draw(f"source-{number}")
    return count / (time.process_time() - start)


def served(survey: Survey) -> Callable[[str], object]:
    return lambda name: survey.download(Source(name, 180.0, 0.0))


def drawn_optical(size: int, scale: float, mix=None) -> Callable[[str], object]:
    return lambda name: optical.draw_optical(optical.optical_truth(1, name, mix), 1, name, size, scale)


def drawn_radio(size: int, mix=None) -> Callable[[str], object]:
    return lambda name: radio.draw_radio(1, name, size, 1.8, mix)


def line(what: str, whole: float, alone: float) -> None:
    print(f"{what:<46} {whole:6.1f} ({alone:6.1f})", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="cutouts a line")
    count = parser.parse_args().count
    print("cutouts a second of one core (drawing alone)")
    for size, scale in OPTICAL_SIZES:
        survey = open_survey(SimulatedLegacySurvey(kind="simulated_legacy", size_px=size, pixel_scale_arcsec=scale))
        what = f"optical, g r z, {size} x {size} of {scale} arcsec"
        line(what, rate(served(survey), count), rate(drawn_optical(size, scale), count))
    for size in RADIO_SIZES:
        survey = open_survey(SimulatedFirstSurvey(kind="simulated_first", size_px=size))
        line(f"radio, {size} x {size}", rate(served(survey), count), rate(drawn_radio(size), count))
    for kind in OPTICAL_MORPHOLOGY.classes:
        print(f"  optical, 256 x 256, {kind:<26} ({rate(drawn_optical(256, 0.262, {kind: 1}), count // 4):6.1f})")
    for kind in RADIO_MORPHOLOGIES:
        print(f"  radio, 150 x 150, {kind:<28} ({rate(drawn_radio(150, {kind: 1}), count // 4):6.1f})")


if __name__ == "__main__":
    main()
