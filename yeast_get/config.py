"""The YAML files as strict, typed settings.

`load_settings` reads a training YAML (whose `model:` is a mapping or the path of a second YAML),
applies `--set section.key=value` and the named options on top, and returns a `Settings`. Whatever
does not fit is an error with file, line, dotted key and the nearest valid name.

The defaults live in the classes below; the files in `config/` are examples that spell them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from yeast_get.errors import MOST_LINES, ConfigError, Problem, did_you_mean

Positive = Annotated[int, Field(ge=1, le=10**9)]
NonNegative = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Few = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
AboveZero = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Name = Annotated[str, BeforeValidator(lambda v: f"{v:.6g}" if _is_number(v) else v)]
Range = Annotated[list[Number], Field(min_length=2, max_length=2)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


class Section(BaseModel):
    """A block of the YAML: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_below_is_the_default(cls, values: Any) -> Any:
        """A block `name:` with nothing below it stands for its defaults."""
        if not isinstance(values, dict):
            return values
        blocks = {name for name, field in cls.model_fields.items() if _is_section(field.annotation)}
        return {k: v for k, v in values.items() if v is not None or k not in blocks}


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


class ExperimentConfig(Section):
    """`experiment`: what the run is called, and the seed of everything random but the split."""

    name: str = "yeast"
    seed: Seed = 0


class DataConfig(Section):
    """`data`: where the table is and what its columns mean."""

    path: str | None = None
    sheet: str | None = None
    feature_names: str | None = None
    motif_columns: list[str] = []
    region_feature_columns: list[str] = []
    region_length: bool = False
    description_columns: list[str] = []
    target_columns: Annotated[list[str], Field(max_length=2)] = []
    target_transform: Literal["none", "log1p", "log2p1", "log10p1"] = "none"
    motif_scale: Literal["none", "max", "standard"] = "standard"
    regions_per_window: Annotated[int, Field(ge=1, le=100_000)] = 1
    on_bad_row: Literal["error", "skip"] = "error"
    max_skipped: Share = 0.05
    decimal: Literal["auto", ".", ","] = "auto"
    fill_merged: bool = False
    include_hidden: bool = True
    drop_missing_target: bool = False
    drop_duplicates: bool = False


class FieldConfig(Section):
    """One entry of `conditions`: how a growth-condition column is read."""

    unit: str | None = None
    typical: Range | None = None
    limits: Range | None = None
    aliases: list[str] = []
    categories: dict[str, list[str]] = {}
    c0: dict[str, AboveZero] | AboveZero | None = None
    molar_mass: dict[str, AboveZero] = {}
    words: dict[str, Number] = {}
    zero_is_missing: bool = False
    drop: bool = False


class ExtraFieldConfig(FieldConfig):
    """One entry of `conditions.extra`: a condition field that is not among the standard ones."""

    kind: Literal["number", "time", "category", "drug", "dose"]
    drug: str | None = None


class ConditionsConfig(Section):
    """`conditions`: one entry per standard field, and `extra` for the laboratory's own."""

    medium: FieldConfig = FieldConfig()
    temperature: FieldConfig = FieldConfig()
    preculture_time: FieldConfig = FieldConfig()
    preculture_temperature: FieldConfig = FieldConfig()
    preculture_od600: FieldConfig = FieldConfig()
    drug: FieldConfig = FieldConfig()
    drug_concentration: FieldConfig = FieldConfig()
    drug_time: FieldConfig = FieldConfig()
    drug_od600: FieldConfig = FieldConfig()
    carbon_source: FieldConfig = FieldConfig()
    nitrogen_source: FieldConfig = FieldConfig()
    extra: dict[str, ExtraFieldConfig] = {}


class SplitConfig(Section):
    """`split`: what is held out."""

    by: Literal["region", "condition", "region_and_condition", "chromosome", "column", "random"] = (
        "region"
    )
    column: str | None = None
    fractions: Annotated[list[Amount], Field(min_length=3, max_length=3)] = [0.7, 0.15, 0.15]
    test: list[Name] = []
    val: list[Name] = []
    seed: Seed = 0


