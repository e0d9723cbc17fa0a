"""`--check`, the data report, flags of predictions, and one experiment in three forms."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import evaluate_yeast
import train_yeast
from tests.conftest import SMALL, options
from yeast_get.errors import DataError


@pytest.fixture
def check(tmp_path, capsys):
    """Run a command with --check; exit code, stdout, stderr."""

    def check(command, *arguments: str) -> tuple[int, str, str]:
        try:
            command.main(
                [*map(str, arguments), "--check", "--device", "cpu"], standalone_mode=False
            )
            code = 0
        except SystemExit as end:
            code = int(end.code)
        out, err = capsys.readouterr()
        return code, out, err

    return check


def problems(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "data_problems.csv", dtype=str)


def report(folder) -> dict:
    return json.loads((folder / "data_report.json").read_text())


def test_check_of_a_good_table_prints_and_writes_its_report(check, table, table_path, tmp_path):
    table["temperature"] = table["temperature"].map({30.0: "30 ℃", 37.0: "50"})
    table["motif_c"] = 0.0
    table.to_csv(table_path, index=False)
    folder = tmp_path / "c"
    code, out, err = check(train_yeast, "--data", table_path, "--output", folder, *options(SMALL))
    assert (code, err) == (0, "")
    assert {path.name for path in folder.iterdir()} == {"data_report.json", "data_problems.csv"}
    for line in (
        "one batch of 32 windows went forward and backward: loss",
        "  rows 240, regions 40, samples 6, condition signatures 3, measured 240",
        "  constant: motif_c",
        "normalised: temperature: quantity in 160 cells (such as 30 ℃ -> 30 degC)",
        "of the test rows 0.0% have their region in training",
    ):
        assert line in out
    said = report(folder)
    assert said["errors"] == {}
    assert said["warnings"]["unusual value"] == 80
    assert said["constant_columns"] == ["motif_c"]
    assert said["target"]["transform"] == "none"
    assert sum(said["split"]["rows"].values()) == 240
    rows = problems(folder)
    assert list(rows.columns) == [
        "file", "sheet", "row", "column", "value", "kind", "severity", "message",
    ]  # fmt: skip
    unusual = rows[rows["kind"] == "unusual value"]
    assert set(unusual["severity"]) == {"warning"}
    assert (len(unusual), unusual["value"].iloc[0], unusual["row"].iloc[0]) == (80, "50", "82")


def test_check_of_a_bad_table_exits_with_2_and_lists_every_cell(check, table, table_path, tmp_path):
    table["target"] = table["target"].astype(object)
    table.loc[5:54, "target"] = "lost"
    table.loc[3, "temperature"] = 99
    table.to_csv(table_path, index=False)
    folder = tmp_path / "c"
    code, _, err = check(train_yeast, "--data", table_path, "--output", folder)
    lines = err.strip().splitlines()
    assert code == 2
    assert len([line for line in lines if line.startswith("error: ")]) == 21
    assert any("row 5, column temperature: 99 degC is outside" in line for line in lines)
    assert lines[20] == (
        "error: and 31 more: 31 of the kind 'not a number'; --check --output FOLDER writes all of "
        "them to data_problems.csv"
    )
    rows = problems(folder)
    errors = rows[rows["severity"] == "error"]
    assert errors["kind"].value_counts().to_dict() == {"not a number": 50, "out of range": 1}
    assert set(errors["row"]) == {"5"} | {str(row) for row in range(7, 57)}
    said = report(folder)
    assert said["refused"]
    assert said["errors"] == {"not a number": 50, "out of range": 1}


def test_warnings_and_normalisations_follow_the_errors(check, table, table_path):
    table["temperature"] = table["temperature"].map({30.0: "30 ℃", 37.0: "50"})
    table.loc[0, "temperature"] = "RT"
    table.to_csv(table_path, index=False)
    code, _, err = check(train_yeast, "--data", table_path)
    words = [line.partition(":")[0] for line in err.strip().splitlines()]
    assert code == 2
    assert words == sorted(words, key=["error", "warning", "normalised"].index)
    assert set(words) == {"error", "warning", "normalised"}


def test_check_reads_a_file_that_is_no_table_into_its_report(check, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"")
    code, _, err = check(train_yeast, "--data", path, "--output", tmp_path / "c")
    assert code == 2
    assert err == f"error: {path}: is empty; it needs a header and rows\n"
    assert problems(tmp_path / "c")["message"].tolist() == ["is empty; it needs a header and rows"]


@pytest.mark.usefixtures("blank_pictures")
def test_a_run_takes_the_folder_of_its_check_and_a_check_leaves_a_run_alone(
    check, train, table_path, tmp_path
):
    folder = tmp_path / "run"
    check(train_yeast, "--data", table_path, "--output", folder, *options(SMALL))
    assert train(table_path) == folder
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    code, _, err = check(train_yeast, "--data", table_path, "--output", folder, *options(SMALL))
    assert code == 2
    assert "already holds a run" in err
    code, out, _ = check(
        train_yeast, "--data", table_path, "--output", folder, "--overwrite", *options(SMALL)
    )
    assert (code, "checked: nothing was written" in out) == (0, True)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_refused_table_leaves_no_run_folder(table, table_path, tmp_path, check):
    table.loc[0, "temperature"] = 99
    table.to_csv(table_path, index=False)
    with pytest.raises(SystemExit) as end:
        train_yeast.main(
            ["--data", str(table_path), "--output", str(tmp_path / "o")], standalone_mode=False
        )
    assert end.value.code == 2
    assert not (tmp_path / "o").exists()


def test_a_run_with_bad_rows_left_out_lists_them(train, table, table_path):
    table["target"] = table["target"].astype(object)
    table.loc[5, "target"] = "lost"
    table.to_csv(table_path, index=False)
    run = train(table_path, "data.on_bad_row=skip")
    rows = problems(run)
    assert rows[rows["severity"] == "error"]["row"].tolist() == ["7"]
    assert report(run)["rows_left_out"] == 1
    assert len(pd.read_csv(run / "predictions.csv")) == 239
    assert "row left out: " in (run / "train.log").read_text()


# ---------------------------------------------------------------------------------- prediction


@pytest.mark.usefixtures("blank_pictures")
def test_check_of_an_evaluation_says_what_the_model_will_see(
    check, train, table, table_path, tmp_path
):
    run = train(table_path)
    arguments = ("--model", run / "best_model.pth", "--data", table_path)
    code, out, _ = check(evaluate_yeast, *arguments, "--output", tmp_path / "c")
    assert code == 0
    assert "one batch of 32 windows went forward and backward" in out
    assert report(tmp_path / "c")["overlap_with_training"]["regions_in_training"] == 28
    assert {p.name for p in (tmp_path / "c").iterdir()} == {"data_report.json", "data_problems.csv"}
    table.drop(columns="motif_b").to_csv(table_path, index=False)
    code, _, err = check(evaluate_yeast, *arguments)
    assert code == 2
    assert "lacks 1 of the 3 region features, which the model was trained on: motif_b" in err


def test_categories_never_seen_and_numbers_out_of_range_are_flagged(
    train, evaluate, table, table_path, tmp_path, capsys
):
    """Case 36 of docs/messy_tables.md."""
    run = train(table_path)
    new = table.copy()
    new.loc[:39, "medium"] = "YPX"
    new.loc[40:79, "temperature"] = 42.0
    new.loc[200:, "drug_concentration"] = 0.5
    path = tmp_path / "new.csv"
    new.to_csv(path, index=False)
    folder = evaluate(run, path)
    flags = pd.read_csv(folder / "predictions.csv", keep_default_na=False)["flags"]
    flags = flags.str.replace("(; )?region far from the training regions", "", regex=True)
    assert set(flags[:40]) == {"medium never seen: YPX"}
    assert set(flags[40:80]) == {"temperature outside training: 42"}
    assert set(flags[80:200]) == {""}
    assert set(flags[200:]) == {"drug_concentration outside training: 0.5"}
    out = capsys.readouterr().out
    assert (
        "warning: medium: YPX in 1 sample was never seen in training and counts as unknown" in out
    )
    assert "warning: temperature is outside the 30 to 37 of training in 1 sample" in out


@pytest.mark.usefixtures("blank_pictures")
def test_columns_match_by_name_and_a_missing_one_is_an_error_and_an_extra_one_a_warning(
    train, evaluate, table, table_path, tmp_path, capsys
):
    """Case 37 of docs/messy_tables.md."""
    run = train(table_path)
    expected = pd.read_csv(evaluate(run, table_path) / "predictions.csv")
    path = tmp_path / "new.csv"
    turned = table[list(table.columns[::-1])].assign(batch="b1", padj=0.5, motif_x=1.0)
    turned.to_csv(path, index=False)
    got = pd.read_csv(evaluate(run, path, output="e2") / "predictions.csv")
    pd.testing.assert_frame_equal(got, expected)
    out = capsys.readouterr().out
    assert "warning: 1 region feature not known to the model and not used: motif_x" in out
    assert "2 columns not known and not used: padj, batch" in out or (
        "2 columns not known and not used: batch, padj" in out
    )
    lacking = table.drop(columns=["motif_a", "drug_concentration"])
    lacking.rename(columns={"temperature": "temprature"}).to_csv(path, index=False)
    with pytest.raises(SystemExit) as end:
        evaluate(run, path, output="e3")
    assert end.value.code == 2
    first, second, third = (
        capsys.readouterr().err.replace("error:", "\nerror:").split("\nerror:")[1:4]
    )
    assert "new.csv: lacks 1 of the 3 region features, which the model was trained on" in first
    assert (
        "new.csv: has no column temperature, which the model was trained on; did you mean "
        "temperature by temprature? else add it; leave its cells blank where it was not recorded"
    ) in second
    assert "new.csv: has no column drug_concentration, which the model was trained on" in third


@pytest.mark.usefixtures("blank_pictures")
def test_one_experiment_as_long_table_folder_and_workbook_predicts_alike_to_the_bit(
    train, evaluate, table, tmp_path
):
    long = table.assign(sample_id=np.repeat([f"s{i}" for i in range(6)], 40))
    long = long.sort_values(["region_id", "sample_id"], ignore_index=True, key=lambda c: c)
    long["order"] = long.groupby("region_id", sort=False).ngroup()
    long = long.drop(columns="order")
    forms = {
        "regions": long[["region_id", "motif_a", "motif_b", "motif_c", "accessibility"]],
        "samples": long[["sample_id", "medium", "temperature", "drug", "drug_concentration"]],
    }
    forms = {name: frame.drop_duplicates() for name, frame in forms.items()}
    wide = long.pivot(index="region_id", columns="sample_id", values="target")
    forms["expression"] = wide.loc[forms["regions"]["region_id"]].reset_index()
    (tmp_path / "folder").mkdir()
    with pd.ExcelWriter(tmp_path / "book.xlsx") as writer:
        for name, frame in forms.items():
            frame.to_csv(tmp_path / "folder" / f"{name}.csv", index=False)
            frame.to_excel(writer, sheet_name=name, index=False)
    long.to_csv(tmp_path / "long.csv", index=False)
    long.to_excel(tmp_path / "long.xlsx", index=False)
    runs = {
        name: train(
            tmp_path / name, "training.max_epochs=1", "training.warmup_epochs=0", output=f"r-{name}"
        )
        for name in ("long.csv", "folder", "book.xlsx", "long.xlsx")
    }
    first, *others = (
        pd.read_csv(run / "predictions.csv").drop(columns="row") for run in runs.values()
    )
    for other in others:
        pd.testing.assert_frame_equal(other, first, check_exact=True)
    scores = [(run / "metrics.json").read_text() for run in runs.values()]
    assert scores == [scores[0]] * 4


def test_a_data_error_holds_what_was_found(table, table_path):
    from yeast_get.config import load_settings
    from yeast_get.data.expression_data import load_expression_data

    table["target"] = "x"
    table.to_csv(table_path, index=False)
    with pytest.raises(DataError) as caught:
        load_expression_data(load_settings(None, (), {"data.path": str(table_path)}))
    assert caught.value.findings.error_counts() == {"not a number": 240}
