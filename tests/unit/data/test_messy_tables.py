"""The mess of real sheets, case by case: what comes in right, and what is refused with its cell.

The numbers are those of docs/messy_tables.md.
"""

from __future__ import annotations

import datetime
import gzip
import re

import numpy as np
import openpyxl
import pandas as pd
import pytest

from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import ExpressionData, load_expression_data
from yeast_get.errors import DataError

GOOD = {
    "region_id": ["r1", "r2", "r1", "r2"],
    "gene_id": ["YAL001C", "YAL002W", "YAL001C", "YAL002W"],
    "motif_a": [1.0, 2.0, 1.0, 2.0],
    "accessibility": [0.1, 0.2, 0.1, 0.2],
    "medium": ["YPD", "YPD", "SC", "SC"],
    "temperature": [30, 30, 37, 37],
    "preculture_time": [3, 3, 4, 4],
    "preculture_od600": [0.4, 0.4, 0.8, 0.8],
    "drug": ["none", "none", "H2O2", "H2O2"],
    "drug_concentration": [0, 0, 0.001, 0.001],
    "target": [1.5, 2.5, 3.5, 4.5],
}


@pytest.fixture
def load(tmp_path):
    """Load columns, a text, bytes or a workbook; `sections` are those of the YAML."""

    def load(content, need_target: bool = True, name: str = "", **sections) -> ExpressionData:
        path = tmp_path / (
            name or ("t.xlsx" if isinstance(content, openpyxl.Workbook) else "t.csv")
        )
        if isinstance(content, openpyxl.Workbook):
            content.save(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else as_csv(content)
            path.write_text(text, encoding="utf-8")
        sections["data"] = {"path": str(path), **sections.get("data", {})}
        return load_expression_data(settings_from_dict(sections, "x"), need_target)

    return load


@pytest.fixture
def refused(load, tmp_path):
    """The problems of a table that is refused, a line each, without the folder."""

    def refused(content, **options) -> list[str]:
        with pytest.raises(DataError) as caught:
            load(content, **options)
        assert all("\n" not in line for line in caught.value.lines())
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return refused


def as_csv(columns: dict) -> str:
    return pd.DataFrame(columns).to_csv(index=False)


def with_cells(column: str, *cells) -> dict:
    """The good table with the first cells of a column replaced, others as they were."""
    values = [*cells, *GOOD[column][len(cells) :]]
    return GOOD | {column: values}


def sheet(columns: dict = GOOD) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    book.active.title = "data"
    book.active.append(list(columns))
    for row in zip(*columns.values(), strict=True):
        book.active.append(list(row))
    return book


def condition(data: ExpressionData, name: str, sample: int = 0):
    return data.conditions[name].iloc[sample]


def warned(data: ExpressionData, kind: str) -> list[str]:
    lines = [finding.line() for finding in data.findings.warnings if finding.kind == kind]
    return [re.sub(r"^.*?t\.csv[,:] ", "", line) for line in lines]


def normalised(data: ExpressionData) -> list[str]:
    return [each.line() for each in data.findings.normalised]


def test_01_a_gene_that_excel_made_a_date_is_an_error_that_names_the_likely_gene(refused):
    columns = with_cells("gene_id", datetime.datetime(2024, 10, 1), "YAL002W")
    said = refused(sheet(columns))
    assert said[0] == (
        "t.xlsx, sheet data, row 2, column gene_id: '2024-10-01' is a date where a name is "
        "expected; Excel changed it: the original was probably OCT1; format the column as text and "
        "type it again"
    )
    (said,) = refused(with_cells("region_id", "1-Oct"))
    assert said == (
        "t.csv, row 2, column region_id: '1-Oct' is a date where a name is expected; Excel changed "
        "it: the original was probably OCT1; type it again"
    )
    said, *_ = refused(with_cells("gene_id", "45566"))
    assert "row 2, column gene_id: '45566' is the number of a date where a name is expected" in said
    assert "probably OCT1" in said


@pytest.mark.parametrize("at", [1, 2])
def test_02_an_unquoted_comma_is_an_error_of_its_row(refused, at):
    lines = as_csv(GOOD).splitlines()
    lines[at] = (
        lines[at].replace("YAL00", "ADE5,7YAL00").replace("7YAL001C", "7").replace("7YAL002W", "7")
    )
    (said,) = refused("\n".join(lines) + "\n")
    assert said.startswith(f"t.csv, row {at + 1}: has 12 cells where the header has 11; ")
    assert "YGL234W" in said


@pytest.mark.parametrize("medium", ["YPd", "ypd ", "YEPD", "ＹＰＤ", "完全培养基"])
def test_03_spellings_of_a_medium_are_one(load, medium):
    data = load(with_cells("medium", medium, medium))
    assert condition(data, "medium") == "YPD"
    if medium == "YEPD":
        assert normalised(data) == ["medium: spelling in 2 cells (such as YEPD -> YPD)"]


@pytest.mark.parametrize("cell", ["30℃", "30 °C", "30C", "３０", "３０ ℃", "303.15 K", "86 °F"])
def test_04_temperatures_with_units_and_full_width_digits(load, cell):
    data = load(with_cells("temperature", cell, cell))
    assert condition(data, "temperature") == pytest.approx(30)


def test_05_room_temperature_and_shifts_are_errors_that_say_what_to_write(refused, load):
    for word in ("RT", "室温"):
        first, _ = refused(with_cells("temperature", word, word))
        assert first == (
            f"t.csv, row 2, column temperature: '{word}' is not a number of degrees; write the "
            f"temperature, or set conditions.temperature.words: {{{word}: 25}}"
        )
    first, _ = refused(with_cells("temperature", "25 to 37", "25 to 37"))
    assert first == (
        "t.csv, row 2, column temperature: '25 to 37' holds two values of temperature; give the "
        "start and the end in columns of their own"
    )
    data = load(
        with_cells("temperature", "RT", "rt"), conditions={"temperature": {"words": {"RT": 25}}}
    )
    assert condition(data, "temperature") == 25


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (
            300,
            "300 degC is outside 0 to 60 for temperature; 300 K would be 26.85 °C; write 300 K, or",
        ),
        (303.15, "303.15 degC is outside 0 to 60 for temperature; 303.15 K would be 30 °C; write"),
        (86, "86 degC is outside 0 to 60 for temperature; 86 °F would be 30 °C; write 86 °F, or"),
        (
            -4,
            "-4 degC is outside 0 to 60 for temperature; correct it, or set conditions.temperature",
        ),
    ],
)
def test_06_temperatures_outside_the_limits_are_errors_with_a_hint(refused, cell, said):
    first, _ = refused(with_cells("temperature", cell, cell))
    assert f"t.csv, row 2, column temperature: {said}" in first


