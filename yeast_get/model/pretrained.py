"""Pretrained GET checkpoints, of any kind, into our models; and a report of what that came to.

    read_get(path)          a file -> GetWeights: tensors under GET's current names
    load_get(path)          a file -> a whole GET model of the file's size, and the report
    adopt(model, weights)   GetWeights -> the parts of a model that they fit, and the report

The layout of a file is told from its keys and mapped by a fixed table, never by trying; what each
kind of file holds is as published (Fu et al., Nature 2025, and the layouts of the files that GET
and its yeast descendants write). Nothing is left out in silence: every tensor of the file and of
the model's GET part is in the report as loaded, missing, mismatched, unexpected or left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from yeast_get.errors import CheckpointError, Problem
from yeast_get.model.checkpoint_file import find_setting, is_whole, open_checkpoint
from yeast_get.model.get_backbone import LAYER_NORM_EPS, GETRegionFinetune
from yeast_get.stored import Sizes, build

GET_PARTS = ("cls_token", "region_embed", "encoder", "head_exp", "mask_token", "head_mask")
"""Top-level names of GET's own parameters; everything else in a model is ours."""

WIDTH_OF_A_HEAD = 64
"""Published models have heads of this width; the fallback where a file does not tell."""

MOST_BLOCKS = 1000
"""More blocks than any model has; the number is read off the names of a file."""

MOST_COPIES = 8
"""In float32, the tensors of a file may take this many times its size: halves do, shared ones."""

MINLORA_ALPHA, YEAST_ALPHA = 1, 16
"""Numerators of the LoRA scale in minLoRA (GET's) and in the yeast layout; over the rank."""

LoraScale = float | Literal["auto"] | None


@dataclass
class GetWeights:
    """What a checkpoint holds of GET.

    Attributes:
        file: Where it was read from.
        layout: Its kind, in words.
        tensors: By GET's current names, in float32: `cls_token`, `region_embed.embed.*`,
            `encoder.*`, and where the file has them `head_exp.head.*`, `mask_token`,
            `head_mask.*`.
        left_out: Tensors of the file that no GET model takes, and why; by name.
        num_heads: Attention heads.
        heads_from: Where that number is from.
        layer_norm_eps: Of the LayerNorms.
        positions: The positional encoding, where the file tells.
        notes: What was done to the tensors on the way.
        features: What the file says of its input columns: "names", and "center", "offset" and
            "scale" where it has them, one entry per column. Empty for published files.
        trained_regions: Hashes of the regions that it was pretrained on, where it tells.
        trained_rows: Of a checkpoint of this software, which rows it was trained on.
    """

    file: str
    layout: str
    tensors: dict[str, Tensor]
    left_out: dict[str, str]
    num_heads: int
    heads_from: str
    layer_norm_eps: float
    notes: list[str]
    features: dict[str, list[Any]] = field(default_factory=dict)
    trained_regions: Tensor | None = None
    trained_rows: dict[str, Any] = field(default_factory=dict)
    positions: str | None = None

    @property
    def embed_dim(self) -> int:
        """D."""
        return _first_block(self.tensors, "attn.proj.weight").shape[0]

    @property
    def num_layers(self) -> int:
        """Blocks of the encoder, counting one that is missing in the middle."""
        return 1 + max(_blocks(self.tensors))

    @property
    def mlp_ratio(self) -> float:
        """Width of the MLP over D."""
        return _first_block(self.tensors, "mlp.fc1.weight").shape[0] / self.embed_dim

    @property
    def num_features(self) -> int | None:
        """Columns of the input; None where the file has no region embedding."""
        weight = self.tensors.get("region_embed.embed.weight")
        return None if weight is None else weight.shape[1]

    @property
    def output_dim(self) -> int | None:
        """Outputs of the expression head; None without one."""
        weight = self.tensors.get("head_exp.head.weight")
        return None if weight is None else weight.shape[0]


