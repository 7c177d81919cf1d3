"""Simulated labeled proteins for the embedded sample: fluorescence, stability, remote homology.

These data sets contain no measurements. Each comes from a generative model, described below, that a small network can
learn from a few hundred proteins. They make it possible to run the five tasks without a download, and are marked as
simulated wherever they or their scores are shown. All random numbers come from the generator that is passed in.

Residue scales: hydropathy of Kyte and Doolittle 1982, volumes of Zamyatnin 1972 (cubic Angstrom), helix propensities of
Pace and Scholtz 1998 (kcal/mol, alanine 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from proteinlm.data.structure_files import Chain

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
_SCALES = {  # residue: hydropathy, volume, helix propensity, charge
    "A": (1.8, 88.6, 0.00, 0),
    "C": (2.5, 108.5, 0.68, 0),
    "D": (-3.5, 111.1, 0.69, -1),
    "E": (-3.5, 138.4, 0.40, -1),
    "F": (2.8, 189.9, 0.54, 0),
    "G": (-0.4, 60.1, 1.00, 0),
    "H": (-3.2, 153.2, 0.61, 0),
    "I": (4.5, 166.7, 0.41, 0),
    "K": (-3.9, 168.6, 0.26, 1),
    "L": (3.8, 166.7, 0.21, 0),
    "M": (1.9, 162.9, 0.24, 0),
    "N": (-3.5, 114.1, 0.65, 0),
    "P": (-1.6, 112.7, 3.16, 0),
    "Q": (-3.5, 143.8, 0.39, 0),
    "R": (-4.5, 173.4, 0.21, 1),
    "S": (-0.8, 89.0, 0.50, 0),
    "T": (-0.7, 116.1, 0.66, 0),
    "V": (4.2, 140.0, 0.61, 0),
    "W": (-0.9, 227.8, 0.49, 0),
    "Y": (-1.3, 193.6, 0.53, 0),
}
_TABLE = np.array([_SCALES[residue] for residue in RESIDUES])
HYDROPATHY, VOLUME, HELIX, CHARGE = _TABLE.T
Records = dict[str, list[dict[str, Any]]]


def _codes(sequence: str) -> np.ndarray:
    return np.array([RESIDUES.index(residue) for residue in sequence])


def _text(codes: np.ndarray) -> str:
    return "".join(RESIDUES[code] for code in codes)


# --- fluorescence: mutants of one parent -----------------------------------------------------------------------------

DARK, BRIGHT = 1.3, 3.7  # log-fluorescence of a non-functional and of an intact protein, as in Sarkisyan 2016
_NEIGHBOR_ANGSTROM = 10.0
_RESIDUE_TYPES = 6
_THRESHOLD, _WIDTH = 1.5, 0.4  # midpoint and width of the sigmoid over the summed cost


def simulate_fluorescence(parent: Chain, sizes: dict[str, int], rng: np.random.Generator) -> Records:
    """Log-fluorescence of mutants of one real chain: additive site effects through a sigmoid threshold.

    The library has 12 sites: of the six residue types whose occurrences differ most in burial (C-alpha atoms within
    10 Angstrom) the most buried and the most exposed, so that the replaced residue does not reveal the site.
    Replacing a by b at site i costs
    ``burial_i * (|hydropathy_a - hydropathy_b| / 9 + |volume_a - volume_b| / 168 + [b is proline])``; the costs of a
    mutant add up to c, and its log-fluorescence is ``1.3 + 2.4 / (1 + exp((c - 1.5) / 0.4))`` plus noise of
    standard deviation 0.05. Mutants of train and valid carry 1 to 4 mutations, those of test 3 to 7.
    """
    burial = _burial(parent.tertiary)
    codes = _codes(parent.primary)
    sites = _contrasting_sites(codes, burial)
    records: Records = {}
    seen: set[str] = set()
    for split, size in sizes.items():
        fewest, most = (3, 7) if split == "test" else (1, 4)
        records[split] = []
        while len(records[split]) < size:
            count = int(rng.integers(fewest, most + 1))
            mutant, cost = _mutate(codes, rng.choice(sites, count, replace=False), burial, rng)
            if _text(mutant) in seen:
                continue
            seen.add(_text(mutant))
            light = DARK + (BRIGHT - DARK) / (1 + np.exp((cost - _THRESHOLD) / _WIDTH)) + rng.normal(0, 0.05)
            records[split].append(
                {"primary": _text(mutant), "log_fluorescence": [round(float(light), 3)], "num_mutations": count}
            )
    return records


def _burial(tertiary: np.ndarray) -> np.ndarray:
    """Number of C-alpha atoms within 10 Angstrom, as a rank from 0 (exposed) to 1 (buried)."""
    distances = np.linalg.norm(tertiary[:, None] - tertiary[None], axis=-1)
    neighbors = (distances < _NEIGHBOR_ANGSTROM).sum(axis=1)
    return neighbors.argsort(kind="stable").argsort(kind="stable") / (len(neighbors) - 1)


def _contrasting_sites(codes: np.ndarray, burial: np.ndarray) -> np.ndarray:
    """The library's sites, ascending, shape (2 * _RESIDUE_TYPES,)."""
    pairs = []
    for code in np.unique(codes):
        places = np.flatnonzero(codes == code)
        pairs.append((places[burial[places].argmin()], places[burial[places].argmax()]))
    pairs.sort(key=lambda pair: burial[pair[0]] - burial[pair[1]])
    return np.sort(np.array(pairs[:_RESIDUE_TYPES]).ravel())


