"""Growth-condition fields: names, headers, units, limits, spellings, signatures.

A field is a number, a time, a category, a drug, or the dose of a drug. The standard fields stand
in `STANDARD_FIELDS`; a laboratory adds its own under `conditions.extra` in the YAML. Numbers end
in their canonical unit, categories in one spelling, and what was not recorded stays not recorded.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.config import ConditionsConfig, ExtraFieldConfig, FieldConfig
from yeast_get.data.quantities import WEIGHT_PER_VOLUME, unit_of
from yeast_get.data.tables import ACCESSIBILITY_HEADERS, TEXT_HEADERS
from yeast_get.errors import ConfigError, Problem

NO_DRUG = "none"
NO_DRUG_SPELLINGS = (
    ("none", "no drug", "no_drug", "mock", "dmso", "vehicle", "untreated", "nil")
    + ("无", "对照", "不加药", "未加药", "加了DMSO")
)  # fmt: skip
NORMALIZED = "normalized"
"""`unit: normalized` says that the numbers are already scaled: no unit, no limits."""

DEFAULT_C0 = 1e-9
"""Reference concentration of a dose, mol/L."""


@dataclass(frozen=True)
class ConditionField:
    """One growth-condition column.

    Attributes:
        name: Canonical name.
        kind: `number`, `time`, `category`, `drug` or `dose`.
        unit: Canonical unit in pint's words; "" for a pure number, None for text.
        given_unit: Unit of plain numbers in the table; None means the canonical unit.
        typical: Range outside of which a value is warned about.
        limits: Range outside of which a value is an error.
        headers: Other headers of this column, besides the name.
        spellings: Canonical category by folded spelling.
        drug: The drug field that a dose belongs to.
        c0: Reference concentration in mol/L by folded drug; "" for all others.
        molar_mass: g/mol by folded drug, for doses given as mass per volume.
        words: Value in the canonical unit by folded word, for numbers (`RT`).
        zero_is_missing: Whether a 0 says that nothing was recorded.
        is_standard: Whether it is one of `STANDARD_FIELDS`.
    """

    name: str
    kind: str
    unit: str | None = None
    given_unit: str | None = None
    typical: tuple[float, float] | None = None
    limits: tuple[float, float] | None = None
    headers: tuple[str, ...] = ()
    spellings: Mapping[str, str] = field(default_factory=dict)
    drug: str | None = None
    c0: Mapping[str, float] = field(default_factory=lambda: {"": DEFAULT_C0})
    molar_mass: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, float] = field(default_factory=dict)
    zero_is_missing: bool = False
    dropped: bool = False
    is_standard: bool = False

    @property
    def is_text(self) -> bool:
        """Whether the values are words rather than numbers."""
        return self.kind in ("category", "drug")


_HOURS = (0.0, 2000.0)
_INFINITY = float("inf")
_TEMPERATURE: dict[str, Any] = {"unit": "degC", "typical": (20, 45), "limits": (0, 60)}
_OD600: dict[str, Any] = {"unit": "", "typical": (0, 3), "limits": (0, 100)}
_TIME: dict[str, Any] = {"unit": "hour", "limits": _HOURS}


def _standard(name: str, kind: str, *headers: str, **more: Any) -> ConditionField:
    return ConditionField(name, kind, headers=headers, is_standard=True, **more)


STANDARD_FIELDS = (
    _standard("medium", "category", "media", "growth medium", "culture medium", "培养基"),
    _standard(
        "temperature", "number", "temp", "growth temperature", "温度", "培养温度", "加药培养温度",
        **_TEMPERATURE,
    ),
    _standard(
        "preculture_time", "time", "pre culture time", "预培养时间", **_TIME, typical=(3, 4)
    ),
    _standard(
        "preculture_temperature", "number", "pre culture temperature", "preculture temp",
        "预培养温度", **_TEMPERATURE,
    ),
    _standard(
        "preculture_od600", "number", "pre culture od600", "preculture od", "pre culture od",
        "预培养终点", "预培养终点od600", **_OD600,
    ),
    _standard("drug", "drug", "compound", "chemical", "药物", "药物a", "药品"),
    _standard(
        "drug_concentration", "dose", "concentration", "drug dose", "dose", "浓度", "浓度a",
        "药物浓度", unit="mol/L", typical=(0, 2), limits=(0, _INFINITY), drug="drug",
    ),
    _standard(
        "drug_time", "time", "treatment time", "drug treatment time", "exposure time",
        "加药培养时间", "加药时间", "处理时间", **_TIME,
    ),
    _standard(
        "drug_od600", "number", "drug od", "加药培养终点", "加药培养终点od600", **_OD600
    ),
    _standard("carbon_source", "category", "carbon", "碳源"),
    _standard("nitrogen_source", "category", "nitrogen", "氮源"),
)  # fmt: skip

_SPELLINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "medium": {
        "YPD": ("YEPD", "完全培养基"),
        "SC": ("synthetic complete", "合成完全培养基", "CSM"),
        "SD": ("MM", "minimal", "minimal medium", "synthetic defined", "基本培养基"),
        "YPGal": ("YEPGal",),
        "YPGly": ("YEPGly",),
        "SC-URA": ("SC-Ura", "SC -Ura", "SC−Ura"),
        "YNB": (),
        "YPEG": (),
        "YPE": (),
        "YPA": (),
        "YPR": (),
    },
    "drug": {
        "H2O2": ("hydrogen peroxide", "过氧化氢", "双氧水"),
        "MMS": ("methyl methanesulfonate", "methyl methanesulfonate (MMS)", "甲磺酸甲酯"),
        "DTT": ("dithiothreitol", "二硫苏糖醇"),
        "NaCl": ("sodium chloride", "氯化钠"),
        "rapamycin": ("雷帕霉素", "sirolimus"),
        "hydroxyurea": ("羟基脲",),
        "nocodazole": (),
        "cycloheximide": ("放线菌酮",),
        "sorbitol": ("山梨醇",),
        "menadione": (),
        "diamide": (),
        "auxin": ("生长素",),
    },
    "carbon_source": {
        "glucose": ("dextrose", "D-glucose", "葡萄糖"),
        "galactose": ("半乳糖",),
        "glycerol": ("甘油",),
        "ethanol": ("乙醇",),
        "raffinose": ("棉子糖",),
        "sucrose": ("蔗糖",),
    },
}
"""Canonical category -> other spellings, which the YAML extends as `categories`."""

FAMILIAR = {
    "strain": "菌株", "ph": "加药培养ph", "treatment": "处理",
    "carbon_source_concentration": "加药培养碳源浓度",
}  # fmt: skip
"""Fields that laboratories often declare themselves, and their Chinese header."""
_LETTER = re.compile(r"^drug_([b-z])(_concentration)?$")


def known_spellings(name: str) -> dict[str, str]:
    """Canonical category by folded spelling, of the standard field of this name."""
    words = _SPELLINGS.get(name, {})
    return {fold(s): canonical for canonical, all_s in words.items() for s in (canonical, *all_s)}


_EXTRA_UNITS = {"number": "", "time": "hour", "dose": "mol/L"}
_EXTRA_LIMITS = {"time": _HOURS, "dose": (0.0, _INFINITY)}


def fold(text: str) -> str:
    """A header or category without case, width, or spaces at the ends and between words."""
    return "_".join(unicodedata.normalize("NFKC", text).replace("\u200b", "").casefold().split())


def fold_header(text: str) -> str:
    """A header as `fold` has it, without its bracket; `-` and `.` count as spaces."""
    return fold(re.sub(r"[-.]", " ", split_header(text)[0].replace("_", " ")))


def split_header(text: str) -> tuple[str, str]:
    """A header and what stands in the bracket at its end: `浓度A（mM）` -> `浓度A`, `mM`."""
    match = re.fullmatch(
        r"(.+?)\s*[(\[【]([^()\[\]【】]*)[)\]】]", unicodedata.normalize("NFKC", text).strip()
    )
    return (match[1], match[2].strip()) if match else (text, "")


def header_unit(header: str, each: ConditionField) -> str:
    """The unit that a header names in its bracket, or ""."""
    bracket = split_header(header)[1]
    if each.kind == "dose" and bracket.replace(" ", "").casefold() in WEIGHT_PER_VOLUME:
        return bracket
    return bracket if bracket and each.unit is not None and unit_of(bracket, each.kind) else ""


def fields_from_config(config: ConditionsConfig) -> list[ConditionField]:
    """The fields of a run: the standard ones as the YAML changes them, then its extra ones.

    Fields that the YAML drops are among them, marked so, since their columns are still known.

    Raises:
        ConfigError: Where two fields claim one header, or a key does not suit its field.
    """
    fields = [_configured(each, getattr(config, each.name)) for each in STANDARD_FIELDS]
    fields += [_configured(_extra_field(n, extra), extra) for n, extra in config.extra.items()]
    fields = _without_claimed_headers(fields, config)
    _check_headers(fields)
    spellings = {each.name: each.spellings for each in fields}
    return [_by_canonical_drug(each, spellings) for each in fields]


def _without_claimed_headers(
    fields: list[ConditionField], config: ConditionsConfig
) -> list[ConditionField]:
    """A name or alias that the YAML gives to a field is no longer a header of a standard one."""
    given = {name: [name, *extra.aliases] for name, extra in config.extra.items()}
    for each in STANDARD_FIELDS:
        given[each.name] = list(getattr(config, each.name).aliases)
    out = []
    for each in fields:
        claimed = {fold_header(h) for name, hs in given.items() if name != each.name for h in hs}
        own = {fold_header(h) for h in given[each.name]}
        kept = [h for h in each.headers if fold_header(h) in own or fold_header(h) not in claimed]
        out.append(replace(each, headers=tuple(kept)))
    return out


def _by_canonical_drug(
    each: ConditionField, spellings: Mapping[str, Mapping[str, str]]
) -> ConditionField:
    """c0 and molar masses of a dose by its drug's canonical name, however the YAML spells it."""
    if each.drug is None:
        return each
    known = spellings.get(each.drug, {})

    def named(by_drug: Mapping[str, float]) -> dict[str, float]:
        return {fold(known.get(drug, drug)): value for drug, value in by_drug.items()}

    return replace(each, c0=named(each.c0), molar_mass=named(each.molar_mass))