@dataclass
class LoadReport:
    """What became of every tensor of a checkpoint, and of every GET tensor of a model.

    Attributes:
        file: The checkpoint.
        layout: Its kind, in words.
        notes: What was done to its tensors, and where the number of heads is from.
        loaded: Names of the model's tensors that came from the file, whole.
        missing: Names of the model's GET tensors that the file lacks.
        mismatched: Names of those that have another shape there, with both shapes.
        unexpected: Tensors of the file that no GET model is known to have.
        left_out: Tensors that were knowingly not taken, and why.
        region_embed: What became of the embedding of the regions, in words.
        columns: For each input column of the model its column in the file, -1 where it is new;
            empty where the embedding is new.
        backbone: Parameters of the model's GET part: loaded, and in all.
        encoder: Likewise of the encoder alone.
        missing_blocks: Encoder blocks of which nothing was loaded.
        sha256: Digest of the loaded tensors, for whoever must know the file again.
    """

    file: str
    layout: str
    notes: list[str]
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    mismatched: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    region_embed: str = ""
    columns: list[int] = field(default_factory=list)
    backbone: tuple[int, int] = (0, 0)
    encoder: tuple[int, int] = (0, 0)
    missing_blocks: list[int] = field(default_factory=list)
    sha256: str = ""

    def lines(self) -> list[str]:
        """The report for the screen: counts and shares, and the first few names."""
        lines = [f"{self.file}: {self.layout}", *(f"  {note}" for note in self.notes)]
        for name, (loaded, total) in (("backbone", self.backbone), ("encoder", self.encoder)):
            share = loaded * 1000 // max(total, 1) / 10  # 100.0 only where nothing is lacking
            lines.append(f"  {name}: {loaded:,} of {total:,} parameters loaded ({share:.1f} %)")
        groups: list[tuple[str, Sequence[str]]] = [
            ("loaded", self.loaded),
            ("missing in the file", self.missing),
            ("of another shape", list(self.mismatched.values())),
            ("unexpected", self.unexpected),
        ]
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            groups.append((f"left out ({reason})", names))
        lines += [
            f"  {_tensors(len(names))} {what}: {_some(names)}" for what, names in groups if names
        ]
        return [*lines, *([f"  region_embed: {self.region_embed}"] if self.region_embed else [])]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for the manifest."""
        return asdict(self) | {"backbone": list(self.backbone), "encoder": list(self.encoder)}

    def check(self, *, strict: bool = True, min_loaded_fraction: float = 0.9) -> None:
        """Refuse a load that is not one.

        Args:
            strict: Whether one tensor of the encoder or the class token that is missing or of
                another shape, or one that no GET model has, is enough to refuse.
            min_loaded_fraction: Least share of the encoder's parameters, strict or not.

        Raises:
            CheckpointError: With what is missing, and what can be done.
        """
        loaded, total = self.encoder
        if self.missing_blocks:
            blocks = _some(map(str, self.missing_blocks))
            what = f"holds nothing that fits encoder block {blocks} of the model"
            fix = "give the whole file; model.transformer must have the file's size"
            raise CheckpointError(Problem(what, fix, file=self.file))
        if loaded < min_loaded_fraction * total:
            what = (
                f"gives {loaded:,} of the encoder's {total:,} parameters ({loaded / total:.1%}), "
                f"and finetune.min_loaded_fraction is {min_loaded_fraction:g}"
            )
            raise CheckpointError(Problem(what, "give another checkpoint", file=self.file))
        odd = [
            *(f"{name} is missing" for name in self.missing if _is_core(name)),
            *(said for name, said in self.mismatched.items() if _is_core(name)),
            *(f"{name} is unexpected" for name in self.unexpected),
        ]
        if strict and odd:
            what = f"does not fit: {_some(odd)}"
            fix = (
                "give another checkpoint, or set finetune.strict: false, which trains anew what is "
                "missing and leaves out what is unexpected"
            )
            raise CheckpointError(Problem(what, fix, file=self.file))


def _tensors(count: int) -> str:
    return f"{count} tensor" if count == 1 else f"{count} tensors"


def _is_core(name: str) -> bool:
    """Whether a tensor must come from a pretrained file; embedding and head may be new."""
    return name == "cls_token" or name.startswith("encoder.")


def _some(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    more = f", ... ({len(names)})" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# ------------------------------------------------------------------------------- reading a file

_WRAPPERS = re.compile(r"^((module|model|_orig_mod)\.)+")
_V1 = (
    ("blocks.", "encoder.blocks."),
    ("fc_norm.", "encoder.norm."),
    ("region_embed.proj.", "region_embed.embed."),
    ("head.", "head_exp.head."),
)
_V1_PRETRAINING = (
    ("encoder.region_embed.proj.", "region_embed.embed."),
    ("encoder.cls_token", "cls_token"),
    ("encoder.head.", "head_mask."),
)
_PUBLISHED = re.compile(
    r"^(cls_token|mask_token|region_embed\.embed\.(weight|bias)|encoder\.norm\.(weight|bias)"
    r"|(head_exp\.head|head_mask)\.(weight|bias)"
    r"|encoder\.blocks\.\d+\.(norm[12]\.(weight|bias)|attn\.(q_bias|v_bias|qkv\.weight)"
    r"|attn\.proj\.(weight|bias)|mlp\.fc[12]\.(weight|bias)))$"
)
_OURS = (
    "feature_encoder", "fusion", "head", "by_factors", "encoding", "region_identity",
    "position_embed",
)  # fmt: skip


def read_get(
    path: str | Path,
    *,
    num_heads: int | None = None,
    lora_scale: LoraScale = "auto",
    trust: bool = False,
) -> GetWeights:
    """Read what a checkpoint holds of GET, of whichever kind the file is.

    Known are: published `.pth` files of expression models and of masked pretraining, Lightning
    `.ckpt` files, either of them under DDP or torch.compile, with minLoRA's adapters or without;
    the yeast layout with one bias for queries, keys and values, and its adapters; `pretrained.pth`
    and `best_model.pth` of this software. Adapters are merged, LayerScale is folded into the maps
    that it scales, and a bias of the keys is dropped, which changes nothing.

    Args:
        path: The file.
        num_heads: Attention heads, where the file does not tell.
        lora_scale: Scale of the adapters in a foreign file; "auto" is alpha / rank with alpha 1 in
            minLoRA's layout and 16 in the yeast layout; None refuses files with adapters.
        trust: Unpickle whatever the file holds, which may run code.

    Raises:
        CheckpointError: Where the file cannot be read, holds no GET, or a variant that cannot be
            used, naming it.
    """
    values = open_checkpoint(path, trust=trust)
    try:
        return _read(str(path), values, num_heads, lora_scale)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"holds what no checkpoint holds ({error})"
        raise CheckpointError(Problem(what, "give another checkpoint", str(path))) from error


def _read(file: str, values: Any, num_heads: int | None, lora_scale: LoraScale) -> GetWeights:
    """`read_get` of the content of a file."""
    held = values if isinstance(values, dict) else {}
    own = "format" in held and all(isinstance(held.get(k), dict) for k in ("settings", "model"))
    if own and any(name not in held["model"] for name in held.get("lora", {}).get("base", [])):
        what = "is an adapter, and holds no backbone"
        raise CheckpointError(Problem(what, "give the file that it was trained from", file=file))
    state = _state_dict(values)
    if sum(each.numel() for each in state.values()) * 4 > MOST_COPIES * Path(file).stat().st_size:
        raise ValueError("its tensors claim far more bytes than the file has")
    layout, state = _current_names(file, state)
    # what is ours beside the backbone belongs to the table that it was trained on, and so does the
    # embedding of bins, which are quantiles of that table
    table = (*_OURS, "region_embed") if "encoding.gate" in state else _OURS
    left_out = {
        key: "of the table that it was trained on"
        for key in state
        if own and key.partition(".")[0] in table
    }
    notes: list[str] = []
    settings = held["settings"] if own else values
    scale = _own_scale(settings) if own else lora_scale
    state = _merge_adapters(file, state, scale, notes)
    _refuse_variants(file, state)
    yeast = any(key.endswith("attn.qkv.bias") for key in state)
    if yeast:
        layout = f"{layout}, yeast layout (one bias for queries, keys and values)"
        state = _split_qkv_bias(file, state, notes)
    state = _fold_layer_scale(file, state, notes)
    tensors = {key: value.float() for key, value in state.items() if key not in left_out}
    _check_tensors(file, tensors)
    heads, heads_from = _heads(file, settings, num_heads, tensors)
    told = find_setting(settings, "layer_norm_eps", float) or 0.0
    regions = held.get("pretrained_regions")
    return GetWeights(
        file=file,
        layout="checkpoint of yeast_get" if own else layout,
        tensors=tensors,
        left_out=left_out,
        num_heads=heads,
        heads_from=heads_from,
        layer_norm_eps=told if 0 < told < 1 else (1e-5 if yeast else LAYER_NORM_EPS),
        notes=notes,
        features=_features(file, held.get("features"), tensors),
        trained_regions=regions if _is_hashes(regions) else None,
        trained_rows=held.get("trained_rows", {}),
        positions=find_setting(settings, "positional_encoding", str),
    )


def _is_hashes(value: Any) -> bool:
    return is_whole(value) and value.dtype == torch.int64 and value.dim() == 1


@dataclass
class _Features:
    """What a file of this software says of its input columns."""

    names: Annotated[list[str], Sizes("M")]
    center: Annotated[list[float], Sizes("M")]
    offset: Annotated[list[float], Sizes("M")]
    scale: Annotated[list[float], Sizes("M", odd="inf")]


def _features(file: str, told: Any, tensors: dict[str, Tensor]) -> dict[str, list[Any]]:
    """What a file of this software says of its input columns: one entry per column, or nothing."""
    weight = tensors.get("region_embed.embed.weight")
    if not isinstance(told, dict) or not told or weight is None:
        return {}
    try:
        columns = build(_Features, told)
        fits = len(columns.names) == weight.shape[1] and all(each > 0 for each in columns.scale)
    except ValueError:
        fits = False
    if not fits:
        what = f"describes other features than the {weight.shape[1]} of its region_embed"
        raise CheckpointError(Problem(what, "give the file as it was written", file=file))
    return told


def _state_dict(values: Any) -> dict[str, Tensor]:
    """The mapping of names to tensors, wherever the known kinds of file keep it."""
    for _ in range(3):
        inner = [values.get(k) for k in ("state_dict", "model_state_dict", "model")] if (
            isinstance(values, Mapping)
        ) else []  # fmt: skip
        found = next((each for each in inner if isinstance(each, Mapping)), None)
        if found is None:
            break
        values = found
    if not isinstance(values, Mapping):
        return {}
    return {str(key): each for key, each in values.items() if _is_weight(each)}


def _is_weight(value: Any) -> bool:
    """Whether a value is a whole tensor of numbers."""
    return is_whole(value) and bool(value.is_floating_point())


def _current_names(file: str, state: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The layout in words, and the tensors under GET's current names."""
    keys = [_WRAPPERS.sub("", key) for key in state]
    table: tuple[tuple[str, str], ...] = ()
    if any(key.startswith("blocks.") for key in keys):
        layout, table = "published expression model (names of version 1)", _V1
    elif any(re.match(r"encoder\.(region_embed|head|cls_token)\b", key) for key in keys):
        layout, table = "published masked pretraining (names of version 1)", _V1_PRETRAINING
    elif any(key.startswith("encoder.blocks.") for key in keys):
        masked = any(key.startswith("head_mask.") for key in keys)
        layout = "masked pretraining" if masked else "expression model"
        layout = f"{layout} (current names)"
    else:
        what = f"holds none of GET's tensors (it holds {_some(keys) or 'no tensors'})"
        raise CheckpointError(Problem(what, "give a GET checkpoint", file=file))
    renamed: dict[str, Tensor] = {}
    for key, value in zip(keys, state.values(), strict=True):
        new = next((b + key[len(a) :] for a, b in table if key.startswith(a)), key)
        _put(file, renamed, new, value)
    return layout, renamed


