"""ExpressionData: the same data however it is given, and what a table must not hold."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from tests.conftest import long_table
from yeast_get.config import load_settings, settings_from_dict
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.roles import MOTIF_PATTERN
from yeast_get.errors import DataError

SMALL = (
    "region_id,motif_a,accessibility,sample_id,temperature,target\n"
    "chrI_1_500,1,0.1,s1,30,1.5\n"
    "chrI_1_500,1,0.1,s2,37,2.5\n"
    "chrII:900-999,2,0.2,s1,30,\n"
    "chrII:900-999,2,0.2,s2,37,4.5\n"
)


@pytest.fixture
def load(tmp_path):
    """Write a table, a data folder or a workbook, and load it."""

    def load(content, need_target=True, conditions=None, **data):
        if isinstance(content, str):
            path = tmp_path / "t.csv"
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, pd.DataFrame):
            path = tmp_path / "t.csv"
            content.to_csv(path, index=False)
        else:
            path = tmp_path / "folder"
            path.mkdir(exist_ok=True)
            for old in path.iterdir():
                old.unlink()
            for name, table in content.items():
                text = table if isinstance(table, str) else table.to_csv(index=False)
                (path / f"{name}.csv").write_text(text, encoding="utf-8")
        told = {"path": str(path), "drop_missing_target": True, **data}
        values = {"data": told, "conditions": conditions or {}}
        return load_expression_data(settings_from_dict(values, "x"), need_target)

    return load


@pytest.fixture
def refused(load, tmp_path):
    """The problems of a table, one text each, without the folder."""

    def refuse(*args, **kwargs) -> list[str]:
        with pytest.raises(DataError) as caught:
            load(*args, **kwargs)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return refuse


def observations(data) -> pd.DataFrame:
    """What every observation is, with nothing left of how the data is stored; in a fixed order."""
    region, sample = data.region_index, data.sample_index
    access = data.accessibility
    frame = pd.DataFrame(
        data.motif[region], columns=[*data.motif_names, *data.region_feature_names]
    )
    frame["accessibility"] = access[region] if access.ndim == 1 else access[region, sample]
    for name in ("region_id", "chrom", "start", "end", "gene_id"):
        frame[name] = getattr(data, name)[region]
    for name in data.conditions:
        frame[name] = data.conditions[name].to_numpy()[sample]
    frame["signature"], frame["sample_id"] = data.signature[sample], data.sample_id[sample]
    for t, name in enumerate(data.target_names):
        frame[name] = data.target[:, t]
    return frame.sort_values(["region_id", "sample_id"], ignore_index=True)


def as_folder(long: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A long table with sample ids as a data folder."""
    sample = ["sample_id", "medium", "temperature", "drug", "drug_concentration"]
    region = ["region_id", "motif_a", "motif_b", "motif_c", "accessibility"]
    expression = long.pivot(index="region_id", columns="sample_id", values="target")
    return {
        "regions": long[region].drop_duplicates(),
        "samples": long[sample].drop_duplicates(),
        "expression": expression.reset_index(),
    }


@pytest.fixture
def with_ids(table):
    """The small long table with sample ids."""
    return table.assign(sample_id=np.repeat([f"s{i}" for i in range(6)], 40))


# ----------------------------------------------------------------------- one meaning, three forms


def test_fields_of_a_small_table_by_hand(load):
    data = load(SMALL)
    assert data.region_id.tolist() == ["chrI_1_500", "chrII:900-999"]
    assert data.chrom.tolist() == ["chrI", "chrII"]
    assert data.start.tolist() == [1, 900]
    assert data.end.tolist() == [500, 999]
    assert data.gene_id.tolist() == [None, None]
    assert data.motif.tolist() == [[1.0], [2.0]]
    assert data.accessibility.tolist() == pytest.approx([0.1, 0.2])
    assert data.sample_id.tolist() == ["s1", "s2"]
    assert data.conditions["temperature"].tolist() == [30, 37]
    assert data.region_index.tolist() == [0, 0, 1, 1]
    assert data.sample_index.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(data.target, [[1.5], [2.5], [np.nan], [4.5]])
    assert data.measured.tolist() == [True, True, False, True]
    assert data.row.tolist() == [2, 3, 4, 5]
    assert data.target_names == ["target"]
    assert (data.num_regions, data.num_samples, data.num_observations) == (2, 2, 4)
    assert not data.is_grid