class AugmentationConfig(Section):
    """`augmentation`: noise on the training inputs, a function of seed, epoch and observation."""

    motif_noise: Amount = 0.0
    accessibility_noise: Amount = 0.0
    motif_dropout: Share = 0.0
    condition_dropout: Share = 0.0

    @property
    def on_regions(self) -> bool:
        """Whether there is noise on the regions."""
        return bool(self.motif_noise or self.accessibility_noise or self.motif_dropout)


class FeatureEncodersConfig(Section):
    """`model.feature_encoders`: one small encoder per condition field."""

    embed_dim: Width = 16


class FusionConfig(Section):
    """`model.fusion`: how the conditions meet the regions."""

    kind: Literal["factors", "concat", "film", "tokens"] = "factors"
    hidden_dim: Width = 128
    factors: Annotated[int, Field(ge=1, le=512)] = 70

    @property
    def by_factors(self) -> bool:
        """Whether regions are encoded apart from conditions, and meet them in a product."""
        return self.kind == "factors"


class RegionEmbedConfig(Section):
    """`model.region_embed`: how region features enter. GET has one linear map and no dropout."""

    bins: Annotated[int, Field(ge=0, le=1024)] = 24
    feature_dropout: Share = 0.3
    dropout: Share = 0.3


class EncoderConfig(Section):
    """`model.encoder`: the numerics of GET's blocks."""

    mlp_ratio: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 4.0
    drop_rate: Share = 0.3
    attn_drop_rate: Share = 0.0
    drop_path_rate: Share = 0.0
    layer_norm_eps: AboveZero | None = None


class TransformerConfig(Section):
    """`model.transformer`: the size of the encoder."""

    num_layers: Few = 1
    num_heads: Few = 4
    embed_dim: Width = 128
    positional_encoding: Literal["none", "sinusoidal", "learned"] = "none"


class RegionIdentityConfig(Section):
    """`model.region_identity`: a vector per training region, for known promoters.

    By default only where a model by factors is split by what known regions meet.
    """

    enabled: bool | None = None
    dropout: Share = 0.3
    weight_decay: Amount = 0.1


class HeadConfig(Section):
    """`model.head`: from a region's encoding to its expression."""

    kind: Literal["mlp", "get"] = "mlp"
    hidden_dim: Width = 128
    dropout: Share = 0.1


class ModelConfig(Section):
    """`model`: the network."""

    feature_encoders: FeatureEncodersConfig = FeatureEncodersConfig()
    fusion: FusionConfig = FusionConfig()
    region_embed: RegionEmbedConfig = RegionEmbedConfig()
    encoder: EncoderConfig = EncoderConfig()
    transformer: TransformerConfig = TransformerConfig()
    region_identity: RegionIdentityConfig = RegionIdentityConfig()
    head: HeadConfig = HeadConfig()


class TrainingConfig(Section):
    """`training`: the loop."""

    batch_size: NonNegative = 0
    max_epochs: NonNegative = 15
    warmup_epochs: Amount = 2.0
    learning_rate: AboveZero = 1e-3
    weight_decay: Amount = 4.0
    loss: Literal["mse", "huber", "poisson"] = "huber"
    clip_grad: Amount = 1.0
    accumulate_grad_batches: Positive = 1
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = "auto"
    compile: bool = False
    activation_checkpointing: bool = False
    ema_decay: Share = 0.0
    early_stopping_patience: NonNegative = 12
    monitor: Literal["val_loss", "val_pearson"] = "val_pearson"
    validate_every_n_epochs: Positive = 1
    save_every_n_epochs: NonNegative = 0
    checkpoint_every_n_steps: NonNegative = 0
    num_workers: Annotated[int, Field(ge=0, le=1024)] = 0
    ensemble: Few = 1
    shuffle_targets: bool = False
    deterministic: bool = False


