"""What if a transcription factor had no site anywhere: predictions with motifs set to absent.

A model's answer, not an experiment: the factor's indirect effects, which a deletion strain shows
too, are no part of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from yeast_get.data.conditions import fold
from yeast_get.data.findings import counted
from yeast_get.data.roles import factor_of
from yeast_get.data.yeast_dataset import YeastDataset
from yeast_get.errors import ConfigError, Problem, nearest
from yeast_get.evaluation.canvas import draw
from yeast_get.evaluation.condition_words import condition_labels
from yeast_get.evaluation.evaluation import Evaluation
from yeast_get.evaluation.inference import in_input_units, predict_members
from yeast_get.evaluation.output_tables import write_csv
from yeast_get.evaluation.question_plots import plot_knockout
from yeast_get.run_dir import RunDir

log = logging.getLogger(__name__)

MOST_LINES = 10
"""Conditions in the log."""


@dataclass(frozen=True)
class Knockout:
    """Motifs to take away together.

    Attributes:
        names: As the user named them.
        columns: Their places among the schema's motifs.
    """

    names: list[str]
    columns: list[int]

    def answer(self, evaluation: Evaluation, run: RunDir) -> None:
        """Predict without the motifs; write `knockout.csv` and its picture; log what changed."""
        data, schema = evaluation.data, evaluation.schema
        condition = data.condition[data.sample_index]
        cell = data.region_index.astype(np.int64) * data.num_samples + condition
        at = np.unique(cell, return_index=True)[1]  # of replicates the first
        wanted = np.zeros(data.num_observations, dtype=bool)
        wanted[at] = True
        before, after = (
            members[:, at] for members in self._predict(evaluation, evaluation.dataset, wanted)
        )
        (y_pred, _), (y_knockout, _) = (in_input_units(schema, each) for each in (before, after))
        change = schema.to_input_units(after) - schema.to_input_units(before)  # [K,n,T]
        spread = change.std(axis=0, ddof=1) if len(change) > 1 else None
        region, sample = data.region_index[at], data.sample_index[at]
        has_motif, rule = self.carriers(evaluation)
        frame = pd.DataFrame(
            {
                "region_id": data.region_id[region],
                "gene_id": data.gene_id[region],
                "first_sample_id": _first_samples(condition[at], data.sample_id[sample]),
                "condition": condition_labels(data)[sample],
                "has_motif": has_motif[region].astype(int),
            }
        )
        for t, suffix in enumerate(data.target_suffixes):
            frame[f"y_pred{suffix}"] = y_pred[:, t]
            frame[f"y_knockout{suffix}"] = y_knockout[:, t]
            frame[f"change{suffix}"] = y_knockout[:, t] - y_pred[:, t]
            if spread is not None:
                frame[f"change_std{suffix}"] = spread[:, t]
        write_csv(frame, run.knockout)
        log.info("knockout of %s: %d of %s have it (%s)", " and ".join(self.names),
                 int(has_motif.sum()), counted(data.num_regions, "region"), rule)  # fmt: skip
        _log_changes(frame)
        formats, names = evaluation.settings.report.formats, " and ".join(self.names)
        draw(plot_knockout, run.knockout, run.knockout_plot, formats, names)

    def _predict(
        self, evaluation: Evaluation, dataset: YeastDataset, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predictions [K,N,T] with and without the motifs; the dataset is given back as it was."""
        how = (wanted, evaluation.batch_size, evaluation.settings.training.precision)
        before = predict_members(evaluation.model, dataset, *how)
        kept = dataset.motif.clone()
        schema = evaluation.schema
        presence = [at for j, at in schema.presence_columns.items() if j in self.columns]
        try:
            dataset.motif[:, self.columns] = dataset.absent[self.columns]
            dataset.motif[:, presence] = torch.ones((), device=dataset.device)  # 0 was measured
            return before, predict_members(evaluation.model, dataset, *how)
        finally:
            dataset.motif.copy_(kept)

    def carriers(self, evaluation: Evaluation) -> tuple[np.ndarray, str]:
        """Which regions have any of the motifs [P], and by what rule.

        A score above 0 is a site; where no score or every score is, one above the median.
        """
        data, names = evaluation.data, evaluation.schema.motif_names
        here = [data.motif_names.index(names[j]) for j in self.columns]
        score = data.motif[:, here]
        above = score > 0
        rule = "a score above 0"
        if not above.any() or above[~np.isnan(score)].all():
            above = score > np.nanmedian(score, axis=0)
            rule = "a score above the median, since all are on one side of 0"
        return above.sum(axis=1) > 0, rule


