"""Whether the score of unlike images finds what a network was not made for: artefacts, other surveys' images.

    python -m benchmarks.out_of_distribution MODEL.safetensors --data DATA [--half report] [--count 400] [--out FOLDER]

The network's own kind: for radio MiraBest's FRI and FRII (confident or not) as FIRST served them, without those that
the model was trained on; for optical fresh simulated galaxies, and the sample of Galaxy10 DECaLS. Against it: artefacts
drawn on such images before they are prepared, noise, and the other task's images. Printed, and written as CSV: images,
median score, and against each set of the own kind the area under the ROC curve and the share that is caught by a
threshold which 5 % of the set exceed. Of each real set only the half asked for is read (`benchmarks.real_images`).

A model file that does not hold the tensors of `galgaze.models.novelty` gets them here, out of half of the images of its
own kind; then the other half is scored.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the machine is shared; before numpy is loaded

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from benchmarks.real_images import HALVES, galaxy10_sample, half_mask, mirabest_cutouts, mirabest_rows, sdss_bars
from benchmarks.simulated_to_real import _auc, _auc_error, _served, simulated_images
from galgaze import status
from galgaze.config import OpticalPreparation, RadioPreparation, SimulatedLegacySurvey
from galgaze.errors import ConfigError
from galgaze.files import write_bytes
from galgaze.images.preparation import clipped_standard_deviation, prepare
from galgaze.models.splits import near
from galgaze.surveys.base import Cutout
from galgaze.surveys.registry import open_survey

FALSE_ALARMS = 0.05
SAME_SOURCE_ARCSEC = 1.0
FEWEST_OWN = 20
FIT_SHARE, FIT_TRAINING_SHARE = 0.5, 0.7  # where the file holds no extras: to fit on, and of these for the means
OUT = Path("results/benchmarks")
FIRST_PIXEL_ARCSEC, FIRST_BEAM_ARCSEC = 1.8, 5.4
SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))
NATIVE_PIXEL_ARCSEC, SEEING_ARCSEC = 0.262, 1.3  # of the Legacy Surveys
GRZ_NOISE_NANOMAGGY = (0.004, 0.006, 0.012)  # of a native pixel


@dataclass(frozen=True)
class Kinds:
    """Images (N, C, H, W) uint8 by kind: the network's own, with labels (N,) for the first of them, and others."""

    own: dict[str, np.ndarray]
    label: np.ndarray
    others: dict[str, np.ndarray]


# ------------------------------------------------------------------------------------------------ radio