def test_06_unusual_temperatures_and_zeros_are_warnings(load):
    (said,) = warned(load(with_cells("temperature", 3, 3)), "unusual value")
    assert said == (
        "column temperature: 2 values outside the usual 20 to 45 degC (3) (rows 2 to 3); is the "
        "unit right?"
    )
    (said,) = warned(load(with_cells("temperature", 0, 0)), "zero")
    assert said == (
        "column temperature: 0 degC where other cells are not zero; was a blank filled with 0? "
        "(rows 2 to 3); clear the cells, or set conditions.temperature.zero_is_missing: true"
    )


def test_07_optical_densities(refused, load):
    for text in ("0.n", "mid-log"):
        assert (
            f"row 2, column preculture_od600: '{text}'"
            in (refused(with_cells("preculture_od600", text, text))[0])
        )
    (said,) = warned(load(with_cells("preculture_od600", 30, 30)), "unusual value")
    assert said == (
        "column preculture_od600: 2 values outside the usual 0 to 3 (30) (rows 2 to 3); a slip of "
        "the decimal point?"
    )
    assert "200 is outside 0 to 100" in refused(with_cells("preculture_od600", 200, 200))[0]
    assert (
        condition(load(with_cells("preculture_od600", "0.5 OD600", "0.5")), "preculture_od600")
        == 0.5
    )


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("drug_concentration", "-1 mol/L is outside 0 to 1e+15 for drug_concentration"),
        ("preculture_time", "-1 hour is outside 0 to 2000 for preculture_time"),
        ("accessibility", "'-1' is negative; correct it; where it is a logarithm or a z-score"),
    ],
)
def test_08_negative_amounts_are_errors(refused, column, said):
    first, *_ = refused(with_cells(column, -1, GOOD[column][1]))
    assert first.startswith(f"t.csv, row 2, column {column}: {said}")


