"""The AG-CNN weights released with Bowles et al. 2021 (arXiv:2012.01248), from their PyTorch files to our network.

A released file is a state dict. Its tensors tell widths, gates and (almost always) aggregation; only its name tells
how the attention was normalised. What name, tensors and options say must agree: nothing is guessed.

========================  =====================================================================================
released                  ours
========================  =====================================================================================
conv<s><a|b|c>            stages.<s - 1>.<0|3|6>
bnorm<s><a|b|c>           stages.<s - 1>.<1|4|7>
attention<n>              attention.<n - 1>, the deepest first
classifiers.<i>           aggregation.gate_classifiers.<i>
classifier                aggregation.classifier; without gates: classifier
fc1, fc2, fc3             dropped: the released network never uses them
========================  =====================================================================================
"""

import pickle
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from galgaze.config import AgcnnSettings, Normalisation
from galgaze.errors import ConfigError
from galgaze.models.agcnn import AGCNN
from galgaze.models.model_file import architecture_of
from galgaze.models.registry import create_network

PAPER = "Bowles et al. 2021, MNRAS 501, 4579, arXiv:2012.01248"
NORMALISATIONS = get_args(Normalisation)
AGGREGATIONS = get_args(AgcnnSettings.model_fields["aggregation"].annotation)
KNOWN = {"normalisation": NORMALISATIONS, "aggregation": AGGREGATIONS, "gates": (0, 1, 2, 3)}
NEVER_USED = ("fc1", "fc2", "fc3")
GATES_BY_EXPERIMENT = {30: 0, 31: 1, 32: 2}  # the paper's third experiment varied the gates; all others have three
FLATTENED_PX = 150  # without gates the classifier reads 9 x 9 pixels: 150 px, halved four times
EXPECTED = "Expected is a state dict as released with the paper: torch.save of a dictionary of tensors."


@dataclass(frozen=True)
class Released:
    """A released network.

    Attributes
    ----------
    network : AGCNN
        With its weights, in eval mode.
    settings : AgcnnSettings
        What it was built with.
    channels, classes : int
        Of its images, and that it tells apart.
    name : str
        The file's name; with its folder's in front where that is the one that the release gave.
    """

    network: AGCNN
    settings: AgcnnSettings
    channels: int
    classes: int
    name: str


def load_released(
    path: str | Path, normalisation: str | None = None, aggregation: str | None = None, gates: int | None = None
) -> Released:
    """Read a released file.

    Parameters
    ----------
    path : str or Path
        The file; nothing in it is executed.
    normalisation, aggregation : str, optional
        As in `galgaze.config.AgcnnSettings`, where neither name nor tensors say them.
    gates : int, optional
        0 to 3; the tensors say them, so this can only be checked.

    Raises
    ------
    ConfigError
        If the file is no such state dict, or name, tensors and options contradict each other or leave something open.
    """
    path = Path(path)
    state = read_state(path)
    name, said = read_name(path)
    options = {"normalisation": normalisation, "aggregation": aggregation, "gates": gates}

    def settled(what: str, tensors: tuple = (), otherwise=None):
        option, named = (() if value is None else (value,) for value in (options[what], said[what]))
        if not set(option) <= set(KNOWN[what]):
            raise ConfigError(f"--{what} {options[what]}: not known. It is one of {', '.join(map(str, KNOWN[what]))}.")
        claims = {f"Option --{what}": option, f"name {name}": named, "tensors": tensors}
        return _settle(path, what, claims, otherwise)

    gates = settled("gates", (gates_in(state),))
    sizes = _sizes(path, state, gates)
    channels, classes = sizes.pop("channels"), sizes.pop("classes")
    tensors = aggregations_in(path, state, gates, sizes["widths"], classes)
    # without gates there is nothing to normalise or to bring together, and whatever is written down does nothing
    unused = {} if gates else {what: AgcnnSettings.model_fields[what].default for what in KNOWN}
    settings = AgcnnSettings(
        gates=gates,
        normalisation=settled("normalisation", otherwise=unused.get("normalisation")),
        aggregation=settled("aggregation", tensors, unused.get("aggregation")),
        gate_pooling="sum",
        dropout=0.5,
        **sizes,
    )
    return Released(_network(path, state, settings, channels, classes), settings, channels, classes, name)