def test_long_table_folder_and_workbook_give_the_same_data(load, with_ids, tmp_path):
    tables = as_folder(with_ids)
    long, folder = load(with_ids), load(tables)
    with pd.ExcelWriter(tmp_path / "t.xlsx") as writer:
        for name, frame in tables.items():
            frame.to_excel(writer, sheet_name=name, index=False)
    settings = settings_from_dict({"data": {"path": str(tmp_path / "t.xlsx")}}, "x")
    workbook = load_expression_data(settings)
    pd.testing.assert_frame_equal(observations(long), observations(folder))
    pd.testing.assert_frame_equal(observations(long), observations(workbook))
    assert folder.is_grid
    assert workbook.is_grid
    assert folder.region_index.tolist() == np.repeat(np.arange(40), 6).tolist()  # region-major
    assert folder.sample_index.tolist() == np.tile(np.arange(6), 40).tolist()


def test_ids_join_tables_by_name_and_not_by_order(load, with_ids):
    tables = as_folder(with_ids)
    expected = observations(load(tables))
    expression = tables["expression"].sample(frac=1, random_state=0)
    shuffled = expression[["s3", "region_id", "s0", "s5", "s1", "s4", "s2"]]
    pd.testing.assert_frame_equal(observations(load(tables | {"expression": shuffled})), expected)


def test_rows_of_a_long_table_may_come_in_any_order(load, with_ids):
    expected = observations(load(with_ids))
    got = observations(load(with_ids.sample(frac=1, random_state=0)))
    pd.testing.assert_frame_equal(got, expected)


# ------------------------------------------------------------------------------------- samples


def test_rows_without_sample_ids_are_the_kth_occurrence_under_their_signature(load, table):
    data = load(table)
    assert data.num_samples == 6
    assert len(set(data.signature.tolist())) == 3
    assert np.bincount(data.sample_index).tolist() == [40] * 6
    assert data.sample_index.tolist() == np.repeat(np.arange(6), 40).tolist()
    stem = f"condition_{int(data.signature[0]) & 0xFFFFFFFF:08x}"
    assert data.sample_id[:2].tolist() == [f"{stem}_1", f"{stem}_2"]


def test_names_of_samples_without_ids_do_not_depend_on_the_other_conditions(load, table):
    whole = set(load(table).sample_id)
    part = load(table[table["temperature"] == 37]).sample_id
    assert len(part) == 2
    assert set(part) <= whole


def test_blank_sample_ids_are_named_and_given_ones_kept(load, with_ids):
    with_ids.loc[with_ids["sample_id"] == "s0", "sample_id"] = None
    data = load(with_ids)
    assert data.num_samples == 6
    assert data.sample_id[0].startswith("condition_")
    assert data.sample_id[1:].tolist() == ["s1", "s2", "s3", "s4", "s5"]


def test_a_sample_with_two_sets_of_conditions_is_refused(refused):
    assert refused(SMALL.replace("s2,37,4.5", "s2,30,4.5")) == [
        "t.csv, row 5, column temperature: '30' here and '37' in row 3 for the same sample; one "
        "sample has one set of conditions"
    ]


def test_the_rows_that_differ_from_most_of_their_sample_or_region_are_named(refused):
    rows = [f"r{i},{i},0.1,s1,30,1.5\n" for i in range(4)]
    header = SMALL.partition("\n")[0] + "\n"
    text = header + "".join(rows).replace("r0,0,0.1,s1,30", "r0,0,0.1,s1,35")
    (said,) = refused(text)
    assert said.startswith("t.csv, row 2, column temperature: '35' here and '30' in row 3 for the")
    (said,) = refused(header + "".join(f"r,{m},0.1,s{m}{i},30,1.5\n" for i, m in enumerate("755")))
    assert said.startswith("t.csv, row 2, column motif_a: '7' here and '5' in row 3 for the same r")


def test_a_region_twice_in_a_sample_is_a_replicate_and_said(load):
    data = load(SMALL.replace("0.1,s2,37", "0.1,s1,30"))
    assert data.sample_id.tolist() == ["s1", "s1 (2)", "s2"]
    assert data.sample_index.tolist() == [0, 1, 0, 2]
    assert data.signature[0] == data.signature[1]
    assert any(
        "the same region stands again in one sample; such rows count as replicates (SD of their "
        "targets 0.707) (row 3); give replicates" in line
        for line in data.warnings
    )


def test_rows_that_repeat_another_are_counted_and_dropped_where_that_is_asked_for(load):
    twice = SMALL + SMALL.split("\n")[1] + "\n"
    said = "1 row with region, sample and target of an earlier row; "
    data = load(twice)
    assert data.num_observations == 5
    assert any(f"{said}all of them count; data.drop_duplicates: true" in w for w in data.warnings)
    data = load(twice, drop_duplicates=True)
    pd.testing.assert_frame_equal(observations(data), observations(load(SMALL)))
    data = load(twice, drop_duplicates=True)
    assert any(f"{said}one of each is kept" in line for line in data.warnings)