_KEYS_OF_KIND = {
    "category": {"categories"},
    "drug": {"categories"},
    "number": {"unit", "typical", "limits", "words"},
    "time": {"unit", "typical", "limits", "words"},
    "dose": {"unit", "typical", "limits", "c0", "molar_mass"},
}
_KEYS_OF_ALL = {"aliases", "drop", "kind", "drug", "zero_is_missing"}


def _check_keys(base: ConditionField, entry: FieldConfig) -> None:
    """A key that could have no effect on a field of this kind is an error."""
    allowed = _KEYS_OF_KIND[base.kind]
    for key, info in type(entry).model_fields.items():
        given = getattr(entry, key) != info.get_default(call_default_factory=True)
        if given and key not in allowed | _KEYS_OF_ALL:
            what = f"conditions: {base.name} is a {base.kind}, and {key} says nothing about it"
            fix = f"leave it out; it may have {', '.join(sorted(allowed))}"
            raise ConfigError(Problem(what, fix))


def _check_headers(fields: list[ConditionField]) -> None:
    """Every header means one thing."""
    owner = dict.fromkeys(TEXT_HEADERS, "an identifier")
    owner |= dict.fromkeys(ACCESSIBILITY_HEADERS, "accessibility")
    for each in fields:
        for header in dict.fromkeys(fold_header(name) for name in (each.name, *each.headers)):
            if header in owner:
                what = f"the header {header} would mean both {owner[header]} and {each.name}"
                raise ConfigError(Problem(what, "rename the field or its alias in the YAML"))
            owner[header] = each.name