def grating(flux: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Ridges of a far bright source's grating lobes, in one to three directions 60 degrees apart: 8 to 30 sigma."""
    rows, columns = np.indices(flux.shape)
    angle, peak = rng.uniform(0, np.pi), rng.uniform(8, 30) * sigma
    for arm in range(rng.integers(1, 4)):
        across = columns * np.cos(angle + arm * np.pi / 3) + rows * np.sin(angle + arm * np.pi / 3)
        phase = across / rng.uniform(15, 50) + rng.random()  # 27 to 90 arcsec from ridge to ridge
        flux = flux + peak * np.exp(12 * (np.cos(2 * np.pi * phase) - 1))
    return flux


def rings(flux: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Sidelobes of a bright source beyond the edge: rings, 10 to 40 sigma at first, that fall off with the distance."""
    rows, columns = np.indices(flux.shape) - (np.array(flux.shape)[:, None, None] - 1) / 2
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.6) * flux.shape[0]
    distance = np.hypot(rows - away * np.sin(angle), columns - away * np.cos(angle))
    phase = distance / rng.uniform(8, 20)
    return flux + rng.uniform(10, 40) * sigma * np.cos(2 * np.pi * phase) / (1 + phase)


def noise_alone(flux: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """No source: white noise as wide as the beam, of which the clip leaves what lies above 3 sigma."""
    beam_px = FIRST_BEAM_ARCSEC * SIGMA_PER_FWHM / FIRST_PIXEL_ARCSEC
    return ndimage.gaussian_filter(rng.standard_normal(flux.shape), beam_px)


def hot_pixel(flux: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A blank map, and one pixel near its centre."""
    image = np.zeros(flux.shape)
    row, column = (np.array(flux.shape) // 2 + rng.integers(-15, 16, 2)).tolist()
    image[row, column] = 1
    return image


def constant_patch(flux: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A rectangle of one to three times the brightest pixel, 8 to 50 px a side, centred within 25 px of the centre."""
    image = flux.copy()
    height, width = rng.integers(8, 51, 2)
    row, column = np.array(flux.shape) // 2 + rng.integers(-25, 26, 2) - (height // 2, width // 2)
    image[row : row + height, column : column + width] = rng.uniform(1, 3) * flux.max()
    return image


def half_missing(flux: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """The map ends within 10 px of the centre, at any angle, and nothing says so."""
    rows, columns = np.indices(flux.shape) - (np.array(flux.shape)[:, None, None] - 1) / 2
    angle = rng.uniform(0, 2 * np.pi)
    return np.where(columns * np.cos(angle) + rows * np.sin(angle) > rng.uniform(-10, 10), 0, flux)


RADIO_ARTEFACTS: dict[str, Callable] = {
    "grating": grating,
    "sidelobe_rings": rings,
    "noise_alone": noise_alone,
    "hot_pixel": hot_pixel,
    "constant_patch": constant_patch,
    "half_missing": half_missing,
}


def radio_kinds(data: Path, half: str, preparation: RadioPreparation, count: int, seen: np.ndarray) -> Kinds:
    """MiraBest, artefacts drawn on its maps, and optical pictures.

    Parameters
    ----------
    data, half : Path, str
        See `benchmarks.real_images`.
    preparation : RadioPreparation
        The model's.
    count : int
        Maps to use at most, taken evenly from the half.
    seen : numpy.ndarray
        (N, 2): right ascension and declination of what the model was trained on, degrees.
    """
    rows = mirabest_rows(data, confident_only=False)
    rows = rows[half_mask(rows["report"].to_numpy(bool), half)]
    rows = rows[~near(rows["ra_deg"].astype(float), rows["dec_deg"].astype(float), *seen.T, SAME_SOURCE_ARCSEC)]
    if len(rows) < FEWEST_OWN:
        raise ConfigError(
            f"{len(rows)} sources of the half {half!r} of MiraBest were not trained on; {FEWEST_OWN} are needed. Take "
            "another half, or a model that was trained on fewer."
        )
    rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]
    own, others = [], {name: [] for name in RADIO_ARTEFACTS}
    for number, (source, cutout) in enumerate(mirabest_cutouts(data, rows)):
        own.append(prepare(cutout, preparation, source.las_arcsec).pixels)
        flux = cutout.pixels[0].astype(np.float64)
        sigma = clipped_standard_deviation(flux[cutout.observed])
        for place, (name, spoil) in enumerate(RADIO_ARTEFACTS.items()):
            flux_spoilt = spoil(flux, sigma, np.random.default_rng([number, place]))
            spoilt = replace(cutout, pixels=flux_spoilt[None].astype(np.float32))
            others[name].append(prepare(spoilt, preparation, source.las_arcsec).pixels)
    pictures = optical_pictures(data, half)
    others["optical_picture"] = [prepare(_picture(p, rendered=True), preparation).pixels for p in pictures]
    others["optical_clipped"] = [prepare(_picture(p, rendered=False), preparation).pixels for p in pictures]
    label = rows["label"].str[0].astype(int).to_numpy() - 1
    return Kinds({"MiraBest": np.stack(own)}, label, {name: np.stack(images) for name, images in others.items()})


def optical_pictures(data: Path, half: str) -> list[np.ndarray]:
    """Galaxy10 DECaLS and SDSS discs of the half, 256 px, (3, H, W) uint8."""
    preparation = OpticalPreparation(size_px=256)
    return [*galaxy10_sample(data, preparation).half(half).image, *sdss_bars(data, preparation).half(half).image]


def _picture(colours: np.ndarray, rendered: bool) -> Cutout:
    """A picture where a radio map is expected: as a picture, or its grey as if it were fluxes."""
    pixels = colours if rendered else colours.mean(axis=0, keepdims=True).astype(np.float32)
    height, width = colours.shape[1:]
    centre_px = ((width - 1) / 2, (height - 1) / 2)
    jacobian = np.diag([-FIRST_PIXEL_ARCSEC, FIRST_PIXEL_ARCSEC])
    return Cutout(pixels, "rgb" if rendered else "", rendered, np.ones((height, width), bool), centre_px, jacobian)


# ---------------------------------------------------------------------------------------------- optical


def optical_kinds(data: Path, half: str, preparation: OpticalPreparation, count: int) -> Kinds:
    """Simulated galaxies and Galaxy10 DECaLS; artefacts, radio maps, stars, noise, and a missing band."""
    simulated, label = simulated_images("optical_morphology", count, "strange", workers=1)
    rng = np.random.default_rng(0)
    fluxes = [stars(rng) for _ in range(count // 3)], [blank_sky(rng) for _ in range(count // 3)]
    others = artefact_images(preparation, count) | {
        "band_of_zeros": without_a_band(simulated, rng),
        "radio_map": radio_maps(data, half, preparation.size_px, count // 3),
        "stars": np.stack([_composite(flux, preparation) for flux in fluxes[0]]),
        "blank_sky": np.stack([_composite(flux, preparation) for flux in fluxes[1]]),
        "white_noise": rng.integers(0, 256, (count // 3, *simulated.shape[1:]), dtype=np.uint8),
    }
    own = {"simulated": simulated, "Galaxy10": galaxy10_sample(data, preparation).half(half).image}
    return Kinds(own, label, others)


def artefact_images(preparation: OpticalPreparation, count: int) -> dict[str, np.ndarray]:
    """Simulated galaxies that all have an artefact, by its name; what the preparation refuses is left out."""
    survey = open_survey(SimulatedLegacySurvey(kind="simulated_legacy", artefact_fraction=1.0))
    found: dict[str, list] = {}
    for number in range(count):
        name = f"spoilt-{number:07d}"
        prepared = prepare(_served(survey, name, number), preparation)
        if prepared.status == status.OK:
            found.setdefault(survey.truth(name)["artefact"], []).append(prepared.pixels)
    return {name: np.stack(found[name]) for name in sorted(found)}


def without_a_band(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images (N, 3, H, W) whose red, green or blue is 0."""
    spoilt = image.copy()
    spoilt[np.arange(len(image)), rng.integers(0, 3, len(image))] = 0
    return spoilt


def radio_maps(data: Path, half: str, size_px: int, count: int) -> np.ndarray:
    """MiraBest, painted from black over red and yellow to white, (N, 3, H, W) uint8."""
    rows = mirabest_rows(data)
    rows = rows[half_mask(rows["report"].to_numpy(bool), half)].head(count)
    preparation = RadioPreparation(size_px=size_px)
    maps = [prepare(cutout, preparation).pixels for _, cutout in mirabest_cutouts(data, rows)]
    light = np.sqrt(np.stack(maps) / 255)  # (N, 1, H, W)
    return np.round(255 * np.clip(3 * light - np.array([0, 1, 2])[:, None, None], 0, 1)).astype(np.uint8)


def blank_sky(rng: np.random.Generator) -> np.ndarray:
    """Noise in g, r and z, nanomaggies a pixel: (3, 256, 256)."""
    return np.array(GRZ_NOISE_NANOMAGGY)[:, None, None] * rng.standard_normal((3, 256, 256))


def stars(rng: np.random.Generator) -> np.ndarray:
    """The same with 5 to 60 stars, the brightest in the middle, in a seeing of 1.3 arcsec (Moffat, beta 3.5)."""
    image = blank_sky(rng)
    rows, columns = np.indices(image.shape[1:])
    number = rng.integers(5, 61)
    place = np.vstack([[127.5, 127.5], rng.uniform(0, 256, (number - 1, 2))])
    flux = np.sort(10 ** rng.uniform(0, 3, number))[::-1]  # nanomaggies: magnitudes 22.5 to 15
    width_px = SEEING_ARCSEC / NATIVE_PIXEL_ARCSEC / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    for (row, column), total in zip(place, flux, strict=True):
        profile = (1 + ((rows - row) ** 2 + (columns - column) ** 2) / width_px**2) ** -3.5
        image += total / profile.sum() * rng.uniform((0.2, 0.8, 1), (0.9, 1, 3))[:, None, None] * profile
    return image


def _composite(flux: np.ndarray, preparation: OpticalPreparation) -> np.ndarray:
    side = flux.shape[1]
    jacobian, centre_px = np.diag([-NATIVE_PIXEL_ARCSEC, NATIVE_PIXEL_ARCSEC]), ((side - 1) / 2, (side - 1) / 2)
    cutout = Cutout(flux.astype(np.float32), "grz", False, np.ones((side, side), bool), centre_px, jacobian)
    return prepare(cutout, preparation).pixels


# ---------------------------------------------------------------------------------------------- scoring


def score(network, extras: dict, kinds: Kinds) -> dict[str, np.ndarray]:
    """Scores (N,) by kind. Without extras they are fitted to half of the first own kind, which is not scored then."""
    import torch

    from galgaze.models.novelty import fit_novelty

    own = dict(kinds.own)
    if "feature_mean" not in extras:
        name = next(iter(own))
        order = np.random.default_rng(0).permutation(len(kinds.label))
        to_fit = round(FIT_SHARE * len(order))
        training, validation, rest = np.split(order, [round(FIT_TRAINING_SHARE * to_fit), to_fit])
        image, label = torch.from_numpy(own[name]), torch.from_numpy(kinds.label.copy())
        extras = fit_novelty(network, image[training], label[training], image[validation])
        own[name] = own[name][rest]
    return {name: _score(network, extras, image) for name, image in (own | kinds.others).items()}


def _score(network, extras: dict, image: np.ndarray) -> np.ndarray:
    import torch

    from galgaze.models.novelty import BATCH, novelty, novelty_features
    from galgaze.models.runtime import best_device, to_network_input

    network = network.to(best_device()).eval()
    parts = []
    with torch.inference_mode():
        for part in torch.from_numpy(image).split(BATCH):
            batch = to_network_input(part.to(best_device()))
            parts.append(novelty(novelty_features(network.examine(batch), batch), extras))
    return torch.cat(parts).numpy()


def compare(scores: dict[str, np.ndarray], own: list[str]) -> pd.DataFrame:
    """A row a kind, and one for all other kinds together; areas and shares against each of the own kinds."""
    others = [name for name in scores if name not in own]
    together = {"together": np.concatenate([scores[name] for name in others])}
    rows = []
    for name, values in (scores | together).items():
        row = {"kind": name, "images": len(values), "median_score": np.median(values)}
        for usual in own:
            label = np.repeat([1, 0], [len(values), len(scores[usual])])
            area = _auc(np.concatenate([values, scores[usual]]), label) if name != usual else np.nan
            caught = np.mean(values > np.quantile(scores[usual], 1 - FALSE_ALARMS))
            row |= {f"auc_{usual}": area, f"auc_error_{usual}": _auc_error(area, label), f"caught_{usual}": caught}
        rows.append(row)
    return pd.DataFrame(rows)


def evaluate(model: Path, data: Path, half: str, count: int, out: Path) -> None:
    """Print the table, and write it."""
    from galgaze.models.model_file import load_extras, load_network

    network, card = load_network(model)
    extras = load_extras(model)
    settings = {key: value for key, value in card.preparation.items() if key != "version"}
    if card.task == "radio_fr":
        seen = _trained_on(extras)
        kinds = radio_kinds(data, half, RadioPreparation(**settings), count, seen)
    else:
        kinds = optical_kinds(data, half, OpticalPreparation(**settings), count)
    own = list(kinds.own)
    table = compare(score(network, extras, kinds), own)
    origin = "from its file" if "feature_mean" in extras else "from half of the images of it"
    print(f"{model}, half {half}; its own kind is known {origin}")
    _print(table, own)
    path = out / f"out_of_distribution_{card.task}_{half}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, table.to_csv(index=False, float_format="%.4g").encode())
    print(path)


def _print(table: pd.DataFrame, own: list[str]) -> None:
    print(f"{'kind':<18}{'images':>7}{'median':>8}" + "".join(f"{'AUC against ' + name:>24}  caught" for name in own))
    for row in table.to_dict("records"):
        print(f"{row['kind']:<18}{row['images']:>7}{row['median_score']:>8.3f}", end="")
        for name in own:
            area, error, caught = (row[f"{what}_{name}"] for what in ("auc", "auc_error", "caught"))
            print(f"{f'{area:.3f} +- {error:.3f}' if np.isfinite(area) else '':>24}  {caught:6.0%}", end="")
        print()


def _trained_on(extras: dict) -> np.ndarray:
    """Positions (N, 2) that the weights were fitted to, in degrees; none where the file does not tell."""
    if "training_position_deg" not in extras:
        return np.zeros((0, 2))
    return extras["training_position_deg"].numpy()[extras["training_role"].numpy() == 0]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of real images")
    parser.add_argument("--half", choices=HALVES, default="report", help="of the real images")
    parser.add_argument("--count", type=int, default=400, help="images a kind, at most")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the table")
    words = parser.parse_args()
    evaluate(words.model, words.data, words.half, words.count, words.out)


if __name__ == "__main__":
    main()