def test_a_blank_target_cannot_be_trained_on_unless_that_is_asked_for(refused, load):
    assert refused(SMALL, drop_missing_target=False) == [
        "t.csv, row 4, column target: is blank; fill it in, delete the row, or set "
        "data.drop_missing_target: true"
    ]
    assert load(SMALL, need_target=False, drop_missing_target=False).num_observations == 4
    (said,) = load(SMALL).findings.normalised
    assert said.line() == "target: no target: predicted, never trained on or scored in 1 cell"


# --------------------------------------------------------------------------------------- roles


@pytest.mark.parametrize(
    ("name", "is_motif"),
    [("MA0265.1.ABF1", True), ("ABF1_MA0265.3", True), ("MA0265.1", True), ("motif_3", True),
     ("virtual_motif_3", True), ("Motif_x", True), ("motif", False), ("temperature", False),
     ("MAX1", False), ("chromatin_H3K4me3", False), ("MA02.1", False)],
)  # fmt: skip
def test_motifs_are_known_by_their_names(name, is_motif):
    assert bool(MOTIF_PATTERN.match(name)) is is_motif


def test_declared_columns_get_their_roles(load):
    text = (
        "peak_id,score_1,score_2,motif_x,chromatin_a,gene_id,label,media,TPM\n"
        "a,1,2,3,4,YAL001C,x,SC,5\nb,2,3,4,5,YAL002W,y,YPD,6\n"
    )
    data = load(
        text, motif_columns=["score_*"], region_feature_columns=["chromatin_*", "motif_x"],
        description_columns=["label"], target_columns=["TPM"],
    )  # fmt: skip
    assert data.motif_names == ["score_1", "score_2"]
    assert data.region_feature_names == ["motif_x", "chromatin_a"]
    assert data.motif.tolist() == [[1, 2, 3, 4], [2, 3, 4, 5]]
    assert data.target.tolist() == [[5], [6]]
    assert data.roles == {
        "region id": ["peak_id"], "motifs": ["score_1", "score_2"],
        "region features": ["motif_x", "chromatin_a"], "coordinates and genes": ["gene_id"],
        "conditions": ["medium (media)"], "target": ["TPM"],
        "descriptions, not used by the model": ["label"],
    }  # fmt: skip


def test_the_length_of_a_region_is_a_feature_where_it_is_wanted(load):
    data = load(SMALL, region_length=True)
    assert data.region_feature_names == ["region_length"]
    assert data.motif.tolist() == [[1, 499], [2, 99]]
    assert data.roles["region features"] == ["region_length (of start and end)"]
    assert load(SMALL).region_feature_names == []
    some = load(SMALL.replace("chrI_1_500", "a"), region_length=True)
    assert np.isnan(some.motif[0, 1])
    assert some.motif[1, 1] == 99


def test_a_length_that_cannot_be_had_is_an_error(refused):
    nowhere = SMALL.replace("chrI_1_500", "a").replace("chrII:900-999", "b")
    (said,) = refused(nowhere, region_length=True)
    assert said.startswith("t.csv: has no region with a start and an end")
    assert "add the columns start and end, or set data.region_length: false and train" in said
    twice = SMALL.replace("motif_a", "region_length")
    (said,) = refused(twice, region_length=True, motif_columns=["region_length"])
    assert "has a column region_length" in said
    assert "set data.region_length: false" in said


@pytest.mark.parametrize("header", ["target", "expression", "表达量"])
@pytest.mark.parametrize("id_header", ["region_id", "peak_id", "region", "peak", "Promoter_ID"])
def test_usual_headers_need_no_declaration(load, header, id_header):
    text = SMALL.replace("target", header).replace("region_id", id_header)
    text = text.replace("accessibility", "开放性").replace("temperature", "温度")
    pd.testing.assert_frame_equal(observations(load(text)), observations(load(SMALL)))