def _mutate(
    codes: np.ndarray, sites: np.ndarray, burial: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    mutant, cost = codes.copy(), 0.0
    for site in sites:
        old = codes[site]
        new = (old + rng.integers(1, len(RESIDUES))) % len(RESIDUES)
        change = abs(HYDROPATHY[old] - HYDROPATHY[new]) / 9 + abs(VOLUME[old] - VOLUME[new]) / 168
        cost += burial[site] * (change + (RESIDUES[new] == "P"))
        mutant[site] = new
    return mutant, cost


# --- stability: small designed helices ------------------------------------------------------------------------------

_CORE, _SURFACE = "AILMFV", "DEKRQNST"
_SHORTEST, _LONGEST = 40, 45
_TURN = 2 * np.pi / 3.6  # radians per residue of an alpha helix


def simulate_stability(sizes: dict[str, int], rng: np.random.Generator) -> Records:
    """Stability of designed amphipathic helices of 40 to 45 residues.

    A design follows the period of a helix (core residues on one face, 3.6 residues per turn) at a fraction q
    of its positions and has random core or surface residues elsewhere: designs differ in order, hardly in composition.
    Its score is ``2.4 m - 0.8 h + 0.6 s + 0.3`` plus noise of standard deviation 0.1: m is the hydrophobic moment at
    100 degrees per residue (Eisenberg 1982) over the spread of hydropathy, h the mean helix propensity (a cost), s the
    number of pairs i, i + 4 of opposite charge minus that of equal charge, divided by a tenth of the length. Test
    proteins are mutants (1 to 5 substitutions) of 20 other designs.
    """
    records = {
        split: [_measured(_design(rng), rng) for _ in range(size)] for split, size in sizes.items() if split != "test"
    }
    parents = [_design(rng) for _ in range(20)]
    variants = [_substitute(parents[i % len(parents)], int(rng.integers(1, 6)), rng) for i in range(sizes["test"])]
    records["test"] = [_measured(variant, rng) for variant in variants]
    return records


def stability_score(codes: np.ndarray) -> float:
    """The noiseless score of one design."""
    angles = _TURN * np.arange(len(codes))
    hydropathy = HYDROPATHY[codes] - HYDROPATHY[codes].mean()
    moment = np.hypot((hydropathy * np.cos(angles)).sum(), (hydropathy * np.sin(angles)).sum())
    moment /= np.abs(hydropathy).sum()
    salt = -(CHARGE[codes[:-4]] * CHARGE[codes[4:]]).sum() / (len(codes) / 10)
    return float(2.4 * moment - 0.8 * HELIX[codes].mean() + 0.6 * salt + 0.3)


def _design(rng: np.random.Generator) -> np.ndarray:
    length = int(rng.integers(_SHORTEST, _LONGEST + 1))
    on_core_face = np.cos(_TURN * np.arange(length) + rng.uniform(-0.6, 0.6)) > 0.1
    by_chance = rng.permutation(on_core_face)
    core = np.where(rng.random(length) < rng.uniform(0, 1), on_core_face, by_chance)
    letters = [rng.choice(list(_CORE if inside else _SURFACE)) for inside in core]
    return _codes("".join(letters))


def _substitute(codes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    mutant = codes.copy()
    for place in rng.choice(len(codes), count, replace=False):
        mutant[place] = (mutant[place] + rng.integers(1, len(RESIDUES))) % len(RESIDUES)
    return mutant


def _measured(codes: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    return {"primary": _text(codes), "stability_score": [round(stability_score(codes) + rng.normal(0, 0.1), 3)]}


# --- remote homology: folds, families, members ----------------------------------------------------------------------

FOLD_COUNT = 12
_CLASSES = ("AILMFVWC", "DEKRQNHST", "GPSNA")  # core, surface, turn
_FAMILIES = {"train": 6, "valid": 2, "test_fold_holdout": 3}  # families per fold; no family is in two splits


def simulate_remote_homology(sizes: dict[str, int], rng: np.random.Generator) -> Records:
    """Members of 12 folds, each a tree fold -> family -> member, like draws from profile HMMs.

    A fold is 48 columns, each of a class (core, surface or turn) with the same number of columns of each class in all
    folds, so that the order of residues, not their composition, identifies a fold. A family replaces the class of one
    column in twenty and prefers one residue in each column; a member takes that residue with probability 0.35, else any
    of the class (with probability 0.08 any at all), and has one insertion or deletion with probability 0.3. The
    families of train, valid and test_fold_holdout are different.
    """
    column_classes = np.repeat([0, 1, 2], [18, 20, 10])
    folds = [rng.permutation(column_classes) for _ in range(FOLD_COUNT)]
    records: Records = {}
    for split, size in sizes.items():
        families = [[_family(fold, rng) for _ in range(_FAMILIES[split])] for fold in folds]
        members = []
        for index in range(size):
            label = index % FOLD_COUNT
            family = families[label][index // FOLD_COUNT % _FAMILIES[split]]
            members.append({"primary": _member(family, rng), "fold_label": label})
        records[split] = members
    return records


def _family(fold: np.ndarray, rng: np.random.Generator) -> list[tuple[str, str]]:
    """(letters of the class, preferred letter) of each column."""
    classes = np.where(rng.random(len(fold)) < 0.05, rng.integers(0, len(_CLASSES), len(fold)), fold)
    return [(_CLASSES[kind], str(rng.choice(list(_CLASSES[kind])))) for kind in classes]


def _member(family: Sequence[tuple[str, str]], rng: np.random.Generator) -> str:
    letters = []
    for allowed, preferred in family:
        draw = rng.random()
        pool = preferred if draw < 0.35 else RESIDUES if draw > 0.92 else allowed
        letters.append(str(rng.choice(list(pool))))
    if rng.random() < 0.3:
        place = int(rng.integers(len(letters)))
        letters[place : place + 1] = [] if rng.random() < 0.5 else [letters[place], str(rng.choice(list(RESIDUES)))]
    return "".join(letters)