@pytest.mark.parametrize(
    ("cell", "molar"),
    [("5µM", 5e-6), ("5μM", 5e-6), ("5 uM", 5e-6), ("5 umol/L", 5e-6), ("5 mmol/L", 5e-3),
     ("５μM", 5e-6), ("1 M", 1.0)],
)  # fmt: skip
def test_09_molar_units_however_they_are_written(load, cell, molar):
    data = load(GOOD | {"drug_concentration": ["0", "0 M", cell, cell]})
    assert condition(data, "drug_concentration", 1) == pytest.approx(molar, rel=1e-12)


@pytest.mark.parametrize("cell", ["1μg/mL", "0.02%", "2% (w/v)"])
def test_10_mass_doses_need_a_molar_mass(refused, load, cell):
    columns = GOOD | {"drug_concentration": ["0", "0", cell, cell]}
    first, second = refused(columns)
    assert first == (
        f"t.csv, row 4, column drug_concentration: '{cell}' is mass per volume, and the molar mass "
        "of its drug is not known; write `conditions: {drug_concentration: {molar_mass: {H2O2: "
        "<g/mol>}}}` in the YAML"
    )
    assert "row 5" in second
    dose = {"drug_concentration": {"molar_mass": {"hydrogen peroxide": 34.0}}}
    grams = {"1μg/mL": 1e-3, "0.02%": 0.2, "2% (w/v)": 20}[cell]
    got = condition(load(columns, conditions=dose), "drug_concentration", 1)
    assert got == pytest.approx(grams / 34)


@pytest.mark.parametrize(("value", "code"), [(0.0002, "0.00%"), (1, '0"μg/mL"')])
def test_10_a_unit_in_a_number_format_counts(refused, load, value, code):
    def formatted(value, code):
        book = sheet()
        for cell in book.active["J"][3:]:
            cell.value, cell.number_format = value, code
        return book

    doses = load(formatted(5, '0"μM"')).conditions["drug_concentration"]
    assert doses.tolist() == pytest.approx([0, 5e-6])
    first, _ = refused(formatted(value, code))
    said = "0.02%" if "%" in code else "1μg/mL"
    assert first.startswith(
        f"t.xlsx, sheet data, row 4, column drug_concentration: '{said}' is mass per volume"
    )


def test_11_a_unit_in_the_header_and_another_in_the_cell(load, refused):
    columns = {k: v for k, v in GOOD.items() if k != "drug_concentration"}
    data = load(
        columns | {"浓度A（mM）": ["0", "0", "5μM", "2"], "region_id": ["r1", "r2", "r3", "r4"]}
    )
    assert data.conditions["drug_concentration"].tolist() == pytest.approx([0, 5e-6, 2e-3])
    (said,) = warned(data, "unit conflict")
    assert said == (
        "column 浓度A（mM）: the header says mM and the cell '5μM'; the cell is believed (row 4); "
        "write one unit"
    )
    minutes = {k: v for k, v in GOOD.items() if k != "preculture_time"}
    data = load(minutes | {"preculture time (min)": [180, 180, 240, 240]})
    assert data.conditions["preculture_time"].tolist() == [3, 4]
    (said,) = refused(
        minutes | {"preculture time (min)": [180] * 4},
        conditions={"preculture_time": {"unit": "hour"}},
    )
    assert "the header says min, and conditions.preculture_time.unit says hour; delete one" in said


@pytest.mark.parametrize("cell", ["10⁻³", "1×10-3", "10^-3", "1×10⁻³", "1 mM", "1×10⁻³ M", "1e-3"])
def test_12_powers_of_ten(load, cell):
    data = load(GOOD | {"drug_concentration": ["0", "0", cell, cell]})
    assert condition(data, "drug_concentration", 1) == pytest.approx(1e-3)


def test_12_a_power_that_lost_its_superscript_is_an_error(refused):
    first, _ = refused(GOOD | {"drug_concentration": ["0", "0", "10-3", "10-3"]})
    assert "row 4, column drug_concentration: '10-3' holds two values" in first


def test_13_one_decimal_convention_per_file(load, refused):
    commas = as_csv(GOOD).replace(",", ";").replace(".", ",")
    assert load(commas).target.reshape(-1).tolist() == [1.5, 2.5, 3.5, 4.5]
    assert (
        "row 2, column target: '1.5' has a decimal point, and the file writes decimal commas"
        in (refused(commas.replace("1,5\n", "1.5\n"))[0])
    )
    (said,) = refused(with_cells("target", "30,5"))
    assert said == (
        "t.csv, row 2, column target: '30,5' has a comma, and the file writes decimal points; "
        "write 30.5, or set data.decimal: ','"
    )
    ambiguous = "region_id;motif_a;target\nr1;1;1,234\nr2;2;2,345\n"
    first, _ = refused(ambiguous)
    assert first == (
        "t.csv, row 2, column target: '1,234' can mean 1234 and 1.234; set data.decimal to '.' or "
        "','"
    )
    data = load(ambiguous, data={"decimal": ","})
    assert data.target.reshape(-1).tolist() == pytest.approx([1.234, 2.345])