def _put(file: str, tensors: dict[str, Tensor], name: str, value: Tensor) -> None:
    """Add a tensor; a second one of the same meaning is no model that we know."""
    if name in tensors:
        what = f"holds two tensors that both mean {name}"
        raise CheckpointError(Problem(what, "give a file of one model", file=file))
    tensors[name] = value


def _own_scale(settings: Any) -> float:
    """Scale of the adapters in a file of this software, from its settings."""
    lora = settings.get("lora", {})
    rank = lora.get("rank", 1)
    scale: float = lora.get("alpha", 1) / (rank**0.5 if lora.get("rslora") else rank)
    return scale


_LORA_KEY = re.compile(
    r"^(?P<path>.+?)\.(parametrizations\.weight\.0\.)?lora_(?P<what>A|B|dropout_mask)$"
)


def _merge_adapters(
    file: str, state: dict[str, Tensor], scale: LoraScale, notes: list[str]
) -> dict[str, Tensor]:
    """Every adapter added to its weight: W + scale B A, in float32."""
    pairs: dict[str, dict[str, Tensor]] = {}
    out: dict[str, Tensor] = {}
    alpha = MINLORA_ALPHA
    for key, value in state.items():
        match = _LORA_KEY.match(key)
        if match is not None:
            pairs.setdefault(match["path"], {})[match["what"]] = value
        else:
            if re.search(r"\.base\.(weight|bias)$", key):
                alpha = YEAST_ALPHA
            key = re.sub(r"\.parametrizations\.weight\.original$", ".weight", key)
            _put(file, out, re.sub(r"\.base\.(weight|bias)$", r".\1", key), value)
    if not pairs:
        return out
    if scale is None:
        what = f"holds LoRA adapters ({_some(pairs)}) and not their scale"
        fix = "set finetune.lora_scale to alpha / rank of its training, or to auto"
        raise CheckpointError(Problem(what, fix, file=file))
    scales = set()
    for path, pair in pairs.items():
        weight = out.get(f"{path}.weight")
        if weight is None:
            what = f"holds the LoRA adapter of {path} and not the weight that it adapts"
            raise CheckpointError(Problem(what, "give the whole checkpoint", file=file))
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None or not _is_adapter_of(weight, a, b):
            what = f"the LoRA adapter of {path} does not fit its weight"
            raise CheckpointError(Problem(what, "give another checkpoint", file=file))
        by = alpha / a.shape[0] if scale == "auto" else scale
        out[f"{path}.weight"] = _merged(weight, a, b, by)
        scales.add(f"{by:g}")
    how = " (alpha / rank, with the alpha of its layout)" if scale == "auto" else ""
    notes.append(f"{len(pairs)} LoRA adapters merged, scale {', '.join(sorted(scales))}{how}")
    return out


