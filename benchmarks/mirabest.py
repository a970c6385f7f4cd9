"""MiraBest: the AG-CNN's published results beside ours, by repeated cross-validation on its training part.

    python -m benchmarks.simulated_to_real train radio_fr PRETRAINED.safetensors --count 20000
    python -m benchmarks.mirabest cross-validate BATCHES [--initial PRETRAINED] [--seeds 1 2] [--confident-only]
    python -m benchmarks.mirabest normalisations BATCHES [--initial PRETRAINED]
    python -m benchmarks.mirabest rotations BATCHES MODEL [MODEL ...]

``BATCHES`` is the folder, or archive, of the published batches without their test part, which nothing here reads.
The first command trains on simulated sources
alone; no real image is read. ``cross-validate`` splits MiraBest by position into five
folds; fold 0 is for choosing settings and is never reported; of each other fold in turn, a network trained on the
other four says what it is (an eighth of these four chooses the epoch and fits the temperature). Tables are printed and
written to results/benchmarks/.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the processes that draw are the threads; before numpy is loaded

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from galgaze.config import AgcnnSettings, MirabestDataset, Normalisation, RadioPreparation, TrainSettings
from galgaze.errors import ConfigError
from galgaze.images.datasets import LabelledSet, read_labelled_set
from galgaze.measures.calibration import fit_temperature, softmax
from galgaze.measures.evaluation import evaluate_predictions
from galgaze.tasks import RADIO_FR

OUT = Path("results/benchmarks")
FOLDS = 5
STEERING_FOLD = 0
INNER_VALIDATION = 0.125
PREPARATION = RadioPreparation(kind="radio_clip")
# Bowles et al. 2021, tables of results: trained and tested on their own splits.
PUBLISHED = {"all": (0.844, 0.920), "confident": (0.917, 0.964)}

# As in workflow/presets/mirabest.yaml, but for the threads.
FINE_TUNING = TrainSettings(
    dataset=MirabestDataset(kind="mirabest", path="(given on the command line)"),
    network=AgcnnSettings(gate_channels=16, dropout=0.1, faint_light=True, binning=2),
    epochs=60,
    patience_epochs=60,
    batch_size=32,
    learning_rate=0.001,
    weight_average=0.99,
    precision="bfloat16",
    test_time_turns=8,
    torch_threads=1,
)


# ------------------------------------------------------------------------------------------------- data


def read(batches: str) -> LabelledSet:
    """FRI and FRII of the training part, uncertain ones too."""
    settings = MirabestDataset(kind="mirabest", path=batches)
    return read_labelled_set(settings, RADIO_FR, PREPARATION)


def folds_of(data: LabelledSet) -> np.ndarray:
    """(N,) number of each source's fold; fixed, and whole groups on the sky."""
    from galgaze.models.splits import folds_by_position

    return folds_by_position(data.source_id, data.ra_deg, data.dec_deg, data.label, FOLDS, seed=0)


def _labelled(data: LabelledSet, chosen: np.ndarray):
    import torch

    from galgaze.models.training import LabelledImages

    return LabelledImages(torch.from_numpy(data.image[chosen]), torch.from_numpy(data.label[chosen]))


def inner_split(data: LabelledSet, others: np.ndarray, seed: int):
    """Of some rows those to learn from, and an eighth, by position, to choose the epoch by."""
    from galgaze.models.splits import split_by_position

    inner = split_by_position(
        data.source_id[others], data.ra_deg[others], data.dec_deg[others], data.label[others], INNER_VALIDATION, seed
    )
    return _labelled(data, others[~inner]), _labelled(data, others[inner])


# --------------------------------------------------------------------------------------------- training


def _network(settings: TrainSettings, initial: Path | None, body_only: bool = False):
    """As the training begins: from the seed, from pre-trained weights, or with their convolution stages alone."""
    import torch

    from galgaze.models.model_file import architecture_of, load_network
    from galgaze.models.registry import create_network
    from galgaze.models.runtime import tune_allocator

    tune_allocator()
    torch.set_num_threads(settings.torch_threads)
    torch.manual_seed(settings.seed)
    network = create_network(architecture_of(settings.network), 1, len(RADIO_FR.classes))
    if initial is not None:
        weights = load_network(initial)[0].state_dict()
        if body_only:
            weights = {name: value for name, value in weights.items() if name.startswith("stages.")}
        network.load_state_dict(weights, strict=not body_only)
    return network