def test_13_a_workbook_writes_one_decimal_sign_too(load, refused):
    def with_doses(*doses):
        return sheet(GOOD | {"drug_concentration": [0, 0, *doses]})

    doses = load(with_doses("0,5 mM", "0,5 mM")).conditions["drug_concentration"]
    assert doses.tolist() == pytest.approx([0, 5e-4])
    (said,) = refused(with_doses("0.5 mM", "0,5 mM"))
    assert said == (
        "t.xlsx, sheet data, row 5, column drug_concentration: '0,5' has a comma, and the file "
        "writes decimal points; write 0.5, or set data.decimal: ','"
    )


@pytest.mark.parametrize("cell", ["", "NA", "N/A", "-", "无", "未知", "None", "#N/A", "#DIV/0!"])
def test_14_words_for_nothing_are_missing(load, cell):
    data = load(GOOD | {"temperature": [cell] * 2 + [37, 37], "medium": [cell] * 2 + ["SC", "SC"]})
    assert np.isnan(condition(data, "temperature"))
    assert condition(data, "medium") is None
    assert len(warned(data, "Excel error value")) == (2 if cell.startswith("#") else 0)


@pytest.mark.parametrize("cell", ["none", "无", "mock", "DMSO", "None"])
def test_14_no_drug_is_none_and_not_missing(load, cell):
    data = load(with_cells("drug", cell, cell))
    assert condition(data, "drug") == "none"
    assert condition(data, "drug_concentration") == 0


def test_15_a_drug_called_0_is_not_recorded_and_asked_about(load):
    columns = GOOD | {"drug": ["0", "0", "H2O2", "H2O2"], "drug_concentration": ["", "", 1, 1]}
    data = load(columns)
    assert condition(data, "drug") is None
    (said,) = warned(data, "zero")
    assert said == (
        "column drug: 0 is no drug and counts as not recorded (with a dose of 0 as no drug); was "
        "no drug meant? (rows 2 to 3); write blank where it was not recorded, or set "
        "conditions.drug.categories: {none: ['0']}, or .zero_is_missing: true"
    )
    asked = {"drug": {"categories": {"none": ["0"]}}}
    assert condition(load(columns, conditions=asked), "drug") == "none"
    silent = {"drug": {"zero_is_missing": True}, "temperature": {"zero_is_missing": True}}
    data = load(columns | {"temperature": [0, 0, 37, 37]}, conditions=silent)
    assert warned(data, "zero") == []
    assert np.isnan(condition(data, "temperature"))


def test_16_a_blank_target_is_an_error_in_training_and_fine_in_prediction(load, refused):
    columns = with_cells("target", None)
    assert refused(columns) == [
        "t.csv, row 2, column target: is blank; fill it in, delete the row, or set "
        "data.drop_missing_target: true"
    ]
    for data in (
        load(columns, need_target=False),
        load(columns, data={"drop_missing_target": True}),
    ):
        assert data.measured.tolist() == [False, True, True, True]


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e400"])
@pytest.mark.parametrize("column", ["target", "motif_a", "temperature"])
def test_17_infinite_numbers_are_errors(refused, cell, column):
    first, *_ = refused(with_cells(column, cell))
    assert first.startswith(f"t.csv, row 2, column {column}: '")
    assert "number" in first


def test_18_drug_and_dose_that_contradict_each_other(load, refused):
    assert refused(with_cells("drug_concentration", 0.005)) == [
        "t.csv, row 2, column drug_concentration: drug is none and drug_concentration is '0.005'; "
        "name the drug, or set drug_concentration to 0"
    ]
    columns = GOOD | {"drug": ["", "", "H2O2", "H2O2"], "drug_concentration": [1, 1, 1, 1]}
    assert "drug is blank and drug_concentration is '1'" in refused(columns)[0]
    data = load(GOOD | {"drug_concentration": [0, 0, None, None]})
    (said,) = warned(data, "no dose")
    assert said == (
        "column drug_concentration: drug is named and drug_concentration is blank; the dose counts "
        "as not recorded (rows 4 to 5); fill it in if it is known"
    )