def test_undeclared_columns_of_a_long_table_are_errors_with_the_lines_to_write(refused):
    text = "region_id,motif_a,TPM,padj,strain,target\na,1,2,3,x,4\n"
    numbers, words = refused(text)
    assert numbers.startswith("t.csv, row 1: has columns whose role is not known: TPM, padj; ")
    for line in (
        "`data: {region_feature_columns: [TPM, padj]}`", "`data: {motif_columns: [TPM, padj]}`",
        "`data: {target_columns: [TPM, padj]}`", "`data: {description_columns: [TPM, padj]}`",
        "`conditions: {extra: {TPM: {kind: number}, padj: {kind: number}}}`",
    ):  # fmt: skip
        assert line in numbers
    assert words.startswith("t.csv, row 1: has a column whose role is not known: strain; ")
    assert "`conditions: {extra: {strain: {kind: category}}}`" in words
    assert "target_columns" not in words
    assert "motif_columns" not in words


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [("regions", "region_feature_columns: [gc]", "extra"),
     ("samples", "extra: {gc: {kind: number", "motif")],
)  # fmt: skip
def test_undeclared_columns_of_a_folder_name_its_table(refused, with_ids, name, has, lacks):
    tables = as_folder(with_ids)
    tables[name] = tables[name].assign(gc=1.0)
    (said,) = refused(tables)
    assert said.startswith(f"folder/{name}.csv, row 1: has a column whose role is not known: gc")
    assert has in said
    assert lacks not in said
    assert "target_columns" not in said


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("region_id,peak_id,motif_a,target", "region_id and peak_id both mean region_id"),
        ("region_id,motif_a,medium,media,target", "medium and media both mean medium; rename"),
        ("region_id,motif_a,accessibility,开放性,target", "both mean accessibility"),
    ],
)
def test_two_columns_of_one_role_are_refused(refused, header, said):
    cells = ",".join("1" for _ in header.split(","))
    (line,) = refused(f"{header}\n{cells}\n")
    assert line.startswith("t.csv, row 1: ")
    assert said in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("motif_a,target\n1,2\n", "t.csv, row 1: has no column region_id (or peak_id); add it; the "
         "first columns are motif_a, target"),
        ("region_id,motif_a\na,2\n", "t.csv, row 1: has no column target; add it"),
        ("region_id,target\na,2\n", "t.csv: has no motif scores, region features or accessibility; "
         "name the motif scores as data.motif_columns"),
        ("region_id,motif_a,target\n,1,2\n", "t.csv, row 2, column region_id: is blank; every row"),
        ("region_id,motif_a,target\na,1,x\n", "t.csv, row 2, column target: 'x' is not a number"),
        ("region_id,motif_a,target\na,x,1\n", "t.csv, row 2, column motif_a: 'x' is not a number"),
        ("region_id,motif_a,accessibility,target\na,1,x,1\n", "row 2, column accessibility: 'x'"),
        ("region_id,motif_a,start,target\na,1,x,1\n", "row 2, column start: 'x' is not a number"),
        ("region_id,motif_a,media_SC,target\na,1,2,1\n", "row 2: media_SC are not one-hot for"),
        ("region_id,motif_a,temperature,target\na,1,99,1\n", "row 2, column temperature: 99 degC"),
    ],
)  # fmt: skip
def test_a_bad_long_table_is_refused_with_the_place(refused, text, said):
    (line,) = refused(text)
    assert said in line


def test_no_table_at_all_is_refused():
    with pytest.raises(DataError, match=r"no table is named; give --data or set data.path"):
        load_expression_data(settings_from_dict({}, "x"))


@pytest.mark.parametrize("missing", [["TPM"], ["target", "TPM"]])
def test_a_declared_target_that_is_not_there_is_named(refused, missing):
    text = SMALL.replace("target", "x") if missing == ["TPM"] else SMALL
    (said,) = refused(text, target_columns=missing, description_columns=["x"])
    assert "t.csv, row 1: has no column TPM; add it" in said


def test_one_hot_columns_of_a_table_become_the_field(load, table):
    expected = observations(load(table))
    one_hot = pd.get_dummies(table, columns=["medium", "drug"], dtype=int)
    pd.testing.assert_frame_equal(observations(load(one_hot)), expected)


# ---------------------------------------------------------------------- targets and blank cells


def test_a_table_without_targets_is_allowed_where_none_is_needed(load, with_ids):
    long = load(with_ids.drop(columns="target"), need_target=False)
    tables = as_folder(with_ids)
    del tables["expression"]
    for data in (long, load(tables, need_target=False)):
        assert data.target.shape == (240, 1)
        assert not data.measured.any()


def test_a_folder_without_expression_cannot_train(refused, with_ids):
    tables = as_folder(with_ids)
    del tables["expression"]
    assert refused(tables) == ["folder: has no expression table; add expression.csv"]


