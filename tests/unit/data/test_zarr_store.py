"""Zarr stores of GET and GetForYeast: exact values, and what a store must not hold."""

from __future__ import annotations

import json
import pickle
import sys
import warnings

import numcodecs
import numpy as np
import pandas as pd
import pytest
from zarr.codecs.numcodecs import Zlib

from tests.conftest import as_cube, long_table, write_store
from yeast_get.config import SplitConfig, settings_from_dict
from yeast_get.data import zarr_store
from yeast_get.data.expression_data import load_expression_data
from yeast_get.data.splits import TEST, TRAIN, make_split
from yeast_get.data.yeast_dataset import WindowPlan
from yeast_get.errors import DataError

NAN = float("nan")
PEAKS = ["chrI:1-500", "chrI:900-1300", "chrII:1-400"]

GET = {
    "data": np.array([[1, 0], [0, 2.5], [3, 4]], dtype="f4"),
    "motif_names": ["CREB/ATF/1", "accessibility"],  # whatever they are called, they are motifs
    "peak_names": PEAKS,
    "atpm/T": np.array([0.1, 0.2, 0], dtype="f4"),
    "atpm/B": np.array([0.4, 0.5, 0.6], dtype="f4"),
    "expression_positive/T": np.array([1, 2, 3], dtype="f4"),
    "expression_negative/T": np.array([4, 5, 6], dtype="f4"),
    "tss/T": np.array([[1, 0], [1, 1], [0, 1]], dtype="i1"),
}
"""Two cell types; B has no expression, and T starts on both strands only at the second peak."""

FEATURES = ["MA0265.1.ABF1", "accessibility", "temperature", "media_SC", "media_YPD"]
MOTIF, ACCESS = np.array([1, 2, 3]), np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])


def cube_values() -> np.ndarray:
    """[2,3,5] of the features above: SC at 30 °C, YPD at 37 °C."""
    cube = np.zeros((2, 3, 5))
    cube[:, :, 0], cube[:, :, 1] = MOTIF, ACCESS
    cube[0, :, 2:], cube[1, :, 2:] = [30, 1, 0], [37, 0, 1]
    return cube


CUBE = {
    "matrix": cube_values(),
    "motif_names": FEATURES,
    "peak_ids": PEAKS,
    "sample_ids": ["a", "b"],
    "expression": np.array([[1.5, 2.5, NAN], [3.5, 4.5, 5.5]]),
}


@pytest.fixture
def store(tmp_path):
    """Write arrays as a zarr store of this name."""

    def store(arrays, zarr_format=3, name="x.zarr", **options):
        return write_store(tmp_path / name, arrays, zarr_format, **options)

    return store


@pytest.fixture
def load(store):
    """Write a store and load it."""

    def load(arrays, zarr_format=3, need_target=True, conditions=None, options=None, **data):
        path = store(arrays, zarr_format, **(options or {}))
        values = {"data": {"path": str(path), **data}, "conditions": conditions or {}}
        return load_expression_data(settings_from_dict(values, "x"), need_target)

    return load


@pytest.fixture
def refused(load, tmp_path):
    """The problems of a store, one text each, without the folder."""

    def refuse(*args, **kwargs) -> list[str]:
        with pytest.raises(DataError) as caught:
            load(*args, **kwargs)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return refuse


def without(arrays, *names):
    return {key: values for key, values in arrays.items() if key not in names}


def read(path, **data):
    return load_expression_data(settings_from_dict({"data": {"path": str(path), **data}}, "x"))