def test_19_copies_and_replicates(load):
    columns = {key: [*values, values[0]] for key, values in GOOD.items()}
    data = load(columns)
    assert warned(data, "duplicate rows") == [
        "1 row with region, sample and target of an earlier row; all of them count; "
        "data.drop_duplicates: true keeps one of each"
    ]
    assert data.num_observations == 5
    assert data.signature[data.sample_index[0]] == data.signature[data.sample_index[4]]
    assert load(columns, data={"drop_duplicates": True}).num_observations == 4
    named = {"sample_id": ["s1", "s1", "s2", "s2", "s1"]} | columns
    data = load(named | {"target": [1.5, 2.5, 3.5, 4.5, 3.5]})
    (said,) = warned(data, "repeated cell")
    assert "such rows count as replicates (SD of their targets 1.41) (row 6)" in said


def test_20_a_duplicate_header_names_both_positions(refused):
    text = as_csv(GOOD).replace("motif_a,accessibility", "motif_a,motif_a")
    assert refused(text) == [
        "t.csv, row 1, column motif_a: 'motif_a' is the header of columns 3 and 4; rename or "
        "delete one"
    ]


def test_21_headers_in_other_forms_near_misses_and_two_of_one_field(load, refused):
    for header in (" temp", "Temp ", "温度（℃）", "ＴＥＭＰ", "temperature (°C)", "Temperature[C]"):
        columns = {header if k == "temperature" else k: v for k, v in GOOD.items()}
        assert condition(load(columns), "temperature") == 30
    (said,) = refused({"temprature" if k == "temperature" else k: v for k, v in GOOD.items()})
    assert "whose role is not known: temprature; did you mean temperature by temprature?" in said
    (said,) = refused(GOOD | {"temp": [30] * 4})
    assert said == "t.csv, row 1: temperature and temp both mean temperature; rename or delete one"


FIRST_SHEET = (  # the columns of GetForYeast's data_WT.xlsx
    ",GSE,GSM,菌株,基因组文件名,基因表达文件名,培养基,碳源,氮源,预培养时间,预培养温度,预培养终点,药物,浓度,"
    "加药培养温度,加药培养时间,加药培养终点,Mark\n"
    "0,GSE1,GSM1,BY4741,g.fa,e.csv,YPD,,,,,,borrelidin,5μM,30,9h,0.7,\n"
    '1,,GSM2,"MATa leu2-3,112 his3-11,15",g.fa,e.csv,YPGly,,,5h,30,0.9,无,,28,0,,加了DMSO\n'
)
LATER_SHEET = (  # and those of the table after it
    "GSM,菌株,培养基,碳源,药物A,浓度A（mM）,药物B,浓度B,预培养时间（min）,预培养温度（默认30）,"
    "预培养终点（默认0.02）,加药培养PH（默认7）,处理\n"
    "GSM1,W303,SC,Glucose,H2O2,0.4,auxin,500uM,840,30,0.02,7,Laser\n"
    "GSM2,W303a,YPD,Galactose,rapamycin,200nM,无,0,180,,,5,\n"
)


def test_22_the_two_real_sheets_load_by_their_chinese_headers(load, tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "regions.csv").write_text("region_id,motif_a\nr1,1\nr2,2\n")
    (folder / "expression.csv").write_text("region_id,GSM1,GSM2\nr1,1,2\nr2,3,4\n")
    described = ["GSE", "基因组文件名", "基因表达文件名", "Mark"]
    extra = {
        "strain": {"kind": "category"}, "ph": {"kind": "number"}, "treatment": {"kind": "category"},
        "drug_b": {"kind": "drug"}, "drug_b_concentration": {"kind": "dose", "drug": "drug_b"},
    }  # fmt: skip

    def loaded(text: str, **conditions) -> pd.DataFrame:
        (folder / "samples.csv").write_text(text, encoding="utf-8")
        data = {"path": str(folder), "description_columns": described}
        values = {"data": data, "conditions": {"extra": extra, **conditions}}
        return load_expression_data(settings_from_dict(values, "x")).conditions

    first = loaded(FIRST_SHEET)
    assert first["strain"].tolist() == ["BY4741", "MATa leu2-3,112 his3-11,15"]
    assert first["medium"].tolist() == ["YPD", "YPGly"]
    assert first["drug"].tolist() == ["borrelidin", "none"]
    assert first["drug_concentration"].tolist() == pytest.approx([5e-6, 0])
    assert first["temperature"].tolist() == [30, 28]
    assert first["drug_time"].tolist() == [9, 0]
    np.testing.assert_array_equal(first["preculture_time"], [np.nan, 5])
    later = loaded(LATER_SHEET)
    assert later["drug_concentration"].tolist() == pytest.approx([0.4e-3, 200e-9])
    assert later["drug_b"].tolist() == ["auxin", "none"]
    assert later["drug_b_concentration"].tolist() == pytest.approx([500e-6, 0])
    assert later["preculture_time"].tolist() == [14, 3]
    assert later["ph"].tolist() == [7, 5]
    np.testing.assert_array_equal(later["preculture_temperature"], [30, np.nan])
    assert later["treatment"].tolist() == ["Laser", None]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "gbk", "utf-16"])