def test_blank_and_absent_cells_of_expression_are_not_measured(load, with_ids):
    tables = as_folder(with_ids)
    cut = tables["expression"].drop(columns="s5").iloc[:-1].copy()
    cut.loc[0, "s2"] = np.nan
    data = load(tables | {"expression": cut})
    assert data.num_observations == 240
    assert int((~data.measured).sum()) == 40 + 5 + 1
    assert data.warnings[0].endswith(
        "1 region and 1 sample are not in it and count as not measured"
    )


def test_two_strands_are_two_targets_in_a_long_table_and_in_a_folder(load, with_ids):
    both = with_ids.rename(columns={"target": "target_plus"})
    both["target_minus"] = -both["target_plus"]
    tables = as_folder(with_ids)
    minus = tables["expression"].sample(frac=1, random_state=1)
    minus[["s0", "s1", "s2", "s3", "s4", "s5"]] *= -1
    long, folder = load(both), load(tables | {"expression_minus": minus})
    assert long.target_names == folder.target_names == ["plus", "minus"]
    np.testing.assert_array_equal(long.target[:, 1], -long.target[:, 0])
    pd.testing.assert_frame_equal(observations(long), observations(folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: e.rename(columns={"s1": "sx"}),
         "folder/expression.csv, row 1, column sx: is a sample that is not in samples; add it"),
        (lambda e: e.replace({"region_id": {"chrI_1_501": "other"}}),
         "folder/expression.csv, row 3, column region_id: region 'other' is not in regions"),
        (lambda e: pd.concat([e, e.iloc[:1]]),
         "folder/expression.csv, row 42, column region_id: 'chrI_10001_10501' stands twice"),
        (lambda e: e.rename(columns={"region_id": "gene"}),
         "folder/expression.csv, row 1: has no column region_id"),
        (lambda e: e.astype({"s1": object}).replace({"s1": {e["s1"][3]: "high"}}),
         "folder/expression.csv, row 5, column s1: 'high' is not a number"),
        (lambda e: e.replace({"region_id": {"chrI_1_501": None}}),
         "folder/expression.csv, row 3, column region_id: is blank"),
    ],
)  # fmt: skip
def test_a_bad_expression_table_is_refused_with_the_place(refused, with_ids, change, said):
    tables = as_folder(with_ids)
    tables["expression"] = tables["expression"].sort_values("region_id", ignore_index=True)
    tables["expression"].loc[[0, 1], "region_id"] = ["chrI_10001_10501", "chrI_1_501"]
    tables["expression"] = change(tables["expression"])
    assert any(line.startswith(said) for line in refused(tables))


@pytest.mark.parametrize(("name", "column"), [("regions", "region_id"), ("samples", "sample_id")])
def test_ids_of_a_folder_are_there_and_unique(refused, with_ids, name, column):
    tables = as_folder(with_ids)
    first = tables[name].iloc[:1]
    (said,) = refused(tables | {name: pd.concat([tables[name], first])})
    rows = len(tables[name]) + 2
    assert said.startswith(
        f"folder/{name}.csv, row {rows}, column {column}: '{first[column].iloc[0]}'"
    )
    assert "stands twice; ids are unique" in said
    said, *_ = refused(
        tables | {name: tables[name].assign(**{column: [None, *tables[name][column][1:]]})}
    )
    assert said.startswith(f"folder/{name}.csv, row 2, column {column}: is blank")
    (said,) = refused(tables | {name: tables[name].drop(columns=column)})
    assert f"folder/{name}.csv, row 1: has no column {column}" in said


# ---------------------------------------------------------------------------- region features


def test_a_motif_that_changes_within_a_region_is_refused(refused):
    assert refused(SMALL.replace("chrI_1_500,1,0.1,s2", "chrI_1_500,7,0.1,s2")) == [
        "t.csv, row 3, column motif_a: '7' here and '1' in row 2 for the same region; what "
        "describes a region is the same in all of its rows"
    ]
    (said,) = refused(SMALL.replace("chrII:900-999,2,0.2,s2", "chrII:900-999,,0.2,s2"))
    assert "row 5, column motif_a: '' here and '2' in row 4" in said


@pytest.mark.parametrize("column", ["chrom", "start", "end", "gene_id"])
def test_the_place_and_gene_of_a_region_are_the_same_in_all_of_its_rows(refused, column):
    text = "region_id,motif_a,chrom,start,end,gene_id,target\nr,1,chrV,10,20,YAL1,1\n"
    other = {"chrom": "chrX", "start": "11", "end": "21", "gene_id": "YAL2"}[column]
    was = {"chrom": "chrV", "start": "10", "end": "20", "gene_id": "YAL1"}[column]
    (said,) = refused(text + text.split("\n")[1].replace(was, other) + "\n")
    assert said.startswith(
        f"t.csv, row 3, column {column}: '{other}' here and '{was}' in row 2 for"
    )


