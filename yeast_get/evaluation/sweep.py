"""What would the model say at other conditions: predictions over a grid of one or two fields.

All else is as in a base condition. The grid is a table of its own, regions by points, which goes
the way of every table: the schema scales it, the dataset gathers it, its flags say where it leaves
what training has seen.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from yeast_get.data.condition_values import read_conditions
from yeast_get.data.conditions import NO_DRUG, ConditionField, fold, fold_header, headers_of
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.data.findings import counted
from yeast_get.data.raw_table import RawTable
from yeast_get.data.splits import TRAIN
from yeast_get.data.yeast_dataset import YeastDataset
from yeast_get.errors import ConfigError, Problem, did_you_mean, nearest
from yeast_get.evaluation.canvas import draw
from yeast_get.evaluation.condition_words import condition_words, unit_words, value_words
from yeast_get.evaluation.evaluation import Evaluation
from yeast_get.evaluation.inference import in_input_units, predict_members
from yeast_get.evaluation.output_tables import write_csv
from yeast_get.evaluation.question_plots import plot_sweep
from yeast_get.run_dir import RunDir

log = logging.getLogger(__name__)

MOST_POINTS = 1000
"""Of one field."""

MOST_ROWS = 2_000_000
"""Of sweep.csv, and of the cells that are predicted for it."""

_RANGE = re.compile(r"(?P<low>[^:]+):(?P<high>[^:]+):(?P<scale>lin|log):(?P<count>\d+)")
_EXAMPLE = "write LOW:HIGH:lin:N or LOW:HIGH:log:N, such as temperature=25:42:lin:18"


@dataclass(frozen=True)
class Axis:
    """One field of a sweep.

    Attributes:
        field: The field.
        values: [n] float64 in its canonical unit, or [n] words.
    """

    field: ConditionField
    values: np.ndarray


@dataclass(frozen=True)
class Sweep:
    """A grid around a base condition.

    Attributes:
        axes: One or two; the second varies fastest.
        base: Sample of the table that all else is taken from.
        regions: [P'] rows of the region table to report, ascending.
        points: [S] rows, a column per axis: the grid as it was asked for.
        conditions: [S] rows, all fields: the same with doses and drugs in agreement.
        flagged: How flags of the grid begin, as against those of the base condition: with what is
            swept, or with the dose of a swept drug.
    """

    axes: list[Axis]
    base: int
    regions: np.ndarray
    points: pd.DataFrame
    conditions: pd.DataFrame
    flagged: tuple[str, ...]

    def answer(self, evaluation: Evaluation, run: RunDir) -> None:
        """Predict the grid; write `sweep.csv` and its picture; log what came out."""
        schema, settings = evaluation.schema, evaluation.settings
        window = settings.data.regions_per_window
        data = self.table(evaluation.data, keep_all=window > 1)
        dataset = YeastDataset(data, schema, window, evaluation.dataset.device)
        asked = np.isin(data.region_id[data.region_index], evaluation.data.region_id[self.regions])
        members = predict_members(
            evaluation.model, dataset, asked, evaluation.batch_size, settings.training.precision
        )[:, asked]
        y_pred, y_std = in_input_units(schema, members)
        region, point = data.region_index[asked], data.sample_index[asked]
        frame = pd.DataFrame({"region_id": data.region_id[region], "gene_id": data.gene_id[region]})
        for name in self.points:
            frame[name] = self.points[name].to_numpy()[point]
        for t, suffix in enumerate(data.target_suffixes):
            frame[f"y_pred{suffix}"] = y_pred[:, t]
            if y_std is not None:
                frame[f"y_std{suffix}"] = y_std[:, t]
        flags = schema.flags(data)
        outside = np.array([any(map(self._of_grid, flag.split("; "))) for flag in flags])
        frame["extrapolated"] = outside[point].astype(int)
        frame["flags"] = flags[point]
        write_csv(frame, run.sweep)
        self._log(y_pred.mean(axis=1).reshape(len(self.regions), -1).mean(axis=0), flags, outside)
        units = {a.field.name: None if a.field.is_text else unit_words(a.field) for a in self.axes}
        draw(plot_sweep, run.sweep, run.sweep_plot, settings.report.formats, units)

    def table(self, data: ExpressionData, keep_all: bool = False) -> ExpressionData:
        """The grid as a table: the chosen regions, or all of them, by the points.

        Args:
            data: The table that regions and base sample are of.
            keep_all: Whether the other regions are kept, as neighbours of the chosen ones.
        """
        kept = np.arange(data.num_regions) if keep_all else self.regions
        points = len(self.points)
        accessibility = data.accessibility
        if accessibility is not None:
            accessibility = accessibility[kept]
            if accessibility.ndim == 2:
                accessibility = accessibility[:, self.base]
        count = len(kept) * points
        return replace(
            data,
            motif=data.motif[kept],
            accessibility=accessibility,
            region_id=data.region_id[kept],
            chrom=data.chrom[kept],
            start=data.start[kept],
            end=data.end[kept],
            gene_id=data.gene_id[kept],
            sample_id=np.array([f"point_{i + 1}" for i in range(points)], dtype=object),
            conditions=self.conditions,
            region_index=np.repeat(np.arange(len(kept), dtype=np.int32), points),
            sample_index=np.tile(np.arange(points, dtype=np.int32), len(kept)),
            target=np.full((count, len(data.target_names)), np.nan, dtype=np.float32),
            row=np.zeros(count, dtype=np.int64),
            descriptions={},
            is_grid=True,
        )

    def _log(self, mean: np.ndarray, flags: np.ndarray, outside: np.ndarray) -> None:
        """The highest and lowest point of the mean over regions [S], and what is flagged."""
        said = [
            f"{value:.4g} at {self._at(i)}"
            for i, value in ((int(mean.argmin()), mean.min()), (int(mean.argmax()), mean.max()))
        ]
        log.info("sweep: the mean prediction over %s runs from %s to %s",
                 counted(len(self.regions), "region"), *said)  # fmt: skip
        if outside.any():
            log.info("sweep: %d of %d points are outside of what training has seen; "
                     "they are extrapolations", int(outside.sum()), len(flags))  # fmt: skip
        of_base = {o for flag in flags for o in flag.split("; ") if o and not self._of_grid(o)}
        if of_base:
            log.warning("warning: the base condition itself: %s", "; ".join(sorted(of_base)))

    def _of_grid(self, flag: str) -> bool:
        return flag.startswith(self.flagged)

    def _at(self, point: int) -> str:
        values = self.points.iloc[point]
        return ", ".join(value_words(axis.field, values[axis.field.name]) for axis in self.axes)


def read_sweep(
    evaluation: Evaluation, texts: Sequence[str], regions: str | None, base_sample: str | None
) -> Sweep:
    """A sweep as the options ask for it, refused in one line where it cannot be.

    Args:
        evaluation: The table must hold the regions and the base sample.
        texts: `FIELD=LOW:HIGH:lin|log:N`, `FIELD=A,B` or `FIELD=all`; one or two.
        regions: A file with an id per line, or ids of regions or genes and commas; None for all.
        base_sample: A sample id; None for the most frequent condition.

    Raises:
        ConfigError: Naming the option.
    """
    data, schema = evaluation.data, evaluation.schema
    if len(texts) > 2:
        what = f"--sweep is given {len(texts)} times"
        raise ConfigError(
            Problem(what, "two fields at most; sweep the others in runs of their own")
        )
    named = [(*_field(text, data, schema), text) for text in texts]
    if len(named) == 2 and named[0][0] == named[1][0]:
        what = f"both --sweep are of {named[0][0].name}"
        raise ConfigError(Problem(what, "give one of them"))
    base = _base(evaluation, base_sample)
    words = {f.name: _words(f, said, text, schema) for f, said, text in named if f.is_text}
    axes = []
    for field, said, text in named:
        values = words.get(field.name)
        if values is None:
            drugs = _drugs(field, data.conditions.iloc[base], words, text)
            values = _numbers(field, said, text, data.fields, drugs)
        elif any(f.drug == field.name for f, *_ in named):
            values = _with_a_dose(values, said, text)
        axes.append(Axis(field, values))
    chosen = read_regions(regions, data)
    mesh = np.meshgrid(*(np.arange(len(axis.values)) for axis in axes), indexing="ij")
    points = pd.DataFrame(
        {a.field.name: a.values[at.ravel()] for a, at in zip(axes, mesh, strict=True)}
    )
    predicted = data.num_regions if evaluation.settings.data.regions_per_window > 1 else len(chosen)
    if predicted * len(points) > MOST_ROWS:
        what = f"{counted(predicted, 'region')} at {counted(len(points), 'point')} are too many"
        fix = f"{MOST_ROWS:,} predictions are the most; take fewer points, or fewer --regions"
        raise ConfigError(Problem(f"--sweep: {what}", fix))
    names = [axis.field.name for axis in axes]
    names += [each.name for each in data.fields if each.drug in names]
    flagged = tuple(f"{name} " for name in names)
    sweep = Sweep(axes, base, chosen, points, _conditions(data, base, points), flagged)
    others = [f for f in data.fields if f.name not in points]
    log.info("sweep: %s at %s; all else as in sample %s: %s",
             counted(len(chosen), "region"), counted(len(points), "point"), data.sample_id[base],
             condition_words(data.conditions, others)[base])  # fmt: skip
    return sweep


def read_regions(text: str | None, data: ExpressionData) -> np.ndarray:
    """Rows of the region table, ascending, that `--regions` names by region or gene.

    Raises:
        ConfigError: Naming the ids that the table does not hold.
    """
    if text is None:
        return np.arange(data.num_regions)
    known = {*data.region_id, *(gene for gene in data.gene_id if gene is not None)}
    ids = [text] if text in known else _listed(text)
    wanted = [each.strip() for each in ids]
    wanted = [each for each in wanted if each and not each.startswith("#")]
    missing = [each for each in dict.fromkeys(wanted) if each not in known]
    if missing or not wanted:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        what = f"{data.source} holds no region or gene {', '.join(missing[:5])}{more}"
        near = nearest(missing[0], known) if missing else None
        fix = f"did you mean {near}?" if near else "name region or gene ids, or a file of them"
        raise ConfigError(Problem(what if missing else "names no region", fix, f"--regions {text}"))
    mask = np.isin(data.region_id.astype(str), wanted) | np.isin(data.gene_id.astype(str), wanted)
    return np.flatnonzero(mask)


def _listed(text: str) -> list[str]:
    """The lines of a file, or what stands between commas.

    Raises:
        ConfigError: Where the file cannot be read.
    """
    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):  # too long for a path, or no path at all
        is_file = False
    if not is_file:
        return text.split(",")
    try:
        return Path(text).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot be read as text: {error}"
        raise ConfigError(Problem(what, "save it as UTF-8, one id per line", file=text)) from None


def _base(evaluation: Evaluation, asked: str | None) -> int:
    """The sample that all but the swept fields are taken from.

    Raises:
        ConfigError: Where the table holds no sample of that id.
    """
    data = evaluation.data
    if asked is not None:
        at = np.flatnonzero(data.sample_id == asked)
        if not len(at):
            near = nearest(asked, data.sample_id)
            some = ", ".join(data.sample_id[:5])
            fix = f"did you mean {near}?" if near else f"it holds {some}, ..."
            raise ConfigError(Problem(f"--base-sample: {data.source} holds no {asked}", fix))
        return int(at[0])
    train = evaluation.part == TRAIN
    counted_rows = data.sample_index[train] if train.any() else data.sample_index
    of = "the training rows" if train.any() else "the rows"
    first = data.condition_first
    rows = np.bincount(data.condition[counted_rows], minlength=len(first))
    base = int(first[rows == rows.max()].min())
    log.info("sweep: the base is the condition of most of %s in %s (%d of %d)", of, data.source,
             rows.max(), rows.sum())  # fmt: skip
    return base


def _refuse(text: str, what: str, fix: str) -> ConfigError:
    return ConfigError(Problem(what, fix, file=f"--sweep {text}"))


def _field(text: str, data: ExpressionData, schema: FeatureSchema) -> tuple[ConditionField, str]:
    """The field that an option names, by any of its headers, and what it says of it."""
    name, sign, said = text.partition("=")
    learned = {name for name, varied in schema.fields_of_numbers().items() if varied}
    learned |= {*schema.categories, *schema.doses}
    learned |= set(schema.drugs) if schema.drug_vocabulary else set()
    if not sign or not said.strip():
        raise _refuse(text, "says no values", _EXAMPLE)
    field_name = headers_of(data.fields).get(fold_header(name))
    if field_name is None:
        what = f"{name.strip()} is no growth condition"
        raise _refuse(text, what, did_you_mean(name.strip(), sorted(learned)))
    if field_name not in learned:
        what = f"{field_name} was the same or blank throughout training"
        fix = f"the model knows nothing of it; it has learned {', '.join(sorted(learned))}"
        raise _refuse(text, what, fix)
    return next(each for each in data.fields if each.name == field_name), said.strip()


def _words(field: ConditionField, said: str, text: str, schema: FeatureSchema) -> np.ndarray:
    """Words of a category or drug that training has seen."""
    known = schema.categories.get(field.name) or [NO_DRUG, *schema.drug_vocabulary]
    if fold(said) == "all":
        return np.array(known, dtype=object)
    spelled = {fold(word): word for word in known}

    def find(word: str) -> str | None:
        return spelled.get(fold(field.spellings.get(fold(word), word)))

    parts = [said] if find(said) else said.split(",")
    for part in parts:
        if find(part) is None:
            what = f"the model has never seen the {field.name} {part.strip() or '(blank)'}"
            raise _refuse(text, what, did_you_mean(part.strip(), known))
    return np.array(list(dict.fromkeys(find(part) for part in parts)), dtype=object)


def _with_a_dose(words: np.ndarray, said: str, text: str) -> np.ndarray:
    """Drugs whose dose is swept too: `all` means all but none."""
    if fold(said) == "all":
        return words[words != NO_DRUG]
    if (words == NO_DRUG).any():
        raise _refuse(text, f"{NO_DRUG} has no dose", "leave it out where the dose is swept too")
    return words


def _drugs(
    dose: ConditionField, base: pd.Series, words: dict[str, np.ndarray], text: str
) -> list[str]:
    """The drugs that a swept dose is of; none for other fields.

    Raises:
        ConfigError: Where there is no drug.
    """
    if dose.drug is None:
        return []
    drugs = words.get(dose.drug)
    found = [base[dose.drug]] if drugs is None else list(drugs)
    found = [drug for drug in found if drug is not None and drug != NO_DRUG]
    if not found:
        what = "the base condition has no drug, and a dose is of a drug"
        fix = f"give --base-sample of a sample with a drug, or --sweep {dose.drug}=DRUG too"
        raise _refuse(text, what, fix)
    return found


def _numbers(
    field: ConditionField,
    said: str,
    text: str,
    fields: Iterable[ConditionField],
    drugs: list[str],
) -> np.ndarray:
    """The points of a range, its ends read as cells of a table are."""
    match = _RANGE.fullmatch(said)
    if match is None:
        raise _refuse(text, f"'{said}' is no range", _EXAMPLE)
    count = int(match["count"])
    if not 2 <= count <= MOST_POINTS:
        raise _refuse(text, f"{count} points", f"take 2 to {MOST_POINTS}")
    low, high = _ends(field, [match["low"], match["high"]], text, fields, drugs)
    if not low < high:
        raise _refuse(text, f"{low:g} is not below {high:g}", "write the lower end first")
    if match["scale"] == "log" and low <= 0:
        raise _refuse(text, f"a log scale cannot begin at {low:g}", "begin above 0, or take lin")
    points = np.geomspace if match["scale"] == "log" else np.linspace
    return points(low, high, count)


def _ends(
    field: ConditionField,
    cells: list[str],
    text: str,
    fields: Iterable[ConditionField],
    drugs: list[str],
) -> np.ndarray:
    """Two cells in the canonical unit [2]; a mass per volume needs the drug beside it."""
    frame = pd.DataFrame({field.name: cells * max(len(drugs), 1)}, dtype=object)
    columns = [field]
    if drugs:
        frame[field.drug] = np.repeat(np.array(drugs, dtype=object), 2)
        columns += [each for each in fields if each.name == field.drug]
    table = RawTable(frame, "--sweep", decimal=".")
    read = read_conditions(table, {each.name: each.name for each in columns}, columns)
    wrong = [problem for finding in table.findings.errors for problem in finding.problems()]
    if wrong:
        problem = replace(wrong[0], file=f"--sweep {text}", row=None, column=None)
        raise ConfigError(problem)
    ends = read[field.name].to_numpy(np.float64).reshape(-1, 2)
    if np.isnan(ends).any():
        raise _refuse(text, "an end of the range is blank", _EXAMPLE)
    if not np.allclose(ends, ends[0], rtol=1e-6, atol=0):
        raise _refuse(text, "is another dose for every drug", "give it in mol/L, mM or µM")
    return ends[0]


def _conditions(data: ExpressionData, base: int, points: pd.DataFrame) -> pd.DataFrame:
    """All fields at every point, where dose 0 is no drug and no drug is dose 0, as in a table.

    A drug that takes the place of none has the dose of neither: it counts as not recorded.
    """
    out = data.conditions.iloc[np.full(len(points), base)].reset_index(drop=True)
    out[points.columns] = points
    for dose in (f for f in data.fields if f.kind == "dose" and f.drug in out):
        none = out[dose.drug] == NO_DRUG
        if dose.name in points:
            out[dose.drug] = out[dose.drug].mask(out[dose.name] == 0, NO_DRUG)
        elif dose.drug in points:
            unknown = ~none & ~(out[dose.name] > 0)
            out[dose.name] = out[dose.name].mask(unknown, np.nan).mask(none, 0.0)
            if unknown.any():
                log.info("sweep: the base has no %s, which counts as not recorded", dose.name)
    return out