# ------------------------------------------------------------------------------------------- GET


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_fields_of_a_get_store_by_hand(load, zarr_format):
    data = load(GET, zarr_format)
    assert data.region_id.tolist() == PEAKS
    assert data.chrom.tolist() == ["chrI", "chrI", "chrII"]
    assert data.start.tolist() == [1, 900, 1]
    assert data.end.tolist() == [500, 1300, 400]
    assert data.motif_names == ["CREB/ATF/1", "accessibility"]
    assert data.motif.tolist() == [[1, 0], [0, 2.5], [3, 4]]
    assert data.sample_id.tolist() == ["B", "T"]
    expected = np.array([[0.4, 0.1], [0.5, 0.2], [0.6, 0]], dtype="f4")
    np.testing.assert_array_equal(data.accessibility, expected)
    assert data.conditions.isna().all(axis=None)
    assert data.is_grid
    assert data.region_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.sample_index.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.row.tolist() == [1, 1, 2, 2, 3, 3]
    assert data.target_names == ["plus", "minus"]
    of_b = [NAN, NAN]
    expected = [of_b, [1, NAN], of_b, [2, 5], of_b, [NAN, 6]]  # no gene starts at the others
    np.testing.assert_array_equal(data.target, expected)
    assert data.roles["target"] == ["expression_positive", "expression_negative"]


def test_what_a_get_store_lacks_is_told(load):
    assert load(GET).warnings == [
        "2 values where tss says that no gene starts are not measured",
        "expression_positive has no B: their plus strand is predicted and not scored",
        "expression_negative has no B: their minus strand is predicted and not scored",
        "tss has no B: all their values count as measured, also a 0 where no gene starts",
    ]


def test_without_tss_every_value_counts_as_measured(load):
    data = load(without(GET, "tss/T"))
    np.testing.assert_array_equal(data.target[1::2], [[1, 4], [2, 5], [3, 6]])
    assert any(line.startswith("tss has no B, T: all their values") for line in data.warnings)


def test_a_cell_type_without_accessibility_is_read_with_a_warning(load):
    data = load(without(GET, "atpm/T"))
    expected = np.array([[0.4, NAN], [0.5, NAN], [0.6, NAN]], dtype="f4")
    np.testing.assert_array_equal(data.accessibility, expected)
    assert "atpm has no T: their accessibility is not known" in data.warnings
    assert load(without(GET, "atpm/T", "atpm/B")).accessibility is None


def test_one_strand_without_the_other_is_read(load):
    data = load(without(GET, "expression_negative/T"))
    np.testing.assert_array_equal(data.target[1::2], [[1, NAN], [2, NAN], [NAN, NAN]])


def test_a_get_store_without_expression_is_for_prediction_only(load, refused):
    arrays = without(GET, "expression_positive/T", "expression_negative/T")
    assert refused(arrays) == [
        "x.zarr: has no arrays in expression_positive or expression_negative; add them"
    ]
    data = load(arrays, need_target=False)
    assert data.num_observations == 6
    assert not data.measured.any()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without(GET, "motif_names"), "x.zarr: has no array motif_names; it holds atpm/B, atpm/T,"),
        (without(GET, "peak_names"), "x.zarr: has no array peak_names; it holds atpm/B, atpm/T,"),
        (
            GET | {"motif_names": ["a"]},
            "x.zarr: array motif_names has the shape (1,) and not (2,); the arrays of a store must "
            "fit each other",
        ),
        (GET | {"peak_names": PEAKS[:2]}, "array peak_names has the shape (2,) and not (3,);"),
        (GET | {"atpm/T": np.ones(4)}, "array atpm/T has the shape (4,) and not (3,);"),
        (GET | {"tss/T": np.ones((3, 1))}, "array tss/T has the shape (3, 1) and not (3, 2);"),
        (
            GET | {"expression_negative/T": np.ones((1, 3))},
            "array expression_negative/T has the shape (1, 3) and not (3,);",
        ),
        (
            GET | {"motif_names": ["a", "a"]},
            "x.zarr/motif_names: 'a' is the name of features 1 and 2; rename one",
        ),
        (
            GET | {"motif_names": ["a", " "]},
            "x.zarr/motif_names: name 2 is blank; every feature needs one",
        ),
        (GET | {"motif_names": ["a", "region_id"]}, "peak_id and region_id both mean region_id"),
        (
            GET | {"peak_names": [PEAKS[0], PEAKS[1], PEAKS[0]]},
            "x.zarr, row 3, column region_id: 'chrI:1-500' stands twice; ids are unique;",
        ),
        (
            GET | {"peak_names": [PEAKS[0], PEAKS[1], ""]},
            "x.zarr, row 3, column region_id: is blank;",
        ),
        (
            GET | {"data": np.ones(3)},
            "x.zarr: array data has the shape (3,); it is [peaks, motifs]",
        ),
        (GET | {"data": [["a", "b"]] * 3}, "x.zarr: array data holds <U1; it must hold numbers"),
        (
            GET | {"expression_positive/T": np.array([1, np.inf, 2])},
            "x.zarr/expression_positive, row 2, column T: 'inf' is beyond 1e+15 and no",
        ),
        (
            {key: GET[key] for key in ("data", "peak_names", "motif_names")},
            "x.zarr: has no cell type; it needs an array per cell type in atpm or "
            "expression_positive or expression_negative or tss",
        ),
    ],
)
def test_what_a_get_store_must_not_be(refused, arrays, message):
    problem, *_ = refused(arrays)
    assert message in problem