def test_23_encodings(load, encoding, tmp_path):
    columns = {"培养基" if k == "medium" else k: v for k, v in GOOD.items()}
    data = load(as_csv(columns | {"drug": ["无", "无", "H2O2", "H2O2"]}).encode(encoding))
    assert data.conditions["medium"].tolist() == ["YPD", "SC"]
    assert condition(data, "drug") == "none"
    name = {"utf-8-sig": "UTF-8", "gbk": "GB18030"}.get(encoding, encoding.upper())
    assert any(name in line for line in normalised(data))


def test_23_latin_1_is_never_guessed(refused):
    (said,) = refused(as_csv(GOOD).encode() + "r9,café,1,0.1,".encode("latin-1"))
    assert said.startswith("t.csv: is neither UTF-8 nor GB18030 text (byte 0xe9 in row 6); save it")


def test_24_files_that_are_not_what_they_are_called(load, refused):
    book = sheet()
    assert load(book, name="a.csv").num_observations == 4
    assert load(as_csv(GOOD), name="b.xlsx").num_observations == 4
    assert load(gzip.compress(as_csv(GOOD).encode()), name="c.csv").num_observations == 4
    for content, said in (
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 9, "is a workbook of the old .xls kind, or"),
        (b"", "t.csv: is empty; it needs a header and rows"),
        (b"region_id,target\n", "t.csv: has a header and no rows; add rows"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
         "t.csv: is a git-lfs pointer, not the table; run git lfs pull"),
    ):  # fmt: skip
        (line,) = refused(content)
        assert said in line


def test_25_several_sheets_and_a_hidden_one(load, refused):
    book = sheet()
    book.create_sheet("README", 0).append(["about"])
    book["README"].append(["this"])
    hidden = book.create_sheet("old")
    hidden.append(["x"])
    hidden.sheet_state = "hidden"
    (said,) = refused(book)
    assert said.startswith(
        "t.xlsx: has 3 sheets that hold something: README (2 rows), data (5 rows), old (1 row, "
        "hidden); name the one to use as data.sheet"
    )
    assert load(book, data={"sheet": "data"}).num_observations == 4
    book["data"].sheet_state = "hidden"
    data = load(book, data={"sheet": "data"})
    assert [f.kind for f in data.findings.warnings if "sheet" in f.kind] == ["hidden sheet"]


def test_26_merged_cells_are_named_or_filled(load, refused):
    book = sheet(GOOD | {"medium": ["YPD", None, "SC", None]})
    book["data"].merge_cells("E2:E3")
    book["data"].merge_cells("E4:E5")
    said = refused(book)
    assert any("E2:E3" in line and "data.fill_merged: true" in line for line in said)
    assert any("E4:E5" in line for line in said)
    data = load(book, data={"fill_merged": True})
    assert data.conditions["medium"].tolist() == ["YPD", "SC"]


def test_27_formulas_that_were_never_computed_are_errors(refused):
    book = sheet()
    book["data"]["K3"] = "=1+1"
    said = refused(book)
    assert any("row 3, column target" in line and "K3" in line for line in said)
    assert any("open and save the file in Excel, or paste values" in line for line in said)


def test_28_hidden_rows_and_columns_are_said(load):
    book = sheet()
    book["data"].row_dimensions[3].hidden = True
    book["data"].column_dimensions["H"].hidden = True
    data = load(book)
    kinds = [finding.kind for finding in data.findings.warnings]
    assert "hidden rows" in kinds
    assert "hidden columns" in kinds
    assert data.num_observations == 4
    data = load(book, data={"include_hidden": False})
    assert data.row.tolist() == [2, 4, 5]
    assert np.isnan(data.conditions["preculture_od600"]).all()