def _extra_field(name: str, extra: ExtraFieldConfig) -> ConditionField:
    unit = _EXTRA_UNITS.get(extra.kind)
    if extra.kind == "number" and extra.unit not in (None, NORMALIZED):
        unit = extra.unit  # whatever it measures, the declared unit is its canonical one
    letter = _LETTER.match(name)
    headers = [FAMILIAR[name]] if name in FAMILIAR else []
    if letter is not None:
        headers.append(("浓度" if letter[2] else "药物") + letter[1])
    return ConditionField(
        name,
        extra.kind,
        unit=unit,
        limits=_EXTRA_LIMITS.get(extra.kind),
        headers=tuple(headers),
        drug=extra.drug,
    )


def _configured(base: ConditionField, entry: FieldConfig) -> ConditionField:
    _check_keys(base, entry)
    c0 = entry.c0 if isinstance(entry.c0, dict) else {"": entry.c0 or DEFAULT_C0}
    spellings = {fold(s): name for name, all_s in entry.categories.items() for s in [name, *all_s]}
    spellings = known_spellings("drug" if base.kind == "drug" else base.name) | spellings
    if base.kind == "drug":
        spellings = {fold(s): NO_DRUG for s in NO_DRUG_SPELLINGS} | spellings
    return replace(
        base,
        dropped=entry.drop,
        given_unit=entry.unit,
        typical=base.typical if entry.typical is None else (entry.typical[0], entry.typical[1]),
        limits=base.limits if entry.limits is None else (entry.limits[0], entry.limits[1]),
        headers=(*base.headers, *entry.aliases),
        spellings=spellings,
        c0={"": DEFAULT_C0} | {fold(drug): value for drug, value in c0.items()},
        molar_mass={fold(drug): mass for drug, mass in entry.molar_mass.items()},
        words={fold(word): value for word, value in entry.words.items()},
        zero_is_missing=entry.zero_is_missing,
    )


