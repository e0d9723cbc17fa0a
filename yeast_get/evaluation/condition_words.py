"""Growth conditions in words: `YPD, 30 °C, H2O2 400 µM, for 30 min`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.data.conditions import NO_DRUG, NORMALIZED, ConditionField, cell_text
from yeast_get.data.expression_data import ExpressionData

_SHORT = {"degC": "°C", "hour": "h"}
_NAMED_BY_UNIT = {"temperature": "", "drug_time": "for "}
_TOLD_BY_UNIT = {"°C": "_temperature", "h": "_time", "min": "_time"}
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
    if unit == "h" and 0 < value < 1:
        value, unit = float(f"{60 * value:.3g}"), "min"
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
    """A label of each sample's condition [S] text, alike for replicates and for these alone.

    Named is what differs from the most frequent value of a field, drugs with their doses first; a
    condition without any such thing is called by its temperature and medium.
    """
    kinds = data.conditions.drop_duplicates()
    differ = {f.name for f in data.fields if kinds[f.name].nunique(dropna=False) > 1}
    differ |= {f.drug for f in data.fields if f.name in differ and f.drug is not None}
    fields = [each for each in data.fields if each.name in differ]
    doses = {each.drug: each for each in fields if each.kind == "dose"}
    rank = {"drug": 0, "temperature": 1, "medium": 2}
    odd: list[list[str]] = [[] for _ in range(data.num_samples)]
    plain: list[list[str]] = [[] for _ in range(data.num_samples)]
    for field in sorted(fields, key=lambda each: rank.get(each.name, 3)):
        if field.kind == "dose":
            continue
        texts = _short(field, data.conditions)
        usual = texts[kinds.index].mode().iloc[0]
        if field.kind == "drug":
            usual = ""
            dose = _short(doses[field.name], data.conditions) if field.name in doses else ""
            texts = (texts + " " + dose).str.strip().where(texts != "", "")
        for at, text in enumerate(texts):
            odd[at] += [text] if text not in ("", usual) else []
            plain[at] += [text] if text and field.name in rank else []
    labels = pd.Series([", ".join(odd[i] or plain[i] or ["all alike"]) for i in range(len(odd))])
    frame = pd.DataFrame({"label": labels, "signature": data.signature})
    once = frame.drop_duplicates()
    shared = set(once.loc[once["label"].duplicated(keep=False), "label"])
    named = data.sample_id[frame.groupby("signature")["label"].transform("idxmin")]
    return np.where(labels.isin(shared), labels + " (" + named.astype(str) + ")", labels)


def _short(field: ConditionField, conditions: pd.DataFrame) -> pd.Series:
    """The values of a field in words, "" where there is none or no drug."""
    empty = (None, NO_DRUG, "0") if field.kind in ("drug", "dose") else (None,)
    cells = conditions[field.name]
    return cells.map(lambda value: "" if cell_text(value) in empty else value_words(field, value))