def read_knockout(evaluation: Evaluation, text: str) -> Knockout:
    """The motifs that `--knockout` names, by their columns or their transcription factors.

    Raises:
        ConfigError: Where a name is not known, or the model does not look at its motifs.
    """
    motifs = evaluation.schema.motif_names
    absent = evaluation.schema.absent_motif()
    names = [each.strip() for each in text.split(",") if each.strip()]
    if not names:
        raise ConfigError(Problem("--knockout names no motif", "write --knockout YAP1,MSN2"))
    columns: list[int] = []
    for name in dict.fromkeys(names):
        said = fold(name)
        found = [j for j, m in enumerate(motifs) if said in (fold(m), fold(short_name(m)))]
        if not found:
            raise ConfigError(Problem(f"--knockout: the model has no motif {name}",
                                      _meant(name, motifs)))  # fmt: skip
        seen = [j for j in found if not np.isnan(absent[j])]
        if not seen:
            what = f"--knockout: the score of {motifs[found[0]]} did not vary in training"
            raise ConfigError(Problem(what, "the model never looks at it; nothing would change"))
        columns += seen
    columns = sorted(set(columns))
    more = f", ... ({len(columns)})" if len(columns) > 6 else ""
    log.info("knockout: %s set to absent%s", ", ".join(motifs[j] for j in columns[:6]) + more,
             ", all together" if len(columns) > 1 else "")  # fmt: skip
    return Knockout(list(dict.fromkeys(names)), columns)


def short_name(motif: str) -> str:
    """The factor of a motif column, or its name without `motif_`: what a user would call it."""
    return factor_of(motif).removeprefix("virtual_").removeprefix("motif_")


def _meant(name: str, motifs: Sequence[str]) -> str:
    factors = sorted({short_name(motif) for motif in motifs})
    near = nearest(name.upper(), [*factors, *motifs]) or nearest(name, [*factors, *motifs])
    return f"did you mean {near}?" if near else f"it has {', '.join(factors[:8])}, ..."


def _first_samples(condition: np.ndarray, sample_id: np.ndarray) -> np.ndarray:
    """For each row the sample that stands for its condition in the whole table."""
    _, first, code = np.unique(condition, return_index=True, return_inverse=True)
    return sample_id[first][code.reshape(-1)]


def _log_changes(frame: pd.DataFrame) -> None:
    """Mean changes by condition, the largest where the motif is first."""
    change = frame.filter(regex=r"^change(?!_std)").mean(axis=1)
    key = frame["first_sample_id"]
    table = pd.DataFrame(
        {
            "there": change[frame["has_motif"] == 1].groupby(key).mean(),
            "all": change.groupby(key).mean(),
            "condition": frame["condition"].groupby(key).first(),
        }
    )
    table = table.sort_values("there", key=np.abs, ascending=False, kind="stable")
    log.info("  mean change where it is   in all regions   condition")
    for row in table.head(MOST_LINES).itertuples():
        log.info("  %+23.3f   %+14.3f   %s", row.there, row.all, row.condition)
    if len(table) > MOST_LINES:
        log.info("  and %d more conditions in knockout.csv", len(table) - MOST_LINES)
