"""Any table made by damaging a few cells of a good one loads right, or is refused with each cell.

`YEAST_GET_EXAMPLES` sets the number of tables (`make nightly`).
"""

from __future__ import annotations

import datetime
import gzip
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yeast_get.config import settings_from_dict
from yeast_get.data.expression_data import ExpressionData, load_expression_data
from yeast_get.errors import DataError

REGIONS, SAMPLES = 12, 4
CHINESE = {
    "medium": "培养基", "temperature": "温度", "preculture_time": "预培养时间（h）", "drug": "药物",
    "drug_concentration": "浓度", "carbon_source": "碳源", "target": "表达量",
    "accessibility": "开放性",
}  # fmt: skip
CONDITIONS = [
    {"medium": "YPD", "temperature": "30", "preculture_time": "3", "drug": "none",
     "drug_concentration": "0", "carbon_source": "glucose"},
    {"medium": "YPD", "temperature": "30", "preculture_time": "3", "drug": "H2O2",
     "drug_concentration": "0.001", "carbon_source": "glucose"},
    {"medium": "SC", "temperature": "37", "preculture_time": "4", "drug": "none",
     "drug_concentration": "0", "carbon_source": "galactose"},
    {"medium": "SC", "temperature": "37", "preculture_time": "3", "drug": "rapamycin",
     "drug_concentration": "0.001", "carbon_source": ""},
]  # fmt: skip


def good_rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    score, access = rng.uniform(0.5, 9, (REGIONS, 2)).round(2), rng.uniform(0.1, 1, REGIONS)
    rows = []
    for j, condition in enumerate(CONDITIONS):
        for i in range(REGIONS):
            row = {"region_id": f"chrI_{1000 * i}_{1000 * i + 400}", "sample_id": f"00{j}"}
            row |= {"motif_a": str(score[i, 0]), "motif_b": str(score[i, 1])}
            row |= {"accessibility": f"{access[i]:.3f}", **condition}
            rows.append(row | {"target": f"{rng.uniform(1, 9):.2f}"})
    return rows


@dataclass
class Damage:
    """One way to write a cell.

    Attributes:
        column: Which cell of the row; the first for damage to the row as a whole.
        text: What is written: a text, a date, or a truth value.
        harmful: Whether the table must be refused for it.
        named: Columns of which one must be named; none where the row alone will do.
        needs: What other cells of the row must hold.
        forms: In which kinds of file; all where there are none.
        structural: `long` or `short`, for a row with another number of cells.
    """

    column: str
    text: Any
    harmful: bool = True
    named: tuple[str, ...] | None = None
    needs: dict[str, str] = field(default_factory=dict)
    forms: tuple[str, ...] = ()
    structural: str = ""

    def suits(self, row: dict[str, Any], form: str) -> bool:
        suits = all(row[name] == value for name, value in self.needs.items())
        return suits and (not self.forms or form in self.forms)


TEXTS = ("csv", "semicolon", "tab", "gz", "gb18030")
FORMS = (*TEXTS, "xlsx")


def bad(column: str, *texts: Any, **more: Any) -> list[Damage]:
    return [Damage(column, text, named=(column,), **more) for text in texts]


def fine(column: str, value: str, *texts: str, **needs: str) -> list[Damage]:
    return [Damage(column, text, harmful=False, needs={column: value} | needs) for text in texts]


DOSE = ("drug", "drug_concentration")
DAMAGES = [
    *bad("region_id", "1-Oct", "2024-10-01", "", "NA", forms=TEXTS),
    *bad("region_id", datetime.datetime(2024, 10, 1), None, forms=("xlsx",)),
    Damage("region_id", "", structural="long", forms=TEXTS),
    Damage("region_id", "", structural="short", forms=TEXTS),
    *bad("temperature", "RT", "25 to 37", "300", "86", "-5", "inf", "1e400", "warm", "30 h", "31",
         "30,5", "无", "NA", "-", "#N/A", "", "10⁻³"),
    *bad("temperature", "TRUE", "1,234", forms=TEXTS),
    *bad("temperature", True, datetime.datetime(2024, 1, 1), forms=("xlsx",)),
    *bad("preculture_time", "overnight", "-1", "3 mM", "5000", "3 d", "300", "未知"),
    *bad("medium", "SD", "YPGal", "无", "NA", "0"),
    *bad("carbon_source", "MMS", "raffinose"),
    *bad("motif_a", "x", "inf", "101.5", "", "1e400", "-"),
    *bad("motif_b", "0.n", "TRUE", "none"),
    *bad("accessibility", "-0.5", "x", "inf", "TRUE"),
    *bad("target", "", "x", "inf", "NA", "-", "#DIV/0!", "1e400", "无", "mid-log", "5 mM"),
    *bad("target", "30,5", "1,234", forms=TEXTS),
    *bad("drug_concentration", "1 μg/mL", "2%", "0.02 % (w/v)", "-1", "5 mm", "5 foo", "10-3",
         "1e999", "5 mM", "5µM", "", "lots", needs={"drug_concentration": "0.001"}),
    *[Damage("drug_concentration", text, named=DOSE, needs={"drug": "none"})
      for text in ("5 mM", "0.001", "1 nM")],
    *[Damage("drug", text, named=DOSE, needs={"drug_concentration": "0.001"})
      for text in ("", "none", "无", "mock", "NA", "0", "diamide")],
    *fine("temperature", "30", "30 ℃", "30℃", "３０", "303.15 K", "30.0", " 30 ", "86 °F", "3e1"),
    *fine("temperature", "37", "37 °C", "３７ ℃"),
    *fine("preculture_time", "3", "3h", "180min", "3 小时", "180 分钟", "3 hours", "2 h 60 min"),
    *fine("medium", "YPD", "YEPD", " ypd ", "ＹＰＤ", "完全培养基"),
    *fine("carbon_source", "glucose", "Glucose", "葡萄糖", "dextrose"),
    *fine("drug", "none", "无", "mock", "None", "DMSO", "NONE", ""),
    *fine("drug", "H2O2", "h2o2", "hydrogen peroxide", "Ｈ２Ｏ２"),
    *fine("drug_concentration", "0.001", "1 mM", "1mM", "1000µM", "1000μM", "1000 uM", "1e-3",
          "1×10⁻³ M", "10⁻³", "1×10-3", "0.001 mol/L", "１ mM"),
    *fine("drug_concentration", "0", "0 M", "0 μg/mL", "0.0", "", drug="none"),
]  # fmt: skip


