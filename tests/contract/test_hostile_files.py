"""Hostile checkpoints and settings end in one line and exit code 2; none runs code or hangs.

More than 300 are made of the small files in `tests/fixtures/checkpoints`, in this process: no
training, no subprocess.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import signal
import zipfile
from pathlib import Path

import pytest
import torch

import evaluate_yeast
import train_yeast
from yeast_get.evaluation.boosting import Boosted

SECONDS = 20
"""For one file; it takes a few hundredths of a second where the machine is not busy."""

FLIPS = int(os.environ.get("YEAST_GET_HOSTILE", "40"))
"""Files with a flipped bit; `make nightly` asks for more."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folder of the fixtures, and a scratch folder."""
    here = os.path.join(os.path.dirname(__file__), "..", "fixtures", "checkpoints")
    return os.path.normpath(here), tmp_path_factory.mktemp("hostile")


def ends(command, capsys, *arguments: object) -> tuple[int, str]:
    """Exit code of a command, and what it said on stderr; fails where it takes too long."""

    def stop(*_):
        raise TimeoutError(f"{arguments} takes longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    capsys.readouterr()
    try:
        command.main([str(each) for each in arguments], standalone_mode=False)
        code = 0
    except SystemExit as stopped:
        code = stopped.code
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return code, capsys.readouterr().err


def refused(command, capsys, *arguments: object) -> str:
    """The one line with which a command ends."""
    code, said = ends(command, capsys, *arguments)
    assert code == 2, f"{arguments}: {code}, {said}"
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    assert lines[0].startswith("error: ")
    assert lines[0].isprintable()
    assert len(lines[0]) < 1100
    return lines[0]


def look(kept, capsys, path, **options):
    """Refuse a checkpoint that is evaluated."""
    table = ("--data", f"{kept[0]}/table.csv", "--check", "--device", "cpu")
    return refused(evaluate_yeast, capsys, "--model", path, *table)


def changed(kept, name, change, to="changed.pth"):
    """A fixture with something else in it."""
    values = torch.load(f"{kept[0]}/{name}.pth", weights_only=True)
    change(values)
    path = kept[1] / to
    torch.save(values, path)
    return path


# ----------------------------------------------------------------------------- damaged files


def test_a_file_cut_at_every_kilobyte(kept, capsys):
    whole = Path(kept[0], "layout3.pth").read_bytes()
    for length in range(0, len(whole), 1024):
        (kept[1] / "cut.pth").write_bytes(whole[:length])
        look(kept, capsys, kept[1] / "cut.pth")
    assert len(whole) > 30_000


def test_flipped_bits_are_found_or_change_nothing(kept, capsys):
    whole = Path(kept[0], "layout3.pth").read_bytes()
    rng = random.Random(0)
    found = 0
    for _ in range(FLIPS):
        at = rng.randrange(len(whole))
        flipped = whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :]
        (kept[1] / "flip.pth").write_bytes(flipped)
        table = ("--data", f"{kept[0]}/table.csv", "--check", "--device", "cpu")
        code, said = ends(evaluate_yeast, capsys, "--model", kept[1] / "flip.pth", *table)
        assert (code, len(said.splitlines())) in ((0, 0), (2, 1)), said
        found += code == 2
    assert found > FLIPS // 3  # the others fell into bytes between the records


# -------------------------------------------------------------------------------- run no code


