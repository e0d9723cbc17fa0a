"""`report.html`: one page about a run, in one file that opens without a network.

It is made last, of the files that the run wrote, and holds no script and no date: the same run
gives the same bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from yeast_get import __version__
from yeast_get.config import Settings
from yeast_get.evaluation.page_words import SAID_IN_CHINESE, WORDS
from yeast_get.run_dir import RunDir, write_text

PICTURES = (
    "scatter",
    "conditions",
    "residuals",
    "residuals_by_condition",
    "calibration",
    "history",
    "feature_importance",
    "motif_conditions",
    "sweep",
    "knockout",
    "embeddings",
)
"""Files `plots/NAME.png` in the order of the page; the name is also the key of the caption."""

STYLE = """
body { margin: 0; background: #fff; color: #1a1a1a; line-height: 1.5;
  font-family: system-ui, "Noto Sans", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: 0.5rem 0 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; border-bottom: 1px solid #ccc; }
p, li, dd { overflow-wrap: anywhere; }
.quiet { color: #555; font-size: 0.9rem; }
.verdict { border-left: 0.4rem solid #0072b2; background: #eef5fa; padding: 0.7rem 1rem;
  font-size: 1.1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; }
th { vertical-align: bottom; word-break: keep-all; }
td { white-space: nowrap; }
th:first-child, td:first-child, td.reason { text-align: left; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
td.reason { color: #555; }
tr.model td { font-weight: bold; background: #eef5fa; }
dl { display: grid; grid-template-columns: fit-content(40%) minmax(0, 1fr); gap: 0.2rem 1rem;
  margin: 0.5rem 0; }
dt { color: #555; }
dd { margin: 0; }
figure { margin: 1.5rem 0; break-inside: avoid; }
img { display: block; max-width: 100%; height: auto; border: 1px solid #ddd; }
figcaption { margin-top: 0.3rem; }
pre { background: #f4f4f4; padding: 0.7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
ul.files { columns: 18rem; padding-left: 1.2rem; }
@media print { main { max-width: none; } pre { border: 1px solid #ccc; } }
"""


def write_page(run: RunDir, settings: Settings, trained: Mapping[str, Any], command: str) -> None:
    """Write `report.html` of a run whose other files are all written.

    Args:
        run: The run; `data_report.json` is read, and of `metrics.json`, the pictures and the list
            of files what is there.
        settings: `experiment.name`, `split` and `report.language` are read.
        trained: What was loaded and trained, as in `manifest.json`.
        command: The command line that made the run.
    """
    page = _Page(settings, _read(run.data_report), _read(run.metrics))
    parts = [
        page.head(),
        *page.judgement(),
        *page.pictures(run.plots),
        *page.table_read(),
        *page.model(trained),
        *page.warnings(),
        *page.made_by(command, run.names()),
        "</main></body></html>\n",
    ]
    write_text(run.report, "\n".join(parts))


def _read(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none."""
    values: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return values


class _Page:
    """The sections of the page, each a list of pieces of HTML."""

    def __init__(self, settings: Settings, report: dict[str, Any], metrics: dict[str, Any]) -> None:
        self.settings, self.report, self.metrics = settings, report, metrics
        self.words = WORDS[settings.report.language]

    def say(self, key: str, **values: Any) -> str:
        """A sentence as HTML; every value in it is escaped."""
        return escape(self.words[key].format(**values))

    def named(self, text: object) -> str:
        """A name or reason of another module, in the language of the page."""
        known = SAID_IN_CHINESE if self.settings.report.language == "zh" else {}
        return known.get(str(text), str(text))

    def head(self) -> str:
        """The title."""
        title = self.say("title", name=self.settings.experiment.name)
        return (
            f'<!DOCTYPE html>\n<html lang="{self.words["lang"]}"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{STYLE}</style></head>\n<body><main>\n<h1>{title}</h1>"
            f'\n<p class="quiet">{self.say("subtitle", version=__version__)}</p>'
        )

    def judgement(self) -> list[str]:
        """The verdict, and the scores that it rests on."""
        html = [f'<p class="verdict">{self.verdict()}</p>']
        if self.settings.training.shuffle_targets:
            html.insert(0, f'<p class="verdict">{self.say("control")}</p>')
        if not self.metrics:
            return html
        html += [f"<p>{line}</p>" for line in self.limits()]
        if self.metrics["overall"] is not None and self.metrics["overall"]["n"]:
            html += self.beside_baselines()
        tables = {"by_split": "part", "by_drug": "drug", "by_target": "target", "by_gene": "target"}
        for key, first in tables.items():
            scores = self.metrics.get(key)
            if scores:
                html.append(f"<h2>{self.say(key)}</h2>")
                html.append(self.score_table(first, scores))
            if scores and key == "by_split":
                html.append(f'<p class="quiet">{self.say("by_split_note")}</p>')
        return html

    def verdict(self) -> str:
        """Two sentences: how good predictions of what was held out are, and as against what."""
        metrics = self.metrics
        if not metrics:
            return self.say("verdict_predicted", n=f"{self.report['rows']:,}")
        if metrics["overall"] is None:
            rows = metrics["overlap_with_training"]["rows_by_part"]
            return self.say("verdict_mixed", n=f"{rows['train'] + rows['val']:,}")
        overall, held = metrics["overall"], self.held_out(metrics["part"])
        if not overall["n"]:
            return self.say("verdict_none", held=held)
        n, r = f"{overall['n']:,}", overall["pearson"]
        if r is None:
            return self.say(
                "verdict_undefined", n=n, held=held, reason=self.named(overall["pearson_reason"])
            )
        drawn = metrics["intervals"]
        of = self.words["verdict_of"].format(**drawn) if drawn["over"] else ""
        inside = self.interval(overall.get("ci95", {}).get("pearson"))
        first = self.say("verdict", n=n, of=of, held=held, r=_number(r), interval=inside)
        return f"{first}{self.words['between']}{self.against_baseline()}"

    def against_baseline(self) -> str:
        """The second sentence."""
        beats = self.metrics["beats_best_baseline_by"]
        by = beats["pearson"]
        if by is None:
            return self.say("not_compared", reason=self.named(beats["pearson_reason"]))
        low, high = beats["pearson_ci95"] or (by, by)
        key = "beats" if low > 0 else "loses" if high < 0 else "draws"
        best = self.metrics["baselines"][beats["name"]]["overall"]["pearson"]
        shown = f"{abs(by):.3f}" if key == "beats" else f"{by:+.3f}"
        inside = self.interval(beats["pearson_ci95"], "+.3f")
        name = self.named(beats["name"])
        return self.say(key, name=name, r=_number(best), by=shown, interval=inside)

    def interval(self, ends: list[float] | None, digits: str = ".3f") -> str:
        """A bracket with an interval, as plain text; nothing where there is none."""
        if ends is None:
            return ""
        low, high = (format(end, digits) for end in ends)
        return self.words["verdict_interval"].format(low=low, high=high)

    def held_out(self, part: str) -> str:
        """What is special about the rows of a part, as plain text."""
        split = self.settings.split
        if part == "test":
            return self.words[f"held_{split.by}"].format(column=split.column)
        return self.words[f"held_{part}"]

    def limits(self) -> list[str]:
        """What no model can reach, and how sure predictions are."""
        lines = []
        replicates = self.metrics.get("replicates", {})
        if replicates.get("ceiling") is not None:
            r, ceiling = _number(replicates["pearson"]), _number(replicates["ceiling"])
            lines.append(self.say("ceiling", r=r, ceiling=ceiling))
        sure = self.metrics.get("uncertainty")
        if not sure:
            return lines
        if sure.get("members", 1) > 1:
            lines.append(self.say("members", n=sure["members"]))
        if sure["covered"] is not None:
            covered, level = f"{sure['covered']:.1%}", f"{sure['level']:.0%}"
            width, on = f"{sure['mean_width']:.3g}", self.counted_groups(sure)
            lines.append(self.say("uncertainty", covered=covered, level=level, width=width, on=on))
        elif sure["groups"] is not None and sure["groups"] < sure["needed"]:
            few = self.counted_groups(sure)
            lines.append(self.say("uncertainty_few", on=few, needed=sure["needed"]))
        elif sure.get("reason"):
            lines.append(self.say("uncertainty_none", reason=self.named(sure["reason"])))
        return lines

    def counted_groups(self, sure: dict[str, Any]) -> str:
        """What intervals were learned from, such as "56 regions"."""
        return self.say(f"over_{sure['over']}", n=sure["groups"])

    def beside_baselines(self) -> list[str]:
        """The table of the model and its baselines."""
        scores = {self.words["model"]: self.metrics}
        best = self.metrics["beats_best_baseline_by"]["name"]
        for name, summary in self.metrics["baselines"].items():
            said = self.named(name)
            scores[f"{said} ({self.words['best']})" if name == best else said] = summary
        drawn = self.metrics["intervals"]
        how = (
            self.say(f"drawn_{drawn['over']}", n=f"{drawn['resamples']:,}")
            if drawn["over"]
            else self.say("drawn_none", reason=self.named(drawn["reason"]))
        )
        n = f"{self.metrics['overall']['n']:,}"
        return [
            f"<h2>{self.say('scores')}</h2>",
            self.score_table("predictor", scores, with_intervals=True),
            f'<p class="quiet">{self.say("scores_note", n=n)} {how}</p>',
        ]

    def score_table(
        self, first: str, scores: Mapping[str, Any], *, with_intervals: bool = False
    ) -> str:
        """A line per summary (see `metrics.summarise`), or the reason why there is none."""
        keys = [first, *([] if with_intervals else ["n"]), "pearson"]
        keys += ["interval"] if with_intervals else []
        keys += ["spearman", "r2", "rmse", "mae", "across", "within"]
        head = "".join(f"<th>{self.say(key)}</th>" for key in keys)
        lines = [f"<tr>{head}</tr>"]
        for name, summary in scores.items():
            cells = [f"<td>{escape(name)}</td>"]
            if summary["overall"] is None:
                why = f"{self.words['undefined']}: {self.named(summary['overall_reason'])}"
                cells.append(f'<td class="reason" colspan="{len(keys) - 1}">{escape(why)}</td>')
            else:
                cells += [f"<td>{self.cell(key, summary)}</td>" for key in keys[1:]]
            kind = ' class="model"' if summary is self.metrics else ""
            lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
        return f'<div class="scroll"><table>{"".join(lines)}</table></div>'

    def cell(self, key: str, summary: Mapping[str, Any]) -> str:
        """One score as HTML, a dash where it is undefined."""
        overall = summary["overall"]
        if key == "n":
            return f"{overall['n']:,}"
        if key == "interval":
            ends = overall.get("ci95", {}).get("pearson")
            return "–" if ends is None else f"{ends[0]:.3f} – {ends[1]:.3f}"
        if key in ("across", "within"):
            return _number(summary[f"{key}_region_pearson"])
        return _number(overall[key])

    def pictures(self, folder: Path) -> Iterable[str]:
        """The pictures that are there, inside the page."""
        there = [name for name in PICTURES if (folder / f"{name}.png").exists()]
        if there:
            yield f"<h2>{self.say('pictures')}</h2>"
        for name in there:
            held = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
            caption = self.say(name)
            yield (
                f'<figure><img src="data:image/png;base64,{held}" alt="{caption}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )

    def table_read(self) -> list[str]:
        """What the table holds, how it was split, and what of it was trained on."""
        report, target = self.report, self.report.get("target", {})
        facts: dict[str, Any] = {
            "source": report["source"],
            "fingerprint": report["sha256"],
            "regions": report["regions"],
            "samples": report["samples"],
            "conditions_n": report["condition_signatures"],
            "rows": report["rows"],
            "measured": report["measured"],
        }
        if report["measured"]:
            facts["target_range"] = f"{target['lowest']:.4g} – {target['highest']:.4g}"
            facts["target_mean"] = f"{target['mean']:.4g} ± {target['sd']:.4g}"
            facts["transform"] = self.named(target["transform"])
        if report.get("rows_left_out"):
            facts["left_out"] = report["rows_left_out"]
        overlap = report.get("overlap_with_training") or self.metrics.get("overlap_with_training")
        rows = report["split"]["rows"] if "split" in report else (overlap or {})["rows_by_part"]
        line = "".join(
            f"<tr><td>{escape(name)}</td><td>{n:,}</td></tr>" for name, n in rows.items() if n
        )
        html = [
            f"<h2>{self.say('data')}</h2>",
            self.facts(facts),
            f"<h2>{self.say('split')}</h2>",
            self.facts({"split_by": self.held_out("test")}),
            f'<div class="scroll"><table><tr><th>{self.say("part")}</th>'
            f"<th>{self.say('rows')}</th></tr>{line}</table></div>",
        ]
        if overlap:
            html += [
                f"<h2>{self.say('overlap')}</h2>",
                f"<p>{self.say('overlap_note', **overlap)}</p>",
            ]
        return html

    def model(self, trained: Mapping[str, Any]) -> list[str]:
        """What of the model was loaded from a file, and what was trained."""
        loaded, adapters = trained.get("pretrained"), trained.get("lora")
        facts = {
            key: trained["model"][key]
            for key in ("parameters", "trainable", "lora", "frozen")
            if trained["model"].get(key)
        }
        if adapters:
            facts["lora_modules"] = len(adapters["modules"])
        facts["pretrained"] = loaded["file"] if loaded else self.words["scratch"]
        if loaded:
            facts["loaded"] = "{:,} / {:,}".format(*loaded["backbone"])
        facts |= {
            key: trained["training"][key]
            for key in ("epochs", "best_epoch")
            if key in trained["training"]
        }
        facts["software"] = trained["software"]
        return [f"<h2>{self.say('trained')}</h2>", self.facts(facts)]

    def facts(self, values: Mapping[str, Any]) -> str:
        """A list of what is known, whole numbers with their thousands set off."""
        lines = [
            f"<dt>{self.say(key)}</dt>"
            f"<dd>{escape(f'{value:,}' if isinstance(value, int) else str(value))}</dd>"
            for key, value in values.items()
        ]
        return f"<dl>{''.join(lines)}</dl>"

    def warnings(self) -> list[str]:
        """What was found in the table and did not stop the run."""
        lines = "".join(f"<li>{escape(each)}</li>" for each in self.report["warning_lines"])
        said = f"<ul>{lines}</ul>" if lines else f"<p>{self.say('no_warnings')}</p>"
        return [f"<h2>{self.say('warnings')}</h2>", said]

    def made_by(self, command: str, names: Iterable[str]) -> list[str]:
        """How to make the run again, and what it wrote."""
        files = "".join(f"<li>{escape(name)}</li>" for name in names)
        return [
            f"<h2>{self.say('command')}</h2>",
            f"<pre>{escape(command)}</pre>",
            f"<h2>{self.say('files')}</h2>",
            f'<ul class="files">{files}</ul>',
        ]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
