"""A zarr store of GET or GetForYeast -> the tables of a data folder.

Two layouts are known. GET's holds one matrix `data` [P,M] of motif scores, and arrays per cell
type; cell types are the samples. A cube `region_motif` or `matrix` [S,P,F] repeats everything for
every sample and region; what a feature is follows from its name. Either becomes the tables that a
data folder has, so that everything is joined by id. Their rows are the regions and samples in the
order of the store, counted from 1.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from yeast_get.config import DataConfig
from yeast_get.data.conditions import ConditionField
from yeast_get.data.findings import Findings
from yeast_get.data.raw_table import RawTable
from yeast_get.data.roles import Roles, assign_roles
from yeast_get.data.tables import REGION_ID_HEADERS, RawTables, fingerprint
from yeast_get.errors import DataError, Problem

CUBES = ("region_motif", "matrix")
LABELS = ("exp_label", "expression")
STRANDS = {"expression_positive": "expression", "expression_negative": "expression_minus"}
"""GET's groups and the tables that they become, in the order of the columns of `tss`."""

_WITHOUT = {
    "atpm": "their accessibility is not known",
    "expression_positive": "their plus strand is predicted and not scored",
    "expression_negative": "their minus strand is predicted and not scored",
    "tss": "all their values count as measured, also a 0 where no gene starts",
}
_KNOWN = (
    "known are GET's (data, motif_names, peak_names, and atpm, expression_positive, "
    "expression_negative, tss with an array per cell type) and a cube region_motif or matrix "
    "[samples, regions, features] with peak_ids"
)
_METADATA = (".zgroup", ".zarray", "zarr.json")
_VALUES_PER_BLOCK = 1 << 23
"""How many values of a cube are read at a time, where its chunks are smaller."""


def is_zarr_store(path: Path) -> bool:
    """Whether a folder holds the metadata of a zarr store, of format 2 or 3."""
    return any((path / name).is_file() for name in _METADATA)


def read_store(
    path: Path, config: DataConfig, fields: list[ConditionField], need_target: bool
) -> tuple[RawTables, DataConfig]:
    """Read a zarr store as the tables of a data folder.

    Args:
        path: A folder for which `is_zarr_store` holds.
        config: Names of features, and which of them have which role.
        fields: The condition fields.
        need_target: Whether a store without any target is an error.

    Returns:
        The tables, and the settings by which their columns get their roles.

    Raises:
        DataError: Where the layout is not known, or the arrays do not fit each other.
    """
    store = _Store(path)
    raw = RawTables(store.file, fingerprint=fingerprint(store.files))
    layouts = [name for name in CUBES if name in store.shapes]
    if "data" in store.shapes and {"motif_names", "peak_names"} & set(store.shapes):
        layouts.append("data")
    if len(layouts) != 1:
        what = f"is a zarr store of {'more than one' if layouts else 'no known'} layout; it holds "
        raise store.error(what + (_some(store.shapes) or "no array"), _KNOWN)
    if layouts == ["data"]:
        motifs = _read_get(store, raw, need_target)
        config = config.model_copy(update={"motif_columns": motifs})
    else:
        _Cube(store, layouts[0], config, raw).read(raw, config, fields, need_target)
    return raw, config


