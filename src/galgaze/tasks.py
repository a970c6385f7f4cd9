"""The tasks: what galgaze can find out, and the classes of each, in their one order.

A class's position in its tuple is its index in every network, label and probability; the names are also
the suffixes of the catalogue's ``prob_*`` columns (in lower case).
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NO_CLASS = -1  # the index of what has votes and no class


@dataclass(frozen=True)
class Task:
    """What to find out.

    Attributes
    ----------
    name : str
        As in the configuration.
    kind : {"optical", "radio"}
        Which images it reads: a g r z colour composite, or a clipped radio map.
    classes : tuple of str
        In the order of the network's outputs.
    barred_class : str or None
        The class whose logit's saliency shows the bar; None where there are no bars.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    barred_class: str | None = None


# Galaxy10 DECaLS (https://github.com/henrysky/Galaxy10), class 0 to 9 in its order.
OPTICAL_MORPHOLOGY = Task(
    name="optical_morphology",
    kind="optical",
    classes=(
        "disturbed",
        "merging",
        "round_smooth",
        "in_between_smooth",
        "cigar_smooth",
        "barred_spiral",
        "unbarred_tight_spiral",
        "unbarred_loose_spiral",
        "edge_on_without_bulge",
        "edge_on_with_bulge",
    ),
    barred_class="barred_spiral",
)

# Fanaroff & Riley 1974.
RADIO_FR = Task(name="radio_fr", kind="radio", classes=("FRI", "FRII"))

# The morphologies of the simulated radio sky, and the class that each is to a Fanaroff-Riley classifier: as in MiraBest
# (Porter & Scaife 2023), whose labels 102 (wide-angle tail) and 104 (head-tail) are FRI and 201 (double-double) FRII.
# A hybrid is FRI on one side and FRII on the other, and a compact source shows neither: they belong to no class, and
# nothing is trained on them.
RADIO_MORPHOLOGIES: dict[str, str | None] = {
    "fri": "FRI",
    "wide_angle_tail": "FRI",
    "narrow_angle_tail": "FRI",
    "frii": "FRII",
    "double_double": "FRII",
    "hybrid": None,
    "compact": None,
}


@dataclass(frozen=True)
class Question:
    """A question to volunteers, as Galaxy Zoo asks it.

    Attributes
    ----------
    name : str
        As in Galaxy Zoo's tables, hyphens as underscores.
    answers : tuple of str
        In the order of the network's outputs.
    asked_after : tuple of (str, str)
        Answers to earlier questions after which it is asked; those of one question after another multiply.
    """

    name: str
    answers: tuple[str, ...]
    asked_after: tuple[tuple[str, str], ...] = ()


DISC_SEEN_FROM_ABOVE = (("smooth_or_featured", "featured"), ("disk_edge_on", "no"))

# Those of Galaxy Zoo DECaLS (Walmsley et al. 2022) that tell of bars and what goes with them.
QUESTIONS = (
    Question("smooth_or_featured", ("smooth", "featured", "artifact")),
    Question("disk_edge_on", ("yes", "no"), (("smooth_or_featured", "featured"),)),
    Question("has_spiral_arms", ("yes", "no"), DISC_SEEN_FROM_ABOVE),
    Question("bar", ("strong", "weak", "no"), DISC_SEEN_FROM_ABOVE),
)

TASKS = {task.name: task for task in (OPTICAL_MORPHOLOGY, RADIO_FR)}


def check_mix(mix: Mapping[str, float], known: Sequence[str]) -> None:
    """Refuse a mix of simulated sources (a relative share for each kind) that cannot be drawn.

    Raises
    ------
    ValueError
        If it names an unknown kind, holds a share that is no finite number from 0 on, or only zeros.
    """
    for name, share in mix.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"the mix names {name!r}, which is not known; known are: {', '.join(known)}{hint}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < math.inf:
            raise ValueError(f"the mix's share of {name} is {share!r}; give a number from 0 on")
    if not 0 < sum(mix.values()) < math.inf:
        raise ValueError(f"nothing in the mix: give at least one of {', '.join(known)} a finite share above 0")