class Runs:
    """Unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (os.system, (f"touch '{self.marker}'",))


def payloads(kept):
    """Files that would make a marker where they are unpickled."""
    evil = Runs(kept[1] / "marker")
    for place in ("settings", "schema", "model", "lora", "resume"):
        yield changed(kept, "layout3", lambda values, place=place: values[place].update(x=evil))
    yield changed(kept, "layout3", lambda values: values.update(software=evil))
    path = kept[1] / "evil.pth"
    path.write_bytes(pickle.dumps(evil))
    yield path
    torch.save(evil, path)
    yield path
    torch.save(evil, path, _use_new_zipfile_serialization=False)
    yield path
    whole = io.BytesIO(Path(kept[0], "layout3.pth").read_bytes())
    for name in ("../../x/data.pkl", "archive/data.pkl", "archive/DATA.PKL"):
        with zipfile.ZipFile(whole) as records, zipfile.ZipFile(path, "w") as other:
            for each in records.infolist():
                other.writestr(each.filename, records.read(each))
            other.writestr(name, pickle.dumps(evil, protocol=2))
        yield path


def test_no_payload_is_run_by_either_command(kept, capsys):
    for count, path in enumerate(payloads(kept)):
        if path.name == "evil.pth" and count > 10:
            code, said = ends(evaluate_yeast, capsys, "--model", path, "--check", "--device", "cpu",
                              "--data", f"{kept[0]}/table.csv")  # fmt: skip
            assert code in (0, 2)  # a record more that no one reads harms no one
            assert "Traceback" not in said
        else:
            look(kept, capsys, path)
            base = ("--set", f"finetune.checkpoint={path}", "--check", "--device", "cpu")
            refused(train_yeast, capsys, *base)
        assert not (kept[1] / "marker").exists()
    assert count == 11


# -------------------------------------------------------------------------- what cannot be so

NAN = float("nan")
WRONG = [None, 3, "text", [1], {"x": 1}, torch.zeros(2), 10**30, ["a"] * 3, NAN, {1: {2: {}}}]
PARTS = ["settings", "schema", "model", "trained_rows", "baselines", "lora", "load_report",
         "members", "calibration", "seen_regions", "software", "format"]  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_another_kind(kept, capsys, part):
    for value in WRONG:
        if isinstance(value, str | int) and (part, value) in (("software", "text"), ("format", 3)):
            continue
        path = changed(kept, "layout3", lambda values, value=value: values.update({part: value}))
        look(kept, capsys, path)


def put(*keys):
    """A change that puts the last of the keys at the place that the others name."""

    def change(values):
        *path, last, value = keys
        for key in path:
            values = values[key]
        values[last] = value

    return change


SIZE = ("settings", "model", "transformer")
NESTED = [
    put(*SIZE, "embed_dim", 65536),
    put(*SIZE, "embed_dim", 10**9),
    put(*SIZE, "num_layers", 1000),
    put(*SIZE, "num_layers", -1),
    put("settings", "model", "fusion", "hidden_dim", 65536),
    put("settings", "data", "regions_per_window", 10**12),
    put("settings", "training", "batch_size", 0),
    put("settings", "conditions", "extra", {"../x": {"kind": "number"}}),
    put("settings", "conditions", "extra", 7),
    put("settings", "data", "motif_columns", [["a"]]),
    put("schema", "motif_names", ["motif_a"]),
    put("schema", "motif_names", [1, 2]),
    put("schema", "scale", [0.0, 1.0]),
    put("schema", "scale", [NAN, 1.0]),
    put("schema", "center", [1e300, 1.0]),
    put("schema", "with_presence", [10**6]),
    put("schema", "with_presence", [-1]),
    put("schema", "target_transform", "eval"),
    put("schema", "target_mean", []),
    put("schema", "target_names", ["a", "b", "c"]),
    put("schema", "numbers", [{"name": "temperature"}]),
    put("schema", "categories", {"medium": ["x"] * 100_000}),
    put("schema", "drugs", {"drug": 3}),
    put("schema", "c0", {"drug_concentration": {"": -1.0}}),
    put("schema", "known_regions", [1.5]),
    put("schema", "doses", {"drug_concentration": {"h2o2": [1.0]}}),
    put("schema", "accessibility", {"center": 1.0}),
    put("model", "cls_token", torch.full((1, 1, 8), NAN)),
    put("model", "cls_token", torch.zeros(1, 1, 8, dtype=torch.float64)),
    put("model", "cls_token", torch.zeros(1, 1, 9)),
    put("model", "cls_token", torch.zeros(1).expand(1, 1, 10**12)),
    put("model", "cls_token", torch.zeros(1, 1, 8).to_sparse()),
    put("model", "cls_token", torch.zeros(1, 1, 8, device="meta")),
    put("model", "encoder.blocks.999.norm1.weight", torch.zeros(8)),
    put("members", [{}]),
    put("members", [{"cls_token": torch.zeros(1, 1, 8)}]),
    put("trained_rows", "region_hash", torch.zeros(1, dtype=torch.int64)),
    put("trained_rows", "region_hash", torch.zeros(60)),
    put("trained_rows", "part", torch.full((240,), 77, dtype=torch.uint8)),
    put("trained_rows", "cell", torch.full((240,), -5)),
    put("trained_rows", "cell", torch.full((240,), 10**15)),
    put("trained_rows", "field_names", ["a"]),
    put("trained_rows", "sample_hash", "x"),
    put("baselines", "global_mean", torch.zeros(3)),
    put("baselines", "global_mean", torch.full((1,), 1e300, dtype=torch.float64)),
    put("baselines", "region_keys", torch.zeros(3)),
    put("baselines", "one_dimensional", "yes"),
    put("baselines", "one_dimensional", True),
    put("baselines", "ridge", "region_scale", torch.zeros(2, 3)),
    put("baselines", "ridge", "bilinear", torch.zeros(1, 1, 1)),
    put("baselines", "usual", {"medium": 3}),
    put("baselines", "boosted", ["tree\nnum_leaves=9999999999\n"]),
    put("calibration", "over", "<script>"),
    put("calibration", "scale", [1.0, 2.0]),
    put("calibration", "scale", [-1.0]),
    put("calibration", "quantiles", [[None] * 9 + [-1.0]]),
    put("lora", {"base": ["x"]}),
    put("lora", {"base": 5}),
    put("lora", {"base": [[1]]}),
    put("lora", {"modules": [], "base": ["x"], "base_file": 1, "base_sha256": ""}),
    put("trained_rows", "part", torch.zeros(240, dtype=torch.bfloat16)),
    put("calibration", "quantiles", [[1.0]]),
    put("calibration", "quantiles", [["a"] * 10]),
    put("calibration", "groups", [10**30]),
    put("seen_regions", "center", torch.zeros(99)),
    put("seen_regions", "precision", torch.full((2, 2), NAN)),
    put("seen_regions", "limit", "far"),
]


@pytest.mark.parametrize("at", range(len(NESTED)))
def test_what_is_wrong_inside_of_a_part(kept, capsys, at):
    look(kept, capsys, changed(kept, "layout3", NESTED[at]))


NO_HASHES = {"region_hash": torch.zeros(60).long(), "sample_hash": torch.zeros(4).long()}
ODD = [
    [
        put("schema", "target_mean", [1e36]),
        put("baselines", "region_means", torch.full((42, 1), 1e36).double()),
        put("baselines", "condition_effects", torch.full((3, 1), -1e36).double()),
        put("calibration", "scale", [1e36]),
        put("seen_regions", "center", torch.full((2,), 1e36)),
    ],
    [
        put("schema", "target_names", ["=cmd|<script>../../x"]),
        put("baselines", "global_mean", torch.full((1,), NAN).double()),
        put("calibration", "quantiles", [[None] * 10]),
        put("calibration", "groups", [-5]),
        put("seen_regions", "limit", NAN),
        put("trained_rows", "part", torch.full((240,), 4, dtype=torch.uint8)),
        put("software", "\033[2J"),
    ],
    [
        put("schema", "doses", {"drug_concentration": {"h2o2": [NAN, NAN]}}),
        put("baselines", "region_keys", torch.zeros(42).long()),
        put("calibration", "quantiles", [[1e36] * 10]),
        put("seen_regions", "precision", -torch.ones(2, 2)),
        put("trained_rows", "cell", torch.zeros(240).long()),
        lambda values: values["trained_rows"].update(NO_HASHES),
    ],
]


@pytest.mark.parametrize("at", range(len(ODD)))
def test_what_is_odd_and_can_be_so_ends_no_evaluation(kept, capsys, at):
    """`--check` stops before rows are scored; these files go all the way."""
    path = changed(kept, "layout3", lambda values: [change(values) for change in ODD[at]])
    table = ("--data", f"{kept[0]}/table.csv", "--device", "cpu", "--set", "report.enabled=false")
    output = kept[1] / f"odd{at}"
    code, said = ends(evaluate_yeast, capsys, "--model", path, *table, "--output", output)
    assert code == 0, said
    json.loads((output / "metrics.json").read_text(), parse_constant=pytest.fail)


def test_values_without_end(kept, capsys):
    endless = []
    endless.append(endless)
    laughs = ["ha"]
    for _ in range(28):
        laughs = [laughs, laughs]
    deep = {}
    for _ in range(300):
        deep = {"a": deep}
    for value in (laughs, deep):
        for part in ("settings", "schema", "resume", "scores"):
            look(kept, capsys, changed(kept, "layout3", put(part, "x", value)))
    look(kept, capsys, changed(kept, "layout3", put("schema", "motif_names", endless)))


RECORD = [
    put("lora", "modules", ["no.such.map"]),
    put("lora", "modules", ["encoder"]),
    put("lora", "modules", 3),
    put("lora", "base", ["no.such.tensor"]),
    put("lora", "base", []),
    put("lora", "base_sha256", "0" * 64),
    put("lora", "base_file", 3),
    put("load_report", "columns", [10**6]),
    put("load_report", "columns", [-1]),
    put("load_report", "columns", ["a"]),
    put("load_report", "backbone", 3),
    put("settings", "lora", "rank", 60_000),
    put("settings", "model", "transformer", "embed_dim", 4096),
    put("settings", "model", "encoder", "mlp_ratio", 99.0),
    put("settings", "task", "stage", "pretrain"),
]


@pytest.mark.parametrize("at", range(len(RECORD)))
def test_an_adapter_that_contradicts_itself_or_its_base(kept, capsys, at):
    path = changed(kept, "layout3_adapter", RECORD[at])
    base = f"{kept[0]}/layout3_base.pth"
    refused(evaluate_yeast, capsys, "--model", path, "--base", base, "--export", kept[1] / "e.pth")
    assert not (kept[1] / "e.pth").exists()


@pytest.mark.parametrize("name", ["layout3", "layout3_base"])
def test_what_a_training_starts_from(kept, capsys, name):
    where = "model" if name == "layout3" else "state_dict"
    qkv = "encoder.blocks.0.attn.qkv.weight"
    for change in (
        put(where, qkv, torch.full((24, 8), NAN)),
        put(where, qkv, torch.zeros(1).expand(30_000_000, 100_000)),
        put(where, "encoder.blocks.999999.attn.proj.weight", torch.zeros(8, 8)),
        put(where, "encoder.blocks.0.attn.proj.weight", torch.zeros(8)),
        put("features", {"names": ["a"], "scale": "x"}),
        put("features", {"names": [1, 2, 3], "center": [0.0], "offset": [], "scale": []}),
        put("features", {key: ["x"] * 3 for key in ("names", "center", "offset", "scale")}),
        put("trained_rows", {"part": torch.zeros(3)}),
        put("trained_rows", "x"),
        put("lora", {"base": 3}),
        put(where, "text"),
        put(where, {}),
    ):
        path = changed(kept, name, change)
        if name == "layout3_base" and "lora" in torch.load(path, weights_only=True):
            continue  # a word that means nothing there
        data = ("--data", f"{kept[0]}/table.csv", "--check", "--device", "cpu")
        refused(train_yeast, capsys, "--set", f"finetune.checkpoint={path}", *data)


ENDLESS = [torch.zeros(1, dtype=kind).expand(2**31) for kind in (torch.uint8, torch.int64)]
"""Claims to hold 2 ** 31 numbers, and takes seconds to look through; 2 ** 48 would take years."""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"part": ENDLESS[0], "cell": None}, "larger than"),
        ({"part": ENDLESS[0], "cell": ENDLESS[1]}, "larger than"),
        ({"part": torch.zeros(240, dtype=torch.bfloat16)}, "BFloat16"),
        ({"part": torch.zeros(240, dtype=torch.uint8).to_sparse()}, "larger than"),
    ],
)
def test_rows_that_a_training_starts_from(kept, capsys, rows, said):
    path = changed(kept, "layout3", lambda values: values["trained_rows"].update(rows))
    data = ("--data", f"{kept[0]}/table.csv", "--check", "--device", "cpu")
    assert said in refused(train_yeast, capsys, "--set", f"finetune.checkpoint={path}", *data)


def test_what_a_training_goes_on_from(kept, capsys):
    run = kept[1] / "run"
    run.mkdir()
    for change in (
        put("resume", {}),
        put("resume", 3),
        put("settings", "training", 3),
        put("settings", {1: 2}),
        put("load_report", []),
    ):
        changed(kept, "layout3", change, "run/last.pth")
        data = ("--data", f"{kept[0]}/table.csv", "--output", run, "--device", "cpu")
        refused(train_yeast, capsys, *data, "--resume")


def test_trees_that_would_end_the_process():
    """LightGBM trusts its files; see `boosting._checked`."""
    tree = {
        "num_leaves": "3", "num_cat": "0", "split_feature": "1 0", "threshold": "0.5 0.1",
        "decision_type": "2 2", "left_child": "1 -1", "right_child": "-2 -3",
        "leaf_value": "1 2 3",
    }  # fmt: skip

    def text(**other):
        lines = "\n".join(f"{key}={value}" for key, value in (tree | other).items())
        return f"tree\nmax_feature_idx=1\ntree_sizes=1\n\nTree=0\n{lines}\n\nend of trees\nrest"

    kept = Boosted.from_list([text()]).models[0]
    assert kept.startswith("tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\n")
    assert "leaf_value=1.0 2.0 3.0\n" in kept
    for more in ("shrinkage=1\rleft_child=90000000 1", "left_child=7 7\x0b", "left_child =7 7"):
        assert Boosted.from_list([text(**{"x": f"1\n{more}\nleft_child=1 -1"})]).models == [kept]
    for more in ("num_tree_per_iteration=0", "num_class=1000000", "tree_sizes=9",
                 "objective=multiclass num_class:1000"):  # fmt: skip
        assert Boosted.from_list([text().replace("\n\n", f"\n{more}\n\n", 1)]).models == [kept]
    for other in (
        {"left_child": "0 -1"}, {"left_child": "5 -1"}, {"right_child": "-9 -3"},
        {"left_child": "-1"}, {"split_feature": "7 0"}, {"leaf_value": "1 2"},
        {"num_leaves": "999999999"}, {"num_leaves": "-3"}, {"decision_type": "1 2"},
        {"threshold": "nan 1"}, {"num_cat": "5"}, {"is_linear": "1"}, {"num_cat": "x"},
        {"leaf_value": "1 2 1e300"}, {"leaf_value": "1 2 nan"}, {"decision_type": "2 300"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="LightGBM are damaged"):
            Boosted.from_list([text(**other)])


# ---------------------------------------------------------------------------------- settings

HUGE = "1" + "0" * 400
YAMLS = [
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b]",
    "a: &a [*a]",
    "a: " + "[" * 5000,
    "a: " + "{a: " * 5000,
    "? " * 5000,
    "\n".join(" " * i + "a:" for i in range(1100)),
    "a: 1\n" * 300_000,
    "\0" * 100,
    "data: {path: !!python/object/apply:os.system ['touch marker']}",
    "!!python/object:os.system {a: 1}",
    "data: {? [1, 2] : 3}",
    "1: 2",
    "data: {path: a, path: b}",
    'data: {sheet: "a\\0b"}',
    'data: {sheet: "\\ud800"}',
    'experiment: {name: "\\e[31m"}',
    "model: /dev/zero",
    "training: {compile: no}",
    "training: {batch_size: 1_000}",
    "training: {batch_size: 2026-01-01}",
    "training: {batch_size: !!set {a}}",
    "training: {batch_size: 1000000000000}",
    "training: {max_epochs: 1%s}" % ("0" * 5000),
    "training: {num_workers: 1000000}",
    "training: {ensemble: 1000000}",
    "training: {learning_rate: 1e400}",
    "training: {learning_rate: .inf}",
    "training: {learning_rate: .nan}",
    "training: {weight_decay: " + HUGE + "}",
    "experiment: {seed: " + HUGE + "}",
    "experiment: {seed: 9223372036854775808}",
    "split: {by: column, column: x, test: [" + HUGE + "]}",
    "model: {transformer: {embed_dim: 1000000000}}",
    "model: {transformer: {num_layers: 1000000000}}",
    "model: {transformer: {embed_dim: 65536, num_layers: 1000}}",
    "model: {head: {hidden_dim: 1000000000}}",
    "model: {encoder: {mlp_ratio: 1e9}}",
    "data: {regions_per_window: 1000000000}",
    "conditions: {extra: {'=cmd': {kind: number}}}",
]


@pytest.mark.parametrize("at", range(len(YAMLS)))
def test_settings_that_are_none(kept, capsys, at):
    path = kept[1] / "c.yaml"
    path.write_text(YAMLS[at])
    data = ("--data", f"{kept[0]}/table.csv", "--check", "--device", "cpu")
    refused(train_yeast, capsys, "--config", path, *data)
    key, _, value = YAMLS[at].partition(": ")
    if len(YAMLS[at]) < 10_000 and key.isalpha() and "\n" not in value and "\0" not in value:
        refused(train_yeast, capsys, "--set", f"{key}={value}", *data)


def test_a_key_of_many_parts(kept, capsys):
    deep = ".".join(["data"] * 5000) + "=1"
    refused(train_yeast, capsys, "--set", deep, "--check", "--data", f"{kept[0]}/table.csv")
    model = ("--model", f"{kept[0]}/layout3.pth", "--data", f"{kept[0]}/table.csv", "--check")
    refused(evaluate_yeast, capsys, *model, "--set", deep)