def test_blank_motifs_are_missing_and_not_zero(load):
    data = load(SMALL.replace("chrI_1_500,1,", "chrI_1_500,,"))
    np.testing.assert_array_equal(data.motif, [[np.nan], [2]])


def test_accessibility_is_per_region_where_it_agrees_and_per_cell_where_not(load):
    assert load(SMALL).accessibility.shape == (2,)
    per_cell = load(SMALL.replace("0.1,s2", "0.4,s2").replace("0.2,s1", ",s1")).accessibility
    np.testing.assert_allclose(per_cell, [[0.1, 0.4], [np.nan, 0.2]], rtol=1e-6)
    assert load(SMALL.replace(",accessibility", "").replace(",0.1", "").replace(",0.2", "")
                ).accessibility is None  # fmt: skip


def test_accessibility_of_a_folder_is_its_table_joined_by_name_or_the_column(load, with_ids):
    tables = as_folder(with_ids)
    assert load(tables).accessibility.shape == (40,)
    access = tables["expression"][["s1", "region_id", "s0"]].iloc[::-1]
    access = access.assign(s0=access["s0"].abs(), s1=access["s1"].abs())
    data = load(tables | {"accessibility": access})
    want = access.set_index("region_id").loc[data.region_id]
    np.testing.assert_allclose(data.accessibility[:, :2], want[["s0", "s1"]], rtol=1e-6)
    assert np.isnan(data.accessibility[:, 2:]).all()
    assert "accessibility is taken from its own table, not from regions" in data.warnings


@pytest.mark.parametrize(
    ("region_id", "place"),
    [("chrII_703665_704061", ("chrII", 703665, 704061)), ("chrII:7-9", ("chrII", 7, 9)),
     ("chr_un_1_7_9", ("chr_un_1", 7, 9)), ("YAL001C", (None, np.nan, np.nan))],
)  # fmt: skip
def test_coordinates_come_from_ids(load, region_id, place):
    data = load(f"region_id,motif_a,target\n{region_id},1,2\n")
    assert data.chrom[0] == place[0]
    np.testing.assert_array_equal([data.start[0], data.end[0]], place[1:])


def test_coordinates_from_columns_win_over_ids(load):
    text = "region_id,chrom,start,end,gene_id,motif_a,target\nchrI_1_2,chrV,10,20,YAL001C,1,2\n"
    data = load(text)
    assert (data.chrom[0], data.start[0], data.end[0], data.gene_id[0]) == (
        "chrV",
        10,
        20,
        "YAL001C",
    )


# -------------------------------------------------------------------------------- bad rows

BAD = SMALL.replace("s2,37,2.5", "s2,99,2.5").replace("s2,37,4.5", "s2,37,high")


def test_all_bad_cells_are_said_at_once(refused):
    assert [line.partition(":")[0] for line in refused(BAD)] == [
        "t.csv, row 5, column target",
        "t.csv, row 3, column temperature",
    ]


def test_bad_rows_are_left_out_and_counted_where_that_is_asked_for(load, caplog):
    with caplog.at_level(logging.INFO):
        data = load(BAD, on_bad_row="skip", max_skipped=0.5)
        data.log_summary()
    assert data.row.tolist() == [2, 4]
    assert data.warnings[0] == "2 rows with errors left out (data.on_bad_row: skip)"
    assert "row left out: " in caplog.text
    assert "error: " not in caplog.text
    assert "row 5, column target: 'high' is not a number" in caplog.text


def test_problems_that_show_only_once_others_are_gone_are_skipped_too(load):
    twice = SMALL + "chrI_1_500,8,0.1,s3,30,9\nchrI_1_500,1,0.1,s1,30,x\n"
    assert load(twice, on_bad_row="skip", max_skipped=0.4).row.tolist() == [2, 3, 4, 5]


def test_bad_rows_of_a_folder_are_left_out_with_what_hangs_on_them(load, with_ids):
    tables = as_folder(with_ids)
    tables["samples"] = tables["samples"].astype({"temperature": object})
    tables["samples"].iloc[1, tables["samples"].columns.get_loc("temperature")] = "warm"
    tables["regions"] = tables["regions"].astype({"motif_a": object})
    tables["regions"].iloc[2, 1] = "x"
    data = load(tables, on_bad_row="skip", max_skipped=0.2)
    assert data.sample_id.tolist() == ["s0", "s2", "s3", "s4", "s5"]
    assert (data.num_regions, data.num_observations) == (39, 195)
    whole = observations(load(as_folder(with_ids)))
    gone = as_folder(with_ids)["regions"]["region_id"].iloc[2]
    kept = whole[(whole["sample_id"] != "s1") & (whole["region_id"] != gone)]
    pd.testing.assert_frame_equal(observations(data), kept.reset_index(drop=True))