class OptimizerConfig(Section):
    """`optimizer`: AdamW (decoupled weight decay) or Adam."""

    name: Literal["adamw", "adam"] = "adamw"
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    eps: AboveZero = 1e-8


class SchedulerConfig(Section):
    """`scheduler`: linear warm-up, then cosine to `min_lr` or a constant rate; per step."""

    name: Literal["cosine", "constant"] = "cosine"
    min_lr: Amount = 1e-5


class LoraConfig(Section):
    """`lora`: adapters on what was loaded from `finetune.checkpoint`, which stays frozen."""

    enabled: bool = False
    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    alpha: AboveZero = 16.0
    dropout: Share = 0.0
    rslora: bool = False
    targets: list[str] | str = ["encoder", "head_exp"]
    exclude: list[str] | str = []
    freeze_dropout: bool = True


class FinetuneConfig(Section):
    """`finetune`: the pretrained GET checkpoint to start from."""

    checkpoint: str | None = None
    num_heads: Few | None = None
    feature_names: str | None = None
    lora_scale: AboveZero | Literal["auto"] | None = "auto"
    strict: bool = True
    min_loaded_fraction: Annotated[float, Field(ge=0, le=1)] = 0.9
    freeze: list[str] = []
    trust_checkpoint: bool = False


class LoggingConfig(Section):
    """`logging`: what is written while training."""

    tensorboard: bool = True
    log_every_n_steps: Positive = 50


class TaskConfig(Section):
    """`task`: what is done with the trained model."""

    stage: Literal["finetune", "pretrain"] = "finetune"
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    test_mode: Literal["normal", "predict", "interpret"] = "normal"
    interpret: bool = False
    importance_rows: Positive = 4000
    importance_repeats: Few = 3
    save_predictions: bool = True
    save_embeddings: bool = False

    @property
    def interprets(self) -> bool:
        """Whether the task asks for attributions."""
        return self.interpret or self.test_mode == "interpret"


class ReportConfig(Section):
    """`report`: the page and the pictures."""

    enabled: bool = True
    language: Literal["en", "zh"] = "en"
    formats: Annotated[list[Literal["png", "pdf"]], Field(min_length=1, max_length=2)] = ["png"]