def test_removed_regions_never_shift_the_positions(load):
    """GET drops closed peaks and then reads their labels as positions: training saw chr2."""
    names = np.repeat(["chr1", "chr2", "chr3"], [200, 200, 20])
    peaks = [f"{name}:{1000 * i}-{1000 * i + 400}" for i, name in enumerate(names)]
    access = np.ones(420)
    access[50:150] = 0
    expression = np.arange(420.0)
    data = load(
        {
            "data": np.random.default_rng(0).uniform(size=(420, 3)),
            "motif_names": ["a", "b", "c"],
            "peak_names": peaks,
            "atpm/T": access,
            "expression_positive/T": expression,
            "expression_negative/T": expression,
        }
    )
    part = make_split(data, SplitConfig(by="chromosome", test=["chr2"], val=["chr3"]))
    for code, name in ((TRAIN, "chr1"), (TEST, "chr2")):
        observed = data.target[part == code, 0].astype(int)  # tells which peak it was
        assert {peaks[i].split(":")[0] for i in observed} == {name}
        assert len(observed) == 200  # closed peaks are still there
        windows = WindowPlan(data, 30).windows(part == code)
        real = windows.observation >= 0
        assert np.array_equal(np.sort(windows.observation[real]), np.flatnonzero(part == code))
        assert np.array_equal(data.target[windows.observation[real], 0], windows.region[real])
        for row in windows.region:
            assert set(data.chrom[row[row >= 0]]) == {name}


# ----------------------------------------------------------------------------------------- cubes


def as_folder(long: pd.DataFrame, path):
    """A long table as a data folder, with regions and samples in the order of the table."""
    path.mkdir()
    sample = ["sample_id", "medium", "temperature", "drug", "drug_concentration"]
    region = ["region_id", "motif_a", "motif_b", "motif_c", "accessibility"]
    long[region].drop_duplicates().to_csv(path / "regions.csv", index=False)
    long[sample].drop_duplicates().to_csv(path / "samples.csv", index=False)
    wide = long.pivot(index="region_id", columns="sample_id", values="target").reset_index()
    wide.to_csv(path / "expression.csv", index=False)
    return path