def fine_tune(training, validation, settings: TrainSettings, initial: Path | None, body_only: bool = False):
    """A network trained on real sources, from pre-trained weights or from scratch, and its training curve."""
    from galgaze.models.runtime import best_device
    from galgaze.models.training import train_network

    network = _network(settings, initial, body_only)
    curve = train_network(network, training, validation, settings, best_device())
    return network.cpu(), curve


def logits_of(network, image, turns: int) -> np.ndarray:
    """Logits (N, K) of uint8 images (N, C, H, W), averaged over views."""
    from galgaze.models.combined import TurnedViews
    from galgaze.models.training import predict_logits

    views = TurnedViews(network, turns) if turns > 1 else network
    return predict_logits(views, image).double().numpy()


# ------------------------------------------------------------------------------------- cross-validation


def _cross_validate_fold(job) -> pd.DataFrame:
    """What a network says of one fold that had no part in its making: a row a source."""
    batches, initial, settings, fold, confident_only = job
    data = read(batches)
    fold_of = folds_of(data)
    usable = data.confident if confident_only else np.ones(len(data.label), bool)
    training, validation = inner_split(data, np.flatnonzero((fold_of != fold) & usable), settings.seed)
    network, curve = fine_tune(training, validation, settings, initial)
    temperature = fit_temperature(
        logits_of(network, validation.image, settings.test_time_turns), validation.label.numpy()
    )
    reported = np.flatnonzero((fold_of == fold) & usable)
    image = _labelled(data, reported).image
    logits = logits_of(network, image, settings.test_time_turns)
    alone = logits_of(network, image, 1)
    return pd.DataFrame(
        {
            "source_id": data.source_id[reported],
            "label": data.label[reported],
            "confident": data.confident[reported],
            "fold": fold,
            "seed": settings.seed,
            "fri_logit": logits[:, 0],
            "frii_logit": logits[:, 1],
            "fri_logit_one_view": alone[:, 0],
            "frii_logit_one_view": alone[:, 1],
            "temperature": temperature,
            "epochs": len(curve),
        }
    )


def cross_validate(
    batches: str,
    initial: Path | None,
    settings: TrainSettings,
    seeds: list[int],
    folds: list[int],
    confident_only: bool,
    workers: int,
) -> pd.DataFrame:
    """Predictions of every source of the reported folds by networks that never saw it."""
    jobs = [
        (batches, initial, settings.model_copy(update={"seed": seed}), fold, confident_only)
        for seed in seeds
        for fold in folds
    ]
    with ProcessPoolExecutor(workers) as pool:
        rows = []
        for job, part in zip(jobs, pool.map(_cross_validate_fold, jobs), strict=True):
            said = part[["fri_logit", "frii_logit"]].to_numpy()
            right = said.argmax(axis=1) == part["label"]
            sure = part["confident"]
            print(
                f"fold {job[3]} seed {job[2].seed}: all {right.mean():.3f}, confident {right[sure].mean():.3f}",
                flush=True,
            )
            rows.append(part)
    return pd.concat(rows, ignore_index=True)


def summarise(rows: pd.DataFrame, subset: str, views: str = "") -> dict:
    """Mean over folds and seeds, and its standard error: accuracy, AUC, calibration error, recall and precision."""
    rows = rows[rows["confident"]] if subset == "confident" else rows
    found = []
    for _, part in rows.groupby(["fold", "seed"]):
        logits = part[[f"fri_logit{views}", f"frii_logit{views}"]].to_numpy()
        label = part["label"].to_numpy()
        raw = evaluate_predictions(softmax(logits, 1.0), label, RADIO_FR.classes)
        calibrated = evaluate_predictions(softmax(logits, part["temperature"].iloc[0]), label, RADIO_FR.classes)
        found.append(
            {name: raw[name] for name in ("accuracy", "auc")}
            | {"ece_raw": raw["ece"], "ece": calibrated["ece"]}
            | {f"recall_{name}": value for name, value in raw["recall"].items()}
            | {f"precision_{name}": value for name, value in raw["precision"].items()}
        )
    table = pd.DataFrame(found)
    # all folds together: a calibration error of a hundred sources is mostly chance
    temperature = rows["temperature"].to_numpy()[:, None]
    pooled = softmax(rows[[f"fri_logit{views}", f"frii_logit{views}"]].to_numpy() / temperature, 1.0)
    together = evaluate_predictions(pooled, rows["label"].to_numpy(), RADIO_FR.classes)
    error = table.std(ddof=1) / np.sqrt(len(table)) if len(table) > 1 else table.iloc[0] * np.nan
    return (
        {"trainings": len(table), "sources": rows["source_id"].nunique(), "ece_pooled": together["ece"]}
        | table.mean().to_dict()
        | {f"{name}_error": value for name, value in error.items()}
    )


