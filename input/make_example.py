"""Write `gsm_example_with_condition.csv`, a simulated table whose answer is known.

Regions, motif scores, accessibility and noise are random numbers from one seed; the target
follows the rule in `expected_target`. So whoever trains on the table can check what was found
against what is there. No number in it was measured in a laboratory.

    python input/make_example.py [PATH]

writes the same bytes every time (by default beside this file).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

FILE_NAME = "gsm_example_with_condition.csv"
SEED = 20240611
NUM_REGIONS = 370

# The planted rule, in log2 units. Each motif effect is scaled by motif presence (0 to 1).
BASELINE = 5.0
ACCESSIBILITY_EFFECT = 2.0  # from closed (0) to open (1)
RAP1_EFFECT = 2.0  # under every condition
UME6_EFFECT = -2.0  # under every condition
GCN4_EFFECT = 2.0  # in SC, none in YPD
HSF1_EFFECT = 3.5  # at HEAT_FULL, none at or below HEAT_START
MSN2_HEAT_EFFECT = 2.0  # at HEAT_FULL
MSN2_H2O2_EFFECT = 1.5  # at a saturating dose
YAP1_H2O2_EFFECT = 3.0  # at a saturating dose
CLOSED_SHARE = 0.7  # what is left of the motif effects where accessibility is 0
FULL_SCORE = 12.0  # motif score from which presence is 1
HEAT_START = 30.0  # °C
HEAT_FULL = 42.0  # °C
H2O2_HALF_DOSE = 2e-4  # mol/L, half of the saturating effect
NOISE_SD = 0.55  # Gaussian, independent for every row

RAP1, UME6, GCN4 = "MA0359.1.RAP1", "MA0412.1.UME6", "MA0303.1.GCN4"
HSF1, MSN2, YAP1 = "MA0319.1.HSF1", "MA0341.1.MSN2", "MA0415.1.YAP1"
PLANTED_MOTIFS = (RAP1, UME6, GCN4, HSF1, MSN2, YAP1)
PLANTED_SHARE = (0.28, 0.36)  # share of the regions that carry a planted motif
DECOY_SHARE = (0.05, 0.20)
HIT_SCORE = (10.0, 15.0)  # where the motif is present; 0 elsewhere

DECOY_MOTIFS = [  # without any effect
    "MA0265.1.ABF1",
    "MA0268.1.ADR1",
    "MA0269.1.AFT1",
    "MA0277.1.AZF1",
    "MA0278.1.BAS1",
    "MA0281.1.CBF1",
    "MA0285.1.CRZ1",
    "MA0295.1.FHL1",
    "MA0297.1.FKH2",
    "MA0299.1.GAL4",
    "MA0300.1.GAT1",
    "MA0304.1.GCR1",
    "MA0306.1.GIS1",
    "MA0307.1.GLN3",
    "MA0310.1.HAC1",
    "MA0314.1.HAP3",
    "MA0321.1.INO2",
    "MA0324.1.LEU3",
    "MA0326.1.MAC1",
    "MA0329.1.MBP1",
    "MA0331.1.MCM1",
    "MA0337.1.MIG1",
    "MA0342.1.MSN4",
    "MA0347.1.NRG1",
    "MA0352.1.PDR1",
    "MA0357.1.PHO4",
    "MA0363.1.REB1",
    "MA0371.1.ROX1",
    "MA0373.1.RPN4",
    "MA0376.1.RTG3",
    "MA0379.1.SKN7",
    "MA0382.1.SKO1",
    "MA0393.1.STE12",
    "MA0401.1.SWI4",
    "MA0416.1.YAP3",
    "MA0418.1.YAP6",
    "MA0419.1.YAP7",
    "MA0440.1.ZAP1",
]
MOTIFS = sorted([*PLANTED_MOTIFS, *DECOY_MOTIFS])

CHROMOSOME_BP = {
    "chrI": 230_218,
    "chrII": 813_184,
    "chrIII": 316_620,
    "chrIV": 1_531_933,
    "chrV": 576_874,
    "chrVI": 270_161,
    "chrVII": 1_090_940,
    "chrVIII": 562_643,
    "chrIX": 439_888,
    "chrX": 745_751,
    "chrXI": 666_816,
    "chrXII": 1_078_177,
    "chrXIII": 924_431,
    "chrXIV": 784_333,
    "chrXV": 1_091_291,
    "chrXVI": 948_066,
}
SLOT_BP = 6_000  # at most one region in each slot of a chromosome, so that none overlap


class Condition(NamedTuple):
    """One growth condition as it is written in the table; blank = not recorded."""

    medium: str
    temperature: str  # °C
    preculture_time: str  # h
    drug: str
    drug_concentration: str  # mol/L
    drug_time: str  # h
    num_replicates: int


CONDITIONS = (
    Condition("YPD", "30", "3", "none", "", "", 2),
    Condition("YPD", "25", "4", "none", "", "", 1),
    Condition("YPD", "37", "3.5", "none", "", "", 1),
    Condition("YPD", "42", "4", "none", "", "", 2),
    Condition("SC", "30", "4", "none", "", "", 2),
    Condition("SC", "37", "3", "none", "", "", 1),
    Condition("YPD", "30", "3.5", "H2O2", "0.00001", "0.5", 1),
    Condition("YPD", "30", "4", "H2O2", "0.0001", "1", 1),
    Condition("YPD", "30", "3", "H2O2", "0.0004", "0.5", 2),
    Condition("YPD", "30", "", "H2O2", "0.0015", "", 1),
    Condition("YPD", "30", "3.5", "H2O2", "0.005", "1", 1),
    Condition("SC", "30", "3.5", "H2O2", "0.0004", "0.5", 1),
)


def motif_presence(score: pd.Series) -> pd.Series:
    """Return how far a motif is present, 0 to 1: min(score, 12) / 12."""
    return score.clip(upper=FULL_SCORE) / FULL_SCORE


def expected_target(table: pd.DataFrame) -> pd.Series:
    """Return the target of every row before noise.

    With p(M) = min(score of M, 12) / 12, heat = max(0, T - 30) / 12 (T in °C) and
    dose = c / (c + 0.0002) (c in mol/L, 0 without drug):

        expected = 5 + 2 accessibility + (0.7 + 0.3 accessibility) * (
              2 p(RAP1) - 2 p(UME6)
            + 2 p(GCN4) [medium is SC]
            + 3.5 p(HSF1) heat
            + p(MSN2) (2 heat + 1.5 dose)
            + 3 p(YAP1) dose )

    Args:
        table: rows of the example, numbers as numbers; a blank concentration is NaN.

    Returns:
        One value per row, log2 units.
    """
    heat = (table["temperature"] - HEAT_START).clip(lower=0) / (HEAT_FULL - HEAT_START)
    concentration = table["drug_concentration"].where(table["drug"] == "H2O2", 0.0)
    dose = concentration / (concentration + H2O2_HALF_DOSE)
    in_sc = (table["medium"] == "SC").astype(float)

    motif_effects = (
        RAP1_EFFECT * motif_presence(table[RAP1])
        + UME6_EFFECT * motif_presence(table[UME6])
        + GCN4_EFFECT * motif_presence(table[GCN4]) * in_sc
        + HSF1_EFFECT * motif_presence(table[HSF1]) * heat
        + motif_presence(table[MSN2]) * (MSN2_HEAT_EFFECT * heat + MSN2_H2O2_EFFECT * dose)
        + YAP1_H2O2_EFFECT * motif_presence(table[YAP1]) * dose
    )
    openness = CLOSED_SHARE + (1 - CLOSED_SHARE) * table["accessibility"]
    return BASELINE + ACCESSIBILITY_EFFECT * table["accessibility"] + openness * motif_effects


def best_possible_pearson(table: pd.DataFrame) -> float:
    """Return the Pearson correlation of the rule without noise with the target.

    The noise cannot be predicted, so no model does better on many rows.
    """
    return float(np.corrcoef(expected_target(table), table["target"])[0, 1])


def read_table(path: Path) -> pd.DataFrame:
    """Read the example as numbers and text; `none` stays a word, blanks become NaN."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def _draw_region_ids(rng: np.random.RandomState) -> list[str]:
    """Draw non-overlapping regions over all chromosomes, in genome order."""
    slots = [
        (chrom, begin)
        for chrom, length in CHROMOSOME_BP.items()
        for begin in range(SLOT_BP, length - 2 * SLOT_BP, SLOT_BP)
    ]
    region_ids = []
    for slot in sorted(rng.permutation(len(slots))[:NUM_REGIONS]):
        chrom, begin = slots[slot]
        width = rng.randint(200, 701)
        start = begin + rng.randint(0, SLOT_BP - width)
        region_ids.append(f"{chrom}_{start}_{start + width}")
    return region_ids