# --------------------------------------------------------------------------------------------- reading


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, by name; no code in it is run.

    Raises
    ------
    ConfigError
        If it cannot be read, is damaged, or holds anything but named tensors of numbers.
    """
    try:
        with open(path, "rb") as content:
            start = content.read(9)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Give a released file (.pt).") from error
    if start[8:9] == b"{":  # eight bytes of length, then JSON
        raise ConfigError(
            f"{path}: this is a safetensors file, not a released PyTorch file. A model file that galgaze wrote needs "
            "no import: name it under tasks.<task>.model.weights."
        )
    state = _load(path)
    if not isinstance(state, dict):
        raise ConfigError(f"{path}: holds a {type(state).__name__}, no dictionary of tensors. {EXPECTED}")
    for name, value in state.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise ConfigError(f"{path}: {name!r} is {_kind(name, value)}, not a plain tensor. {EXPECTED}")
    return dict(state)


def _load(path: Path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols and old storages: what matters is raised
            return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise ConfigError(
                f"{path}: calls code ({wanted[1]}), as a whole module, an array or a harmful file does; it was not "
                f"executed. {EXPECTED} From a module that you trust: torch.save(module.state_dict(), FILE)."
            ) from error
        raise ConfigError(f"{path}: not a PyTorch file of tensors; nothing in it was executed. {EXPECTED}") from error
    except Exception as error:  # a damaged or hostile file can fail in any way
        if "TorchScript" in str(error):
            raise ConfigError(
                f"{path}: a TorchScript module, which is code; it was not executed. {EXPECTED}"
            ) from error
        raise ConfigError(
            f"{path}: cannot be read as a PyTorch file: it is damaged, cut short, or something else. Fetch it again. "
            f"{EXPECTED}"
        ) from error


def _kind(name, value) -> str:
    if not torch.is_tensor(value):
        return f"of the type {type(value).__name__}"
    return "a tensor that is not dense numbers" if isinstance(name, str) else "a tensor without a name"


def _is_plain(value) -> bool:
    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


# ------------------------------------------------------------------------------ name, tensors, options


def read_name(path: Path) -> tuple[str, dict]:
    """What a released name says, as ``0709Exp1-range_norm-MiraBestNOHYBRIDAdam-AGRadGalNetft-5e-05.pt``.

    The release has folders of that name with a file an epoch in each (``.../26.pt``): where the file's own name says
    nothing, its folder's is read.

    Returns
    -------
    name : str
        The name that was read.
    said : dict
        ``normalisation``, ``aggregation`` and ``gates``; None: it does not say.
    """
    said = _parse_name(path.stem)
    if any(value is not None for value in said.values()):
        return path.name, said
    folder = path.absolute().parent.name
    said = _parse_name(folder)
    known = any(value is not None for value in said.values())
    return (f"{folder}/{path.name}" if known else path.name), said


def _parse_name(name: str) -> dict:
    parts = name.split("-")
    experiment = _only([int(found[1]) for part in parts if (found := re.fullmatch(r"\d*Exp(\d{1,6})", part))])
    return {
        "normalisation": _only([part for part in parts if part in NORMALISATIONS]),
        "aggregation": _only([kind for part in parts for kind in AGGREGATIONS if part == f"AGRadGalNet{kind}"]),
        "gates": None if experiment is None else GATES_BY_EXPERIMENT.get(experiment, 3),
    }


def _only(found: list):
    """The one thing found; None where there is none, or more than one."""
    return found[0] if len(set(found)) == 1 else None


def gates_in(state: dict[str, torch.Tensor]) -> int:
    """How many gates the tensors are of: the highest number of an ``attention<n>``."""
    found = [re.match(r"attention([123])\.", name) for name in state]
    return max((int(match[1]) for match in found if match), default=0)


def aggregations_in(path: Path, state: dict, gates: int, widths: list[int], classes: int) -> tuple[str, ...]:
    """The aggregations that the classifiers' tensors can be of; two only where ft and deep_sup have equal shapes."""
    if not gates:
        return ()
    if "classifier.weight" not in state:
        return ("mean",)
    if not any(name.startswith("classifiers.") for name in state):
        return ("concat",)
    values = _shape(path, state, "classifier.weight", 2)[1]
    sizes = {"ft": gates * classes, "deep_sup": sum(widths[2::-1][:gates])}
    fitting = tuple(kind for kind, size in sizes.items() if size == values)
    if not fitting:
        expected = " or ".join(f"{size} ({kind})" for kind, size in sizes.items())
        raise ConfigError(
            f"{path}: not a released AG-CNN: classifier.weight reads {values} values, expected {expected}."
        )
    return fitting


