"""The tasks: what galgaze can find out, and the classes of each, in their one order.

A class's position in its tuple is its index in every network, label and probability; the names are also
the suffixes of the catalogue's ``prob_*`` columns (in lower case).
"""

from dataclasses import dataclass


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

TASKS = {task.name: task for task in (OPTICAL_MORPHOLOGY, RADIO_FR)}