def test_29_notes_below_the_table_and_stray_cells(refused, load):
    columns = {key: [*values, None, None] for key, values in GOOD.items()}
    columns["region_id"] = [*GOOD["region_id"], None, "Total"]
    columns["temperature"] = [*GOOD["temperature"], None, "see notes"]
    said = refused(columns)
    assert any("row 7, column temperature: 'see notes' is not a number" in line for line in said)
    text = as_csv(GOOD) + "measured by Li\n"
    (line,) = refused(text)
    assert line.startswith("t.csv, row 6: has 1 cell where the header has 11; ")
    book = sheet()
    book["data"]["Z4"] = "hm"
    assert any("row 4" in line and "'hm'" in line for line in refused(book))
    assert load(as_csv(GOOD) + ",,,,,,,,,,\n\n").num_observations == 4


def test_30_short_and_long_rows_are_errors_together_with_bad_cells(refused):
    lines = as_csv(with_cells("target", "x")).splitlines()
    lines[2] = lines[2].rpartition(",")[0]
    lines[4] += ",9"
    said = refused("\n".join(lines) + "\n")
    assert sorted(line.partition(";")[0] for line in said) == [
        "t.csv, row 2, column target: 'x' is not a number",
        "t.csv, row 3: has 10 cells where the header has 11",
        "t.csv, row 5: has 12 cells where the header has 11",
    ]


def test_31_ids_stay_text(load):
    columns = GOOD | {
        "region_id": ["001", "1E5"] * 2,
        "sample_id": ["12345678901234567890"] * 2 + ["02"] * 2,
    }
    data = load(columns)
    assert data.region_id.tolist() == ["001", "1E5"]
    assert data.sample_id.tolist() == ["12345678901234567890", "02"]


@pytest.mark.parametrize(
    ("cell", "hours"),
    [("30min", 0.5), ("9h", 9), ("60", 60), ("1.5 h", 1.5), ("2 d", 48), ("1 h 30 min", 1.5),
     ("2小时", 2), ("30 分钟", 0.5), ("90 s", 0.025)],
)  # fmt: skip
def test_32_times(load, cell, hours):
    data = load(with_cells("preculture_time", cell, cell))
    assert condition(data, "preculture_time") == pytest.approx(hours)


def test_32_a_time_in_words_is_an_error(refused):
    first, _ = refused(with_cells("preculture_time", "overnight", "overnight"))
    assert first == (
        "t.csv, row 2, column preculture_time: 'overnight' is not a number for preculture_time; "
        "write a number and its unit, or leave the cell blank"
    )


def test_33_constant_columns_and_outliers_are_warnings(load):
    regions = [f"r{i}" for i in range(100)]
    score = np.linspace(1, 2, 100)
    score[7] = 1e9
    columns = {
        "region_id": regions,
        "motif_a": score,
        "motif_b": np.zeros(100),
        "target": score * 0 + np.arange(100) / 10,
    }
    data = load(columns)
    assert "1 constant region feature: motif_b" in data.warnings
    assert warned(data, "outlier") == [
        "motif_a: 1 value lies more than 50 SD from the others (1e+09 in region r7); is it right?"
    ]


def test_34_a_table_that_stands_the_other_way_round(refused, tmp_path):
    turned = "sample_id,medium,YAL001C,YAL002W,YAL003W\ns1,YPD,1,2,3\n"
    said = refused(turned)[0]
    assert said.startswith(
        "t.csv, row 1: has 3 columns that are genes or samples (YAL001C, YAL002W, YAL003W), and "
        "should have a row for each region and sample; "
    )
    assert "pandas.DataFrame.melt(" in said
    matrix = '!Series_title\t"x"\n!series_matrix_table_begin\n"ID_REF"\t"GSM1"\n"a"\t1\n'
    (said,) = refused(matrix)
    assert said.startswith("t.csv: is a GEO series matrix")
    assert "!series_matrix_table_begin" in said


