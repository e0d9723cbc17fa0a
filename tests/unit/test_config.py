"""The YAML files as strict settings: what is read, what is refused and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from yeast_get.config import (
    ConfigError,
    ModelConfig,
    Settings,
    load_settings,
    settings_for_evaluation,
    settings_from_dict,
    write_settings,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def written(tmp_path):
    """Write a YAML and return its path."""

    def write(text: str, name: str = "c.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def refused(written):
    """The problems that a YAML, overrides and named options give, as text without the folder."""

    def refuse(text: str = "", overrides=(), named=None) -> str:
        path = written(text)
        with pytest.raises(ConfigError) as caught:
            load_settings(path, overrides, named)
        return str(caught.value).replace(f"{path.parent}/", "")

    return refuse


# ------------------------------------------------------------------------------ plain scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E+2", 100.0), (".5", 0.5), ("2", 2.0), ("2.", 2.0), ("010", 10.0)],
)
def test_numbers_are_numbers_however_they_are_written(written, text, value):
    settings = load_settings(written(f"training:\n  learning_rate: {text}\n"))
    assert settings.training.learning_rate == value


@pytest.mark.parametrize("text", ["no", "off", "yes", "2024-01-01", "1:30", "1_000", "0x10"])
def test_words_stay_words_and_never_become_something_else(written, text):
    assert load_settings(written(f"experiment: {{name: {text}}}")).experiment.name == text


def test_010_is_ten_and_not_eight(written):
    assert load_settings(written("training: {batch_size: 010}")).training.batch_size == 10


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False)])
def test_true_and_false_are_truth_values(written, text, value):
    assert load_settings(written(f"training: {{compile: {text}}}")).training.compile is value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training:\n  max_epochs: no", "c.yaml, line 2: training.max_epochs: 'no' does not fit"),
        ("training:\n  max_epochs: true", "line 2: training.max_epochs: True does not fit"),
        ("training:\n  max_epochs: 2.0", "training.max_epochs: 2.0 does not fit"),
        ("training:\n\n  compile: 1", "c.yaml, line 3: training.compile: 1 does not fit"),
        (
            "experiment: {name: 3}",
            "experiment.name: 3 does not fit: input should be a valid string",
        ),
        ("training: {loss: rmse}", "'mse', 'huber' or 'poisson'"),
        ("training: 3", "c.yaml, line 1: training: 3 does not fit"),
        ("data: {motif_columns: [1]}", "data.motif_columns.0: 1 does not fit"),
        ("data: {target_columns: [a, b, c]}", "at most 2 items"),
        ("conditions: {medium: {categories: {YPD: YEPD}}}", "categories.YPD: 'YEPD' does not fit"),
        ("conditions: {extra: {ph: {unit: ''}}}", "conditions.extra.ph.kind is missing; add it"),
        ("conditions: {extra: {ph: {kind: acid}}}", "conditions.extra.ph.kind: 'acid'"),
        ("conditions: {drug_concentration: {c0: x}}", "conditions.drug_concentration.c0: 'x'"),
    ],
)
def test_a_wrong_type_is_refused_with_its_line(refused, text, said):
    assert said in refused(text)


@pytest.mark.parametrize(
    "pair",
    [
        "training.batch_size=-1", "training.learning_rate=0", "training.learning_rate=.nan",
        "training.learning_rate=1e999", "training.weight_decay=-1", "training.ema_decay=1",
        "model.head.dropout=1.0", "augmentation.motif_dropout=-0.1", "experiment.seed=-1",
        "data.regions_per_window=0", "split.fractions=[0.5, 0.5]", "optimizer.betas=[0.9]",
        "conditions.temperature.limits=[0]", "conditions.drug_concentration.c0=0",
        "conditions.drug_concentration.molar_mass={H2O2: 0}", "task.importance_rows=0",
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused(refused, pair):
    dotted = pair.partition("=")[0]
    said = refused(overrides=[pair])
    assert f"--set {pair}: {dotted}" in said
    assert "does not fit: input should be" in said or "does not fit: list should" in said


@pytest.mark.parametrize(
    "text", ["/data/酵母\u3000实验/t.csv", "a\u00a0b", "expr\n(log2)", "👩\u200d🔬\tx"]
)
def test_a_text_may_hold_whatever_people_write(text):
    settings = load_settings(None, named={"data.path": text, "data.target_columns": [text]})
    assert settings.data.path == text
    assert settings_from_dict(settings.to_dict(), "c.pth") == settings


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\x9b", "\ud800"])
def test_a_control_character_is_refused(refused, character):
    said = refused(named={"data.target_columns": [f"a{character}"]})
    assert said == "data.target_columns holds a control character; write it anew"


# ------------------------------------------------------------------------------- unknown keys


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainin: {}", "c.yaml, line 1: unknown key trainin; did you mean training?"),
        (
            "training:\n  loss: mse\n  learning_rat: 1e-3",
            "c.yaml, line 3: unknown key training.learning_rat; "
            "did you mean training.learning_rate?",
        ),
        ("model:\n  head:\n    knd: mlp", "line 3: unknown key model.head.knd; "
         "did you mean model.head.kind?"),
        ("conditions:\n  temprature: {}", "line 2: unknown key conditions.temprature; "
         "did you mean conditions.temperature?"),
        ("conditions:\n  drug:\n    alias: []", "unknown key conditions.drug.alias; "
         "did you mean conditions.drug.aliases?"),
        ("conditions:\n  extra:\n    ph:\n      kind: number\n      limit: [0, 14]",
         "line 5: unknown key conditions.extra.ph.limit; did you mean conditions.extra.ph.limits?"),
        ("scheduler: {qqq: 1}", "unknown key scheduler.qqq; known: name, min_lr"),
    ],
)  # fmt: skip
def test_an_unknown_key_at_any_depth_names_its_line_and_the_nearest_key(refused, text, said):
    assert said in refused(text)


def test_all_mistakes_of_a_file_are_said_at_once(refused):
    said = refused("training:\n  a: 1\n  batch_size: -1\nsplit:\n  by: moon")
    assert [line.split(":")[0] for line in said.splitlines()] == [
        "c.yaml, line 5", "c.yaml, line 3", "c.yaml, line 2",
    ]  # fmt: skip


def test_a_key_given_twice_names_both_lines(refused):
    assert "c.yaml, line 3: training.loss is given twice, first on line 2; keep one" in refused(
        "training:\n  loss: mse\n  loss: huber"
    )
    assert "line 2: data is given twice, first on line 1" in refused("data: {}\ndata: {}")


def test_a_key_given_twice_in_an_override_is_refused(refused):
    assert "training.loss is given twice" in refused(overrides=["training={loss: mse, loss: mse}"])


# ---------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training:\n  loss: [mse\n\n", "c.yaml, line 4: is not valid YAML: "),
        ("\tdata: 1", "c.yaml, line 1: is not valid YAML: found character"),
        ("data: *x", "line 1: is not valid YAML: *x is an alias, which is not read here"),
        ("- a\n- b", "c.yaml: does not hold sections; write `section:`"),
        ("just a text", "c.yaml: does not hold sections"),
        ("data: {}\n---\ndata: {}", "is not valid YAML"),
        ("x: \x00", "c.yaml: is not valid YAML: unacceptable character"),
        ("experiment:\n  name: !!python/name:os.system x", "line 2: 'x' is not a plain value"),
        ("training:\n  batch_size: " + "9" * 5000, "line 2: '9999"),
        ("model: nowhere.yaml", "nowhere.yaml: there is no such file; check the path"),
        ("model: 3", "c.yaml, line 1: model: 3 does not fit"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_in_one_line(refused, text, said):
    answer = refused(text)
    assert said in answer
    assert len(answer.splitlines()) == 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.yaml: there is no such file"):
        load_settings(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("make", [lambda p: p.write_bytes(b"\xff\xfe\x00"), lambda p: p.mkdir()])
def test_a_file_that_is_not_text_is_named(tmp_path, make):
    path = tmp_path / "c.yaml"
    make(path)
    with pytest.raises(ConfigError, match=r"c.yaml: cannot be read as text: .*; save it as UTF-8"):
        load_settings(path)


@pytest.mark.parametrize("text", ["", "# nothing\n", "training:\nmodel:\n", "\ufefftraining: {}"])
def test_empty_files_and_empty_sections_are_the_defaults(written, text):
    assert load_settings(written(text)) == Settings() == load_settings()


# ------------------------------------------------------------------- precedence and overrides


def test_named_options_win_over_set_over_the_file_over_the_default(written):
    path = written("training: {batch_size: 2, max_epochs: 3, num_workers: 4}\ndata: {path: a}")
    overrides = ["training.max_epochs=30", "training.num_workers=40", "data.path=b"]
    settings = load_settings(path, overrides, {"training.num_workers": 400, "data.path": None})
    training = settings.training
    assert training.accumulate_grad_batches == 1  # the default
    assert (training.batch_size, training.max_epochs, training.num_workers) == (2, 30, 400)
    assert settings.data.path == "b"  # an option that was not given changes nothing


def test_an_override_takes_any_yaml_value_and_the_last_one_wins(written):
    settings = load_settings(
        None,
        ["split.fractions=[0.5, 0.25, 0.25]", "training.loss=mse", "training.loss=huber",
         "conditions.extra.ph={kind: number, limits: [0, 14]}", "experiment.name=a=b"],
    )  # fmt: skip
    assert settings.split.fractions == [0.5, 0.25, 0.25]
    assert settings.training.loss == "huber"
    assert settings.conditions.extra["ph"].limits == [0, 14]
    assert settings.experiment.name == "a=b"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.loss", "--set training.loss: is not section.key=value; write it so"),
        ("=mse", "--set =mse: is not section.key=value"),
        ("training.loss=[mse", "--set training.loss=[mse: '[mse' is not valid YAML; quote it"),
        ("training.lss=mse", "--set training.lss=mse: unknown key training.lss; did you mean "
         "training.loss?"),
        ("training.loss.kind=mse", "--set training.loss.kind=mse: training.loss: {'kind': 'mse'}"),
        ("experiment.name=!a x", "--set experiment.name=!a x: 'x' is not a plain value"),
        ("split.by=column", "--set split.by=column: split.column: split.by is column"),
    ],
)  # fmt: skip
def test_a_bad_override_is_quoted_in_the_message(refused, override, said):
    assert said in refused(overrides=[override])


# ------------------------------------------------------------------------------------- model:


def test_model_is_a_mapping_or_a_path_relative_to_the_yaml(written, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    written("head:\n  hidden_dim: 7\n", "sub/m.yaml")
    monkeypatch.chdir(tmp_path / "sub")  # the YAML's folder counts, not the present one
    by_path = load_settings(written("model: sub/m.yaml"))
    by_full_path = load_settings(written(f"model: {tmp_path / 'sub' / 'm.yaml'}"))
    inlined = load_settings(written("model: {head: {hidden_dim: 7}}"))
    assert by_path == by_full_path == inlined
    assert inlined.model.head.hidden_dim == 7
    assert load_settings(None, ["model=m.yaml"]) == inlined  # an override: from the present folder


def test_a_mistake_in_the_model_file_names_that_file_and_its_line(written, refused):
    written("head:\n  hidden_dm: 7\n", "m.yaml")
    said = refused("model: m.yaml")
    assert "m.yaml, line 2: unknown key model.head.hidden_dm; did you mean model.head" in said


def test_what_is_set_on_top_of_a_model_file_wins(written):
    written("head: {hidden_dim: 7, dropout: 0.2}\n", "m.yaml")
    head = load_settings(written("model: m.yaml"), ["model.head.hidden_dim=9"]).model.head
    assert (head.hidden_dim, head.dropout) == (9, 0.2)


def test_written_settings_read_back_as_themselves(written):
    settings = load_settings(
        None,
        ["model.head.kind=get", "model.fusion.kind=film",
         "training.learning_rate=1e-05", "experiment.name='培养 no'",
         "conditions.temperature={unit: K, limits: [0, 400]}", "data.decimal=','",
         "conditions.extra={ph: {kind: number}}",
         "conditions.drug_concentration.c0={H2O2: 1e-6}"],
    )  # fmt: skip
    text = write_settings(settings)
    assert load_settings(written(text)) == settings
    assert settings_from_dict(settings.to_dict(), "m.pth") == settings
    assert "培养 no" in text
    assert yaml.safe_load(write_settings(Settings()))["model"]["head"]["kind"] == "mlp"


def test_stored_settings_that_do_not_fit_name_the_checkpoint():
    with pytest.raises(ConfigError, match=r"^m.pth: unknown key trainin; did you mean training"):
        settings_from_dict({"trainin": {}}, "m.pth")


# ----------------------------------------------------------------------------- contradictions


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {transformer: {embed_dim: 10}}",
         "model.transformer.embed_dim: 10 is not a multiple of model.transformer.num_heads = 4"),
        ("model: {transformer: {embed_dim: 9, num_heads: 3, positional_encoding: sinusoidal}}",
         "9 is odd, and sinusoidal positions need pairs; choose an even number"),
        ("training: {max_epochs: 2, warmup_epochs: 2}",
         "training.warmup_epochs: 2 is not below training.max_epochs = 2; shorten"),
        ("training: {learning_rate: 1e-6}\nscheduler: {min_lr: 1e-5}",
         "scheduler.min_lr: 1e-05 is above training.learning_rate = 1e-06; lower it"),
        ("model: {head: {kind: get}}", "model.head.kind: get is no head of factors"),
        ("optimizer: {name: adam}",
         "optimizer.name: adam adds the decay to the gradient, and the default of 4 is for adamw; "
         "write training.weight_decay too"),
        ("training: {loss: poisson}", "training.loss: poisson needs rates above zero"),
        ("split: {fractions: [0.7, 0.2, 0.2]}",
         "split.fractions: [0.7, 0.2, 0.2] add up to 1.1; train, val and test must add up to 1"),
        ("split: {fractions: [0.8, 0.2, 0.0]}",
         "split.fractions: [0.8, 0.2, 0.0] leave a part empty; give each a share"),
        ("split: {by: column}", "split.column: split.by is column and split.column is None"),
        ("split: {column: group}", "split.column: split.by is region and split.column is group"),
        ("split: {test: [chrI]}", "split.test: names groups, and split.by: region has none"),
        ("split: {val: [chrI]}", "split.val: names groups, and split.by: region has none"),
        ("split: {by: chromosome, test: [b, a, c], val: [a, b]}",
         "split.val: a, b also stands in split.test; keep one of the two"),
        ("conditions: {extra: {drug: {kind: drug}}}",
         "conditions.extra.drug: is a standard field; write it as conditions.drug"),
        ("conditions: {extra: {dose_b: {kind: dose}}}",
         "conditions.extra.dose_b.drug: kind is dose and drug is None"),
        ("conditions: {extra: {ph: {kind: number, drug: drug}}}",
         "conditions.extra.ph.drug: kind is number and drug is drug; a dose, and only a dose"),
        ("conditions: {extra: {dose_b: {kind: dose, drug: drug_b}}}",
         "'drug_b' is not a field of kind drug; declare conditions.extra.drug_b: {kind: drug}"),
        ("conditions: {extra: {ph: {kind: number}, dose_b: {kind: dose, drug: ph}}}",
         "conditions.extra.dose_b.drug: 'ph' is not a field of kind drug"),
        ("conditions: {temperature: {limits: [60, 0]}}",
         "conditions.temperature.limits: [60.0, 0.0] runs downwards; swap the two"),
        ("conditions: {extra: {ph: {kind: number, typical: [8, 6]}}}",
         "conditions.extra.ph.typical: [8.0, 6.0] runs downwards"),
        ("lora: {enabled: true}", "lora.enabled: adapters need a pretrained base, and without"),
        ("finetune: {freeze: [encoder]}", "finetune.freeze: says something about finetune.check"),
        ("task: {stage: pretrain}", "task.stage: pretrain predicts hidden regions from their"),
        (
            "task: {stage: pretrain}\ndata: {regions_per_window: 9}\ntraining: {loss: poisson}\n"
            "model: {head: {kind: get}, fusion: {kind: film}}",
            "training.loss: poisson does not suit the features of regions",
        ),
        (
            "task: {stage: pretrain}\ndata: {regions_per_window: 9}\n"
            "model: {transformer: {positional_encoding: learned}}",
            "model.transformer.positional_encoding: learned positions have no place",
        ),
        (
            "task: {stage: pretrain}\ndata: {regions_per_window: 9}\nlora: {enabled: true}\n"
            "finetune: {checkpoint: a.pth}",
            "lora.enabled: does not go with task.stage: pretrain",
        ),
    ],
)  # fmt: skip
def test_keys_that_contradict_each_other_are_refused(refused, text, said):
    answer = refused(text)
    assert said in answer
    assert answer.startswith("c.yaml, line ")
    assert len(answer.splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "training: {loss: poisson}\nmodel: {head: {kind: get}, fusion: {kind: film}}",
        "training: {max_epochs: 0}",  # nothing to warm up for
        "split: {by: column, column: group, test: [a], val: [b]}",
        "conditions: {extra: {drug_b: {kind: drug}, dose_b: {kind: dose, drug: drug_b}}}",
        "conditions: {drug_concentration: {drop: true}, extra: {dose_2: {kind: dose, drug: drug}}}",
    ],
)
def test_keys_that_go_together_are_accepted(written, text):
    assert load_settings(written(text)) != load_settings(None)


# --------------------------------------------------------------------------------- evaluation

STORED = load_settings(
    None,
    ["data.path=trained.csv", "data.motif_scale=max", "conditions.temperature.unit=K",
     "conditions.drug_concentration.c0=1e-6", "conditions.extra={ph: {kind: number}}",
     "training.batch_size=7"],
).to_dict()  # fmt: skip


def test_an_evaluation_keeps_the_settings_of_the_checkpoint_but_not_its_table():
    settings = settings_for_evaluation(STORED)
    assert settings.data.path is None
    expected = settings_from_dict(STORED, "m.pth").to_dict()
    expected["data"]["path"] = None
    assert settings.to_dict() == expected


def test_an_evaluation_reads_data_conditions_and_task_and_no_other_section(written):
    path = written(
        "data: {sheet: new, path: a.csv}\nconditions: {temperature: {unit: degC}}\n"
        "task: {interpret: true}\ntraining: {batch_size: 99}\nmodel: elsewhere.yaml\n"
    )
    settings = settings_for_evaluation(STORED, path, ["data.decimal=','"], {"data.path": "b.csv"})
    assert settings.data.sheet == "new"
    assert settings.data.decimal == ","
    assert settings.data.path == "b.csv"
    assert settings.conditions.temperature.unit == "degC"
    assert settings.conditions.extra["ph"].kind == "number"  # what is not named stays
    assert settings.data.motif_scale == "max"
    assert settings.task.interpret
    assert settings.training.batch_size == 7


@pytest.mark.parametrize(
    "override",
    ["data.motif_scale=none", "data.target_transform=log1p", "data.regions_per_window=4",
     "conditions.temperature.drop=true", "conditions.drug_concentration.c0=1e-9",
     "conditions.extra.ph.kind=category", "conditions.extra.strain={kind: category}"],
)  # fmt: skip
def test_what_disagrees_with_the_checkpoint_is_refused(written, override):
    dotted, _, value = override.partition("=")
    said = rf"^--set {override.split('.')[0]}.*{dotted}.* is not what the model was trained with"
    with pytest.raises(ConfigError, match=said):
        settings_for_evaluation(STORED, None, [override])


def test_what_disagrees_with_the_checkpoint_in_a_file_names_its_line(written):
    path = written("data:\n  decimal: '.'\n  motif_scale: none\n")
    said = r"c.yaml, line 3: data.motif_scale: 'none' is not what .* trained with \('max'\); leave"
    with pytest.raises(ConfigError, match=said):
        settings_for_evaluation(STORED, path)


@pytest.mark.parametrize("text", ["conditions: {}", "data:", "conditions: {drug: {}, extra: {}}"])
def test_an_empty_block_takes_nothing_away_from_the_checkpoint(written, text):
    assert settings_for_evaluation(STORED, written(text)) == settings_for_evaluation(STORED)


def test_a_dose_reference_of_one_drug_is_fixed_by_the_checkpoint():
    stored = load_settings(None, ["conditions.drug_concentration.c0={H2O2: 1e-6}"]).to_dict()
    with pytest.raises(ConfigError, match=r"c0.H2O2: 1 is not what .* trained with \(1e-06\)"):
        settings_for_evaluation(stored, None, ["conditions.drug_concentration.c0.H2O2=1"])


def test_saying_again_what_the_checkpoint_says_is_accepted():
    overrides = ["data.motif_scale=max", "conditions.extra.ph.kind=number"]
    assert settings_for_evaluation(STORED, None, overrides).data.motif_scale == "max"


def test_the_training_yaml_of_a_run_is_accepted_by_its_evaluation(written):
    path = written(write_settings(settings_from_dict(STORED, "m.pth")))
    assert settings_for_evaluation(STORED, path).to_dict() == STORED


def test_setting_a_key_of_another_section_is_refused_and_not_ignored():
    said = (
        "training.batch_size belongs to the checkpoint; "
        "only data, conditions, task, report can be set"
    )
    with pytest.raises(ConfigError, match=said):
        settings_for_evaluation(STORED, None, ["training.batch_size=3"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainin: {}", r"c.yaml, line 1: unknown key trainin; did you mean training"),
        ("data: {sheets: a}", r"c.yaml, line 1: unknown key data.sheets; did you mean data.sheet"),
    ],
)
def test_an_unknown_key_is_refused_in_an_evaluation_too(written, text, said):
    with pytest.raises(ConfigError, match=said):
        settings_for_evaluation(STORED, written(text))


# --------------------------------------------------------------------------- the shipped files


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "config").glob("*training*.yaml")), *sorted((ROOT / "docs").rglob("*.yaml"))],
    ids=lambda path: path.name,
)
def test_every_shipped_training_yaml_loads(path):
    assert load_settings(path, ["training.max_epochs=77"]).training.max_epochs == 77


def keys_of(model: type[BaseModel]) -> dict:
    """The keys of a settings class, nested."""
    return {
        name: keys_of(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        else None
        for name, field in model.model_fields.items()
    }


def keys_in(values: object) -> dict | None:
    """The keys of a loaded YAML, nested."""
    return {k: keys_in(v) for k, v in values.items()} if isinstance(values, dict) else None


def test_the_shipped_yamls_spell_out_every_key():
    training = yaml.safe_load((ROOT / "config" / "yeast_training.yaml").read_text("utf-8"))
    model = yaml.safe_load((ROOT / "config" / "yeast_model.yaml").read_text("utf-8"))
    assert training.pop("model") == "yeast_model.yaml"
    assert training.pop("conditions") == {}
    expected = keys_of(Settings)
    del expected["model"], expected["conditions"]
    assert keys_in(training) == expected
    assert keys_in(model) == keys_of(ModelConfig)


def test_an_override_of_a_block_keeps_what_it_does_not_name(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("training: {batch_size: 7, max_epochs: 9}\nmodel: {head: {dropout: 0.5}}\n")
    overrides = ["training={max_epochs: 5}", "model={head: {hidden_dim: 8}}"]
    settings = load_settings(path, overrides)
    assert (settings.training.batch_size, settings.training.max_epochs) == (7, 5)
    assert (settings.model.head.dropout, settings.model.head.hidden_dim) == (0.5, 8)


def test_a_block_with_nothing_below_it_is_its_defaults(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("training:\nmodel:\n  head:\nconditions:\n  medium:\n")
    assert load_settings(path) == load_settings(None)


def test_dropping_the_drug_and_keeping_its_dose_is_a_contradiction():
    with pytest.raises(ConfigError, match="a dose means nothing without its drug"):
        load_settings(None, ["conditions.drug.drop=true"])


def test_groups_of_a_split_may_be_written_as_numbers():
    settings = load_settings(None, ["split={by: column, column: temperature, test: [37, 25.5]}"])
    assert settings.split.test == ["37", "25.5"]


@pytest.mark.parametrize(("trained", "given"), [("normalized", "K"), ("K", "normalized")])
def test_a_normalized_field_stays_one_in_an_evaluation(trained, given):
    stored = load_settings(None, [f"conditions.temperature.unit={trained}"]).to_dict()
    with pytest.raises(ConfigError, match="is not what the model was trained with"):
        settings_for_evaluation(stored, None, [f"conditions.temperature.unit={given}"])


def test_a_checkpoint_of_a_later_version_with_more_keys_is_named():
    stored = load_settings(None).to_dict()
    stored["training"]["from_the_future"] = 3
    with pytest.raises(ConfigError, match="the checkpoint: unknown key training.from_the_future"):
        settings_for_evaluation(stored)


def test_a_second_dose_of_one_drug_is_refused():
    with pytest.raises(ConfigError, match="is a second dose of drug, beside drug_concentration"):
        load_settings(None, ["conditions.extra.stress={kind: dose, drug: drug}"])


def test_an_evaluation_does_not_take_over_the_sheet_of_the_training_table():
    given = ["data.sheet=A", "data.path=x.xlsx", "data.feature_names=names.txt"]
    settings = settings_for_evaluation(
        load_settings(None, given).to_dict(), None, [], {"data.path": "t.csv"}
    )
    assert (settings.data.path, settings.data.sheet) == ("t.csv", None)
    assert settings.data.feature_names is None
