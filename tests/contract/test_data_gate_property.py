"""The data gate: a table with damaged cells loads to the right values, or names every bad cell.

A good table has a few of its cells rewritten as people and programs do. What each of them then
means is known here, apart from the code under test: its old value in another spelling, another
value, nothing, or nothing that may pass. `YEAST_GET_EXAMPLES` says how many tables are tried.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import ExpressionData, load_expression_data
from yeast_get.errors import DataError

EXAMPLES = int(os.environ.get("YEAST_GET_EXAMPLES", "200"))

FORMS = ("comma", "semicolon", "tab", "gz", "gb18030", "xlsx")
DELIMITERS = {"semicolon": ";", "tab": "\t"}
MOTIFS = ("motif_a", "motif_b", "motif_c")
NUMBERS = ("temperature", "preculture_time", "drug_concentration")
WORDS = ("medium", "drug", "carbon_source")
CONDITIONS = ("medium", "temperature", "preculture_time", "drug", "drug_concentration")
CONDITIONS += ("carbon_source",)
COLUMNS = ("region_id", "sample_id", *MOTIFS, "accessibility", *CONDITIONS, "target")
CHINESE = {
    "region_id": "区域", "sample_id": "样品编号", "accessibility": "开放性", "medium": "培养基",
    "temperature": "温度", "preculture_time": "预培养时间", "drug": "药物",
    "drug_concentration": "浓度", "carbon_source": "碳源", "target": "表达量",
}  # fmt: skip
LIMITS = {"temperature": (0, 60), "preculture_time": (0, 2000)}
LIMITS |= dict.fromkeys(("drug_concentration", "accessibility"), (0, math.inf))

NOTHING, BAD = None, "bad"
"""What a cell may mean besides a value: not recorded, and not to be taken at any price."""

SAMPLES = (
    ("S1", "YPD", 30, 3, "none", 0, "glucose"),
    ("1E5", "YPD", 37.5, 3, NOTHING, 0, "glucose"),
    ("003", "SC", 30, 4.5, "H2O2", 0.001, "galactose"),
    ("S4", "SC", 30, 4.5, "H2O2", 0.001, NOTHING),
    ("S5", "SC", 25, NOTHING, "cycloheximide", 5e-6, "glucose"),
    ("S6", "YPD", 30, 3, NOTHING, NOTHING, "glucose"),
)
REGIONS = ("1E5", "001", "YAL001C", "chrXVI_5_900", *(f"chrI_{i}00_{i}99" for i in range(1, 9)))


def good_rows() -> list[dict[str, Any]]:
    """What the rows of the good table mean."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 10, (len(REGIONS), 3))
    rows = []
    for sample in SAMPLES:
        for i, region in enumerate(REGIONS):
            a, b, c = scores[i].tolist()
            values = (region, sample[0], round(a, 2), round(b, 1), c, round(i / 13, 3))
            target = round(float(rng.normal(0, 3)), 4)
            rows.append(dict(zip(COLUMNS, (*values, *sample[1:], target), strict=True)))
    return rows


GOOD = good_rows()
FIRST = 2
"""The number of the first row below the header, as a spreadsheet counts."""


@dataclass
class Cell:
    """What is written in a cell, and what it means.

    `value` stands in a workbook instead of the text, where a program would write it so.
    """

    text: str
    meaning: Any
    value: Any = None


@dataclass
class Damage:
    """A table with damaged cells: rewritten ones by position and column, rows of another shape."""

    form: str
    cells: dict[tuple[int, str], Cell] = field(default_factory=dict)
    shapes: dict[int, str] = field(default_factory=dict)


# ------------------------------------------------------------------------- how cells are rewritten