def print_summary(name: str, rows: pd.DataFrame) -> None:
    """The published table's columns, published beside ours."""
    for subset, (accuracy, auc) in PUBLISHED.items():
        for views, what in (("", "views averaged"), ("_one_view", "one view")):
            found = summarise(rows, subset, views)
            print(
                f"{name}, {subset} ({found['sources']} sources, {found['trainings']} trainings, {what}): "
                f"accuracy {found['accuracy']:.3f} +- {found['accuracy_error']:.3f} (published {accuracy:.3f}), "
                f"AUC {found['auc']:.3f} +- {found['auc_error']:.3f} (published {auc:.3f}), "
                f"calibration error {found['ece']:.3f} a fold, {found['ece_pooled']:.3f} all together "
                f"(not calibrated {found['ece_raw']:.3f}), "
                f"recall {found['recall_FRI']:.3f} / {found['recall_FRII']:.3f}, "
                f"precision {found['precision_FRI']:.3f} / {found['precision_FRII']:.3f}"
            )


# ------------------------------------------------------------------------- the paper's table, rotations


def _table_cell(job) -> dict:
    """Accuracy, and what the maps attend, of one normalisation and aggregation."""
    import torch

    from galgaze.models.attention import from_zero
    from galgaze.models.gate_record import gate_record
    from galgaze.models.runtime import to_network_input

    batches, initial, settings, fold = job
    data = read(batches)
    fold_of = folds_of(data)
    training, validation = inner_split(data, np.flatnonzero(fold_of != fold), settings.seed)
    reported = _labelled(data, fold_of == fold)
    network, _ = fine_tune(training, validation, settings, initial, body_only=True)
    scores = evaluate_predictions(
        softmax(logits_of(network, reported.image, 1), 1.0), reported.label.numpy(), RADIO_FR.classes
    )
    with torch.inference_mode():
        _, maps = network.forward_with_attention(to_network_input(reported.image))
    record = gate_record([from_zero(a, network.normalisation) for a in maps])
    gates = {
        f"{name}_gate{number}": getattr(gate, name)
        for number, gate in enumerate(record, start=1)
        for name in ("entropy", "area_share", "centre_distance", "blank_share")
    }
    which = {"normalisation": settings.network.normalisation, "aggregation": settings.network.aggregation}
    return which | {"fold": fold, "accuracy": scores["accuracy"], "auc": scores["auc"]} | gates


