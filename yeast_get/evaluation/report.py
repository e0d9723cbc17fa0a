"""An evaluation from predictions to pictures, in the order in which its files are written."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from yeast_get.data.expression_data import ExpressionData
from yeast_get.errors import Problem, RunError
from yeast_get.evaluation import plots
from yeast_get.evaluation.attributions import attribute, condition_effects, top_rows
from yeast_get.evaluation.canvas import draw
from yeast_get.evaluation.condition_plots import plot_conditions, plot_residuals_by_condition
from yeast_get.evaluation.evaluation import Evaluation, Predictions
from yeast_get.evaluation.heat_map import plot_motif_conditions
from yeast_get.evaluation.importance import permutation_importance
from yeast_get.evaluation.output_tables import (
    write_csv,
    write_embeddings,
    write_predictions,
    write_tables,
)
from yeast_get.evaluation.question_plots import plot_embeddings
from yeast_get.evaluation.scorecard import calibration_curve, measure
from yeast_get.run_dir import RunDir, write_json

log = logging.getLogger(__name__)


def evaluate(
    evaluation: Evaluation,
    predictions: Predictions,
    run: RunDir,
    *,
    tables: bool,
    importance: bool,
) -> dict[str, Any]:
    """Write what the task asks for of the predictions of a table.

    Args:
        evaluation: Model and table.
        predictions: `evaluation.predict()`.
        run: Where to write.
        tables: Whether to write the tables by condition and by region.
        importance: Whether to measure permutation importance.

    Returns:
        The content of `metrics.json`; empty with `task.test_mode: predict`.
    """
    task, formats = evaluation.settings.task, evaluation.settings.report.formats
    dataset = evaluation.dataset
    y_pred = predictions.y_pred
    _refuse_non_finite(evaluation.data, y_pred)
    if task.save_predictions or task.test_mode == "predict":
        write_predictions(evaluation, predictions, run)
    if task.save_embeddings:
        write_embeddings(evaluation, y_pred, dataset, run)
        draw(plot_embeddings, run.embeddings, run.embeddings_plot, formats)
    if task.interprets:
        _interpret(evaluation, run)
    if task.test_mode == "predict":
        return {}
    curve = calibration_curve(evaluation, predictions)
    metrics, best_baseline = measure(evaluation, predictions, curve)
    if curve is not None:
        write_csv(curve, run.calibration)
    write_json(run.metrics, metrics)
    if tables:
        write_tables(evaluation, y_pred, best_baseline, run)
    pictured = evaluation.pictured
    if evaluation.is_mixed:
        log.info("plots and importance speak of the %s part, since rows that were trained on are "
                 "not mixed with others", pictured)  # fmt: skip
    _draw_plots(evaluation, run, metrics)
    held_out = evaluation.in_part(pictured) & evaluation.data.measured
    if importance and held_out.any():
        write_csv(permutation_importance(evaluation, held_out), run.importance)
        draw(plots.plot_importance, run.importance, run.importance_plot, formats)
    elif importance:
        log.info("importance was not measured: the %s part holds no measured value", pictured)
    return metrics


def _draw_plots(evaluation: Evaluation, run: RunDir, metrics: dict[str, Any]) -> None:
    """The pictures of predictions and scores, of those files that the run wrote."""
    part, overall = evaluation.pictured, metrics["overall"] or {}
    formats = evaluation.settings.report.formats
    if evaluation.settings.task.save_predictions:
        ci95 = overall.get("ci95", {}).get("pearson")
        source = run.predictions
        draw(plots.plot_scatter, source, run.scatter_plot, formats, part, ci95)
        draw(plots.plot_residuals, source, run.residuals_plot, formats, part)
        draw(plot_residuals_by_condition, source, run.residuals_by_condition_plot, formats, part)
    if run.metrics_by_condition.exists():
        draw(plot_conditions, run.metrics_by_condition, run.conditions_plot, formats, part)
    if run.calibration.exists():
        draw(plots.plot_calibration, run.calibration, run.calibration_plot, formats)


def _interpret(evaluation: Evaluation, run: RunDir) -> None:
    """What the predictions of the pictured part owe to each input of their regions."""
    wanted = evaluation.in_part(evaluation.pictured)
    if not wanted.any():
        log.info("nothing was attributed: the %s part holds no row", evaluation.pictured)
        return
    attributed = attribute(evaluation, wanted)
    write_csv(top_rows(evaluation, attributed), run.attributions)
    write_csv(condition_effects(evaluation, attributed), run.motif_conditions)
    formats = evaluation.settings.report.formats
    draw(plot_motif_conditions, run.motif_conditions, run.motif_conditions_plot, formats)


def _refuse_non_finite(data: ExpressionData, y_pred: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(y_pred).all(axis=1))
    if len(bad):
        region = data.region_id[data.region_index[bad[0]]]
        what = f"{len(bad)} predictions are not finite numbers; the first is of region {region}"
        fix = "look for absurd numbers in that row, or train with a lower learning rate"
        raise RunError(Problem(what, fix, file=data.source, row=int(data.row[bad[0]])))
