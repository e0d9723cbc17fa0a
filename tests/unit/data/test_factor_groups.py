"""Motif columns of one transcription factor are found by their names."""

from __future__ import annotations

from yeast_get.data.roles import factor_groups


def test_versions_and_matrices_of_one_factor_are_one_group_and_others_keep_their_names():
    names = [
        "MA0265.1.ABF1", "motif_17", "ABF1_MA0265.3", "MA0281.1.CBF1", "MA0281.1.CBF1::X",
        "MA0300.1_Gat1", "GAT1_MA9999.2", "MA0400.1", "MA0400.2", "motif_1", "virtual_motif_1",
        "SUT1", "SUT1_MA0399.1",
    ]  # fmt: skip
    assert factor_groups(names) == {
        "ABF1": [0, 2], "motif_17": [1], "MA0281.1.CBF1": [3], "MA0281.1.CBF1::X": [4],
        "GAT1": [5, 6], "MA0400": [7, 8], "motif_1": [9], "virtual_motif_1": [10],
        "SUT1": [11, 12],
    }  # fmt: skip