ARRAYS = (
    "motif", "accessibility", "region_id", "chrom", "start", "end", "gene_id", "sample_id",
    "region_index", "sample_index", "target", "signature", "region_hash", "sample_hash",
)  # fmt: skip


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_folder_and_a_cube_give_the_same_data(load, tmp_path, zarr_format):
    long = long_table().assign(sample_id=np.repeat([f"s{i}" for i in range(6)], 40))
    long.loc[::7, "target"] = NAN
    cube, folder = load(as_cube(long), zarr_format), read(as_folder(long, tmp_path / "folder"))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(cube, name), getattr(folder, name), name)
    pd.testing.assert_frame_equal(cube.conditions, folder.conditions, check_exact=True)
    assert cube.is_grid
    assert cube.motif_names == folder.motif_names
    assert cube.fields == folder.fields
    assert cube.target_names == folder.target_names
    assert cube.roles == {
        "region id": ["region_id"],
        "sample id": ["sample_id"],
        "motifs": ["motif_a", "motif_b", "motif_c"],
        "accessibility": ["accessibility"],
        "conditions": [
            "temperature",
            "drug_concentration",
            "medium (medium_SC, medium_YPD)",
            "drug (drug_H2O2, drug_none)",
        ],
        "target": ["expression"],
    }


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_fields_of_a_cube_by_hand(load, zarr_format):
    data = load(CUBE, zarr_format)
    assert data.region_id.tolist() == PEAKS
    assert data.motif.tolist() == [[1], [2], [3]]
    np.testing.assert_array_equal(data.accessibility, ACCESS.T.astype("f4"))
    assert data.sample_id.tolist() == ["a", "b"]
    assert data.conditions["temperature"].tolist() == [30, 37]
    assert data.conditions["medium"].tolist() == ["SC", "YPD"]
    np.testing.assert_array_equal(data.target[:, 0], [1.5, 3.5, 2.5, 4.5, NAN, 5.5])
    assert data.target_names == ["target"]
    assert data.row.tolist() == [1, 1, 2, 2, 3, 3]
    assert data.warnings == []


def test_two_strands_and_samples_without_names(load):
    arrays = without(CUBE, "expression", "sample_ids", "matrix")
    arrays["region_motif"] = CUBE["matrix"].astype("f4")
    arrays["exp_label"] = np.arange(12, dtype="f4").reshape(2, 3, 2)
    data = load(arrays)
    assert data.sample_id.tolist() == ["sample_1", "sample_2"]
    assert data.target_names == ["plus", "minus"]
    assert data.target.tolist() == [[0, 1], [6, 7], [2, 3], [8, 9], [4, 5], [10, 11]]
    assert data.roles["target"] == ["exp_label"]


def test_accessibility_that_is_the_same_in_all_samples_is_per_region(load):
    cube = cube_values()
    cube[1, :, 1] = cube[0, :, 1] = [0.1, NAN, 0.3]
    data = load(CUBE | {"matrix": cube})
    np.testing.assert_array_equal(data.accessibility, np.array([0.1, NAN, 0.3], dtype="f4"))


def test_names_come_from_the_file_of_the_yaml(load, refused, tmp_path, monkeypatch):
    arrays = without(CUBE, "motif_names")
    (tmp_path / "names.txt").write_text("\n".join(FEATURES) + "\n\n", encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)
    data = load(arrays, feature_names="names.txt")
    assert data.motif_names == ["MA0265.1.ABF1"]
    assert data.conditions["temperature"].tolist() == [30, 37]
    assert data.warnings == []
    other = ["motif_x", "accessibility", "preculture_time", "media_SC", "media_YPD"]
    (tmp_path / "names.txt").write_text("\n".join(other), encoding="utf-8")
    data = load(arrays, feature_names="names.txt")
    assert data.conditions["preculture_time"].tolist() == [30, 37]


def test_names_of_the_store_win_over_the_file_with_a_warning(load, store, tmp_path):
    unused = "data.feature_names is not used: the features of the input have names"
    assert unused in load(CUBE, feature_names="nowhere.txt").warnings
    assert unused in load(GET, feature_names="nowhere.txt").warnings
    table = tmp_path / "t.csv"
    long_table().to_csv(table, index=False)
    assert unused in read(table, feature_names="nowhere.txt").warnings


NAMELESS = without(CUBE, "motif_names")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "names.txt: cannot be read as text: [Errno 2] No such file or directory"),
        ("a\nb\n", "names.txt: has 2 lines, and matrix has 5 features; write one name per line"),
        ("a\n\nb\nc\nd\n", "names.txt: name 2 is blank; every feature needs one"),
        ("a\nb\nc\nd\na\n", "names.txt: 'a' is the name of features 1 and 5; rename one"),
    ],
)
def test_a_file_of_names_fits_the_cube(refused, tmp_path, monkeypatch, names, message):
    monkeypatch.chdir(tmp_path)
    if names is not None:
        (tmp_path / "names.txt").write_text(names, encoding="utf-8")
    (problem,) = refused(NAMELESS, feature_names="names.txt")
    assert problem.startswith(message)


