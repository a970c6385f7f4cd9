"""Which kind of source comes next, where a sky holds several in given shares."""

from collections.abc import Mapping, Sequence

import numpy as np

from galgaze.tasks import check_mix


def draw_from_mix(rng: np.random.Generator, mix: Mapping[str, float], kinds: Sequence[str]) -> str:
    """Draw a kind by its share; a share of 0 is never drawn. Raises ValueError for a mix that cannot be drawn."""
    check_mix(mix, kinds)
    upper = np.cumsum([mix.get(kind, 0.0) for kind in kinds])
    # "right", and a number below the sum: a share of 0 is never hit
    return kinds[int(np.searchsorted(upper, rng.random() * upper[-1], side="right"))]
