"""Growth conditions in words: `YPD, 30 °C, H2O2 400 µM, for 0.5 h`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from yeast_get.data.conditions import NO_DRUG, NORMALIZED, ConditionField, cell_text
from yeast_get.data.expression_data import ExpressionData

_SHORT = {"degC": "°C", "hour": "h"}
_NAMED_BY_UNIT = {"temperature": "", "drug_time": "for "}
_TOLD_BY_UNIT = {"°C": "_temperature", "h": "_time"}
_MOLAR = ((1.0, "M"), (1e-3, "mM"), (1e-6, "µM"), (0.0, "nM"))


def unit_words(field: ConditionField) -> str:
    """The canonical unit of a field as people write it; "" without one."""
    if field.unit is None or field.given_unit == NORMALIZED:
        return ""
    return _SHORT.get(field.unit, field.unit)


def value_words(field: ConditionField, value: Any) -> str:
    """One recorded value of a field in words, without the field's name where the unit tells it."""
    if field.is_text:
        return f"no {field.name.replace('_', ' ')}" if value == NO_DRUG else str(value)
    if field.kind == "dose" and field.given_unit != NORMALIZED:
        # 1 - 1e-9: a thousandth that was computed is one
        size, unit = next((s, u) for s, u in _MOLAR if value >= s * (1 - 1e-9))
        return f"{value / (size or 1e-9):.6g} {unit}"
    unit = unit_words(field)
    name = f"{field.name.removesuffix(_TOLD_BY_UNIT.get(unit, '')).replace('_', ' ')} "
    return f"{_NAMED_BY_UNIT.get(field.name, name)}{cell_text(float(value))} {unit}".strip()


def condition_words(data: ExpressionData, names: Collection[str] | None = None) -> np.ndarray:
    """The recorded conditions of every sample in words [S].

    Args:
        data: The table.
        names: The fields to speak of; None for all.
    """
    said: list[list[str]] = [[] for _ in range(data.num_samples)]
    fields = [field for field in data.fields if names is None or field.name in names]
    for before, field in zip([None, *fields], fields, strict=False):
        of_drug = before is not None and field.drug == before.name
        for at, value in enumerate(data.conditions[field.name]):
            if cell_text(value) is None or (field.kind == "dose" and value == 0):
                continue
            words = value_words(field, value)
            if of_drug and said[at]:
                words = f"{said[at].pop()} {words}"
            said[at].append(words)
    return np.array([", ".join(each) or "nothing recorded" for each in said], dtype=object)


def varying(data: ExpressionData) -> list[str]:
    """The fields whose values differ between the samples of a table."""
    return [name for name, cells in data.conditions.items() if cells.nunique(dropna=False) > 1]