def _settle(path: Path, what: str, claims: dict[str, tuple], otherwise=None):
    """The one value that all claims leave possible.

    Parameters
    ----------
    path, what
        For messages.
    claims : dict
        Values left possible, by who says so; (): nothing is said.
    otherwise : optional
        The value where nobody says anything.

    Raises
    ------
    ConfigError
        If none, or more than one, is left.
    """
    possible = [value for value in KNOWN[what] if all(value in values for values in claims.values() if values)]
    if otherwise is not None and not any(claims.values()):
        return otherwise
    if not possible:
        listed = "; ".join(
            f"{claimant}: {' or '.join(map(str, values)) or 'nothing'}" for claimant, values in claims.items()
        )
        raise ConfigError(
            f"{path}: contradiction about the {what}. {listed}. Leave the option out, or give the file its released "
            "name."
        )
    if len(possible) > 1:
        raise ConfigError(
            f"{path}: neither the file's name nor its tensors tell the {what}. Give --{what} with one of "
            f"{', '.join(map(str, possible))}."
        )
    return possible[0]


# --------------------------------------------------------------------------------- from shapes to network


def _shape(path: Path, state: dict, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise ConfigError(f"{path}: not a released AG-CNN: the tensor {name} is missing.")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ConfigError(f"{path}: not a released AG-CNN: {name} has the shape {shape}, expected {dimensions} sizes.")
    return shape


def _sizes(path: Path, state: dict, gates: int) -> dict:
    """Widths, channels, classes and what else a network's settings take from the tensors' shapes."""
    first = [_shape(path, state, f"conv{stage}a.weight", 4) for stage in (1, 2, 3, 4)]
    last = "classifier.weight" if "classifier.weight" in state or not gates else "classifiers.0.weight"
    sizes = {
        "widths": [shape[0] for shape in first],
        "channels": first[0][1],
        "classes": _shape(path, state, last, 2)[0],
    }
    if gates:
        return sizes | {"gate_channels": _shape(path, state, "attention1.theta.weight", 4)[0]}
    return sizes | {"flattened_px": FLATTENED_PX}


def _network(path: Path, state: dict, settings: AgcnnSettings, channels: int, classes: int) -> AGCNN:
    """The network that the settings describe, with the tensors as its weights."""
    architecture = architecture_of(settings)
    with torch.device("meta"):  # shapes alone: nothing is allocated for sizes that turn out to be nonsense
        expected = create_network(architecture, channels, classes).state_dict()
    ours = {_released_name(name, settings.gates): name for name in expected}
    _check_layout(path, state, {theirs: expected[name] for theirs, name in ours.items()}, settings)
    weights = {name: state[theirs].to(expected[name].dtype) for theirs, name in ours.items()}
    for theirs, name in ours.items():
        if not torch.isfinite(weights[name]).all():
            raise ConfigError(
                f"{path}: {theirs} holds values that are not finite: the file is damaged. Fetch it again."
            )
        if name.endswith("running_var") and (weights[name] < 0).any():
            raise ConfigError(f"{path}: {theirs} holds negative variances: the file is damaged. Fetch it again.")
    network = create_network(architecture, channels, classes)
    network.load_state_dict(weights)
    return network.eval()


def _released_name(name: str, gates: int) -> str:
    """A tensor's released name, from ours."""
    module, _, rest = name.removeprefix("aggregation.").replace("gate_classifiers", "classifiers").partition(".")
    if module == "attention":
        gate, _, rest = rest.partition(".")
        return f"attention{int(gate) + 1}.{rest}"
    if module == "stages":
        stage, index, rest = rest.split(".")
        kind = ("conv", "bnorm")[int(index) % 3]
        return f"{kind}{int(stage) + 1}{'abc'[int(index) // 3]}.{rest}"
    return f"{module}.{rest}"


def _check_layout(path: Path, state: dict, expected: dict, settings: AgcnnSettings) -> None:
    """Refuse tensors that are missing, superfluous or misshapen."""
    problems = {
        "missing": [name for name in expected if name not in state],
        "superfluous": [name for name in state if name not in expected and name.partition(".")[0] not in NEVER_USED],
        "misshapen": [
            f"{name} {_form(state[name])}, expected {_form(tensor)}"
            for name, tensor in expected.items()
            if name in state and not _same_form(state[name], tensor)
        ],
    }
    if any(problems.values()):
        kind = f"{settings.gates} gates, aggregation {settings.aggregation}" if settings.gates else "no gates"
        listed = "; ".join(f"{problem}: {_few(names)}" for problem, names in problems.items() if names)
        raise ConfigError(f"{path}: these are not the tensors of a released AG-CNN ({kind}). {listed}. {EXPECTED}")


def _same_form(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def _form(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _few(names: list[str], shown: int = 5) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