# -------------------------------------------------------------------------------------- columns


def match_columns(headers: Iterable[str], fields: list[ConditionField]) -> dict[str, str]:
    """Header -> field name, for the headers that name a field outright."""
    known = headers_of(fields)
    folded = {header: fold_header(header) for header in headers}
    return {header: known[name] for header, name in folded.items() if name in known}


def headers_of(fields: Iterable[ConditionField]) -> dict[str, str]:
    """Field name by folded header."""
    return {fold_header(name): f.name for f in fields for name in (f.name, *f.headers)}


def match_one_hot(
    headers: Iterable[str], fields: list[ConditionField]
) -> dict[str, dict[str, str]]:
    """Field name -> one-hot header -> category, as in drug -> {drug_H2O2: H2O2, drug_none: none}.

    The longest name that a header begins with is the one meant: `drug_b_none` is of `drug_b`.
    """
    prefixes = {fold(name): f.name for f in fields if f.is_text for name in (f.name, *f.headers)}
    longest_first = sorted(prefixes, key=len, reverse=True)
    groups: dict[str, dict[str, str]] = {}
    for header in headers:
        prefix = next((p for p in longest_first if fold(header).startswith(f"{p}_")), None)
        if prefix is not None:
            groups.setdefault(prefixes[prefix], {})[header] = header[len(prefix) + 1 :]
    known = {f.name: f.spellings for f in fields}
    return {
        name: words
        for name, words in groups.items()
        if len(words) > 1 or any(fold(word) in known[name] for word in words.values())
    }


# ----------------------------------------------------------------------------------- signatures


def field_hashes(conditions: pd.DataFrame) -> np.ndarray:
    """A 64-bit hash of each recorded condition [rows,fields] int64; 0 where not recorded.

    Numbers count to six significant digits, texts but for case and width.
    """
    out = np.zeros(conditions.shape, dtype=np.int64)
    for j, name in enumerate(conditions.columns):
        codes, values = pd.factorize(conditions[name])  # -1 = not recorded
        hashes = [stable_hash(f"{name}={fold(cell_text(value) or '')}") for value in values]
        out[:, j] = np.append(np.array(hashes, dtype=np.int64), 0)[codes]
    return out


def signatures(conditions: pd.DataFrame) -> np.ndarray:
    """The condition signature of each row, as a 64-bit hash [rows] int64.

    Two samples have one signature exactly where all recorded fields are alike. It is the sum
    (modulo 2 ** 64) of the hashes of its fields, so a field that is recorded nowhere does not
    count, and the signature over some of the fields is the sum over those.
    """
    return field_hashes(conditions).sum(axis=1, dtype=np.int64)


def cell_text(value: Any) -> str | None:
    """A condition as text; None where it was not recorded."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return value if isinstance(value, str) else f"{value:.6g}"


def stable_hash(text: str) -> int:
    """A signed 64-bit hash of a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)