def _some(names: Iterable[str], most: int = 12) -> str:
    """Names for people, the first few where there are many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class _Store:
    """The files and arrays of a zarr store.

    Attributes:
        file: The store as the user named it.
        files: All of its files, sorted.
        shapes: Shape of every array by its name.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, str(path)
        try:
            import zarr
        except ImportError:
            what = "is a zarr store, and the package zarr is not installed"
            raise self.error(what, 'pip install "yeast_get[zarr]"') from None
        self._zarr, self._arrays = zarr, dict[str, Any]()
        self.files = sorted(each for each in path.rglob("*") if each.is_file())
        self._about = dict(self._described())
        self.shapes = {name: tuple(about["shape"]) for name, about in self._about.items()}

    def _described(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and description of every array; groups have no shape."""
        for path in self.files:
            if path.name in (".zarray", "zarr.json"):
                try:
                    about = json.loads(path.read_text(encoding="utf-8"))
                    has_shape = "shape" in about
                except (ValueError, TypeError):
                    raise self.error("is not JSON", "the store is damaged", path) from None
                if has_shape:
                    name = path.parent.relative_to(self.path).as_posix()
                    yield "(root)" if name == "." else name, about

    def error(self, what: str, fix: str, file: Path | None = None) -> DataError:
        """What is wrong with this store, or with one of its files."""
        return DataError(Problem(what, fix, file=str(file or self.path)))

    def check(self, name: str, *shapes: tuple[int, ...]) -> None:
        """Refuse the store if an array is not there or has none of these shapes."""
        if name not in self.shapes:
            raise self.error(f"has no array {name}", f"it holds {_some(self.shapes)}")
        if self.shapes[name] not in shapes:
            wanted = " or ".join(map(str, shapes))
            what = f"array {name} has the shape {self.shapes[name]} and not {wanted}"
            raise self.error(what, "the arrays of a store must fit each other")

    def read(self, name: str, at: Any = ...) -> np.ndarray:
        """The part `at` of an array."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of types and codecs that zarr calls unstable
                if name not in self._arrays:
                    self._arrays[name] = self._open(name)
                return np.asarray(self._arrays[name][at])
        except Exception as error:  # zarr and its codecs raise many kinds
            what = f"array {name} cannot be read: {error}"
            raise self.error(what, "write it anew, as plain numbers or texts") from None

    def _open(self, name: str) -> Any:
        """An array. zarr 3 does not read cells of JSON, which zarr 2 wrote for GetForYeast."""
        about, folder = self._about[name], self.path / name
        codecs = [each for each in (*(about.get("filters") or ()), about.get("compressor")) if each]
        stored = {key: value for key, value in about.items() if key != "attributes"}
        if "pickle" in json.dumps(stored):  # as whichever codec: to read it may run code
            raise ValueError("its cells are pickled, and to read them may run code")
        if not codecs or codecs[0]["id"] != "json2":
            return self._zarr.open_array(folder, mode="r")
        import numcodecs

        cells: list[Any] = []
        for number in range(-(-about["shape"][0] // about["chunks"][0])):
            chunk: Any = (folder / str(number)).read_bytes()
            for codec in reversed(codecs):
                chunk = numcodecs.get_codec(codec).decode(chunk)
            cells += list(chunk)
        return np.array(cells[: about["shape"][0]], dtype=object)

    def numbers(self, name: str, at: Any = ...) -> np.ndarray:
        """The part `at` of an array of numbers."""
        values = self.read(name, at)
        if values.dtype.kind not in "fiub":
            raise self.error(f"array {name} holds {values.dtype}", "it must hold numbers")
        return values

    def chunks(self, name: str) -> tuple[int, ...]:
        """The shape of the pieces that an array is stored in."""
        self.read(name, (slice(0),) * len(self.shapes[name]))  # opens it
        return tuple(self._arrays[name].chunks)

    def texts(self, name: str, count: int) -> np.ndarray:
        """A list of `count` texts [count], None where one is blank."""
        self.check(name, (count,))
        cells = self.read(name).tolist()
        cells = [c.decode("utf-8", "replace") if isinstance(c, bytes) else c for c in cells]
        odd = [cell for cell in cells if isinstance(cell, dict | list)]
        if odd:
            raise self.error(f"array {name} holds {odd[0]}, which is no text", "write plain texts")
        texts = [None if cell is None else str(cell).strip() or None for cell in cells]
        return np.array(texts, dtype=object)


def _unique_names(names: Iterable[str | None], file: str) -> list[str]:
    """Names of features, if none is blank and none stands twice."""
    place: dict[str, int] = {}
    problems = []
    for i, name in enumerate(names, start=1):
        if name is None:
            problems.append(Problem(f"name {i} is blank", "every feature needs one", file=file))
        elif place.setdefault(name, i) != i:
            what = f"{name!r} is the name of features {place[name]} and {i}"
            problems.append(Problem(what, "rename one", file=file))
    if problems:
        raise DataError(problems)
    return list(place)


def _table(
    ids: np.ndarray,
    headers: Sequence[str],
    values: np.ndarray,
    names: Iterable[str],
    file: str,
    findings: Findings,
) -> RawTable:
    """Values [rows,names] behind a column of ids, under the first header that is no name."""
    frame = pd.DataFrame(values, columns=list(names))
    frame = frame.loc[:, ~frame.columns.duplicated()]  # the table of samples says so
    frame.insert(0, next(header for header in headers if header not in frame.columns), ids)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return RawTable(frame, file, findings=findings)


# ------------------------------------------------------------------------------------------- GET


def _read_get(store: _Store, raw: RawTables, need_target: bool) -> list[str]:
    """Fill the tables from GET's layout; the names of its motifs."""
    if len(store.shapes["data"]) != 2 or 0 in store.shapes["data"]:
        what = f"array data has the shape {store.shapes['data']}"
        raise store.error(what, "it is [peaks, motifs]")
    num_regions, num_motifs = store.shapes["data"]
    motifs = _unique_names(store.texts("motif_names", num_motifs), f"{store.file}/motif_names")
    regions = store.texts("peak_names", num_regions)
    types = {group: _cell_types(store, group) for group in _WITHOUT}
    samples = sorted(set().union(*types.values()))
    if not samples:
        what = "has no cell type"
        raise store.error(what, f"it needs an array per cell type in {' or '.join(_WITHOUT)}")
    if need_target and not any(types[group] for group in STRANDS):
        raise store.error(f"has no arrays in {' or '.join(STRANDS)}", "add them")

    raw.tables["regions"] = _table(
        regions, REGION_ID_HEADERS, store.numbers("data"), motifs, store.file, raw.findings
    )
    nothing = np.empty((len(samples), 0))
    raw.tables["samples"] = _table(
        np.array(samples, object), ("sample_id",), nothing, [], store.file, raw.findings
    )
    if types["atpm"]:
        values = _by_cell_type(store, "atpm", samples, num_regions)
        raw.tables["accessibility"] = _table(
            regions, REGION_ID_HEADERS, values, samples, f"{store.file}/atpm", raw.findings
        )
    if any(types[group] for group in STRANDS):
        _read_strands(store, raw, regions, samples)
    for group, consequence in _WITHOUT.items():
        lacking = [each for each in samples if each not in types[group]]
        if lacking:
            raw.findings.warn("store", f"{group} has no {_some(lacking)}: {consequence}")
    return motifs


def _cell_types(store: _Store, group: str) -> set[str]:
    return {name.removeprefix(f"{group}/") for name in store.shapes if name.startswith(f"{group}/")}


def _by_cell_type(store: _Store, group: str, samples: list[str], num_regions: int) -> np.ndarray:
    """The arrays of a group as [P,S], NaN for a cell type that it lacks."""
    values = np.full((num_regions, len(samples)), np.nan, dtype=np.float32)
    for j, sample in enumerate(samples):
        name = f"{group}/{sample}"
        if name in store.shapes:
            store.check(name, (num_regions,))
            values[:, j] = store.numbers(name)
    return values


def _read_strands(store: _Store, raw: RawTables, regions: np.ndarray, samples: list[str]) -> None:
    """The two tables of targets. GET writes 0 where no gene starts: that is no measurement."""
    values = np.stack([_by_cell_type(store, g, samples, len(regions)) for g in STRANDS])  # [2,P,S]
    measured = np.isfinite(values).sum()
    for j, sample in enumerate(samples):
        name = f"tss/{sample}"
        if name in store.shapes:
            store.check(name, (len(regions), len(STRANDS)))
            values[:, :, j][store.numbers(name).T == 0] = np.nan
    away = measured - np.isfinite(values).sum()
    if away:
        said = f"{away} values where tss says that no gene starts are not measured"
        raw.findings.warn("store", said)
    for strand, (group, name) in enumerate(STRANDS.items()):
        file = f"{store.file}/{group}"
        raw.tables[name] = _table(
            regions, REGION_ID_HEADERS, values[strand], samples, file, raw.findings
        )
    raw.roles["target"] = list(STRANDS)


# ----------------------------------------------------------------------------------------- cubes


class _Cube:
    """An array [S,P,F] with the names of its samples, regions and features."""

    def __init__(self, store: _Store, name: str, config: DataConfig, raw: RawTables) -> None:
        self.store, self.name, self.shape = store, name, store.shapes[name]
        self.findings = raw.findings
        if len(self.shape) != 3 or 0 in self.shape:
            what = f"array {name} has the shape {self.shape}"
            raise store.error(what, "it is [samples, regions, features]")
        self.features = self._feature_names(config, raw)
        self.regions = store.texts("peak_ids", self.shape[1])
        self.samples = np.array([f"sample_{i + 1}" for i in range(self.shape[0])], dtype=object)
        if "sample_ids" in store.shapes:
            self.samples = store.texts("sample_ids", self.shape[0])

    def _feature_names(self, config: DataConfig, raw: RawTables) -> list[str]:
        """The F names: of the store, else of the file that the YAML names; never guessed."""
        count = self.shape[2]
        for name in ("feature_names", "motif_names"):
            if self.store.shapes.get(name) == (count,):
                return _unique_names(self.store.texts(name, count), f"{self.store.file}/{name}")
        if config.feature_names is None:
            what = f"has no array feature_names or motif_names with the {count} names of the "
            what += f"features of {self.name}"
            fix = "write them into a text file, one per line in their order, and name it as "
            raise self.store.error(what, fix + "`data: {feature_names: FILE}` in the YAML")
        raw.names_file = config.feature_names
        names = _read_names(config.feature_names)
        if len(names) != count:
            what = f"has {len(names)} lines, and {self.name} has {count} features"
            fix = "write one name per line"
            raise DataError(Problem(what, fix, file=config.feature_names))
        return _unique_names(names, config.feature_names)

    def read(
        self, raw: RawTables, config: DataConfig, fields: list[ConditionField], need_target: bool
    ) -> None:
        """Fill the tables."""
        file = self.store.file
        roles = self._roles(config, fields, need_target)
        fixed = [*roles.motifs, *roles.region_features, *roles.region.values()]
        shared = [*roles.conditions.values(), *chain.from_iterable(roles.one_hot.values())]
        access = [roles.accessibility] if roles.accessibility else []
        of_region, of_sample, of_cell = self._divide(fixed, shared, [*access, *roles.targets])
        raw.tables["regions"] = _table(
            self.regions, REGION_ID_HEADERS, of_region, fixed, file, raw.findings
        )
        raw.tables["samples"] = _table(
            self.samples, ("sample_id",), of_sample, shared, file, raw.findings
        )
        for name in access:
            values = of_cell[0]
            if _alike(values, values[:, :1]).all():
                raw.tables["regions"].frame[name] = values[:, 0]
            else:
                raw.tables["accessibility"] = self._wide(values, name)
        names, targets = self._targets(roles.targets, of_cell[len(access) :])
        for table, values, name in zip(STRANDS.values(), targets, cycle(names), strict=False):
            raw.tables[table] = self._wide(values, name)
        if need_target and not len(targets):
            what = f"has no array {' or '.join(LABELS)} and no feature "
            what += " or ".join(config.target_columns or ["target"])
            raise self.store.error(what, "add one of them")
        raw.descriptions = {name: partial(self._described, name) for name in roles.descriptions}
        raw.roles = roles.named() | {"target": names}

    def _roles(
        self, config: DataConfig, fields: list[ConditionField], extra_is_error: bool
    ) -> Roles:
        """What the features are, by their names."""
        frame = pd.DataFrame(np.zeros((1, len(self.features))), columns=self.features)
        header = RawTable(frame, self.store.file, findings=self.findings)
        kinds = ("region", "sample", "target")
        roles = assign_roles(header, config, fields, kinds, extra_is_error)
        self.findings.raise_errors()
        name = roles.region_id or roles.sample_id
        if name:
            fix = "ids stand in the arrays peak_ids and sample_ids"
            raise self.store.error(f"has a feature {name}, which is the name of an id", fix)
        return roles

    def _divide(
        self, fixed: list[str], shared: list[str], free: list[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Take the cube apart, piece by piece, so that no more than the parts is ever held.

        Args:
            fixed: Features that are the same in every sample.
            shared: Features that are the same in every region of a sample.
            free: Features that may differ everywhere.

        Returns:
            [P,fixed], [S,shared] and [free,P,S].

        Raises:
            DataError: Where a feature differs that must not.
        """
        num_samples, num_regions, _ = self.shape
        place = {name: i for i, name in enumerate(self.features)}
        at_fixed, at_shared, at_free = (
            [place[n] for n in names] for names in (fixed, shared, free)
        )
        dtype = np.result_type(self.store.numbers(self.name, (slice(0),)).dtype, np.float32)
        of_region = np.empty((num_regions, len(fixed)), dtype)
        of_sample = np.empty((num_samples, len(shared)), dtype)
        of_cell = np.empty((len(free), num_regions, num_samples), dtype)
        for samples, regions in self._blocks():
            block = self.store.read(self.name, (samples, regions)).astype(dtype)  # [s,p,F]
            if samples.start == 0:
                of_region[regions] = block[0][:, at_fixed]
            if regions.start == 0:
                of_sample[samples] = block[:, 0][:, at_shared]
            of_cell[:, regions, samples] = block[:, :, at_free].T
            corner = (samples.start, regions.start)
            self._check_alike(
                block[:, :, at_fixed], of_region[regions][None], fixed, corner,
                f"sample {self.samples[0]}", "a feature of a region is the same in every sample",
            )  # fmt: skip
            self._check_alike(
                block[:, :, at_shared], of_sample[samples][:, None], shared, corner,
                f"region {self.regions[0]}", "a condition is the same in every region of a sample",
            )  # fmt: skip
        return of_region, of_sample, of_cell

    def _blocks(self) -> Iterator[tuple[slice, slice]]:
        """Samples and regions of pieces that cover the cube along its chunks."""
        num_samples, num_regions, width = self.shape
        step, rows, _ = self.store.chunks(self.name)
        rows *= max(1, _VALUES_PER_BLOCK // (step * rows * width))
        for start in range(0, num_samples, step):
            for first in range(0, num_regions, rows):
                yield slice(start, start + step), slice(first, first + rows)

    def _check_alike(
        self,
        here: np.ndarray,
        expected: np.ndarray,
        names: list[str],
        corner: tuple[int, int],
        elsewhere: str,
        rule: str,
    ) -> None:
        """Refuse the cube where a piece [s,p,k] differs from what is expected of it."""
        differs = ~_alike(here, expected)
        expected = np.broadcast_to(expected, here.shape)
        problems = []
        for k in np.flatnonzero(differs.any(axis=(0, 1))):
            i, j = np.argwhere(differs[:, :, k])[0]
            what = (
                f"{here[i, j, k]:.9g} in sample {self.samples[corner[0] + i]}, region "
                f"{self.regions[corner[1] + j]}, and {expected[i, j, k]:.9g} in {elsewhere}"
            )
            problems.append(Problem(what, rule, self.store.file, column=names[k]))
        if problems:
            raise DataError(problems)

    def _targets(self, features: list[str], values: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Where the targets stand, and [T,P,S] of them; T is 0 where there are none."""
        found = [name for name in LABELS if name in self.store.shapes]
        if len(found) + len(features[:1]) > 1:
            what = f"holds targets in {' and in '.join([*found, *features])}"
            raise self.store.error(
                what, "keep one, or declare the other as data.description_columns"
            )
        if not found:
            return features, values
        cells = self.shape[:2]
        self.store.check(found[0], cells, (*cells, 1), (*cells, 2))
        labels = self.store.numbers(found[0])
        return found, labels.reshape(*cells, -1).T

    def _wide(self, values: np.ndarray, name: str) -> RawTable:
        file = f"{self.store.file}/{name}"
        findings = self.findings
        return _table(self.regions, REGION_ID_HEADERS, values, self.samples, file, findings)

    def _described(self, name: str) -> np.ndarray:
        """A feature that the model does not see, as text of every region and sample [P*S]."""
        values = self.store.read(self.name, (slice(None), slice(None), self.features.index(name)))
        return RawTable(pd.DataFrame({name: values.T.reshape(-1)}), self.store.file).text(name)


def _alike(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Where numbers are the same, or both missing."""
    same: np.ndarray = (values == expected) | (np.isnan(values) & np.isnan(expected))
    return same


def _read_names(file: str) -> list[str | None]:
    """The lines of a text file, None for blank ones before the last."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot be read as text: {error}"
        raise DataError(Problem(what, "check data.feature_names", file=file)) from None
    return [line.strip() or None for line in text.rstrip().splitlines()]