@pytest.mark.parametrize("broken", ["samples", "regions"])
def test_a_torn_row_of_a_folder_is_left_out_with_what_hangs_on_it(load, refused, with_ids, broken):
    whole = as_folder(with_ids)
    lines = whole[broken].to_csv(index=False).split("\n")
    lines[2] += ",7"
    torn = whole | {broken: "\n".join(lines)}
    data = load(torn, on_bad_row="skip", max_skipped=0.2)
    kept = observations(load(whole))
    gone = kept["sample_id"] == "s1"
    if broken == "regions":
        gone = kept["region_id"] == whole["regions"]["region_id"].iloc[1]
    pd.testing.assert_frame_equal(observations(data), kept[~gone].reset_index(drop=True))
    assert f"folder/{broken}.csv, row 3: has " in refused(torn)[0]
    torn["expression"] = whole["expression"].rename(columns={"s4": "sx"})
    assert (
        "folder/expression.csv, row 1, column sx: is a sample that is not in samples; add it there"
        in refused(torn, on_bad_row="skip", max_skipped=0.2)
    )


def test_a_torn_row_excuses_no_sample_but_its_own(refused, with_ids):
    whole = as_folder(with_ids)
    lines = whole["samples"].to_csv(index=False).split("\n")
    lines[2] = "s10,7"
    torn = whole | {"samples": "\n".join(lines)}
    assert any("column s1: is a sample that is not in samples" in each for each in refused(torn))


def test_rows_with_other_errors_have_no_vote(refused, with_ids):
    """Of a region's three rows two have errors elsewhere, and the same slip."""
    table = with_ids[with_ids["sample_id"].isin(["s0", "s1", "s2"])].astype({"target": object})
    region = np.flatnonzero(table["region_id"] == table["region_id"].iloc[0])
    table.iloc[region[:2], table.columns.get_loc("motif_a")] = 0.7
    table.iloc[region[:2], table.columns.get_loc("target")] = "x"
    said = [each for each in refused(table) if "motif_a" in each]
    assert [each.partition(":")[0] for each in said] == [
        f"t.csv, row {at + 2}, column motif_a" for at in region[:2]
    ]


def test_a_blank_drug_beside_a_dose_that_is_no_number_may_be_none(refused):
    text = "region_id,sample_id,motif_a,drug,drug_concentration,target\n"
    text += "a,s,1,,0,1\nb,s,2,,zz,2\nc,s,3,,0,3\n"
    assert len(refused(text)) == 1


def test_scores_that_are_stored_alike_are_alike(load, refused):
    text = "region_id,motif_a,start,end,medium,target\na,0.1,1,2,YPD,1\na,0.1,1,2,SC,2\n"
    assert load(text.replace("SC", "SC").replace("a,0.1,1,2,SC", "a,0.10000000000000002,1,2,SC"))
    big = text.replace("1,2,YPD", "16777216,16777300,YPD").replace("1,2,SC", "16777217,16777300,SC")
    assert "16777217" in refused(big)[0]


def test_a_region_that_stands_twice_is_left_out_once_and_the_others_keep_their_values(
    load, with_ids
):
    tables = as_folder(with_ids)
    tables["regions"] = pd.concat([tables["regions"], tables["regions"].iloc[:1]])
    data = load(tables, on_bad_row="skip", max_skipped=0.2)
    pd.testing.assert_frame_equal(observations(data), observations(load(as_folder(with_ids))))


def test_negative_accessibility_of_a_table_of_its_own_is_refused(refused, with_ids):
    tables = as_folder(with_ids)
    access = tables["expression"].astype({"s0": object}).copy()
    access[["s1", "s2", "s3", "s4", "s5"]] = 0.5
    access["s0"] = ["-5", "-"] + ["1"] * 38
    (said,) = refused(tables | {"accessibility": access})
    assert said.startswith("folder/accessibility.csv, row 2, column s0: '-5' is negative")


