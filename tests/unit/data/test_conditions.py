"""Growth conditions: units, spellings, limits, drugs and doses, signatures."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from yeast_get.config import load_settings, settings_from_dict
from yeast_get.data.condition_values import fold_one_hot, read_conditions
from yeast_get.data.conditions import (
    STANDARD_FIELDS,
    fields_from_config,
    fold,
    match_columns,
    match_one_hot,
    signatures,
)
from yeast_get.data.raw_table import RawTable
from yeast_get.errors import ConfigError


def make_fields(**conditions):
    return fields_from_config(settings_from_dict({"conditions": conditions}, "x").conditions)


def read(columns: dict, **conditions):
    """Frame, problems and warnings of columns named as in a table; the first row is number 2."""
    frame = pd.DataFrame(columns)
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    fields = make_fields(**conditions)
    by_field = {name: header for header, name in match_columns(frame.columns, fields).items()}
    table = RawTable(frame, "t.csv")
    read = read_conditions(table, by_field, fields)
    problems = [problem for finding in table.findings.errors for problem in finding.problems()]
    return read, problems, [finding.line() for finding in table.findings.warnings]


def values(columns: dict, name: str, **conditions) -> list:
    """One field of a table in which nothing is wrong."""
    frame, problems, _ = read(columns, **conditions)
    assert problems == []
    return frame[name].tolist()


def problems(columns: dict, **conditions) -> list[str]:
    return [str(problem) for problem in read(columns, **conditions)[1]]


# --------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    "text",
    ["30", "30.0", "3e1", "30C", "30 C", "30 °C", "30°C", "30℃", "30 ℃", "30 ° C", "30 °c",
     "３０", "３０℃", "30 degC", "303.15 K", "86 °F", "86 F", " 30\u00a0°C "],
)  # fmt: skip
def test_temperatures_end_in_degrees_celsius(text):
    assert values({"temperature": [text]}, "temperature") == pytest.approx([30], abs=1e-9)


@pytest.mark.parametrize(
    ("text", "hours"),
    [("2", 2), ("2h", 2), ("2 h", 2), ("2 hours", 2), ("2 hrs", 2), ("30 min", 0.5), ("1 day", 24),
     ("90 s", 0.025), ("0", 0)],
)  # fmt: skip
def test_times_end_in_hours(text, hours):
    assert values({"drug_time": [text]}, "drug_time") == pytest.approx([hours])


@pytest.mark.parametrize(
    ("text", "molar"),
    [("5", 5), ("5 M", 5), ("5 mol/L", 5), ("5 mM", 5e-3), ("5mM", 5e-3), ("5 mmol/L", 5e-3),
     ("5 µM", 5e-6), ("5 μM", 5e-6), ("5μM", 5e-6), ("5 uM", 5e-6), ("５μM", 5e-6),
     ("5 nM", 5e-9), ("1e-3 mM", 1e-6)],
)  # fmt: skip
def test_doses_end_in_moles_per_litre(text, molar):
    got = values({"drug": ["x"], "drug_concentration": [text]}, "drug_concentration")
    assert got == pytest.approx([molar])


@pytest.mark.parametrize("text", ["2 µg/mL", "2 μg/mL", "2 ug/ml", "2 mg/L", "2e-3 g/L"])
def test_a_mass_per_volume_becomes_molar_by_the_molar_mass_of_its_drug(text):
    columns = {"drug": ["h2o2"], "drug_concentration": [text]}
    got = values(columns, "drug_concentration", drug_concentration={"molar_mass": {"H2O2": 34}})
    assert got == pytest.approx([2e-3 / 34])


def test_a_mass_per_volume_without_molar_mass_is_an_error_that_shows_the_line_to_write():
    dose = ["1 μg/mL", "1 mM", "2 μg/mL", "0 μg/mL"]
    first, second = problems({"drug": ["Dox"] * 4, "drug_concentration": dose})
    assert first == (
        "t.csv, row 2, column drug_concentration: '1 μg/mL' is mass per volume, and the molar mass "
        "of its drug is not known; write `conditions: {drug_concentration: {molar_mass: {Dox: "
        "<g/mol>}}}` in the YAML"
    )
    assert second.startswith("t.csv, row 4, column drug_concentration: '2 μg/mL' is mass per vol")


def test_each_drug_without_molar_mass_is_named():
    said = problems({"drug": ["a", "b", "a"], "drug_concentration": ["1 mg/L"] * 3})
    assert [line.split("molar_mass: {")[1][0] for line in said] == ["a", "a", "b"]


def test_plain_numbers_are_in_the_unit_that_the_yaml_declares_and_texts_in_their_own():
    columns = {"drug": ["x"] * 3, "drug_concentration": ["5", "5 mM", "5 µM"]}
    got = values(columns, "drug_concentration", drug_concentration={"unit": "mM"})
    assert got == pytest.approx([5e-3, 5e-3, 5e-6])
    assert values({"temperature": [303.15]}, "temperature", temperature={"unit": "K"}) == (
        pytest.approx([30])
    )
    assert values({"temperature": [86.0, np.nan]}, "temperature", temperature={"unit": "°F"}) == (
        pytest.approx([30, np.nan], nan_ok=True)
    )
    assert values({"drug_time": [90]}, "drug_time", drug_time={"unit": "min"}) == [1.5]


def test_normalized_numbers_are_taken_as_they_are():
    settings = {"temperature": {"unit": "normalized"}}
    frame, bad, warnings = read({"temperature": [-0.5, 99.0, np.nan]}, **settings)
    assert frame["temperature"].tolist() == pytest.approx([-0.5, 99.0, np.nan], nan_ok=True)
    assert (bad, warnings) == ([], [])
    (said,) = problems({"temperature": ["0.5", "30 °C"]}, **settings)
    assert said == (
        "t.csv, row 3, column temperature: '30 °C' has a unit, and temperature is declared as "
        "normalized; remove one of the two"
    )


def test_a_normalized_dose_is_still_not_below_zero():
    columns = {"drug": ["x"], "drug_concentration": [-0.5]}
    (said,) = problems(columns, drug_concentration={"unit": "normalized"})
    assert "-0.5 mol/L is outside 0 to 1e+15 for drug_concentration" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("warm", "t.csv, row 2, column temperature: 'warm' is not a number for temperature"),
        ("30 qq", "'30 qq' has a unit that is not known: qq; the canonical unit is degC"),
        ("30 h", "'30 h' is in h, which is no unit of temperature; the canonical unit is degC"),
        ("30 ** 2", "has a unit that is not known"),
        ("1e999", "'1e999' is beyond 1e+15 and no measured number; correct the cell, or clear it"),
    ],
)
def test_a_cell_that_is_no_number_of_its_field_names_row_and_column(text, said):
    (line,) = problems({"temperature": [text]})
    assert said in line


def test_a_declared_unit_that_is_not_known_is_refused():
    (said,) = problems({"temperature": [30.0]}, temperature={"unit": "banana"})
    assert "'30 banana' has a unit that is not known: banana" in said


@pytest.mark.parametrize("word", ["-", "?", "unknown", "未知", "NR", "not recorded", "none", "无"])
def test_words_for_not_recorded_are_missing_numbers(word):
    assert np.isnan(values({"temperature": [word, "30"]}, "temperature")[0])


@pytest.mark.parametrize(
    "word", ["-", "?", "Unknown", "未知", "nr", "not recorded", "Not  recorded"]
)
def test_words_for_not_recorded_are_missing_categories(word):
    assert values({"medium": [word, None, "YPD"]}, "medium") == [None, None, "YPD"]


# -------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [("temperature", -1, "0 to 60"), ("temperature", 61, "0 to 60"),
     ("drug_time", 2001, "0 to 2000"),
     ("preculture_time", -1, "0 to 2000"), ("preculture_temperature", 300, "0 to 60"),
     ("drug_od600", 101, "0 to 100"), ("preculture_od600", -0.1, "0 to 100"),
     ("drug_concentration", -1, "0 to 1e+15")],
)  # fmt: skip
def test_a_value_outside_the_limits_is_an_error_with_its_row(name, value, limits):
    (said,) = problems({"drug": [None, "x"], name: [np.nan, value]})
    assert said.startswith(f"t.csv, row 3, column {name}: {value:g}")
    assert f"is outside {limits} for {name}; " in said


def test_values_at_the_limits_are_accepted():
    assert values({"temperature": [0, 60]}, "temperature") == [0, 60]


def test_limits_are_those_of_the_canonical_unit_and_of_the_yaml():
    assert problems({"temperature": ["100 °F"]}) == []
    assert problems({"temperature": [70]}, temperature={"limits": [0, 80]}) == []
    assert problems({"temperature": [70]}, temperature={"limits": [75, 80]})


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (
            {"temperature": [15.0, 30, 50, 50]},
            "t.csv, column temperature: 3 values outside the usual 20 to 45 degC (15, 50) (rows 2, "
            "4 to 5); is the unit right?",
        ),
        (
            {"preculture_time": [3, 14]},
            "t.csv, column preculture_time: 1 value outside the usual 3 to 4 hour (14) (row 3); is "
            "the unit right?",
        ),
    ],
)
def test_values_outside_the_typical_range_are_one_warning(column, said):
    _, bad, warnings = read(column)
    assert bad == []
    assert warnings == [said]


def test_the_typical_range_can_be_changed():
    assert read({"temperature": [15.0]}, temperature={"typical": [10, 20]})[2] == []
    assert read({"temperature": [30.0]}, temperature={"typical": [10, 20]})[2]


# ------------------------------------------------------------------------- headers and one-hot


@pytest.mark.parametrize(
    ("header", "name"),
    [("培养基", "medium"), ("温度", "temperature"), ("加药培养温度", "temperature"),
     ("预培养时间", "preculture_time"), ("预培养温度", "preculture_temperature"),
     ("预培养终点", "preculture_od600"), ("药物", "drug"), ("浓度", "drug_concentration"),
     ("加药培养时间", "drug_time"), ("加药培养终点", "drug_od600"), ("碳源", "carbon_source"),
     ("氮源", "nitrogen_source"), ("media", "medium"), ("Medium", "medium"),
     ("Drug Concentration", "drug_concentration"), ("ＤＲＵＧ", "drug")],
)  # fmt: skip
def test_headers_in_english_and_chinese_name_their_field(header, name):
    assert match_columns([header, "motif_a"], make_fields()) == {header: name}


def test_headers_of_the_laboratory_are_declared_as_aliases():
    fields = make_fields(temperature={"aliases": ["Temp (C)"]})
    assert match_columns(["temp (c)"], fields) == {"temp (c)": "temperature"}


def test_fields_are_dropped_and_added_by_the_yaml():
    fields = make_fields(
        medium={"drop": True},
        extra={
            "ph": {"kind": "number"},
            "soak": {"kind": "time"},
            "no": {"kind": "drug", "drop": True},
        },
    )
    names = [f.name for f in fields if not f.dropped]
    assert names == [f.name for f in STANDARD_FIELDS if f.name != "medium"] + ["ph", "soak"]
    assert [f.name for f in fields if f.dropped] == ["medium", "no"]
    assert [f.unit for f in fields[-3:-1]] == ["", "hour"]
    (said,) = problems({"soak": ["3000 h"]}, extra={"soak": {"kind": "time"}})
    assert "outside 0 to 2000 for soak" in said


def test_one_hot_columns_are_folded_back_into_their_field():
    fields = make_fields()
    frame = pd.DataFrame(
        {
            "media_SC": [1, 0, 0],
            "media_YPD": [0, 1, 1],
            "drug_H2O2": [0, 0, 1],
            "drug_none": [1, 1, 0],
        },
        index=[2, 3, 4],
    )
    groups = match_one_hot([*frame.columns, "motif_x"], fields)
    assert groups == {
        "medium": {"media_SC": "SC", "media_YPD": "YPD"},
        "drug": {"drug_H2O2": "H2O2", "drug_none": "none"},
    }
    table = RawTable(frame, "t.csv")
    folded = {name: fold_one_hot(table, name, headers) for name, headers in groups.items()}
    assert folded["medium"].tolist() == ["SC", "YPD", "YPD"]
    assert folded["drug"].tolist() == ["none", "none", "H2O2"]
    assert table.findings.errors == []


def test_the_longest_name_that_a_one_hot_header_begins_with_is_meant():
    fields = make_fields(extra={"drug_b": {"kind": "drug"}})
    headers = ["carbon_source_glucose", "drug_b_none", "drug_H2O2"]
    assert match_one_hot(headers, fields) == {
        "carbon_source": {"carbon_source_glucose": "glucose"},
        "drug_b": {"drug_b_none": "none"},
        "drug": {"drug_H2O2": "H2O2"},
    }


def test_an_extra_number_has_the_unit_that_is_declared():
    extra = {"pressure": {"kind": "number", "unit": "kPa"}}
    assert values({"pressure": [100, "0.2 MPa"]}, "pressure", extra=extra) == [100, 200]


@pytest.mark.parametrize(
    ("conditions", "key"),
    [
        ({"drug": {"c0": 1e-6}}, "c0"), ({"medium": {"unit": "mM"}}, "unit"),
        ({"temperature": {"molar_mass": {"a": 5.0}}}, "molar_mass"),
        ({"drug_time": {"categories": {"a": ["b"]}}}, "categories"),
    ],
)  # fmt: skip
def test_a_key_that_says_nothing_about_its_field_is_refused(conditions, key):
    with pytest.raises(ConfigError, match=f"and {key} says nothing about it"):
        make_fields(**conditions)


@pytest.mark.parametrize("dtype", [bool, object])
def test_one_hot_columns_may_hold_true_and_false(dtype):
    rows = pd.DataFrame([[True, False], [False, True], [True, True]], columns=["m_SC", "m_YPD"])
    table = RawTable(rows.astype(dtype), "t.csv")
    folded = fold_one_hot(table, "medium", {"m_SC": "SC", "m_YPD": "YPD"})
    assert folded.tolist()[:2] == ["SC", "YPD"]
    assert [each.rows.tolist() for each in table.findings.errors] == [[2]]


def test_a_blank_among_true_and_false_is_the_only_error():
    rows = pd.DataFrame({"m_SC": [True, None, False], "m_YPD": [False, True, True]})
    table = RawTable(rows, "t.csv")
    fold_one_hot(table, "medium", {"m_SC": "SC", "m_YPD": "YPD"})
    assert [each.rows.tolist() for each in table.findings.errors] == [[1]]


@pytest.mark.parametrize("row", [[0, 0], [1, 1], [0.5, 0.5], [np.nan, 1], [2, -1]])
def test_rows_that_are_not_one_hot_are_named(row):
    frame = pd.DataFrame([[1, 0], row], columns=["media_SC", "media_YPD"], index=[2, 3])
    table = RawTable(frame, "t.csv")
    fold_one_hot(table, "medium", {"media_SC": "SC", "media_YPD": "YPD"})
    (finding,) = table.findings.errors
    assert [str(problem) for problem in finding.problems()] == [
        "t.csv, row 3: media_SC, media_YPD are not one-hot for medium; exactly one of them must "
        "be 1 and the others 0"
    ]


# -------------------------------------------------------------------------------------- words


def test_spellings_that_differ_in_case_width_and_spaces_are_one_category():
    words = ["YPD", "ypd", "ＹＰＤ", " Ypd ", "SC full", "sc  FULL"]
    assert values({"medium": words}, "medium") == ["YPD"] * 4 + ["SC full"] * 2
    assert fold(" Ｙpd  X ") == "ypd_x"


def test_aliases_of_a_category_are_declared():
    got = values(
        {"medium": ["YEPD", "yepd", "YPD", "ypd", "SC"]}, "medium",
        medium={"categories": {"YPD": ["YEPD"]}},
    )  # fmt: skip
    assert got == ["YPD"] * 4 + ["SC"]


# ------------------------------------------------------------------------------ drugs and doses


@pytest.mark.parametrize(
    "word", ["none", "None", "NONE", "no drug", "no_drug", "mock", "DMSO", "无", "对照"]
)
def test_words_for_no_drug_are_none_with_dose_zero(word):
    frame, bad, _ = read({"drug": [word], "drug_concentration": [np.nan]})
    assert (frame["drug"][2], frame["drug_concentration"][2], bad) == ("none", 0.0, [])


def test_a_word_for_no_drug_may_be_declared_to_be_a_drug():
    assert values({"drug": ["DMSO"]}, "drug", drug={"categories": {"DMSO": []}}) == ["DMSO"]


@pytest.mark.parametrize("drug", ["H2O2", None, "none"])
def test_dose_zero_is_no_drug(drug):
    frame, bad, _ = read({"drug": [drug], "drug_concentration": ["0 mM"]})
    assert (frame["drug"][2], frame["drug_concentration"][2], bad) == ("none", 0.0, [])


@pytest.mark.parametrize(("drug", "word"), [("none", "none"), (None, "blank"), ("无", "none")])
def test_a_dose_without_a_drug_is_an_error(drug, word):
    assert problems({"drug": ["H2O2", drug], "drug_concentration": [1, "1 mM"]}) == [
        f"t.csv, row 3, column drug_concentration: drug is {word} and drug_concentration is "
        "'1 mM'; name the drug, or set drug_concentration to 0"
    ]


def test_a_dose_column_without_a_drug_column_is_an_error():
    (said,) = problems({"drug_concentration": [1e-3]})
    assert "drug is blank and drug_concentration is '0.001'" in said


def test_a_drug_without_a_dose_is_kept_as_not_recorded():
    frame, bad, _ = read({"drug": ["H2O2"], "drug_concentration": [np.nan]})
    assert frame["drug"][2] == "H2O2"
    assert np.isnan(frame["drug_concentration"][2])
    assert bad == []


def test_a_second_drug_has_a_dose_of_its_own():
    extra = {"drug_b": {"kind": "drug"}, "dose_b": {"kind": "dose", "drug": "drug_b"}}
    columns = {
        "drug": ["x", "x"], "drug_concentration": [1.0, 0], "dose_b": ["1 mM", 2],
        "drug_b": ["y", "none"],
    }  # fmt: skip
    frame, bad, _ = read(columns, extra=extra)
    assert frame["drug"].tolist() == ["x", "none"]
    assert frame["drug_b"].tolist() == ["y", "none"]
    assert frame["dose_b"][2] == pytest.approx(1e-3)
    assert [str(b).partition(": ")[2].partition(";")[0] for b in bad] == [
        "drug_b is none and dose_b is '2'"
    ]


def test_fields_without_a_column_are_recorded_nowhere():
    frame, _, _ = read({"temperature": [30]})
    assert list(frame.columns) == [f.name for f in STANDARD_FIELDS]
    assert frame.drop(columns="temperature").isna().all(axis=None)
    assert frame["drug"][2] is None


# --------------------------------------------------------------------------------- signatures

SAMPLE = {"medium": "YPD", "temperature": 30.0, "drug": "H2O2", "drug_concentration": 1e-3}


def signature(**columns) -> int:
    return int(signatures(pd.DataFrame({k: [v] for k, v in columns.items()}))[0])


def test_replicates_have_one_signature_and_any_changed_field_another():
    changed = [SAMPLE, SAMPLE, SAMPLE | {"medium": "SC"}, SAMPLE | {"temperature": 37.0},
               SAMPLE | {"drug_concentration": 2e-3}, SAMPLE | {"medium": None},
               SAMPLE | {"temperature": np.nan}]  # fmt: skip
    got = signatures(pd.DataFrame(changed))
    assert got.dtype == np.int64
    assert got[0] == got[1] == signature(**SAMPLE)
    assert len(set(got[1:].tolist())) == len(changed) - 1


def test_the_order_of_columns_and_columns_that_are_recorded_nowhere_do_not_matter():
    backwards = dict(reversed(SAMPLE.items()))
    assert signature(**backwards) == signature(**SAMPLE)
    assert signature(**SAMPLE, carbon_source=None, drug_time=np.nan) == signature(**SAMPLE)


def test_the_same_word_in_another_field_is_another_condition():
    assert signature(carbon_source="x") != signature(nitrogen_source="x")


def test_rounding_of_units_and_the_case_of_words_do_not_make_a_new_condition():
    assert signature(**SAMPLE | {"drug_concentration": 1e-3 * (1 + 1e-9)}) == signature(**SAMPLE)
    assert signature(**SAMPLE | {"medium": "ypd"}) == signature(**SAMPLE)


def test_signatures_are_the_same_in_another_process(root):
    code = (
        "import pandas as pd; from yeast_get.data.conditions import signatures;"
        f"print(signatures(pd.DataFrame([{SAMPLE!r}]))[0])"
    )
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    out = subprocess.check_output(
        [sys.executable, "-c", code], cwd=root, env=environment, text=True
    )
    assert int(out) == signature(**SAMPLE)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["conditions.medium.aliases=[temperature]"], "temperature would mean both medium and"),
        (["conditions.extra.region_id={kind: category}"], "an identifier and region_id"),
        (["conditions.extra.a={kind: number, aliases: [pH]}", "conditions.extra.ph={kind: number}"],
         "ph would mean both a and ph"),
    ],
)  # fmt: skip
def test_a_header_means_one_thing(overrides, message):
    with pytest.raises(ConfigError, match=message):
        fields_from_config(load_settings(None, overrides).conditions)
