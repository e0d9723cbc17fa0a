"""Short names of growth conditions for tables and pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from yeast_get.data.conditions import NO_DRUG, NORMALIZED, ConditionField, cell_text
from yeast_get.data.expression_data import ExpressionData

_MOLAR = ((1.0, "M"), (1e-3, "mM"), (1e-6, "µM"), (1e-9, "nM"))


def condition_labels(data: ExpressionData) -> np.ndarray:
    """A label of each sample's condition [S] text, alike for replicates and for these alone.

    Named is what differs from the most frequent value of a field, drugs with their doses first; a
    condition without any such thing is called by its temperature and medium.
    """
    kinds = data.conditions.drop_duplicates()
    fields = [each for each in data.fields if kinds[each.name].nunique(dropna=False) > 1]
    doses = {each.drug: each for each in fields if each.kind == "dose"}
    rank = {"drug": 0, "temperature": 1, "medium": 2}
    odd: list[list[str]] = [[] for _ in range(data.num_samples)]
    plain: list[list[str]] = [[] for _ in range(data.num_samples)]
    for field in sorted(fields, key=lambda each: rank.get(each.name, 3)):
        if field.kind == "dose":
            continue
        texts = data.conditions[field.name].map(_writer(field))
        usual = texts[kinds.index].mode().iloc[0]
        if field.kind == "drug":
            texts, usual = _with_dose(data.conditions, texts, doses.get(field.name)), ""
        for at, text in enumerate(texts):
            odd[at] += [text] if text not in ("", usual) else []
            plain[at] += [text] if text and field.name in rank else []
    labels = pd.Series([", ".join(odd[i] or plain[i] or ["all alike"]) for i in range(len(odd))])
    frame = pd.DataFrame({"label": labels, "signature": data.signature})
    once = frame.drop_duplicates()
    shared = set(once.loc[once["label"].duplicated(keep=False), "label"])
    named = data.sample_id[frame.groupby("signature")["label"].transform("idxmin")]
    return np.where(labels.isin(shared), labels + " (" + named.astype(str) + ")", labels)


def _with_dose(
    conditions: pd.DataFrame, drugs: pd.Series, dose: ConditionField | None
) -> pd.Series:
    """Each drug with its dose where it was recorded."""
    if dose is None:
        return drugs
    doses = conditions[dose.name].map(_writer(dose))
    return (drugs + " " + doses).str.strip().where(drugs != "", "")


def _writer(field: ConditionField) -> Callable[[object], str]:
    """What turns a value of a field into a short text with its unit; "" = not recorded."""
    plain = field.given_unit == NORMALIZED
    stage = "preculture " if field.name.startswith("preculture_") else ""
    name = field.name.replace("_", " ")

    def write(value: object) -> str:
        text = cell_text(value)
        if text is None or text == NO_DRUG:
            return ""
        if isinstance(value, str):
            return text
        number = float(text)
        if field.kind == "time" and not plain:
            return stage + (f"{number:.3g} h" if number >= 1 else f"{60 * number:.2g} min")
        if field.kind == "dose" and not plain:
            size, unit = next((each for each in _MOLAR if number >= each[0]), _MOLAR[-1])
            return f"{number / size:.3g} {unit}"
        if field.unit == "degC" and not plain:
            return f"{stage}{number:.3g} °C"
        return f"{name} {number:.3g}"

    return write