def test_description_columns_stay_text(load):
    text = SMALL.replace("target", "target,batch").replace("1.5\n", "1.5,001\n")
    text = (
        text.replace("2.5\n", "2.5,1E5\n").replace(",30,\n", ",30,,2\n").replace("4.5\n", "4.5,3\n")
    )
    data = load(text, description_columns=["batch"])
    assert data.column("batch").tolist() == ["001", "1E5", "2", "3"]


def test_more_bad_rows_than_allowed_are_an_error(refused, load):
    said = refused(BAD, on_bad_row="skip", max_skipped=0.4)
    assert said[-1] == (
        "t.csv: 2 of 4 rows have errors, and data.max_skipped is 0.4; mend the table; few rows may "
        "be left out, not many"
    )
    load(BAD, on_bad_row="skip", max_skipped=0.5)
    many = BAD + "".join(f"r{i},{i},0.1,s1,30,{i}\n" for i in range(36))
    load(many, on_bad_row="skip")  # 2 of 40
    assert "2 of 39 rows" in refused(many[: many.rindex("r35")], on_bad_row="skip")[-1]


def test_a_table_of_bad_rows_only_is_an_error(refused):
    text = "region_id,motif_a,target\na,1,x\nb,1,y\n"
    assert "'x' is not a number" in refused(text, on_bad_row="skip", max_skipped=0.99)[0]


def test_a_bad_column_is_never_skipped(refused):
    (said,) = refused(SMALL.replace("temperature", "TPM"), on_bad_row="skip")
    assert "role is not known: TPM" in said


# ------------------------------------------------------------------------ columns and warnings


def test_columns_by_name_have_one_text_per_observation(load):
    text = SMALL.replace("target", "target,label")
    text = "\n".join(f"{line},x{i}" if i else line for i, line in enumerate(text.split("\n")[:-1]))
    data = load(text + "\n", description_columns=["label"])
    assert data.column("label").tolist() == ["x1", "x2", "x3", "x4"]
    assert data.column("temperature").tolist() == ["30", "37", "30", "37"]
    assert data.column("medium").tolist() == [None] * 4
    assert data.column("region_id").tolist() == ["chrI_1_500"] * 2 + ["chrII:900-999"] * 2
    assert data.column("chrom").tolist() == ["chrI"] * 2 + ["chrII"] * 2
    assert data.column("sample_id").tolist() == ["s1", "s2", "s1", "s2"]
    with pytest.raises(
        DataError, match=r"t.csv: has no column 'nix'; known: label, medium, .*sample_id"
    ):
        data.column("nix")


def test_description_columns_of_a_folder_follow_their_region_or_sample(load, with_ids):
    tables = as_folder(with_ids)
    tables["regions"]["cluster"] = [f"c{i}" for i in range(40)]
    tables["samples"]["group"] = [f"g{i}" for i in range(6)]
    data = load(tables, description_columns=["cluster", "group"])
    assert data.column("cluster").tolist() == [f"c{i}" for i in data.region_index]
    assert data.column("group").tolist() == [f"g{i}" for i in data.sample_index]


def test_what_is_the_same_everywhere_is_named_in_warnings(load):
    table = long_table(6)
    table = table[table["medium"] == "YPD"].assign(motif_b=0.0, accessibility=0.5)
    warnings = load(table).warnings
    assert "1 constant region feature: motif_b" in warnings
    assert "accessibility is 0.5 everywhere" in warnings
    assert "condition medium is YPD in every sample" in warnings
    assert "condition drug is none in every sample" in warnings
    assert not any("temperature" in line for line in warnings)


def test_samples_without_any_condition_are_named_in_warnings(load):
    data = load(SMALL.replace(",30,", ",,"))
    assert "1 sample without any recorded condition: s1" in data.warnings


def test_values_outside_the_typical_range_are_warned_about(load):
    assert any(
        "outside the usual 20 to 45" in line for line in load(SMALL.replace("37", "50")).warnings
    )


def test_the_summary_says_sizes_roles_and_warnings(load, caplog):
    with caplog.at_level(logging.INFO):
        load(SMALL.replace("37", "50")).log_summary()
    assert "2 regions, 2 samples, 4 observations, 3 of them measured" in caplog.text
    assert "motifs: motif_a" in caplog.text
    assert "column temperature: 2 values outside the usual 20 to 45 degC (50)" in caplog.text


def test_a_pattern_that_no_column_matches_is_warned_about(table, table_path):
    overrides = ["data.region_feature_columns=['chromatin_*']"]
    settings = load_settings(None, overrides, {"data.path": str(table_path)})
    said = load_expression_data(settings).warnings
    assert "data.region_feature_columns names chromatin_*, which no column matches" in said
