"""Which sources to learn from and which to validate on, so that no piece of sky stands on both sides.

The same object may be listed twice, under two names, in two catalogues; neighbours share pixels. So sources are split
in groups: those within 60 arcsec of each other, and of each other's neighbours. Everything follows from the ids and
the seed; the order of the rows means nothing.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from galgaze.fields.sky import chord, unit_vectors

GROUP_RADIUS_ARCSEC = 60.0


def sky_groups(ra_deg: np.ndarray, dec_deg: np.ndarray, radius_arcsec: float = GROUP_RADIUS_ARCSEC) -> np.ndarray:
    """Connected components of positions, a link wherever two are no further apart than the radius.

    Parameters
    ----------
    ra_deg, dec_deg : np.ndarray, shape (N,)
        Degrees; NaN where unknown: each such source is a group of its own.
    radius_arcsec : float
        Longest link.

    Returns
    -------
    np.ndarray of int, shape (N,)
        The group of each, 0 to G - 1.
    """
    known = _known(ra_deg, dec_deg)
    # Equal positions are one point: a thousand rows of one object would have half a million links.
    position_deg, point = np.unique(np.column_stack([ra_deg, dec_deg])[known], axis=0, return_inverse=True)
    tree = cKDTree(unit_vectors(*position_deg.T))
    links = tree.query_pairs(chord(radius_arcsec), output_type="ndarray")  # (L, 2)
    count = len(position_deg)
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    groups, component = connected_components(graph, directed=False)
    group = np.empty(len(known), np.int64)
    group[known] = component[point.ravel()]
    group[~known] = groups + np.arange((~known).sum())
    return group


def near(
    ra_deg: np.ndarray,
    dec_deg: np.ndarray,
    other_ra_deg: np.ndarray,
    other_dec_deg: np.ndarray,
    radius_arcsec: float = GROUP_RADIUS_ARCSEC,
) -> np.ndarray:
    """Which positions have one of the others no further away than the radius.

    Parameters
    ----------
    ra_deg, dec_deg : np.ndarray, shape (N,)
        Degrees; NaN is near nothing.
    other_ra_deg, other_dec_deg : np.ndarray, shape (M,)
        The others, likewise; there may be none.
    radius_arcsec : float
        Largest distance.

    Returns
    -------
    np.ndarray of bool, shape (N,)
    """
    known, others = _known(ra_deg, dec_deg), _known(other_ra_deg, other_dec_deg)
    result = np.zeros(len(known), bool)
    if known.any() and others.any():
        tree = cKDTree(unit_vectors(np.asarray(other_ra_deg)[others], np.asarray(other_dec_deg)[others]))
        distance, _ = tree.query(unit_vectors(np.asarray(ra_deg)[known], np.asarray(dec_deg)[known]))
        result[known] = distance <= chord(radius_arcsec)
    return result


def split_by_position(
    source_id: np.ndarray,
    ra_deg: np.ndarray,
    dec_deg: np.ndarray,
    label: np.ndarray,
    validation_fraction: float,
    seed: int,
    forced_training: np.ndarray | None = None,
) -> np.ndarray:
    """Which sources to validate on; a group (`sky_groups`) is never on two sides.

    A group counts as of the class of its smallest id. Within a class, groups come in the order of a hash of that id and
    the seed, and go to validation until round(fraction x the class's sources) are there: at least one group, and never
    all of them, where there are two or more.

    Parameters
    ----------
    source_id : np.ndarray of str, shape (N,)
        Unique.
    ra_deg, dec_deg : np.ndarray, shape (N,)
        Degrees; NaN where unknown.
    label : np.ndarray of int or str, shape (N,)
        Class of each; any value, such as -1 for none, is a class here.
    validation_fraction : float
        Of each class, 0 to 1.
    seed : int
        Another seed is another split.
    forced_training : np.ndarray of bool, shape (N,), optional
        Sources to learn from in any case, and with them their groups: those that an earlier training has seen.

    Returns
    -------
    np.ndarray of bool, shape (N,)
        True: validation.
    """
    group = sky_groups(ra_deg, dec_deg)
    forced = set() if forced_training is None else set(group[np.asarray(forced_training)])
    chosen = set()
    for members in _by_class(source_id, group, label, seed):
        free = [number for number, _ in members if number not in forced]
        size = dict(members)
        wanted = int(validation_fraction * sum(size.values()) + 0.5)
        most = len(free) - (len(free) == len(members))  # something is left to learn from
        taken = 0
        for number in free[:most]:
            if taken >= max(wanted, 1):
                break
            chosen.add(number)
            taken += size[number]
    return np.isin(group, list(chosen))


def folds_by_position(
    source_id: np.ndarray, ra_deg: np.ndarray, dec_deg: np.ndarray, label: np.ndarray, folds: int, seed: int
) -> np.ndarray:
    """Folds for cross-validation; a group (`sky_groups`) is never in two, and each class is spread evenly.

    Within a class (that of a group's smallest id), groups in the order of their hash go to the fold that has the fewest
    sources of this class, then the fewest of all.

    Parameters
    ----------
    source_id, ra_deg, dec_deg, label, seed
        As for `split_by_position`.
    folds : int
        How many, 2 or more.

    Returns
    -------
    np.ndarray of int, shape (N,)
        0 to folds - 1.

    Raises
    ------
    ValueError
        If there are fewer than two folds, or fewer groups than folds.
    """
    group = sky_groups(ra_deg, dec_deg)
    groups = int(group.max(initial=-1)) + 1
    if not 2 <= folds <= groups:
        raise ValueError(f"{groups} groups of sources cannot be dealt to {folds} folds; give 2 to {groups}")
    fold_of = np.zeros(groups, np.int64)
    total = np.zeros(folds, np.int64)
    for members in _by_class(source_id, group, label, seed):
        of_class = np.zeros(folds, np.int64)
        for number, size in members:
            fold = np.lexsort((total, of_class))[0]
            fold_of[number] = fold
            of_class[fold] += size
            total[fold] += size
    return fold_of[group]


def _by_class(source_id, group: np.ndarray, label, seed: int) -> Iterator[list[tuple[int, int]]]:
    """Class by class, its groups as (number, sources in it), in the order of their hash."""
    first: dict[int, tuple[str, str]] = {}
    for name, number, kind in zip(source_id, group.tolist(), label, strict=True):
        first[number] = min((str(name), str(kind)), first.get(number, (str(name), str(kind))))
    size = np.bincount(group, minlength=1)
    classes = defaultdict(list)
    for number, (name, kind) in first.items():
        classes[kind].append((hashlib.sha256(f"{seed}:{name}".encode()).digest(), number))
    for kind in sorted(classes):
        yield [(number, int(size[number])) for _, number in sorted(classes[kind])]


def _known(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Which positions are numbers, (N,) bool."""
    return np.isfinite(np.asarray(ra_deg, float)) & np.isfinite(np.asarray(dec_deg, float))
