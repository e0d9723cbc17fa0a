"""Growth conditions in words: `YPD, 30 °C, H2O2 400 µM, for 0.5 h`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

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
    return f"{_NAMED_BY_UNIT.get(field.name, name)}{float(value):.4g} {unit}".strip()


def condition_words(conditions: pd.DataFrame, fields: Sequence[ConditionField]) -> np.ndarray:
    """The recorded conditions of every sample in words [S].

    Args:
        conditions: [S] rows.
        fields: Those to speak of, in their order.
    """
    said: list[list[str]] = [[] for _ in range(len(conditions))]
    for before, field in zip([None, *fields], fields, strict=False):
        of_drug = before is not None and field.drug == before.name
        for at, value in enumerate(conditions[field.name]):
            if cell_text(value) is None or (field.kind == "dose" and value == 0):
                continue
            words = value_words(field, value)
            if of_drug and said[at]:
                words = f"{said[at].pop()} {words}"
            said[at].append(words)
    return np.array([", ".join(each) or "nothing recorded" for each in said], dtype=object)


def condition_labels(data: ExpressionData) -> np.ndarray:
    """What tells the samples of a table apart, in few words [S].

    Fields that never differ are left out, and of categories other than the medium the word that
    most samples have.
    """
    conditions = data.conditions.copy()
    differ = [f for f in data.fields if conditions[f.name].nunique(dropna=False) > 1]
    for name in (f.name for f in differ if f.kind == "category" and f.name != "medium"):
        usual = conditions[name].mode()
        conditions[name] = conditions[name].where(~conditions[name].isin(usual[:1]), None)
    return condition_words(conditions, differ)