def normalisations(batches: str, initial: Path | None, epochs: int, folds: list[int], workers: int) -> pd.DataFrame:
    """The first paper's table: every normalisation with every aggregation, trained alike.

    All begin with the same convolution stages (pre-trained, or from the seed); gates and classifiers from scratch.
    """
    jobs = []
    for normalisation in get_args(Normalisation):
        for aggregation in ("ft", "concat", "mean", "deep_sup"):
            network = FINE_TUNING.network.model_copy(
                update={"normalisation": normalisation, "aggregation": aggregation}
            )
            changes = {"network": network, "epochs": epochs, "central_epochs": max(0, epochs - 2)}
            settings = FINE_TUNING.model_copy(update=changes)
            jobs += [(batches, initial, settings, fold) for fold in folds]
    rows = []
    with ProcessPoolExecutor(workers) as pool:
        for row in pool.map(_table_cell, jobs):
            rows.append(row)
            print(", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True)
    return pd.DataFrame(rows)


def rotations(batches: str, models: list[Path], angles: int) -> pd.DataFrame:
    """How often a source's class changes when its image is turned: the sources that the model was not trained on."""
    rows = []
    for path in models:
        model, unseen = _model_and_unseen(batches, path)
        straight = _classes(model, unseen, 0.0)
        changed = np.array([_classes(model, unseen, turn * 360 / angles) != straight for turn in range(1, angles)])
        rows.append(
            {
                "model": path.name,
                "sources": len(unseen),
                "views": model.card.test_time_turns,
                "changed_mean": changed.mean(),
                "changed_worst_angle": changed.mean(axis=1).max(),
                "ever_changed": changed.any(axis=0).mean(),
            }
        )
        print(
            f"{path.name} ({rows[-1]['views']} views): over {angles} angles {changed.mean():.4f} of the classes of "
            f"{len(unseen)} sources change in the mean, {rows[-1]['changed_worst_angle']:.4f} at the worst angle; "
            f"{changed.any(axis=0).mean():.3f} of the sources ever do",
            flush=True,
        )
    return pd.DataFrame(rows)


def _model_and_unseen(batches: str, path: Path):
    """The model, and images (N, 1, H, W) uint8 that its weights were not fitted to; refuses where there are none."""
    from galgaze.models.loaded import load_model
    from galgaze.models.splits import near

    data, model = read(batches), load_model([path])
    extras = model.members[0].extras
    if "training_position_deg" in extras:
        trained = extras["training_position_deg"][extras["training_role"] == 0].numpy()
        unseen = ~near(data.ra_deg, data.dec_deg, *trained.T)
        if not unseen.any():
            raise ConfigError(
                f"{path}: the model was trained on all {len(unseen)} sources of {batches}, so that none is left to "
                "turn. Name a model that kept some of them to validate on, or other batches."
            )
        return model, data.image[unseen]
    return model, data.image


def _classes(model, image: np.ndarray, angle_deg: float) -> np.ndarray:
    """Class indices (N,) of images (N, 1, H, W) uint8, turned about their centres."""
    import torch

    from galgaze.models.combined import rotate
    from galgaze.models.runtime import to_network_input

    found = []
    with torch.inference_mode():
        for part in torch.from_numpy(image).split(64):
            turned = to_network_input(rotate(part.float(), angle_deg))
            found.append(model.network(turned).argmax(dim=1).numpy())
    return np.concatenate(found)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    second = commands.add_parser("cross-validate")
    third = commands.add_parser("normalisations")
    fourth = commands.add_parser("rotations")
    for command in (second, third, fourth):
        command.add_argument("batches", help="MiraBest's batches: folder or archive")
    for command in (second, third):
        command.add_argument("--initial", type=Path, help="pre-trained model file; default: from scratch")
        command.add_argument("--epochs", type=int)
        command.add_argument("--folds", type=int, nargs="+", default=[k for k in range(FOLDS) if k != STEERING_FOLD])
    second.add_argument("--seeds", type=int, nargs="+", default=[1])
    second.add_argument("--confident-only", action="store_true", help="train and report on confident labels alone")
    second.add_argument("--name", default="cross_validation")
    fourth.add_argument("models", type=Path, nargs="+")
    fourth.add_argument("--angles", type=int, default=36)
    for command in (second, third):
        command.add_argument("--workers", type=int, default=os.cpu_count())
    words = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if words.command == "cross-validate":
        settings = FINE_TUNING
        if words.epochs:
            settings = settings.model_copy(update={"epochs": words.epochs, "central_epochs": words.epochs * 5 // 6})
        rows = cross_validate(
            words.batches, words.initial, settings, words.seeds, words.folds, words.confident_only, words.workers
        )
        rows.to_csv(OUT / f"mirabest_{words.name}.csv", index=False)
        print_summary(words.name, rows)
    elif words.command == "normalisations":
        table = normalisations(words.batches, words.initial, words.epochs or 12, words.folds, words.workers)
        table.to_csv(OUT / "mirabest_normalisations.csv", index=False)
    else:
        rotations(words.batches, words.models, words.angles).to_csv(OUT / "mirabest_rotations.csv", index=False)


if __name__ == "__main__":
    main()