def test_names_are_never_guessed(refused):
    """282 motif names for 297 features say nothing about the other 15."""
    expected = [
        "x.zarr: has no array feature_names or motif_names with the 5 names of the features of "
        "matrix; write them into a text file, one per line in their order, and name it as "
        "`data: {feature_names: FILE}` in the YAML"
    ]
    assert refused(NAMELESS) == expected
    assert refused(CUBE | {"motif_names": FEATURES[:1]}) == expected


def test_feature_names_stand_before_motif_names(load):
    names = ["motif_x", *FEATURES[1:]]
    assert load(CUBE | {"feature_names": names}).motif_names == ["motif_x"]


def changed(sample, region, feature, value):
    cube = cube_values()
    cube[sample, region, feature] = value
    return CUBE | {"matrix": cube}


@pytest.mark.parametrize("options", [None, {"matrix": {"chunks": (1, 2, 5)}}])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            changed(1, 2, 0, 7),
            "x.zarr, column MA0265.1.ABF1: 7 in sample b, region chrII:1-400, and 3 in sample a; "
            "a feature of a region is the same in every sample",
        ),
        (changed(1, 2, 0, NAN), "nan in sample b, region chrII:1-400, and 3 in sample a;"),
        (
            changed(0, 2, 2, 31),
            "x.zarr, column temperature: 31 in sample a, region chrII:1-400, and 30 in region "
            "chrI:1-500; a condition is the same in every region of a sample",
        ),
        (changed(1, 1, 4, 0), "column media_YPD: 0 in sample b, region chrI:900-1300, and 1 in"),
    ],
)
def test_what_must_be_constant_is(refused, arrays, message, options, monkeypatch):
    monkeypatch.setattr(zarr_store, "_VALUES_PER_BLOCK", 1)
    (problem,) = refused(arrays, options=options)
    assert message in problem


def test_missing_features_may_be_missing_everywhere(load):
    cube = cube_values()
    cube[:, 1, 0] = cube[1, :, 2] = NAN
    data = load(CUBE | {"matrix": cube})
    np.testing.assert_array_equal(data.motif, [[1], [NAN], [3]])
    np.testing.assert_array_equal(data.conditions["temperature"], [30, NAN])


def test_conditions_of_a_cube_have_units_and_limits(load, refused):
    (problem,) = refused(changed(0, slice(None), 2, 0.5) | {"sample_ids": ["a", "b"]},
                         conditions={"temperature": {"unit": "degF"}})  # fmt: skip
    assert problem == (
        "x.zarr, row 1, column temperature: -17.5 degC is outside 0 to 60 for temperature; "
        "correct it, or set conditions.temperature.limits or .unit"
    )
    cube = changed(0, slice(None), 2, 0.5)
    data = load(cube, conditions={"temperature": {"unit": "normalized"}})
    assert data.conditions["temperature"].tolist() == [0.5, 37]
    (problem,) = refused(changed(0, slice(None), 3, 0))
    assert "x.zarr, row 1: media_SC, media_YPD are not one-hot for medium" in problem


def test_a_dropped_condition_is_not_read(load):
    data = load(changed(0, 2, 2, 31), conditions={"temperature": {"drop": True}})
    assert "temperature" not in data.conditions
    assert data.roles["dropped in the YAML"] == ["temperature"]