def full_width(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


def within(column: str, value: float) -> Any:
    """What a number means in a column: itself, or nothing that may pass."""
    low, high = LIMITS.get(column, (-math.inf, math.inf))
    return value if low <= value <= high else BAD


def is_molar(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


NUMERIC = (*MOTIFS, "accessibility", *NUMBERS, "target")
NONSENSE = (
    "RT", "室温", "25 to 37", "25→37", "inf", "-inf", "Infinity", "1e400", "1e39", "0.n", "high",
    "5²", "²5", "5₂", "10-3", "mid-log", "3 5", "--5", "1.2.3", "5 foo", "0x1F", "1_000", "½", "1½",
    "2024-10-01", "12:30",
)  # fmt: skip
MISSING = ("", " ", "NA", "#N/A", "#DIV/0!", "n/a", "-", "—", "无", "未知", "未记录", "nan", "?")
PLAIN = (
    "300",
    "-5",
    "-0.25",
    "17.125",
    "0",
    "１７.１２５",
    "1.7125×10¹",
    "2×10²",
    "１０²",
    "1e-3",
    "10⁻³",
)
PLAIN_VALUES = (300, -5, -0.25, 17.125, 0, 17.125, 17.125, 200, 100, 0.001, 0.001)
SPELLINGS = {
    "YPD": ("YEPD", " ypd ", "ＹＰＤ", "Ypd", "ypd\n", "完全培养基"),
    "SC": ("sc", " SC", "ＳＣ", "synthetic  complete", "合成完全培养基", "CSM"),
    "none": ("无", "None", "DMSO", "mock", " none ", "no drug", "未加药"),
    "H2O2": ("h2o2", "H₂O₂", " H2O2", "Ｈ２Ｏ２", "hydrogen peroxide", "双氧水"),
    "cycloheximide": ("Cycloheximide", "cycloheximide\n", "放线菌酮"),
    "glucose": ("Glucose", "dextrose", "葡萄糖", "glucose\r\n"),
    "galactose": (" Galactose ", "半乳糖"),
}
OTHERS = {
    "medium": ("YPGal", "YNB", "M63"), "drug": ("MMS", "DTT", "none", "H2O2"),
    "carbon_source": ("ethanol", "glycerol", "TRUE"),
}  # fmt: skip


def same_number(column: str, value: float) -> list[str]:
    """A number in other ways to write it."""
    plain = repr(value)
    signed = plain if "e" in plain else f"{plain}E0"
    forms = [full_width(plain), signed, f" {plain} "]
    forms += [f"{signed.lower()}", f"\t{plain}", f"{plain}\n"]
    forms += [f"+{plain}"] if value >= 0 else [plain.replace("-", "−"), full_width(plain)]
    forms += [] if "e" in plain else [f"{plain}×10⁰", f"{plain} x 10^0"]
    if column == "temperature":
        forms += [f"{plain} ℃", f"{plain}°C", f"{plain}C", full_width(plain) + "度", f"{plain}\n℃"]
        forms += [f"{value + 273.15:.6g} K", f"{value * 1.8 + 32:.6g} °F"]
    if column == "preculture_time":
        minutes = 60 * value
        forms += [f"{minutes:g}min", f"{minutes:g} 分钟", f"{plain}h", f"{plain} 小时"]
        forms += [f"{int(value)} h {minutes % 60:g} min", f"{60 * minutes:g} s"]
    if column == "drug_concentration":
        micro, milli = f"{1e6 * value:.6g}", f"{1e3 * value:.6g}"
        forms += [f"{micro}µM", f"{micro}μM", f"{micro} uM", f"{micro} umol/L", f"{milli} mM"]
        forms += [f"{milli}×10⁻³ M", f"{milli}x10^-3 M", full_width(milli) + "mM", f"{plain} M"]
        if value == 0:
            forms += ["0%", "0 μg/mL"]
    return forms


@st.composite
def another_spelling(draw: st.DrawFn, form: str) -> tuple[int, str, Cell]:
    """A cell that means what it did."""
    at = draw(st.integers(0, len(GOOD) - 1))
    column = draw(st.sampled_from(COLUMNS))
    value = GOOD[at][column]
    if value is NOTHING:
        texts = [word for word in MISSING if column != "drug" or word not in ("-", "—", "无")]
    elif column in ("region_id", "sample_id"):
        texts = [f" {value} ", f"{value}\t"]
    elif column in WORDS:
        texts = list(SPELLINGS[value])
    else:
        texts = same_number(column, value)
    return at, column, Cell(draw(st.sampled_from(texts)), value)


@st.composite
def nonsense(draw: st.DrawFn, form: str) -> tuple[int, str, Cell]:
    """A cell that should hold a number and holds none."""
    at, column = draw(st.integers(0, len(GOOD) - 1)), draw(st.sampled_from(NUMERIC))
    if draw(st.booleans()):
        return at, column, Cell(draw(st.sampled_from(NONSENSE)), BAD)
    special = [Cell("TRUE", BAD, True), Cell("1-Oct", BAD, datetime.datetime(2024, 10, 1))]
    special += [Cell("1,234", BAD), Cell("1,234.5", BAD)]
    if column == "drug_concentration":
        special += [Cell(text, BAD) for text in ("2%", "1 μg/mL", "0.02 % (w/v)", "100 mm", "-5μM")]
    if column == "temperature":
        special += [Cell(text, BAD) for text in ("303.15", "86", "300 ℃", "30 mM", "-5 °C")]
    if column == "preculture_time":
        special += [Cell(text, BAD) for text in ("overnight", "-30min", "3 mM", "400 d", "3 h ca.")]
    if form != "xlsx":  # there the other texts say which sign is the decimal one
        special += [Cell("3,5", BAD)]
    return at, column, draw(st.sampled_from(special))


@st.composite
def another_number(draw: st.DrawFn, form: str) -> tuple[int, str, Cell]:
    """A number where another stood."""
    at, column = draw(st.integers(0, len(GOOD) - 1)), draw(st.sampled_from(NUMERIC))
    if draw(st.booleans()):
        which = draw(st.integers(0, len(PLAIN) - 1))
        meaning = within(column, PLAIN_VALUES[which])
        return at, column, Cell(PLAIN[which], meaning)
    value = round(11 + at / 1000, 3)  # in every column within limits, and of no other row
    return at, column, Cell(repr(value), value, value)


@st.composite
def nothing(draw: st.DrawFn, form: str) -> tuple[int, str, Cell]:
    """A cell that says that nothing was recorded."""
    at, column = draw(st.integers(0, len(GOOD) - 1)), draw(st.sampled_from(COLUMNS))
    if column in ("region_id", "sample_id"):
        meaning = BAD if column == "region_id" else NOTHING
        return at, column, Cell(draw(st.sampled_from(("", " ", "NA"))), meaning)
    return at, column, Cell(draw(st.sampled_from(MISSING)), NOTHING)


@st.composite
def another_word(draw: st.DrawFn, form: str) -> tuple[int, str, Cell]:
    """A category where another stood."""
    at, column = draw(st.integers(0, len(GOOD) - 1)), draw(st.sampled_from(WORDS))
    word = draw(st.sampled_from([*OTHERS[column], *(w for w in SPELLINGS if w in OTHERS[column])]))
    return at, column, Cell(word, word)


@st.composite
def date(draw: st.DrawFn, form: str) -> tuple[int, str, Cell]:
    """An id that a spreadsheet took for a date."""
    at, column = draw(st.integers(0, len(GOOD) - 1)), draw(st.sampled_from(COLUMNS[:2]))
    text = draw(st.sampled_from(("1-Oct", "Oct-01", "2024-10-01", "10/1/2024", "10月1日")))
    return at, column, Cell(text, BAD, datetime.datetime(2024, 10, 1))


KINDS = (another_spelling, nonsense, another_number, nothing, another_word, date)
SHAPES = ("short", "shorter", "long", "gene")


@st.composite
def damaged_tables(draw: st.DrawFn) -> Damage:
    """A form, and 1 to 5 damaged cells; in some tables all of them mean what they did."""
    damage = Damage(draw(st.sampled_from(FORMS)))
    last = draw(st.sampled_from((0, len(KINDS), len(KINDS))))
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.integers(0, last))
        if kind < len(KINDS):
            at, column, cell = draw(KINDS[kind](damage.form))
            damage.cells[at, column] = cell
        elif damage.form == "xlsx":  # has no ragged rows but those that are too long
            damage.shapes[draw(st.integers(0, len(GOOD) - 1))] = "long"
        else:
            at = draw(st.integers(0, len(GOOD) - 1))
            damage.shapes[at] = draw(st.sampled_from(SHAPES))
    return damage


# --------------------------------------------------------------------------- what is to be found


def meanings(damage: Damage) -> list[dict[str, Any]]:
    """What the cells of every row mean, one by one."""
    rows = [dict(row) for row in GOOD]
    for (at, column), cell in damage.cells.items():
        rows[at][column] = cell.meaning
        word = cell.text.strip().casefold()
        if column == "drug" and cell.meaning is NOTHING and word in ("none", "无"):
            rows[at][column] = "none"
    return rows


def reconciled(row: dict[str, Any]) -> dict[str, Any]:
    """A row in which drug and dose agree; its drug is bad where they contradict each other."""
    drug, dose = row["drug"], row["drug_concentration"]
    if is_molar(dose) and drug in (NOTHING, "none"):
        return row | {"drug": BAD}
    if dose == 0 and dose is not NOTHING:
        return row | {"drug": "none"}
    if drug == "none" and dose is NOTHING:
        return row | {"drug_concentration": 0}
    return row


def bad_cells(damage: Damage) -> dict[tuple[int, str], str]:
    """Position and column of every cell that must be named, and how.

    `row`: its row is enough. `wrong`: the cell is wrong by itself. `differs`: it is not as those
    of other rows of its region or sample.
    """
    rows = [reconciled(row) for row in meanings(damage)]
    good = [reconciled(row) for row in GOOD]
    bad: dict[tuple[int, str], str] = {}
    for at, row in enumerate(rows):
        if at in damage.shapes:
            bad[at, "row"] = "row"
            continue
        for column in COLUMNS:
            here = row[column]
            region = column in MOTIFS and row["region_id"] != BAD
            sample = column in CONDITIONS and row["sample_id"] not in (BAD, NOTHING)
            if column == "drug" and here is NOTHING and row["drug_concentration"] == BAD:
                # the dose may have been 0, and then the drug is none
                sample &= good[at]["drug"] not in (NOTHING, "none")
            if here == BAD or (column == "target" and here is NOTHING):
                bad[at, column] = "wrong"
            elif (region or sample) and not same(here, good[at][column]):
                bad[at, column] = "differs"
    return bad


def same(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str) or a is NOTHING or b is NOTHING:
        return a == b
    return math.isclose(a, b, rel_tol=1e-6)


@dataclass
class Named:
    """What the problems of a refused table name, by position and column.

    Attributes:
        wrong: Cells that are said to be wrong by themselves, and rows that are.
        differs: Cells that are said to differ from others, and these others.
        rows: All rows, but for the others.
    """

    wrong: set[tuple[int, str]] = field(default_factory=set)
    differs: set[tuple[int, str]] = field(default_factory=set)
    rows: set[int] = field(default_factory=set)

    @classmethod
    def by(cls, error: DataError, header: dict[str, str]) -> Named:
        named, names = cls(), {said: name for name, said in header.items()}
        for problem in error.problems:
            if problem.row is None:
                continue
            at, column = problem.row - FIRST, names.get(problem.column or "", "row")
            named.rows.add(at)
            other = re.search(r" in row (\d+) for the same (?:region|sample)$", problem.what)
            (named.wrong if other is None else named.differs).add((at, column))
            if other is not None:
                named.differs.add((int(other[1]) - FIRST, column))
        return named

    def names(self, at: int, column: str, how: str) -> bool:
        """Whether a bad cell is named; of a drug and a dose that disagree, one is enough."""
        if how == "row":
            return at in self.rows
        pair = {"drug": "drug_concentration", "drug_concentration": "drug"}.get(column, column)
        cells = self.wrong if how == "wrong" else self.wrong | self.differs
        return not cells.isdisjoint({(at, column), (at, pair)})


# --------------------------------------------------------------------------------------- writing


def headers(form: str) -> dict[str, str]:
    """The header of every column."""
    return {name: CHINESE.get(name, name) if form == "gb18030" else name for name in COLUMNS}


def plain_text(value: Any) -> str:
    return "" if value is NOTHING else str(value)


def write(damage: Damage, folder: Path) -> Path:
    """The table as a file."""
    return write_book(damage, folder) if damage.form == "xlsx" else write_text(damage, folder)


def write_text(damage: Damage, folder: Path) -> Path:
    delimiter = DELIMITERS.get(damage.form, ",")
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(headers(damage.form).values())
    for at, row in enumerate(GOOD):
        texts = [plain_text(row[column]) for column in COLUMNS]
        for i, column in enumerate(COLUMNS):
            if (at, column) in damage.cells:
                texts[i] = damage.cells[at, column].text
        shape = damage.shapes.get(at)
        if shape == "gene":
            line = io.StringIO(newline="")
            csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(texts[1:])
            out.write(f"ADE5{delimiter}7{delimiter}{line.getvalue()}")
            continue
        writer.writerow({"short": texts[:-1], "shorter": texts[:3], "long": [*texts, "x"]}.get(
            shape or "", texts
        ))  # fmt: skip
    path = folder / f"table.{'csv.gz' if damage.form == 'gz' else 'csv'}"
    content = out.getvalue().encode("gb18030" if damage.form == "gb18030" else "utf-8")
    path.write_bytes(gzip.compress(content, 1) if damage.form == "gz" else content)
    return path


def write_book(damage: Damage, folder: Path) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(list(headers("xlsx").values()))
    for at, row in enumerate(GOOD):
        values = [row[column] for column in COLUMNS]
        for i, column in enumerate(COLUMNS):
            cell = damage.cells.get((at, column))
            if cell is not None:
                values[i] = cell.text if cell.value is None else cell.value
        sheet.append([*values, "x"] if at in damage.shapes else values)
    path = folder / "table.xlsx"
    book.save(path)
    return path


# --------------------------------------------------------------------------------------- loading


def load(path: Path) -> ExpressionData:
    return load_expression_data(settings_from_dict({"data": {"path": str(path)}}, "x"))


def loaded_rows(data: ExpressionData) -> list[dict[str, Any]]:
    """What was read, row by row as in the file."""
    assert data.row.tolist() == list(range(FIRST, FIRST + len(GOOD)))
    region, sample = data.region_index, data.sample_index
    access = data.accessibility
    assert access is not None
    columns = {
        "region_id": data.region_id[region],
        "sample_id": data.sample_id[sample],
        "accessibility": access[region] if access.ndim == 1 else access[region, sample],
        "target": data.target[:, 0],
    }
    columns |= {name: data.motif[region, j] for j, name in enumerate(data.motif_names)}
    columns |= {name: data.conditions[name].to_numpy()[sample] for name in CONDITIONS}
    rows = [
        dict(zip(COLUMNS, row, strict=True))
        for row in zip(*(columns[c] for c in COLUMNS), strict=True)
    ]
    return [
        {
            c: NOTHING if isinstance(v, float | np.floating) and np.isnan(v) else v
            for c, v in r.items()
        }
        for r in rows
    ]


def assert_means(data: ExpressionData, wanted: list[dict[str, Any]]) -> None:
    for at, (row, want) in enumerate(zip(loaded_rows(data), wanted, strict=True)):
        for column in COLUMNS:
            where = f"row {at + FIRST}, {column}: {row[column]!r}, not {want[column]!r}"
            if column == "sample_id" and want[column] is NOTHING:
                assert row[column].startswith("condition_"), where
            elif isinstance(want[column], str) or want[column] is NOTHING:
                assert row[column] == want[column], where
            elif column in CONDITIONS:  # units are converted
                assert row[column] == pytest.approx(want[column], rel=1e-12, abs=1e-18), where
            else:
                assert row[column] == np.float32(want[column]), where


@pytest.mark.parametrize("form", FORMS)
def test_the_good_table_loads_to_what_it_means(form, tmp_path):
    assert_means(load(write(Damage(form), tmp_path)), [reconciled(row) for row in GOOD])


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="YEAST_GET_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(damage=damaged_tables())
@example(damage=Damage("tab", {(0, "temperature"): Cell("30\n℃", 30)}))
@example(damage=Damage("comma", {(0, "accessibility"): Cell("１０²", 100)}))
@example(damage=Damage("comma", {(0, "accessibility"): Cell("²5", BAD)}))
@example(damage=Damage("comma", {(0, "target"): Cell("5₂", BAD)}))
@example(damage=Damage("comma", {(0, "target"): Cell("1e39", BAD)}))
@example(damage=Damage("xlsx", {(0, "accessibility"): Cell("1e39", BAD, 1e39)}))
@example(
    damage=Damage(
        "xlsx", {(10, "motif_c"): Cell(full_width(repr(GOOD[10]["motif_c"])), GOOD[10]["motif_c"])}
    )
)
@example(damage=Damage("gz", {(24, "motif_a"): Cell("11", 11), (24, "drug"): Cell("none", "none")}))
@example(
    damage=Damage("comma", {(30, "medium"): Cell("YPD", "YPD"), (30, "target"): Cell("x", BAD)})
)
@example(
    damage=Damage("comma", {(3, "region_id"): Cell("", BAD), (3, "target"): Cell("", NOTHING)})
)
@example(damage=Damage("tab", {(30, "drug_concentration"): Cell("2%", BAD)}))
@example(damage=Damage("xlsx", shapes={5: "long"}))
@example(
    damage=Damage(
        "comma", {(12, "drug_concentration"): Cell("zz", BAD), (12, "drug"): Cell("", NOTHING)}
    )
)
@example(
    damage=Damage(
        "comma", {(30, "drug"): Cell("", NOTHING), (30, "drug_concentration"): Cell("x", BAD)}
    )
)
def test_a_damaged_table_loads_right_or_names_every_bad_cell(damage, tmp_path_factory):
    path = write(damage, tmp_path_factory.getbasetemp())
    bad = bad_cells(damage)
    event("refused" if bad else "loaded")
    if not bad:
        data = load(path)
        assert_means(data, [reconciled(row) for row in meanings(damage)])
        assert all(len(line.splitlines()) == 1 for line in data.findings.lines())
        return
    with pytest.raises(DataError) as caught:
        load(path)
    assert all(len(line.splitlines()) == 1 for line in caught.value.lines())
    named = Named.by(caught.value, headers(damage.form))
    missed = [
        (at + FIRST, column, how)
        for (at, column), how in bad.items()
        if not named.names(at, column, how)
    ]
    assert not missed, f"{missed} not among {Counter(map(str, caught.value.problems))}"
    touched = {at for at, _ in damage.cells} | set(damage.shapes)
    if len(touched) < 3:  # else nobody knows which of the rows of a region are the good ones
        assert named.rows <= touched, f"good rows named: {named.rows - touched}"