def write(folder: Path, form: str, rows: list[dict[str, Any]], torn: dict[int, str]) -> Path:
    header = [CHINESE.get(name, name) if form == "gb18030" else name for name in rows[0]]
    if form == "xlsx":
        book = openpyxl.Workbook()
        book.active.append(header)
        for row in rows:
            book.active.append([native(name, cell) for name, cell in row.items()])
        book.save(folder / "t.xlsx")
        return folder / "t.xlsx"
    delimiter = {"semicolon": ";", "tab": "\t"}.get(form, ",")
    lines = [delimiter.join(header)]
    for i, row in enumerate(rows):
        cells = [f'"{cell}"' if delimiter in cell else cell for cell in row.values()]
        if i in torn:
            cells = ["ADE5", "7", *cells[1:]] if torn[i] == "long" else cells[:-2]
        lines.append(delimiter.join(cells))
    raw = ("\n".join(lines) + "\n").encode("gb18030" if form == "gb18030" else "utf-8")
    path = folder / "t.csv"
    path.write_bytes(gzip.compress(raw) if form == "gz" else raw)
    return path


def native(name: str, cell: Any) -> Any:
    """A cell as Excel holds it: what is a plain number is one."""
    if not isinstance(cell, str) or name in ("region_id", "sample_id"):
        return cell
    try:
        return float(cell) if np.isfinite(float(cell)) and cell.isascii() else cell
    except ValueError:
        return cell or None


def load(path: Path) -> ExpressionData:
    return load_expression_data(settings_from_dict({"data": {"path": str(path)}}, "x"))


@st.composite
def damaged(draw) -> tuple[str, dict[int, Damage]]:
    """A form, and damage by row; every damaged row is of another region."""
    form = draw(st.sampled_from(FORMS))
    rows = good_rows()
    regions = draw(st.lists(st.integers(0, REGIONS - 1), min_size=1, max_size=5, unique=True))
    damage = {}
    for region in regions:
        at = REGIONS * draw(st.integers(0, SAMPLES - 1)) + region
        damage[at] = draw(st.sampled_from([d for d in DAMAGES if d.suits(rows[at], form)]))
    return form, damage


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> ExpressionData:
    return load(write(tmp_path_factory.mktemp("good"), "csv", good_rows(), {}))


@settings(
    max_examples=int(os.environ.get("YEAST_GET_EXAMPLES", "200")),
    deadline=None,
    database=None,
    derandomize="YEAST_GET_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(case=damaged())
def test_a_damaged_table_loads_right_or_is_refused_with_every_damaged_cell(
    case, expected, tmp_path_factory
):
    form, damage = case
    rows, torn = good_rows(), {}
    for at, each in damage.items():
        if each.structural:
            torn[at] = each.structural
        else:
            rows[at][each.column] = each.text
    path = write(tmp_path_factory.getbasetemp(), form, rows, torn)
    harmful = {at: each for at, each in damage.items() if each.harmful}
    refusal: DataError | None = None
    try:
        data = load(path)
    except DataError as error:
        refusal = error
    if refusal is None:
        assert not harmful, f"{harmful} came in"
        assert_alike(data, expected)
        return
    lines = refusal.lines()
    assert all("\n" not in line for line in lines)
    assert harmful, f"refused for nothing: {lines}"
    header = {CHINESE.get(name, name): name for name in rows[0]} | {name: name for name in rows[0]}
    named = {(problem.row, header.get(problem.column or "")) for problem in refusal.problems}
    for at, each in harmful.items():
        cells = {(at + 2, name) for name in each.named or [*rows[0], None]}
        assert cells & named, f"{each} in row {at + 2} is not among {lines}"
    blamed = {row for row, _ in named} - {at + 2 for at in harmful}
    assert not blamed, f"good rows {blamed} are blamed: {lines}"


def assert_alike(data: ExpressionData, expected: ExpressionData) -> None:
    for name in ("motif", "accessibility", "target", "region_index", "sample_index", "start"):
        np.testing.assert_array_equal(getattr(data, name), getattr(expected, name))
    assert data.region_id.tolist() == expected.region_id.tolist()
    assert data.sample_id.tolist() == expected.sample_id.tolist()
    assert data.signature.tolist() == expected.signature.tolist()
    for name in expected.conditions:
        got, want = data.conditions[name], expected.conditions[name]
        if got.dtype == object:
            assert got.tolist() == want.tolist()
        else:
            np.testing.assert_allclose(got, want, rtol=1e-9)