def test_declared_roles_of_features(load, refused):
    names = ["abf1", "accessibility", "temperature", "width", "padj"]
    arrays = CUBE | {"motif_names": names, "matrix": cube_values()}
    arrays["matrix"][:, :, 3] = [100, 200, 300]
    arrays["matrix"][:, :, 4] = [[0, 1, 2], [3.5, 4, NAN]]
    (problem,) = refused(arrays)
    assert "has columns whose role is not known: abf1, width, padj; declare in the YAML" in problem
    data = load(
        arrays,
        motif_columns=["abf?"],
        region_feature_columns=["width"],
        description_columns=["padj", "absent"],
    )
    assert (data.motif_names, data.region_feature_names) == (["abf1"], ["width"])
    assert data.motif.tolist() == [[1, 100], [2, 200], [3, 300]]
    assert data.column("padj").tolist() == ["0", "3.5", "1", "4", "2", None]
    assert data.roles["descriptions, not used by the model"] == ["padj"]
    assert data.warnings == ["data.description_columns names absent, which no column matches"]


def test_targets_may_be_features(load, refused):
    names = ["motif_a", "accessibility", "temperature", "target_plus", "target_minus"]
    arrays = without(CUBE, "expression") | {"feature_names": names}
    arrays["matrix"] = cube_values()
    arrays["matrix"][:, :, 3] = [[1, 2, 3], [4, 5, NAN]]
    arrays["matrix"][:, :, 4] = -arrays["matrix"][:, :, 3]
    data = load(arrays)
    assert data.target_names == ["plus", "minus"]
    expected = np.array([1, 4, 2, 5, 3, NAN])
    np.testing.assert_array_equal(data.target, np.stack([expected, -expected], axis=1))
    assert data.roles["target"] == ["target_plus", "target_minus"]
    arrays["matrix"][0, 1, 4] = np.inf
    assert refused(arrays) == [
        "x.zarr/target_minus, row 2, column a: 'inf' is beyond 1e+15 and no measured number; "
        "correct the cell, or clear it"
    ]
    assert refused(arrays | {"expression": np.ones((2, 3))}) == [
        "x.zarr: holds targets in expression and in target_plus and in target_minus; keep one, or "
        "declare the other as data.description_columns"
    ]


def test_a_cube_without_targets_is_for_prediction_only(load, refused):
    arrays = without(CUBE, "expression")
    assert refused(arrays) == [
        "x.zarr: has no array exp_label or expression and no feature target; add one of them"
    ]
    assert refused(arrays, target_columns=["TPM"])[0].endswith("feature TPM; add one of them")
    assert not load(arrays, need_target=False).measured.any()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without(CUBE, "peak_ids"), "x.zarr: has no array peak_ids; it holds expression, matrix,"),
        (CUBE | {"peak_ids": PEAKS[:2]}, "array peak_ids has the shape (2,) and not (3,);"),
        (CUBE | {"sample_ids": ["a"]}, "array sample_ids has the shape (1,) and not (2,);"),
        (
            CUBE | {"sample_ids": ["a", "a"]},
            "x.zarr, row 2, column sample_id: 'a' stands twice; ids are unique;",
        ),
        (CUBE | {"peak_ids": [*PEAKS[:2], PEAKS[0]]}, "'chrI:1-500' stands twice; ids are unique"),
        (
            CUBE | {"expression": np.ones((3, 2))},
            "array expression has the shape (3, 2) and not (2, 3) or (2, 3, 1) or (2, 3, 2);",
        ),
        (CUBE | {"expression": [["a"] * 3] * 2}, "array expression holds <U1; it must hold numb"),
        (CUBE | {"exp_label": np.ones((2, 3))}, "holds targets in exp_label and in expression;"),
        (CUBE | {"matrix": np.ones((2, 3))}, "array matrix has the shape (2, 3); it is [samples,"),
        (CUBE | {"matrix": np.ones((2, 0, 5))}, "array matrix has the shape (2, 0, 5); it is"),
        (
            CUBE | {"motif_names": ["region_id", *FEATURES[1:]]},
            "has a feature region_id, which is the name of an id; ids stand in the arrays peak_ids",
        ),
    ],
)
def test_what_a_cube_must_not_be(refused, arrays, message):
    problem, *_ = refused(arrays)
    assert message in problem