class Settings(Section):
    """The whole training YAML."""

    experiment: ExperimentConfig = ExperimentConfig()
    data: DataConfig = DataConfig()
    conditions: ConditionsConfig = ConditionsConfig()
    split: SplitConfig = SplitConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    lora: LoraConfig = LoraConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    logging: LoggingConfig = LoggingConfig()
    task: TaskConfig = TaskConfig()
    report: ReportConfig = ReportConfig()

    @property
    def remembers_regions(self) -> bool:
        """Whether the model keeps something of each training region, beyond its features."""
        if self.model.region_identity.enabled is not None:
            return self.model.region_identity.enabled
        again = ("condition", "random", "column")  # where known regions are asked for again
        return self.model.fusion.by_factors and self.split.by in again

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, for the checkpoint and for `config.yaml`."""
        return self.model_dump(mode="python")


# ------------------------------------------------------------------------------------- reading

Key = tuple[str, ...]


LONGEST_FILE = 1 << 20
"""Bytes of a YAML."""

DEEPEST_KEY = 10
"""Parts of a dotted key; settings have five."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of a scalar: `1e-3` is a number, `no` and `010` are what they look like.

    Aliases are refused: ten of them, each a list of ten of the one before, fill any memory.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node, where it is no alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            what = f"*{event.anchor} is an alias, which is not read here: write out its value"
            raise yaml.composer.ComposerError(None, None, what, event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = node.value.lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


class _Source:
    """A nested mapping of settings with the place that each key came from."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.places: dict[Key, tuple[str | None, int | None]] = {}

    def put(self, key: Key, value: Any, file: str | None, line: int | None) -> None:
        """Set one key, and remember where it came from."""
        block = self.values
        for i, part in enumerate(key[:-1]):
            if not isinstance(block.get(part), dict):
                block[part] = {}
                self.places[key[: i + 1]] = (file, line)
            block = block[part]
        block[key[-1]] = value
        if key in self.places:
            self.places = {k: v for k, v in self.places.items() if k[: len(key)] != key}
        self.places[key] = (file, line)

    def place(self, key: Sequence[Any]) -> dict[str, Any]:
        """`file` and `line` of a key, or of the nearest block around it."""
        path = tuple(str(part) for part in key)
        while path and path not in self.places:
            path = path[:-1]
        file, line = self.places.get(path, (None, None))
        return {"file": file, "line": line}


def load_settings(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    named: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings of a run: defaults, then the YAML, then `--set`, then named options.

    Args:
        path: The training YAML, or None for the defaults.
        overrides: Texts `section.key=value`; the value is read as YAML.
        named: Values of named options by dotted key; None means the option was not given.

    Raises:
        ConfigError: With one problem per mistake.
    """
    source = _Source()
    if path is not None:
        _read_file(source, Path(path), prefix=())
        _inline_model(source, Path(path).parent)
    _put_given(source, overrides, named or {})
    return _validate(source)


def settings_from_dict(values: Mapping[str, Any], file: str) -> Settings:
    """The settings stored in a checkpoint."""
    source = _Source()
    for key, value in values.items():
        source.put((key,), value, file, None)
    return _validate(source)


READ_BY_EVALUATION = ("data", "conditions", "task", "report")
"""Sections that `evaluate_yeast` takes from `--config` and `--set`; the checkpoint has the rest."""

_FIXED_BY_CHECKPOINT = ("target_transform", "motif_scale", "regions_per_window")
_FIXED_IN_TASK = ("stage",)
_FIXED_IN_FIELDS = ("kind", "drug", "drop", "c0")


def settings_for_evaluation(
    stored: Mapping[str, Any],
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    named: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a checkpoint, with what an evaluation may say about its own table on top.

    Args:
        stored: `Settings.to_dict()` from the checkpoint.
        path: A training or evaluation YAML, of which only `READ_BY_EVALUATION` is read.
        overrides: Texts `section.key=value` of those sections.
        named: Values of named options by dotted key; None means the option was not given.

    Raises:
        ConfigError: Also where a key disagrees with what the model was trained with.
    """
    given = _given_to_evaluation(path, overrides, named or {})
    merged = _Source()
    for section, value in settings_from_dict(stored, "the checkpoint").to_dict().items():
        merged.put((section,), value, "the checkpoint", None)
    merged.values["data"] |= dict.fromkeys(("path", "sheet", "feature_names"))  # another table's
    problems = []
    for key in _leaves(given.values):
        value, trained = _value_at(given.values, key), _value_at(merged.values, key)
        if value == {} and isinstance(trained, dict):
            continue  # an empty block says nothing
        if key[0] not in READ_BY_EVALUATION:
            what = f"{'.'.join(key)} belongs to the checkpoint"
            fix = f"only {', '.join(READ_BY_EVALUATION)} can be set here"
            problems.append(Problem(what, fix, **given.place(key)))
        elif _is_fixed(key, value, trained) and value != trained:
            what = (
                f"{'.'.join(key)}: {value!r} is not what the model was trained with ({trained!r})"
            )
            problems.append(Problem(what, "leave it out, or train anew", **given.place(key)))
        elif value is not None or not isinstance(trained, dict):  # an empty block says nothing
            merged.put(key, value, **given.place(key))
    if problems:
        raise ConfigError(problems)
    return _validate(merged)


def _given_to_evaluation(
    path: str | Path | None, overrides: Sequence[str], named: Mapping[str, Any]
) -> _Source:
    """What the user gave to an evaluation; of a file, only the sections that are read there."""
    given = _Source()
    if path is not None:
        _read_file(given, Path(path), prefix=())
        unknown = {k: v for k, v in given.values.items() if k not in Settings.model_fields}
        if unknown:
            given.values = unknown
            _validate(given)
        given.values = {k: v for k, v in given.values.items() if k in READ_BY_EVALUATION}
    _put_given(given, overrides, named)
    return given


def _is_fixed(key: Key, value: Any, trained: Any) -> bool:
    """Whether a key describes the model rather than the table."""
    if key[0] in ("data", "task"):
        return key[-1] in (_FIXED_BY_CHECKPOINT if key[0] == "data" else _FIXED_IN_TASK)
    is_extra = key[:2] == ("conditions", "extra")
    in_field = key[3:4] if is_extra else key[2:3]  # `c0` also of conditions.<field>.c0.<drug>
    is_new_field = is_extra and len(key) > 2 and trained is None
    is_fixed = any(part in _FIXED_IN_FIELDS for part in in_field)
    if key[-1] == "unit" and "normalized" in (value, trained):
        is_fixed = True  # another unit can be converted, another scale cannot
    return key[0] == "conditions" and (is_fixed or is_new_field)


def _value_at(values: Any, key: Key) -> Any:
    for part in key:
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def write_settings(settings: Settings) -> str:
    """The effective settings as YAML text that `--config` accepts."""
    text: str = yaml.safe_dump(settings.to_dict(), sort_keys=False, allow_unicode=True)
    return text


def _leaves(values: Any, key: Key = ()) -> Iterator[Key]:
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _leaves(value, (*key, str(name)))
    elif key:
        yield key


def _read_file(source: _Source, path: Path, prefix: Key) -> None:
    file = str(path)
    try:
        with path.open("rb") as handle:
            held = handle.read(LONGEST_FILE + 1)
        text = held.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(Problem("there is no such file", "check the path", file=file)) from None
    except (OSError, ValueError) as error:  # of text in no UTF-8, or of a path with a NUL
        raise ConfigError(
            Problem(f"cannot be read as text: {error}", "save it as UTF-8", file=file)
        ) from None
    if len(held) > LONGEST_FILE:
        what = f"is longer than {LONGEST_FILE >> 20} MiB, and holds no settings"
        raise ConfigError(Problem(what, "give a YAML as those in config/", file=file))
    node = _compose(text, file)
    if node is None:
        return
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            Problem("does not hold sections", "write `section:` and its keys below", file=file)
        )
    _put_node(source, node, file, prefix)


def _compose(text: str, file: str) -> yaml.Node | None:
    """The nodes of a YAML text, none of which is met twice.

    Raises:
        ConfigError: With the line, where it is no YAML.
    """
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            Problem(
                f"is not valid YAML: {error.problem}",
                "check indentation, colons and quotes there",
                file=file,
                line=None if mark is None else mark.line + 1,
            )
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(Problem(f"is not valid YAML: {error}", file=file)) from None
    except RecursionError:
        what = "nests deeper than any setting"
        raise ConfigError(Problem(what, "check its brackets", file=file)) from None


def _put_node(source: _Source, node: yaml.MappingNode, file: str, prefix: Key) -> None:
    """Walk a composed mapping, refusing duplicate keys, and put every leaf with its line."""
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or len(prefix) >= DEEPEST_KEY:
            what = "holds a key that is no word, or deeper than any key of ours"
            raise ConfigError(Problem(what, "write `name: value`", file=file, line=line))
        name = str(key_node.value)
        key = (*prefix, name)
        if name in seen:
            raise ConfigError(
                Problem(
                    f"{'.'.join(key)} is given twice, first on line {seen[name]}",
                    "keep one of the two",
                    file=file,
                    line=line,
                )
            )
        seen[name] = line
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            if not isinstance(_value_at(source.values, key), dict):
                source.put(key, {}, file, line)
            _put_node(source, value_node, file, key)
        else:
            value = _construct(value_node, file, line)
            source.put(key, value, file, line)


def _construct(node: yaml.Node, file: str, line: int | None = None) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, RecursionError):  # !python, or an absurdly long number
        what = f"{str(node.value)[:40]!r} is not a plain value"
        raise ConfigError(Problem(what, "write a text, number or list", file, line=line)) from None
    finally:
        loader.dispose()


def _inline_model(source: _Source, folder: Path) -> None:
    """Replace `model: some.yaml` by what that file holds."""
    model = source.values.get("model")
    if isinstance(model, str):
        path = Path(model)
        source.put(("model",), {}, **source.place(("model",)))
        _read_file(source, path if path.is_absolute() else folder / path, prefix=("model",))


def _put_given(source: _Source, overrides: Sequence[str], named: Mapping[str, Any]) -> None:
    """Put what the command line gives on top: `--set`, then the named options."""
    for text in overrides:
        _put_override(source, text)
    for dotted, value in named.items():
        if value is not None:
            source.put(tuple(dotted.split(".")), value, None, None)


def _put_override(source: _Source, text: str) -> None:
    dotted, equals, raw = text.partition("=")
    file = f"--set {text}"
    if not equals or not dotted.strip() or dotted.count(".") >= DEEPEST_KEY:
        raise ConfigError(Problem("is not section.key=value", "write it so", file=file))
    key = tuple(dotted.strip().split("."))
    try:
        node = _compose(raw, file)
    except ConfigError:
        raise ConfigError(Problem(f"{raw!r} is not valid YAML", "quote it", file=file)) from None
    if key == ("model",) and isinstance(node, yaml.ScalarNode):
        source.put(key, node.value, file, None)
        _inline_model(source, Path())
        return
    if isinstance(node, yaml.MappingNode) and node.value:
        _put_node(source, node, file, key)  # key by key: what it does not name stays
        source.places = {k: (f, None if f == file else n) for k, (f, n) in source.places.items()}
        return
    source.put(key, None if node is None else _construct(node, file), file, None)


# ---------------------------------------------------------------------------------- validating


def _validate(source: _Source) -> Settings:
    for key in _leaves(source.values):
        texts = [*key, _value_at(source.values, key)]
        if any(_CONTROL.search(each) for each in _texts(texts)):
            what = f"{'.'.join(key)} holds a control character"
            raise ConfigError(Problem(what, "write it anew", **source.place(key)))
    try:
        settings = Settings.model_validate(source.values)
    except ValidationError as error:
        items = error.errors()
        shown = [_problem(source, item) for item in items[: 2 * MOST_LINES]]
        counted = [Problem(item["msg"]) for item in items[2 * MOST_LINES :]]
        raise ConfigError([*{str(p): p for p in shown}.values(), *counted]) from None
    problems_between = [
        Problem(f"{dotted}: {what}", fix, **source.place(dotted.split(".")))
        for dotted, what, fix in _contradictions(settings)
    ]
    if problems_between:
        raise ConfigError(problems_between)
    return settings


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of characters; line ends and tabs stand in headers of Excel."""


def _texts(values: Any) -> Iterator[str]:
    """The texts in a list of a list."""
    for each in values:
        if isinstance(each, str):
            yield each
        elif isinstance(each, list):
            yield from _texts(each)


def _problem(source: _Source, item: Any) -> Problem:
    """One pydantic error as a line."""
    loc = [str(part) for part in item["loc"] if str(part) not in _UNION_BRANCHES]
    dotted, kind, value = ".".join(loc), item["type"], item.get("input")
    place = source.place(loc)
    if kind == "extra_forbidden":
        prefix = "".join(f"{part}." for part in loc[:-1])
        hint = did_you_mean(loc[-1], _names_in(loc[:-1]), prefix)
        return Problem(f"unknown key {dotted}", hint, **place)
    if kind == "missing":
        return Problem(f"{dotted} is missing", "add it", **place)
    what = item["msg"][0].lower() + item["msg"][1:]
    return Problem(f"{dotted}: {value!r} does not fit: {what}", "change the value", **place)


_UNION_BRANCHES = {
    "float", "str", "list[str]", "literal['auto']",
    "dict[str,constrained-float]", "constrained-float",
}  # fmt: skip


def _names_in(loc: Sequence[str]) -> list[str]:
    """The keys that a block of the YAML may have."""
    model: type[BaseModel] = Settings
    for part in loc:
        field = model.model_fields.get(part)
        if field is None:  # a name of the user's own, below conditions.extra
            model = ExtraFieldConfig
        elif _is_section(field.annotation):
            model = cast(type[BaseModel], field.annotation)
    return list(model.model_fields)


def _contradictions(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Keys that do not go together: dotted key, what is wrong, what to do."""
    training, split = settings.training, settings.split
    yield from _model_contradictions(settings.model)
    if training.max_epochs and training.warmup_epochs >= training.max_epochs:
        yield (
            "training.warmup_epochs",
            f"{training.warmup_epochs:g} is not below training.max_epochs = {training.max_epochs}",
            "shorten the warm-up",
        )
    if settings.scheduler.min_lr > training.learning_rate:
        yield (
            "scheduler.min_lr",
            f"{settings.scheduler.min_lr:g} is above "
            f"training.learning_rate = {training.learning_rate:g}",
            "lower it",
        )
    if settings.optimizer.name == "adam" and "weight_decay" not in training.model_fields_set:
        yield (
            "optimizer.name",
            f"adam adds the decay to the gradient, and the default of {training.weight_decay:g} is "
            "for adamw",
            "write training.weight_decay too (0 is usual), or take adamw",
        )
    if training.loss == "poisson" and settings.model.head.kind != "get":
        yield (
            "training.loss",
            "poisson needs rates above zero, which model.head.kind: mlp does not give",
            "set model.head.kind: get and model.fusion.kind: film, or loss: huber",
        )
    if abs(sum(split.fractions) - 1) > 1e-6:
        yield (
            "split.fractions",
            f"{split.fractions} add up to {sum(split.fractions):g}",
            "train, val and test must add up to 1",
        )
    elif min(split.fractions) <= 0:
        yield ("split.fractions", f"{split.fractions} leave a part empty", "give each a share")
    if "png" not in settings.report.formats:
        yield "report.formats", "lacks png, which report.html shows", "write [png, pdf]"
    yield from _split_contradictions(split)
    yield from _field_contradictions(settings.conditions)
    yield from _pretrained_contradictions(settings)
    if settings.task.stage == "pretrain":
        yield from _pretraining_contradictions(settings)


def _model_contradictions(model: ModelConfig) -> Iterator[tuple[str, str, str]]:
    """Sizes that do not fit each other, and a head that cannot be."""
    transformer = model.transformer
    if transformer.embed_dim % transformer.num_heads:
        yield (
            "model.transformer.embed_dim",
            f"{transformer.embed_dim} is not a multiple of "
            f"model.transformer.num_heads = {transformer.num_heads}",
            "choose a multiple",
        )
    if transformer.positional_encoding == "sinusoidal" and transformer.embed_dim % 2:
        yield (
            "model.transformer.embed_dim",
            f"{transformer.embed_dim} is odd, and sinusoidal positions need pairs",
            "choose an even number",
        )
    if model.head.kind == "get" and model.fusion.by_factors:
        yield (
            "model.head.kind",
            "get is no head of factors, whose products are the predictions",
            "set model.fusion.kind: film, concat or tokens, or leave the head out",
        )


def _pretrained_contradictions(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """What needs a pretrained checkpoint, and there is none."""
    given = settings.finetune
    if given.checkpoint is not None:
        return
    if settings.lora.enabled:
        yield (
            "lora.enabled",
            "adapters need a pretrained base, and without finetune.checkpoint it would be random",
            "name a checkpoint, or train in full",
        )
    for key in ("num_heads", "feature_names", "freeze", "trust_checkpoint"):
        if getattr(given, key):
            yield (
                f"finetune.{key}",
                "says something about finetune.checkpoint, which is not given",
                "name a checkpoint, or leave it out",
            )


def _pretraining_contradictions(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Masked pretraining predicts a hidden region from its neighbours, by their features."""
    if settings.data.regions_per_window == 1:
        yield (
            "task.stage",
            "pretrain predicts hidden regions from their neighbours, and "
            "data.regions_per_window is 1",
            "set that to some tens or hundreds",
        )
    if settings.lora.enabled:
        yield ("lora.enabled", "does not go with task.stage: pretrain", "pretrain in full")
    if settings.training.ensemble > 1:
        what = "does not go with task.stage: pretrain, which makes one backbone"
        yield ("training.ensemble", what, "set 1")
    if settings.training.shuffle_targets:
        what = "has no meaning for task.stage: pretrain, which learns no expression"
        yield ("training.shuffle_targets", what, "set false")
    if settings.training.loss == "poisson":
        yield (
            "training.loss",
            "poisson does not suit the features of regions, which task.stage: pretrain predicts",
            "set mse or huber",
        )
    if settings.model.transformer.positional_encoding == "learned":
        yield (
            "model.transformer.positional_encoding",
            "learned positions have no place in the file that task.stage: pretrain writes",
            "set none or sinusoidal",
        )


def _split_contradictions(split: SplitConfig) -> Iterator[tuple[str, str, str]]:
    if (split.by == "column") != (split.column is not None):
        yield (
            "split.column",
            f"split.by is {split.by} and split.column is {split.column}",
            "split.by: column and split.column go together",
        )
    if (split.test or split.val) and split.by not in ("column", "chromosome"):
        yield (
            "split.test" if split.test else "split.val",
            f"names groups, and split.by: {split.by} has none with names",
            "use split.by: column or chromosome",
        )
    both = sorted(set(split.test) & set(split.val))
    if both:
        yield ("split.val", f"{', '.join(both)} also stands in split.test", "keep one of the two")


def _dose_contradictions(conditions: ConditionsConfig) -> Iterator[tuple[str, str, str]]:
    """A drug has one dose, and a dose has a drug."""
    doses = {} if conditions.drug_concentration.drop else {"drug": "drug_concentration"}
    for name, extra in conditions.extra.items():
        if extra.kind == "dose" and extra.drug is not None and not extra.drop:
            first = doses.setdefault(extra.drug, name)
            if first != name:
                what = f"is a second dose of {extra.drug}, beside {first}"
                fix = "drop one, or declare a drug field of its own"
                yield (f"conditions.extra.{name}.drug", what, fix)
    if conditions.drug.drop and not conditions.drug_concentration.drop:
        yield (
            "conditions.drug.drop",
            "a dose means nothing without its drug",
            "drop conditions.drug_concentration too",
        )


def _field_contradictions(conditions: ConditionsConfig) -> Iterator[tuple[str, str, str]]:
    """`conditions.extra`: a dose names its drug; and limits run upwards everywhere."""
    yield from _dose_contradictions(conditions)
    for name, extra in conditions.extra.items():
        dotted = f"conditions.extra.{name}"
        if name in ConditionsConfig.model_fields:
            yield (dotted, "is a standard field", f"write it as conditions.{name}")
        if not name[:1].isalnum() and name[:1] != "_":
            yield (dotted, "does not begin with a letter or digit", "give it another name")
        if (extra.kind == "dose") != (extra.drug is not None):
            yield (
                f"{dotted}.drug",
                f"kind is {extra.kind} and drug is {extra.drug}",
                "a dose, and only a dose, names its drug field",
            )
        elif extra.drug is not None:
            other = conditions.extra.get(extra.drug)
            if extra.drug != "drug" and (other is None or other.kind != "drug"):
                yield (
                    f"{dotted}.drug",
                    f"{extra.drug!r} is not a field of kind drug",
                    f"declare conditions.extra.{extra.drug}: {{kind: drug}}",
                )
    standard = {
        name: getattr(conditions, name) for name in ConditionsConfig.model_fields if name != "extra"
    }
    extras = {f"extra.{name}": entry for name, entry in conditions.extra.items()}
    for name, entry in {**standard, **extras}.items():
        for which in ("typical", "limits"):
            low_high = getattr(entry, which)
            if low_high is not None and low_high[0] > low_high[1]:
                yield (f"conditions.{name}.{which}", f"{low_high} runs downwards", "swap the two")