def _draw_motif_scores(rng: np.random.RandomState, share: float) -> np.ndarray:
    """Draw the scores of one motif [regions]: 0 = absent, else that of the best hit."""
    num_present = round(share * NUM_REGIONS)
    present = rng.permutation(NUM_REGIONS) < num_present
    best_hit = rng.uniform(*HIT_SCORE, size=NUM_REGIONS)
    return np.where(present, best_hit, 0.0).round(1)


def _draw_regions(rng: np.random.RandomState) -> pd.DataFrame:
    """Draw one row per region: its id, motif scores and accessibility."""
    columns: dict[str, object] = {"peak_id": _draw_region_ids(rng)}
    for motif in MOTIFS:
        share = rng.uniform(*(PLANTED_SHARE if motif in PLANTED_MOTIFS else DECOY_SHARE))
        columns[motif] = _draw_motif_scores(rng, share)
    columns["accessibility"] = rng.beta(1.5, 1.5, size=NUM_REGIONS).round(2)
    return pd.DataFrame(columns)


def _list_samples() -> pd.DataFrame:
    """List one row per sample; replicates share all that is written of their condition."""
    rows = [
        {"sample_id": f"c{number:02d}_r{replicate}", **condition._asdict()}
        for number, condition in enumerate(CONDITIONS, start=1)
        for replicate in range(1, condition.num_replicates + 1)
    ]
    return pd.DataFrame(rows).drop(columns="num_replicates")


def make_table() -> pd.DataFrame:
    """Make the example, region by region, every cell as the text that goes into the file."""
    # RandomState: numpy promises the same stream in all its versions, of default_rng it does not.
    rng = np.random.RandomState(SEED)
    table = _draw_regions(rng).merge(_list_samples(), how="cross")
    table.insert(1, "sample_id", table.pop("sample_id"))

    numbers = table.assign(
        temperature=pd.to_numeric(table["temperature"]),
        drug_concentration=pd.to_numeric(table["drug_concentration"]),
    )
    target = expected_target(numbers) + rng.normal(0.0, NOISE_SD, size=len(table))
    for motif in MOTIFS:
        table[motif] = [f"{score:g}" for score in table[motif]]
    table["accessibility"] = [f"{value:g}" for value in table["accessibility"]]
    table["target"] = [f"{value:.3f}" for value in target]
    return table


def main(arguments: list[str]) -> None:
    """Write the table to the path given, or beside this file."""
    path = Path(arguments[0]) if arguments else Path(__file__).with_name(FILE_NAME)
    make_table().to_csv(path, index=False, lineterminator="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