@pytest.mark.parametrize("chunks", [(1, 3, 5), (2, 2, 3), (1, 1, 5)])
def test_a_cube_is_read_once_and_piece_by_piece(store, monkeypatch, chunks):
    long = long_table().assign(sample_id=np.repeat([f"s{i}" for i in range(6)], 40))
    whole = read(store(as_cube(long), name="whole.zarr"))
    path = store(as_cube(long), name="pieces.zarr", matrix={"chunks": chunks})
    sizes = []
    plain = zarr_store._Store.read

    def recording(self, name, at=...):
        values = plain(self, name, at)
        sizes.append(values.size if name == "matrix" else 0)
        return values

    monkeypatch.setattr(zarr_store, "_VALUES_PER_BLOCK", 1)
    monkeypatch.setattr(zarr_store._Store, "read", recording)
    pieces = read(path)
    width = len(as_cube(long)["feature_names"])
    assert sum(sizes) == 6 * 40 * width
    assert max(sizes) == chunks[0] * chunks[1] * width
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name), name)


# ----------------------------------------------------------------------------------------- texts


def put_object_array(path, name: str, values: list, codec, chunk: int = 2) -> None:
    """An array of Python objects of format 2, as zarr 2 wrote it; zarr 3 cannot write it."""
    (path / name).mkdir()
    compressor = numcodecs.Zlib(1)
    about = {
        "zarr_format": 2, "shape": [len(values)], "chunks": [chunk], "dtype": "|O", "order": "C",
        "fill_value": None, "filters": [codec.get_config()], "compressor": compressor.get_config(),
    }  # fmt: skip
    (path / name / ".zarray").write_text(json.dumps(about))
    for start in range(0, len(values), chunk):
        cells = np.full(chunk, None, dtype=object)
        part = values[start : start + chunk]
        cells[: len(part)] = part
        encoded = codec.encode(cells if codec.codec_id == "json2" else np.array(part, dtype=object))
        (path / name / str(start // chunk)).write_bytes(compressor.encode(encoded))


@pytest.mark.parametrize("codec", [numcodecs.JSON(), numcodecs.VLenUTF8()])
def test_peak_ids_as_zarr_2_wrote_objects(store, codec):
    path = store(without(CUBE, "peak_ids"), zarr_format=2)
    put_object_array(path, "peak_ids", PEAKS, codec, chunk=2 if codec.codec_id == "json2" else 3)
    assert read(path).region_id.tolist() == PEAKS


class Planted:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise KeyboardInterrupt",)


def test_pickles_are_refused_by_name_and_never_opened(store):
    path = store(without(CUBE, "peak_ids"), zarr_format=2)
    put_object_array(path, "peak_ids", PEAKS, numcodecs.Pickle(), chunk=3)
    described = json.loads((path / "peak_ids" / ".zarray").read_text())
    (path / "peak_ids" / "0").write_bytes(numcodecs.Zlib(1).encode(pickle.dumps(Planted())))
    message = "array peak_ids cannot be read: its cells are pickled, and to read them may run code"
    with pytest.raises(DataError, match=message):
        read(path)
    described |= {"filters": [numcodecs.JSON().get_config()], "compressor": {"id": "pickle"}}
    (path / "peak_ids" / ".zarray").write_text(json.dumps(described))
    (path / "peak_ids" / "0").write_bytes(pickle.dumps(Planted()))
    with pytest.raises(DataError, match=message):
        read(path)
    described |= {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "compressor": None}
    (path / "peak_ids" / ".zarray").write_text(json.dumps(described))
    with pytest.raises(DataError, match=message):
        read(path)


def test_ids_that_are_no_texts_are_refused(store):
    path = store(without(CUBE, "peak_ids"), zarr_format=2)
    put_object_array(path, "peak_ids", [{"chrom": "chrI"}, "a", "b"], numcodecs.JSON())
    with pytest.raises(
        DataError, match=r"array peak_ids holds \{'chrom': 'chrI'\}, which is no te"
    ):
        read(path)


def test_a_damaged_list_of_texts_is_refused(store):
    path = store(without(CUBE, "peak_ids"), zarr_format=2)
    put_object_array(path, "peak_ids", PEAKS, numcodecs.JSON())
    (path / "peak_ids" / "1").unlink()
    with pytest.raises(DataError, match="array peak_ids cannot be read: .*write it anew"):
        read(path)


@pytest.mark.parametrize(
    "ids", [np.array([each.encode() for each in PEAKS]), np.array(PEAKS, np.dtypes.StringDType())]
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_texts_of_all_kinds(load, ids, zarr_format):
    assert load(CUBE | {"peak_ids": ids}, zarr_format).region_id.tolist() == PEAKS


def test_bytes_are_utf_8(load):
    ids = np.array([each.encode() for each in ("30 °C", "37 °C")])
    assert load(CUBE | {"sample_ids": ids}).sample_id.tolist() == ["30 °C", "37 °C"]


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")  # when it is written
def test_a_codec_that_zarr_warns_of_is_read_in_silence(store):
    path = store(CUBE, matrix={"compressors": [Zlib(level=1)]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read(path).motif.tolist() == [[1], [2], [3]]
    assert caught == []


def test_numbers_are_ids_too(load):
    assert load(CUBE | {"sample_ids": np.array([7, 8])}).sample_id.tolist() == ["7", "8"]


# ---------------------------------------------------------------------------------- any store


def test_a_store_is_known_by_its_content_and_not_by_its_name(store):
    for zarr_format in (2, 3):
        assert read(store(CUBE, zarr_format, name="anything")).num_regions == 3
    (path := store(CUBE)).joinpath("zarr.json").unlink()
    with pytest.raises(DataError, match="has no file regions and no samples"):
        read(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_other_layouts_are_refused_with_what_was_found(refused, store, zarr_format):
    (problem,) = refused({"X": np.ones((2, 2)), "obs/_index": ["a", "b"]}, zarr_format)
    assert problem == (
        "x.zarr: is a zarr store of no known layout; it holds X, obs/_index; known are GET's "
        "(data, motif_names, peak_names, and atpm, expression_positive, expression_negative, tss "
        "with an array per cell type) and a cube region_motif or matrix [samples, regions, "
        "features] with peak_ids"
    )
    (problem,) = refused({f"a{i:02}": np.ones(1) for i in range(15)}, zarr_format)
    assert (
        "it holds a00, a01, a02, a03, a04, a05, a06, a07, a08, a09, a10, a11 and 3 more;" in problem
    )
    (problem,) = refused({}, zarr_format)
    assert "it holds no array; known are" in problem
    with pytest.raises(DataError, match=r"of no known layout; it holds \(root\); known are"):
        read(store(CUBE, zarr_format) / "matrix")
    (problem,) = refused(CUBE | GET, zarr_format)
    assert "is a zarr store of more than one layout; it holds atpm/B, atpm/T, data" in problem


def test_a_damaged_store_is_refused(store):
    path = store(CUBE)
    (path / "matrix" / "zarr.json").write_text("{")
    with pytest.raises(DataError, match=r"matrix/zarr.json: is not JSON; the store is damaged"):
        read(path)
    path = store(CUBE)
    for chunk in (path / "matrix" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no chunk")
    with pytest.raises(DataError, match="array matrix cannot be read: .*write it anew"):
        read(path)


def test_without_zarr_a_line_says_what_to_install(store, monkeypatch):
    path = store(CUBE)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}: is a zarr store, and the package zarr is not installed; "
        'pip install "yeast_get[zarr]"'
    )


def test_the_fingerprint_covers_the_files_of_the_store(store):
    one, again = read(store(CUBE)), read(store(CUBE, name="again.zarr"))
    other = read(store(CUBE | {"expression": CUBE["expression"] + 1}, name="other.zarr"))
    assert one.fingerprint == again.fingerprint
    assert one.fingerprint != other.fingerprint
