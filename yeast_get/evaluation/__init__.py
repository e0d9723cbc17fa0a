"""Predictions, scores, baselines, importance, plots."""
