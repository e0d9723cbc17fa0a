"""The two commands on zarr stores."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import evaluate_yeast
import train_yeast
from tests.conftest import as_cube, write_store


def predictions(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv").sort_values(["region_id", "sample_id"])


def test_a_cube_trains_and_scores_like_the_table_that_it_holds(train, evaluate, table, tmp_path):
    table["sample_id"] = np.repeat([f"s{i}" for i in range(6)], 40)
    cube = write_store(tmp_path / "cube.zarr", as_cube(table), zarr_format=2)
    table.to_csv(tmp_path / "table.csv", index=False)
    run = train(cube)
    on_cube = evaluate(run, cube, output="on_cube")
    on_table = evaluate(run, tmp_path / "table.csv", output="on_table")
    one, other = predictions(on_cube), predictions(on_table)
    for name in ("region_id", "sample_id", "split", "temperature", "drug", "y_true"):
        assert one[name].tolist() == other[name].tolist()
    np.testing.assert_allclose(one["y_pred"], other["y_pred"], rtol=1e-5)
    assert set(one["split"]) == {"train", "val", "test"}
    assert one["row"].tolist() != other["row"].tolist()
    assert sorted(set(one["row"])) == list(range(1, 41))  # which region of the store it is


def test_a_get_store_trains_in_windows_and_scores_only_where_a_gene_starts(
    train, evaluate, tmp_path
):
    rng = np.random.default_rng(0)
    names = np.repeat(["chrI", "chrII", "chrIII"], 20)
    motif = rng.uniform(0, 5, (60, 4))
    tss = rng.integers(0, 2, (60, 2))
    arrays = {
        "data": motif,
        "motif_names": ["NR/17", "HD/2", "GATA", "KLF/SP/1"],
        "peak_names": [f"{name}:{500 * i}-{500 * i + 400}" for i, name in enumerate(names)],
    }
    for cell_type in ("T", "B"):
        arrays |= {
            f"atpm/{cell_type}": rng.uniform(0, 1, 60),
            f"expression_positive/{cell_type}": motif[:, 0] * tss[:, 0],
            f"expression_negative/{cell_type}": motif[:, 1] * tss[:, 1],
            f"tss/{cell_type}": tss,
        }
    store = write_store(tmp_path / "get.zarr", arrays)
    run = train(
        store, "data.regions_per_window=7", "split.by=chromosome", "split.test=[chrII]",
        "split.val=[chrIII]", "model.head.kind=get", "training.loss=poisson",
        "model.fusion.kind=film",
    )  # fmt: skip
    scores = json.loads((evaluate(run, store) / "metrics.json").read_text())
    assert scores["part"] == "test"
    table = pd.read_csv(tmp_path / "eval" / "predictions.csv")
    assert len(table) == 120
    starts = np.repeat(tss, 2, axis=0) == 1
    measured = table[["y_true_plus", "y_true_minus"]].notna().to_numpy()
    np.testing.assert_array_equal(measured, starts)
    assert table[["y_pred_plus", "y_pred_minus"]].notna().all(axis=None)
    on_two = table["region_id"].str.startswith("chrII:")
    assert set(table["split"][on_two & measured.any(axis=1)]) == {"test"}


def test_a_nameless_cube_needs_its_names_at_training_and_at_evaluation(
    table, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    table["sample_id"] = np.repeat([f"s{i}" for i in range(6)], 40)
    arrays = as_cube(table)
    names = arrays.pop("feature_names")
    write_store(tmp_path / "cube.zarr", arrays)
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-8")
    given = ["--set", "data.feature_names=names.txt"]
    common = ["--data", "cube.zarr", "--device", "cpu", "--output"]
    small = ["--set", "training.max_epochs=1", "--set", "training.warmup_epochs=0",
             "--set", "logging.tensorboard=false"]  # fmt: skip
    train_yeast.main([*common, "run", *small, *given], standalone_mode=False)
    model = ["--model", "run/best_model.pth"]
    with pytest.raises(SystemExit) as stopped:
        evaluate_yeast.main([*model, *common, "eval"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        "error: cube.zarr: has no array feature_names or motif_names with the 10"
    )
    evaluate_yeast.main([*model, *common, "eval", *given], standalone_mode=False)
    assert (tmp_path / "eval" / "metrics.json").is_file()