def test_35_rare_words_that_nearly_are_others_are_warnings(load):
    drugs = ["hydroxyurea"] * 4 + ["hydroxurea", "H202"]
    strains = ["W303"] * 4 + ["W303a", "BY4741"]
    columns = {
        "region_id": ["r"] * 6, "sample_id": list("abcdef"), "motif_a": [1] * 6,
        "drug": drugs, "drug_concentration": [1] * 6, "strain": strains, "target": range(6),
    }  # fmt: skip
    data = load(columns, conditions={"extra": {"strain": {"kind": "category"}}})
    assert warned(data, "near duplicate") == [
        "drug 'hydroxurea' in 1 sample is nearly 'hydroxyurea'; correct it, or add it to "
        "conditions.drug.categories",
        "drug 'H202' in 1 sample is nearly 'H2O2'; correct it, or add it to "
        "conditions.drug.categories",
        "strain 'W303a' in 1 sample is nearly 'W303'; correct it, or add it to "
        "conditions.strain.categories",
    ]


@pytest.mark.parametrize("bracket", ["μM final", "X", "log10 M", "MM"])
def test_a_bracket_that_is_no_unit_is_an_error_for_a_field_with_a_unit(refused, bracket):
    columns = {k: v for k, v in GOOD.items() if k != "drug_concentration"}
    said = refused(columns | {f"浓度（{bracket}）": [0, 0, 1, 1]})
    assert any("in the header" in line or "header's unit" in line for line in said)


@pytest.mark.parametrize(
    ("header", "molar"),
    [
        ("浓度（毫摩尔）", 1e-3),
        ("浓度(μmol·L-1)", 1e-6),
        ("dose (mmol·L⁻¹)", 1e-3),
        ("dose [nM]", 1e-9),
    ],
)
def test_units_of_headers_as_people_write_them(load, header, molar):
    columns = {k: v for k, v in GOOD.items() if k != "drug_concentration"}
    data = load(columns | {header: [0, 0, 1, 1]})
    assert condition(data, "drug_concentration", 1) == pytest.approx(molar)


def test_a_western_encoding_is_not_taken_for_chinese(refused):
    text = as_csv(GOOD).replace("drug_concentration", "drug_concentration (µM)")
    (said,) = refused(text.encode("cp1252"))
    assert said == (
        "t.csv: looks like Windows-1252 text, with units such as µM or °C; save it as UTF-8"
    )


def test_true_is_no_1_in_a_workbook(refused):
    book = sheet(GOOD | {"preculture_od600": [1, True, "0.4 OD", "0.4"], "region_id": list("abcd")})
    (said,) = refused(book)
    assert "row 3, column preculture_od600: 'True' is not a number" in said


def test_a_total_below_the_table_is_an_error(refused):
    said = refused(as_csv(GOOD) + "Total,,,,,,,,,,10\n")
    assert said == [
        "t.csv, row 6, column region_id: 'Total' has no motif score, region feature or "
        "accessibility at all; is it a note or a total below the table? delete it"
    ]


def test_a_dose_beyond_two_molar_is_warned_about_and_millions_are_refused(load, refused):
    (said,) = warned(load(GOOD | {"drug_concentration": [0, 0, 5, 5]}), "unusual value")
    assert "2 values outside the usual 0 to 2 mol/L (5)" in said
    first, _ = refused(GOOD | {"drug_concentration": ["0", "0", "5 MM", "5 MM"]})
    assert "'5 MM' is in millions of moles; did you mean 5 mM?" in first
    first, _ = refused(GOOD | {"drug_concentration": ["0", "0", "5 mm", "5 mm"]})
    assert "did you mean 5 mM?" in first


# 36 and 37, which are about predictions, stand in tests/e2e/test_check_and_predict.py.


def test_38_a_target_whose_range_contradicts_its_transform(load):
    counts = with_cells("target", 1500.0)
    assert warned(load(counts), "target range") == [
        "targets run from 2.5 to 1500, as counts or TPM do, and are not transformed; "
        "data.target_transform: log1p suits such numbers"
    ]
    assert warned(load(counts, data={"target_transform": "log1p"}), "target range") == []
    assert warned(load(GOOD, data={"target_transform": "log1p"}), "target range") == [
        "targets run from 1.5 to 4.5, as logarithms do, and data.target_transform: log1p takes the "
        "logarithm once more; set it to none if they are logarithms already"
    ]


def test_39_a_drug_in_the_column_of_carbon_sources(load):
    word = "methyl methanesulfonate (MMS)"
    data = load(GOOD | {"carbon_source": ["glucose", "glucose", word, word]})
    assert warned(data, "drug as carbon source") == [
        f"carbon_source '{word}' in 1 sample is known as a drug; move it to the drug column"
    ]


# 40, a sheet of Excel's greatest length, stands in test_workbook.py.