def _merged(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """W + scale B A, rounded once from float64, so that every processor gives the same bits."""
    return (weight.double() + scale * (b.double() @ a.double())).float()


def _is_adapter_of(weight: Tensor, a: Tensor, b: Tensor) -> bool:
    """Whether B A has the shape of a weight."""
    if any(each.dim() != 2 for each in (weight, a, b)):
        return False
    return b.shape[1] == a.shape[0] > 0 and (b.shape[0], a.shape[1]) == tuple(weight.shape)


def _refuse_variants(file: str, state: dict[str, Tensor]) -> None:
    """Variants of GET whose tensors have the same names and another meaning."""
    variants = {
        "encoder.fc_norm.": "was trained with mean pooling (encoder.fc_norm), so that its encoder "
        "has no output per region",
        "pos_embed.": "was trained with positions (pos_embed), which are not read here",
    }
    for start, what in variants.items():
        if any(key.startswith(start) for key in state):
            raise CheckpointError(Problem(what, "give a checkpoint without it", file=file))


def _split_qkv_bias(file: str, state: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """One bias for queries, keys and values -> GET's two.

    The keys' bias adds the same number to all scores of a query, and softmax removes it.
    """
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.endswith("attn.qkv.bias"):
            _put(file, out, key, value)
            continue
        if value.dim() != 1 or not len(value) or len(value) % 3:
            raise _odd_shape(file, key, value)
        q_bias, _, v_bias = value.chunk(3)
        _put(file, out, key.replace("qkv.bias", "q_bias"), q_bias)
        _put(file, out, key.replace("qkv.bias", "v_bias"), v_bias)
    notes.append("the bias of the keys is dropped, which changes no output")
    return out


def _odd_shape(file: str, name: str, value: Tensor) -> CheckpointError:
    what = f"holds {name} in a shape that it cannot have ({_shape(value)})"
    return CheckpointError(Problem(what, "give another checkpoint", file=file))


def _fold_layer_scale(file: str, state: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """LayerScale multiplies the output of a branch: so does its last map, scaled by row."""
    out = dict(state)
    for key in [key for key in state if re.search(r"\.gamma_[12]$", key)]:
        gamma = out.pop(key).float()
        last = "attn.proj" if key.endswith("1") else "mlp.fc2"
        for name in (f"{key[: -len('gamma_1')]}{last}.{part}" for part in ("weight", "bias")):
            if name in out:
                if gamma.dim() != 1 or out[name].shape[:1] != gamma.shape:
                    raise _odd_shape(file, key, gamma)
                out[name] = out[name].float() * gamma.view(-1, *[1] * (out[name].dim() - 1))
    if len(out) < len(state):
        notes.append("LayerScale is folded into attn.proj and mlp.fc2, which changes no output")
    return out


def _check_tensors(file: str, tensors: dict[str, Tensor]) -> None:
    """Sizes can be read off, and all numbers are finite."""
    for name in ("attn.proj.weight", "mlp.fc1.weight"):
        blocks = [t for key, t in tensors.items() if re.search(rf"blocks\.\d+\.{name}$", key)]
        if not blocks or any(each.dim() != 2 or not each.numel() for each in blocks):
            what = f"holds no encoder block with {name} as a matrix"
            raise CheckpointError(Problem(what, "give another checkpoint", file=file))
    beyond = max(_blocks(tensors))
    if beyond >= MOST_BLOCKS:
        what = f"names a block {beyond}, and no model has so many"
        raise CheckpointError(Problem(what, "give another checkpoint", file=file))
    flat = [key for key in tensors if key.endswith("weight") and "norm" not in key]
    odd = [key for key in flat if tensors[key].dim() != 2]
    odd += [key for key, value in tensors.items() if not value.isfinite().all()]
    if odd:
        what = f"holds tensors that are no matrix, or not finite: {_some(odd)}"
        raise CheckpointError(Problem(what, "give another checkpoint", file=file))


def _heads(
    file: str, settings: Any, given: int | None, tensors: dict[str, Tensor]
) -> tuple[int, str]:
    """The number of heads, which no shape shows, and where it is from."""
    width = _first_block(tensors, "attn.proj.weight").shape[0]
    told = find_setting(settings, "num_heads", int)
    told = told if told is not None and told > 0 else None
    if told is not None and given is not None and told != given:
        what = f"was trained with {told} heads, and finetune.num_heads is {given}"
        raise CheckpointError(Problem(what, "leave finetune.num_heads out", file=file))
    heads = told or given or width // WIDTH_OF_A_HEAD
    guessed = not (told or given)
    if (guessed and width % WIDTH_OF_A_HEAD) or width % heads:
        what = f"is {width} wide, and does not tell its number of heads"
        if not guessed:
            what = f"is {width} wide, which {heads} heads do not divide"
        fix = "set finetune.num_heads to that of its training"
        raise CheckpointError(Problem(what, fix, file=file))
    if told:
        return heads, "as the file says"
    return heads, "as given" if given else f"width / {WIDTH_OF_A_HEAD}; the file does not tell"


def _blocks(tensors: Mapping[str, Tensor]) -> set[int]:
    return {int(m[1]) for key in tensors if (m := re.match(r"encoder\.blocks\.(\d{1,6})\.", key))}


def _first_block(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    keys = (f"encoder.blocks.{i}.{name}" for i in sorted(_blocks(tensors)))
    return next(tensors[key] for key in keys if key in tensors)


# ----------------------------------------------------------------------------- into a model


def load_get(
    path: str | Path,
    num_heads: int | None = None,
    *,
    lora_scale: LoraScale = "auto",
    strict: bool = True,
    min_loaded_fraction: float = 0.9,
    trust: bool = False,
) -> tuple[GETRegionFinetune, LoadReport]:
    """A whole GET model of the size that the file's shapes say, with its weights, in eval mode.

    A file without an expression head (masked pretraining) gives a model whose head, of two outputs,
    is newly initialised; the report says so.

    Args:
        path: As `read_get`, and likewise `num_heads`, `lora_scale` and `trust`.
        num_heads: See there.
        lora_scale: See there.
        strict: As `LoadReport.check`, and likewise `min_loaded_fraction`.
        min_loaded_fraction: See there.
        trust: See `read_get`.

    Raises:
        CheckpointError: As `read_get` and `LoadReport.check`.
    """
    weights = read_get(path, num_heads=num_heads, lora_scale=lora_scale, trust=trust)
    features = weights.num_features
    model = GETRegionFinetune(
        1 if features is None else features,
        weights.embed_dim,
        weights.num_layers,
        weights.num_heads,
        weights.output_dim or 2,
        weights.mlp_ratio,
        layer_norm_eps=weights.layer_norm_eps,
    )
    report = adopt(model, weights, range(features or 0))
    report.check(strict=strict, min_loaded_fraction=min_loaded_fraction)
    return model.eval(), report


def adopt(
    model: nn.Module,
    weights: GetWeights,
    columns: Sequence[int] | None = None,
    reason: str = "no feature name of the table is among the file's",
) -> LoadReport:
    """Copy into a model what it has under GET's names and in the same shape.

    Args:
        model: With GET's names at its top level; changed in place.
        weights: From `read_get`.
        columns: For each input column of the model, its column in the file, or -1 where the file
            has none; None where that is not known, and the region embedding stays as it is.
        reason: Why no column would be taken, for the report.
    """
    heads = f"{weights.num_heads} heads ({weights.heads_from})"
    size = f"{weights.num_layers} blocks, {weights.embed_dim} wide, {heads}"
    report = LoadReport(weights.file, weights.layout, [size, *weights.notes])
    report.left_out = dict(weights.left_out)
    taken = dict(weights.tensors)
    for name in [name for name in taken if not _PUBLISHED.match(name)]:
        report.unexpected.append(name)
        del taken[name]
    state = {k: v for k, v in model.state_dict().items() if k.partition(".")[0] in GET_PARTS}
    _choose_columns(report, state, taken, columns, reason)
    with torch.no_grad():
        for name, value in state.items():
            given = taken.pop(name, None)
            if given is None:
                report.missing += [] if name in report.left_out else [name]
            elif given.shape != value.shape:
                shapes = f"{_shape(given)} in the file, {_shape(value)} in the model"
                report.mismatched[name] = f"{name}: {shapes}"
            else:
                value.copy_(given)
                report.loaded.append(name)
    for name in taken:
        report.left_out[name] = "the model has no such part"
    partly_new = -1 in report.columns
    if partly_new:  # the map is trained whole, so none of it counts as the file's
        partly = ("region_embed.", "head_mask.")
        for name in [each for each in report.loaded if each.startswith(partly)]:
            report.loaded.remove(name)
            report.left_out[name] = "taken in part, column by column"
    _count(report, state)
    return report


def _choose_columns(
    report: LoadReport,
    state: dict[str, Tensor],
    taken: dict[str, Tensor],
    columns: Sequence[int] | None,
    reason: str,
) -> None:
    """Put the file's input columns into the model's order, and say what became of them."""
    theirs, ours = taken.get("region_embed.embed.weight"), state.get("region_embed.embed.weight")
    if ours is None:
        return
    kept = [] if columns is None or theirs is None else [each for each in columns if each >= 0]
    if theirs is None or not kept or theirs.shape[0] != ours.shape[0]:
        why = "the file has none" if theirs is None else reason
        if theirs is not None and theirs.shape[0] != ours.shape[0]:
            why = f"it is {theirs.shape[0]} wide in the file and {ours.shape[0]} in the model"
        report.region_embed = f"newly initialised: {why}"
        for name in [n for n in taken if n.startswith(("region_embed.", "head_mask."))]:
            report.left_out[name] = "its features are not those of the table"
            del taken[name]
        return
    assert columns is not None
    chosen = torch.tensor(list(columns))
    old = chosen >= 0
    weight = ours.clone()
    weight[:, old] = theirs[:, chosen[old]].to(weight.dtype)
    taken["region_embed.embed.weight"] = weight
    for name in ("head_mask.weight", "head_mask.bias"):
        if name in state and name in taken and len(taken[name]) == theirs.shape[1]:
            rows = state[name].clone()
            rows[old] = taken[name][chosen[old]].to(rows.dtype)
            taken[name] = rows
    report.columns = list(columns)
    unused = theirs.shape[1] - len(set(kept))
    report.region_embed = f"{len(kept)} of {len(columns)} input columns taken from the file"
    if len(kept) < len(columns):
        report.region_embed += ", the others newly initialised; it trains in full"
    if unused:
        report.region_embed += f"; {unused} columns of the file are not in the table"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _count(report: LoadReport, state: dict[str, Tensor]) -> None:
    loaded = set(report.loaded)

    def count(names: Iterable[str]) -> tuple[int, int]:
        each = [(name in loaded, state[name].numel()) for name in names]
        return sum(n for there, n in each if there), sum(n for _, n in each)

    encoder = [name for name in state if name.startswith("encoder.")]
    report.backbone, report.encoder = count(state), count(encoder)
    there = _blocks({name: state[name] for name in loaded})
    report.missing_blocks = sorted(_blocks(state) - there)
