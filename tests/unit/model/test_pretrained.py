"""Every kind of checkpoint, made small: what is read of it, what is refused, what is reported.

The recorded outputs of the published model are in `tests/contract/test_get_fixtures.py`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from yeast_get.batch import Batch, InputSizes
from yeast_get.config import FusionConfig, HeadConfig, ModelConfig, TransformerConfig
from yeast_get.errors import CheckpointError
from yeast_get.model import lora
from yeast_get.model.get_backbone import GETRegionFinetune, prepend_class_token
from yeast_get.model.pretrained import LoadReport, adopt, load_get, read_get
from yeast_get.model.yeast_model import MaskedRegionModel, YeastModel

FEATURES, WIDTH, LAYERS, HEADS = 5, 8, 3, 2
FROM_BLOCK = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]


def filled(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def get_model(seed=1, features=FEATURES, width=WIDTH, layers=LAYERS, heads=HEADS, **options):
    return filled(GETRegionFinetune(features, width, layers, heads, 2, **options), seed)


def features_of(batch=4, regions=6, features=FEATURES):
    return torch.randn(batch, regions, features, generator=torch.Generator().manual_seed(3))


def state_of(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------- the layouts of a file


def v1(state):
    """Current names -> those of the published expression models."""
    table = {
        "encoder.blocks.": "blocks.",
        "encoder.norm.": "fc_norm.",
        "region_embed.embed.": "region_embed.proj.",
        "head_exp.head.": "head.",
    }
    return renamed(state, table)


def v1_pretraining(state):
    table = {
        "region_embed.embed.": "encoder.region_embed.proj.",
        "cls_token": "encoder.cls_token",
        "head_mask.": "encoder.head.",
    }
    return renamed(state, table)


def renamed(state, table):
    return {
        next((new + key[len(old) :] for old, new in table.items() if key.startswith(old)), key): v
        for key, v in state.items()
    }


def pretraining(state):
    """The same backbone with the parts of masked pretraining and without the expression head."""
    g = torch.Generator().manual_seed(5)
    state = {key: value for key, value in state.items() if not key.startswith("head_exp")}
    features, width = state["region_embed.embed.weight"].shape[::-1]
    return state | {
        "mask_token": torch.randn(1, 1, width, generator=g),
        "head_mask.weight": torch.randn(features, width, generator=g),
        "head_mask.bias": torch.randn(features, generator=g),
    }


def yeast(state, key_bias=0.0):
    """One bias for queries, keys and values, the keys' of the given size."""
    out = {}
    for key, value in state.items():
        if key.endswith("q_bias"):
            v_bias = state[key.replace("q_bias", "v_bias")]
            keys = key_bias * torch.randn(len(value), generator=torch.Generator().manual_seed(6))
            out[key.replace("q_bias", "qkv.bias")] = torch.cat((value, keys, v_bias))
        elif not key.endswith("v_bias"):
            out[key] = value
    return out


def with_adapters(state, kind, rank=2):
    """Adapters in minLoRA's names or in the yeast layout's, on every map of the encoder."""
    out, pairs, g = {}, {}, torch.Generator().manual_seed(4)
    for key, value in state.items():
        path, _, what = key.rpartition(".")
        if not path.endswith(tuple(FROM_BLOCK)):
            out[key] = value
            continue
        if what == "weight":
            a = torch.randn(rank, value.shape[1], generator=g) * 0.3
            b = torch.randn(value.shape[0], rank, generator=g) * 0.3
            pairs[path] = (a, b)
            if kind == "minlora":
                of_weight = f"{path}.parametrizations.weight"
                out[f"{of_weight}.original"] = value
                out[f"{of_weight}.0.lora_A"], out[f"{of_weight}.0.lora_B"] = a, b
                out[f"{of_weight}.0.lora_dropout_mask"] = torch.ones(1, value.shape[1])
            else:
                out[f"{path}.base.weight"] = value
                out[f"{path}.lora_A"], out[f"{path}.lora_B"] = a, b
        else:
            out[key if kind == "minlora" else f"{path}.base.bias"] = value
    return out, pairs


def merged(state, pairs, scale):
    state = dict(state)
    for path, (a, b) in pairs.items():
        state[f"{path}.weight"] = state[f"{path}.weight"] + scale * b @ a
    return state


@pytest.fixture
def save(tmp_path):
    def to_file(values, name="checkpoint.pth"):
        torch.save(values, tmp_path / name)
        return tmp_path / name

    return to_file


def refusal(path, *args, reader=load_get, **options):
    """The one line with which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        reader(path, *args, **({"num_heads": HEADS} | options))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


LAYOUTS = {
    "v1": (v1, "published expression model (names of version 1)"),
    "current": (dict, "expression model (current names)"),
    "v1 pretraining": (
        lambda state: v1_pretraining(pretraining(state)),
        "published masked pretraining (names of version 1)",
    ),
    "pretraining": (pretraining, "masked pretraining (current names)"),
}
PLACES = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}}},
    "lightning": lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
    "yeast": lambda state: {"model_state_dict": state, "val_loss": 0.5},
    "twice": lambda state: {"model": {"state_dict": state}},
    "with an average": lambda state: {
        "model_ema": {key: 0 * value for key, value in state.items()},
        "model": state,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", PLACES)
def test_every_layout_loads_whole_wherever_the_file_keeps_it(save, layout, place):
    theirs, x = get_model(), features_of()
    convert, said = LAYOUTS[layout]
    model, report = load_get(save(PLACES[place](convert(state_of(theirs)))), HEADS)
    assert report.layout == said
    assert report.encoder == (report.encoder[1], report.encoder[1])
    assert report.encoder[1] == sum(p.numel() for p in theirs.encoder.parameters())
    assert (report.unexpected, report.mismatched, report.missing_blocks) == ([], {}, [])
    assert not model.training
    if "pretraining" in layout:
        assert report.missing == ["head_exp.head.weight", "head_exp.head.bias"]
        assert sorted(report.left_out) == ["head_mask.bias", "head_mask.weight", "mask_token"]
        assert set(report.left_out.values()) == {"the model has no such part"}
        model.head_exp.load_state_dict(theirs.head_exp.state_dict())
    else:
        assert (report.missing, report.left_out) == ([], {})
        assert report.backbone[0] == report.backbone[1]
    assert torch.equal(model(x), theirs(x))


WRAPPERS = ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.",
            "model._orig_mod.module.", "module.model._orig_mod.model.module."]  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_wrappers_of_any_nesting_are_taken_off(save, layout, wrapper):
    theirs = get_model()
    state = LAYOUTS[layout][0](state_of(theirs))
    path = save({"model": {f"{wrapper}{key}": value for key, value in state.items()}})
    plain = read_get(save(state, "plain.pth"), num_heads=HEADS)
    weights = read_get(path, num_heads=HEADS)
    assert weights.layout == plain.layout
    assert list(weights.tensors) == list(plain.tensors)
    assert all(torch.equal(weights.tensors[name], plain.tensors[name]) for name in plain.tensors)


@pytest.mark.parametrize(("features", "width", "layers", "heads", "ratio"),
                         [(3, 12, 1, 3, 2.0), (9, 8, 12, 4, 4.0), (1, 16, 2, 2, 0.5)])  # fmt: skip
def test_the_sizes_of_the_model_are_those_of_the_file(save, features, width, layers, heads, ratio):
    theirs = get_model(features=features, width=width, layers=layers, heads=heads, mlp_ratio=ratio)
    path = save({"model": v1(state_of(theirs))})
    weights = read_get(path, num_heads=heads)
    assert (weights.num_features, weights.embed_dim, weights.num_layers) == (
        features, width, layers,
    )  # fmt: skip
    assert (weights.num_heads, weights.mlp_ratio, weights.output_dim) == (heads, ratio, 2)
    model, _ = load_get(path, heads)
    x = features_of(features=features)
    assert torch.equal(model(x), theirs(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(save, dtype):
    state = {key: value.to(dtype) for key, value in state_of(get_model()).items()}
    path = save({"model": v1(state)})
    read = read_get(path, num_heads=HEADS).tensors
    assert {value.dtype for value in read.values()} == {torch.float32}
    model, report = load_get(path, HEADS)
    assert report.backbone[0] == report.backbone[1]
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[name].float())


def test_names_that_share_their_numbers_have_an_end(save):
    """Each name would become a copy in float32."""
    state = state_of(get_model())
    once = torch.zeros(256, 256, dtype=torch.float16)
    many = {f"encoder.blocks.{i}.attn.proj.weight": once for i in range(100)}
    with pytest.raises(CheckpointError, match="far more bytes than the file has"):
        read_get(save({"model": state | many}), num_heads=HEADS)


def test_the_file_is_not_changed_by_loading(save):
    path = save({"model": v1(with_scale(state_of(get_model()))[0])})
    before = path.read_bytes()
    model, _ = load_get(path, HEADS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert path.read_bytes() == before


# -------------------------------------------------------------------------- adapters of files

KINDS = {"minlora": 1 / 2, "yeast": 16 / 2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["auto", 0.25])
def test_adapters_are_merged(save, kind, scale):
    theirs, x = get_model(), features_of()
    state, pairs = with_adapters(state_of(theirs), kind)
    by = KINDS[kind] if scale == "auto" else scale
    theirs.load_state_dict(merged(state_of(theirs), pairs, by))
    model, report = load_get(save({"model": state}), HEADS, lora_scale=scale)
    assert report.backbone[0] == report.backbone[1]
    assert not report.unexpected
    assert_close(model(x), theirs(x))
    how = " (alpha / rank, with the alpha of its layout)" if scale == "auto" else ""
    assert f"{4 * LAYERS} LoRA adapters merged, scale {by:g}{how}" in report.notes


@pytest.mark.parametrize("rank", [1, 4])
def test_the_scale_goes_with_the_rank(save, rank):
    state, pairs = with_adapters(state_of(get_model()), "minlora", rank)
    weights = read_get(save(state), num_heads=HEADS)
    expected = merged(state_of(get_model()), pairs, 1 / rank)
    for name, value in expected.items():
        assert_close(weights.tensors[name], value)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_without_a_scale_are_refused(save, kind):
    state, _ = with_adapters(state_of(get_model()), kind)
    said = refusal(save(state), lora_scale=None)
    assert said.startswith("holds LoRA adapters (encoder.blocks.0.attn.qkv, ")
    assert said.endswith(
        ") and not their scale; set finetune.lora_scale to alpha / rank of its training, or to auto"
    )
    model, _ = load_get(save(state_of(get_model())), HEADS, lora_scale=None)
    assert isinstance(model, GETRegionFinetune)


@pytest.mark.parametrize(("kind", "base"), [("minlora", "original"), ("yeast", "base.weight")])
def test_adapters_without_what_they_adapt_are_refused(save, kind, base):
    state, _ = with_adapters(state_of(get_model()), kind)
    state = {key: value for key, value in state.items() if base not in key}
    said = refusal(save({"state_dict": state}))
    assert said == (
        "holds the LoRA adapter of encoder.blocks.0.attn.qkv and not the weight that it adapts; "
        "give the whole checkpoint"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"lora_A": None},
        {"lora_B": None},
        {"lora_A": torch.zeros(2, WIDTH + 1)},
        {"lora_B": torch.zeros(WIDTH + 1, 2)},
    ],
)
def test_adapters_that_do_not_fit_are_refused(save, change):
    state, _ = with_adapters(state_of(get_model()), "yeast")
    ((which, value),) = change.items()
    key = f"encoder.blocks.1.attn.proj.{which}"
    del state[key]
    state |= {} if value is None else {key: value}
    said = refusal(save(state))
    assert said == (
        "the LoRA adapter of encoder.blocks.1.attn.proj does not fit its weight; "
        "give another checkpoint"
    )


# ----------------------------------------------------------------- LayerScale and a key's bias


def by_hand(state, x, heads=HEADS, eps=1e-6):
    """The published forward pass from a state dict, with LayerScale and a bias of the keys.

    Attention is written out as `nn.Linear` with one bias would give it.
    """

    def linear(h, name):
        return functional.linear(h, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(h, name):
        width = h.shape[-1:]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.layer_norm(h, width, weight, bias, eps)

    h = prepend_class_token(state["cls_token"], linear(x, "region_embed.embed"))
    for i in range(LAYERS):
        at = f"encoder.blocks.{i}"
        qkv = linear(norm(h, f"{at}.norm1"), f"{at}.attn.qkv")
        if f"{at}.attn.q_bias" in state:
            q_bias, v_bias = state[f"{at}.attn.q_bias"], state[f"{at}.attn.v_bias"]
            qkv = qkv + torch.cat((q_bias, 0 * q_bias, v_bias))
        q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in qkv.chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
        h = h + state.get(f"{at}.gamma_1", 1) * linear(out, f"{at}.attn.proj")
        hidden = functional.gelu(linear(norm(h, f"{at}.norm2"), f"{at}.mlp.fc1"))
        h = h + state.get(f"{at}.gamma_2", 1) * linear(hidden, f"{at}.mlp.fc2")
    return functional.softplus(linear(norm(h, "encoder.norm")[:, 1:], "head_exp.head"))


def with_scale(state):
    g = torch.Generator().manual_seed(8)
    gammas = {
        f"encoder.blocks.{i}.gamma_{j}": 1 + 0.5 * torch.randn(WIDTH, generator=g)
        for i in range(LAYERS)
        for j in (1, 2)
    }
    return state | gammas, gammas


def test_the_forward_pass_written_out_is_the_models():
    model, x = get_model(), features_of()
    assert_close(by_hand(state_of(model), x), model(x))


@pytest.mark.parametrize("adapters", [None, "minlora", "yeast"])
@pytest.mark.parametrize("names", [dict, v1])
def test_layer_scale_is_folded_and_changes_no_output(save, names, adapters):
    x, plain = features_of(), state_of(get_model())
    state, gammas = with_scale(plain)
    expected = by_hand(state, x)
    assert (expected - by_hand(plain, x)).abs().max() > 0.01
    if adapters:
        file_state, pairs = with_adapters(plain, adapters)
        expected = by_hand(merged(plain, pairs, KINDS[adapters]) | gammas, x)
        state = file_state | gammas
    model, report = load_get(save({"model": names(state)}), HEADS)
    assert_close(model(x), expected)
    assert report.unexpected == []
    said = "LayerScale is folded into attn.proj and mlp.fc2, which changes no output"
    assert said in report.notes


@pytest.mark.parametrize("adapters", [None, "yeast"])
def test_the_bias_of_the_keys_is_dropped_and_changes_no_output(save, adapters):
    x, plain = features_of(), yeast(state_of(get_model()), key_bias=3.0)
    assert plain["encoder.blocks.0.attn.qkv.bias"][WIDTH : 2 * WIDTH].abs().min() > 0.1
    expected, file_state = by_hand(plain, x, eps=1e-5), plain
    if adapters:
        file_state, pairs = with_adapters(plain, adapters)
        expected = by_hand(merged(plain, pairs, 8), x, eps=1e-5)
    model, report = load_get(save({"model_state_dict": file_state}), HEADS)
    assert_close(model(x), expected)
    assert report.layout == (
        "expression model (current names), yeast layout (one bias for queries, keys and values)"
    )
    assert "the bias of the keys is dropped, which changes no output" in report.notes
    assert report.backbone[0] == report.backbone[1]
    assert not report.unexpected


def test_the_epsilon_of_the_norms_is_that_of_the_layout_or_as_the_file_says(save):
    state = state_of(get_model())
    cases = [
        ({"model": state}, 1e-6),
        ({"model": yeast(state)}, 1e-5),
        ({"model": state, "config": {"encoder": {"layer_norm_eps": 1e-3}}}, 1e-3),
        ({"model": yeast(state), "config": {"layer_norm_eps": 1e-3}}, 1e-3),
    ]
    for values, eps in cases:
        model, _ = load_get(save(values), HEADS)
        assert model.encoder.norm.eps == eps
        assert model.encoder.blocks[2].norm1.eps == eps


# ---------------------------------------------------------------------------------- heads


def wide_state(width):
    return state_of(get_model(width=width, layers=1, heads=1))


def test_heads_are_those_of_the_file_else_as_given_else_from_the_width(save):
    state, args = wide_state(128), argparse.Namespace(num_heads=8)
    nested = {"state_dict": state, "hyper_parameters": {"cfg": {"model": {"num_heads": 8}}}}
    cases = [
        (nested, None, 8, "as the file says"),
        (nested, 8, 8, "as the file says"),
        ({"model": state, "args": args}, None, 8, "as the file says"),
        ({"model": state}, 4, 4, "as given"),
        ({"model": state, "args": argparse.Namespace(num_heads="many")}, 4, 4, "as given"),
        ({"model": state}, None, 2, "width / 64; the file does not tell"),
    ]
    for values, given, heads, source in cases:
        model, report = load_get(save(values), given)
        assert model.encoder.blocks[0].attn.num_heads == heads
        assert report.notes[0] == f"1 blocks, 128 wide, {heads} heads ({source})"
        assert f"  {report.notes[0]}" in report.lines()


def test_other_heads_than_the_file_says_are_refused(save):
    said = refusal(save({"model": wide_state(128), "config": {"num_heads": 8}}), num_heads=4)
    assert said == (
        "was trained with 8 heads, and finetune.num_heads is 4; leave finetune.num_heads out"
    )


def test_a_width_that_does_not_tell_the_heads_is_refused(save):
    said = refusal(save(state_of(get_model())), num_heads=None)
    assert said == (
        "is 8 wide, and does not tell its number of heads; "
        "set finetune.num_heads to that of its training"
    )


def test_heads_that_do_not_divide_the_width_are_refused(save):
    said = refusal(save(state_of(get_model())), num_heads=3)
    assert said.startswith("is 8 wide, which 3 heads do not divide; set finetune.num_heads")
    said = refusal(
        save({"model": state_of(get_model()), "config": {"num_heads": 3}}), num_heads=None
    )
    assert said.startswith("is 8 wide, which 3 heads do not divide")


# -------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ({"model": {"conv.weight": torch.ones(1), "conv.bias": torch.ones(1)}},
         "conv.weight, conv.bias"),
        ({"model": {f"w{i}": torch.ones(1) for i in range(6)}}, "w0, w1, w2, w3, ... (6)"),
        ({"model": {}}, "no tensors"),
        ({"epoch": 3}, "no tensors"),
        ([1, 2], "no tensors"),
        ({"cls_token": torch.ones(1, 1, 8)}, "cls_token"),
    ],
)  # fmt: skip
def test_a_file_without_any_of_gets_tensors(save, values, held):
    said = refusal(save(values))
    assert said == f"holds none of GET's tensors (it holds {held}); give a GET checkpoint"


@pytest.mark.parametrize("strict", [True, False])
def test_a_block_that_is_missing_in_the_middle(save, strict):
    state = {key: v for key, v in state_of(get_model()).items() if ".blocks.1." not in key}
    said = refusal(save({"model": v1(state)}), strict=strict, min_loaded_fraction=0.0)
    assert said == (
        "holds nothing that fits encoder block 1 of the model; "
        "give the whole file; model.transformer must have the file's size"
    )


@pytest.mark.parametrize("size", [{"width": 16}, {"layers": LAYERS + 2}])
def test_a_file_of_another_size_than_the_model(save, size):
    weights = read_get(save(state_of(get_model())), num_heads=HEADS)
    model = get_model(seed=2, **size)
    report = adopt(model, weights, range(FEATURES))
    blocks = "0, 1, 2" if "width" in size else "3, 4"
    with pytest.raises(CheckpointError, match=f"nothing that fits encoder block {blocks} of the"):
        report.check(strict=False, min_loaded_fraction=0.0)
    if "width" in size:
        same = [name for name, value in state_of(model).items() if value.shape == (2,)]
        assert report.loaded == same  # the head's bias alone, whose size is that of the outputs
        said = "encoder.norm.weight: 8 in the file, 16 in the model"
        assert report.mismatched["encoder.norm.weight"] == said
        said = "cls_token: 1x1x8 in the file, 1x1x16 in the model"
        assert report.mismatched["cls_token"] == said


def test_a_file_whose_blocks_differ_in_width(save):
    other = state_of(get_model(width=16))
    state = {k: other[k] if ".blocks.1." in k else v for k, v in state_of(get_model()).items()}
    said = refusal(save(state), strict=False, min_loaded_fraction=0.0)
    assert said.startswith("holds nothing that fits encoder block 1 of the model")


def test_one_tensor_of_another_shape(save):
    state = state_of(get_model())
    name = "encoder.blocks.1.mlp.fc1.weight"
    state[name] = torch.zeros(32, 9)
    path = save(state)
    said = refusal(path)
    assert said == (
        f"does not fit: {name}: 32x9 in the file, 32x8 in the model; "
        "give another checkpoint, or set finetune.strict: false, which trains anew what is "
        "missing and leaves out what is unexpected"
    )
    model, report = load_get(path, HEADS, strict=False)
    assert list(report.mismatched) == [name]
    assert name not in report.loaded
    assert model.encoder.blocks[1].mlp.fc1.weight.any()
    lost = 32 * 8
    assert report.encoder == (report.encoder[1] - lost, report.encoder[1])


def test_a_block_of_which_half_is_missing(save):
    state = {k: v for k, v in state_of(get_model()).items() if ".1.attn." not in k}
    path = save({"model": v1(state)})
    names = [f"encoder.blocks.1.attn.{name} is missing" for name in ("q_bias", "v_bias")]
    said = refusal(path, min_loaded_fraction=0.5)
    assert said.startswith(f"does not fit: {', '.join(names)}, encoder.blocks.1.attn.qkv.weight")
    assert "; give another checkpoint, or set finetune.strict: false" in said
    for strict in (True, False):
        said = refusal(path, strict=strict, min_loaded_fraction=0.95)
        total = sum(p.numel() for p in get_model().encoder.parameters())
        lost = 3 * WIDTH * WIDTH + WIDTH * WIDTH + 3 * WIDTH
        share = f"{(total - lost) / total:.1%}"
        assert said == (
            f"gives {total - lost:,} of the encoder's {total:,} parameters ({share}), "
            "and finetune.min_loaded_fraction is 0.95; give another checkpoint"
        )
    model, report = load_get(path, HEADS, strict=False, min_loaded_fraction=0.5)
    assert len(report.missing) == 5
    assert all(name.startswith("encoder.blocks.1.attn.") for name in report.missing)
    assert report.encoder == (total - lost, total)
    torch.testing.assert_close(
        model.encoder.blocks[1].mlp.fc1.weight, state["encoder.blocks.1.mlp.fc1.weight"]
    )


@pytest.mark.parametrize("name", ["encoder.blocks.0.attn.rel_pos_bias", "head_atac.weight"])
def test_a_tensor_that_no_get_model_has(save, name):
    path = save(state_of(get_model()) | {name: torch.ones(2, 2)})
    said = refusal(path)
    assert said.startswith(f"does not fit: {name} is unexpected; give another checkpoint, or set")
    _, report = load_get(path, HEADS, strict=False)
    assert report.unexpected == [name]
    assert report.backbone[0] == report.backbone[1]


def test_without_a_class_token_a_file_does_not_fit(save):
    state = state_of(get_model())
    del state["cls_token"]
    assert refusal(save(state)).startswith("does not fit: cls_token is missing; give another")


@pytest.mark.parametrize("wrapper", ["", "model."])
def test_variants_that_cannot_be_used_are_named(save, wrapper):
    variants = {
        "encoder.fc_norm.weight": "was trained with mean pooling (encoder.fc_norm), so that its "
        "encoder has no output per region",
        "pos_embed.pe": "was trained with positions (pos_embed), which are not read here",
    }
    for key, what in variants.items():
        state = state_of(get_model()) | {key: torch.ones(WIDTH)}
        path = save({"state_dict": {f"{wrapper}{k}": v for k, v in state.items()}})
        assert refusal(path, strict=False) == f"{what}; give a checkpoint without it"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["cls_token", "encoder.blocks.2.mlp.fc2.weight",
                                  "encoder.norm.bias", "head_exp.head.bias"])  # fmt: skip
def test_weights_that_are_not_finite(save, name, value):
    state = state_of(get_model())
    state[name].view(-1)[-1] = value
    assert refusal(save({"model": v1(state)}), strict=False) == (
        f"holds tensors that are no matrix, or not finite: {name}; give another checkpoint"
    )


@pytest.mark.parametrize("name", ["region_embed.embed.weight", "encoder.blocks.1.mlp.fc1.weight",
                                  "encoder.blocks.0.attn.qkv.weight"])  # fmt: skip
def test_maps_that_are_no_matrix(save, name):
    state = state_of(get_model())
    state[name] = state[name].unsqueeze(-1)
    said = refusal(save(state), strict=False)
    assert name.rpartition("blocks.1.")[2] in said
    assert "matrix" in said


@pytest.mark.parametrize("name", ["attn.proj.weight", "mlp.fc1.weight"])
def test_without_any_block_that_tells_the_sizes(save, name):
    state = {k: v for k, v in state_of(get_model()).items() if not k.endswith(name)}
    said = refusal(save(state), strict=False, min_loaded_fraction=0.0)
    assert said == f"holds no encoder block with {name} as a matrix; give another checkpoint"


def test_two_names_of_one_tensor(save):
    state = v1(state_of(get_model()))
    state["encoder.blocks.0.norm1.weight"] = torch.ones(WIDTH)
    said = refusal(save(state))
    assert said == (
        "holds two tensors that both mean encoder.blocks.0.norm1.weight; give a file of one model"
    )


# ------------------------------------------------------------------ files of this software


def yeast_model(features=FEATURES, head="get", layers=LAYERS, kind="film", encoding=()):
    config = ModelConfig(
        transformer=TransformerConfig(num_layers=layers, num_heads=HEADS, embed_dim=WIDTH),
        fusion=FusionConfig(kind=kind, hidden_dim=8),
        head=HeadConfig(kind=head, hidden_dim=8),
    )
    sizes = InputSizes(features - 1, 1, ["temperature"], {"medium": 3}, ["drug"], 4, 2, 0)
    sizes = replace(sizes, encoding=list(encoding), number_scales=[[30.0, 5.0, 0.0]])
    return filled(YeastModel(config, sizes), seed=9)


def own_file(model, lora_settings=None, **more):
    settings = {
        "lora": lora_settings or {"enabled": False, "rank": 8, "alpha": 16},
        "model": {
            "transformer": {"num_heads": HEADS, "embed_dim": WIDTH},
            "encoder": {"layer_norm_eps": None},
        },
    }
    return {"format": 2, "schema": {}, "settings": settings, "model": state_of(model)} | more


def batch_of(x):
    b, r, _ = x.shape
    whole = torch.ones(b, r, dtype=torch.int64)
    return Batch(
        motif=x[..., :-1],
        accessibility=x[..., -1:],
        region_mask=whole.bool(),
        region_index=whole,
        region_vocab=0 * whole,
        sample_vocab=0 * whole[:, 0],
        condition_number=torch.zeros(b, 1),
        condition_present=torch.ones(b, 1),
        condition_category=whole[:, :1],
        condition_other=torch.zeros(b, 2),
        drug=whole[:, :1] + 1,
        dose=torch.ones(b, 1),
        target=torch.zeros(b, r, 2),
        target_mask=torch.zeros(b, r, 2, dtype=torch.bool),
        observation_index=whole,
    )


def test_a_file_of_this_software_gives_its_backbone_and_says_what_it_does_not(save):
    model = yeast_model(head="mlp")
    names = {"names": ["a", "b", "c", "d", "accessibility"]}
    names |= {key: [1.0] * 5 for key in ("center", "offset", "scale")}
    hashes = torch.tensor([3, 5])
    path = save(own_file(model, features=names, pretrained_regions=hashes))
    weights = read_get(path)
    assert weights.layout == "checkpoint of yeast_get"
    assert (weights.num_heads, weights.heads_from) == (HEADS, "as the file says")
    assert weights.features == names
    assert torch.equal(weights.trained_regions, hashes)
    parts = {name.partition(".")[0] for name in weights.left_out}
    assert parts == {"feature_encoder", "fusion", "head"}
    assert set(weights.left_out.values()) == {"of the table that it was trained on"}
    state = state_of(model)
    assert set(weights.tensors) | set(weights.left_out) == set(state)
    assert all(torch.equal(weights.tensors[name], state[name]) for name in weights.tensors)
    report = adopt(get_model(), weights, range(FEATURES))
    assert report.unexpected == []
    assert report.encoder[0] == report.encoder[1]


def test_of_a_file_whose_features_enter_by_bins_the_encoder_is_taken(save):
    """Its bins are quantiles of its table, and its embedding has a column for each of them."""
    bins = [[j, low, 4.0, 0.5, 0.3] for j in range(FEATURES) for low in (-4.0, 0.0)]
    model = yeast_model(head="mlp", kind="factors", encoding=bins)
    names = {"names": ["a", "b", "c", "d", "accessibility"]}
    names |= {key: [1.0] * 5 for key in ("center", "offset", "scale")}
    weights = read_get(save(own_file(model, features=names)))
    parts = {name.partition(".")[0] for name in weights.left_out}
    assert parts == {"encoding", "by_factors", "region_embed"}
    assert {name.partition(".")[0] for name in weights.tensors} == {"cls_token", "encoder"}
    assert (weights.features, weights.num_features) == ({}, None)
    loaded = get_model(seed=2)
    report = adopt(loaded, weights, None)
    report.check()
    assert report.region_embed == "newly initialised: the file has none"
    tokens = features_of(features=WIDTH)
    assert_close(loaded.encoder(tokens), model.encoder(tokens))


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("lora_scale", ["auto", 100.0, None])
def test_adapters_of_this_software_have_the_scale_of_their_settings(save, rslora, lora_scale):
    model, x = yeast_model(), features_of()
    lora.inject(model, ["encoder"], rank=2, alpha=3, rslora=rslora)
    filled(model, seed=11)
    settings = {"enabled": True, "rank": 2, "alpha": 3, "rslora": rslora}
    path = save(own_file(model, settings, lora={"base": ["cls_token"]}))
    loaded = yeast_model()
    report = adopt(loaded, read_get(path, lora_scale=lora_scale), range(FEATURES))
    report.check()
    assert_close(loaded.encoder(loaded.region_embed(x)), model.encoder(model.region_embed(x)))


def test_a_file_of_the_first_layout_of_this_software(save):
    """It knew no adapters: neither its settings nor the file tell of any."""
    model = yeast_model()
    path = save(own_file(model, {"enabled": False}) | {"format": 1})
    weights = read_get(path)
    assert weights.num_heads == HEADS
    assert (weights.features, weights.trained_regions) == ({}, None)
    report = adopt(get_model(), weights, range(FEATURES))
    assert report.backbone[0] == report.backbone[1]


def test_an_adapter_of_this_software_is_no_backbone(save):
    model = yeast_model()
    lora.inject(model, ["encoder"], rank=2, alpha=3)
    values = own_file(model, {"rank": 2, "alpha": 3})
    base = [name for name in values["model"] if name.startswith("encoder") and "lora" not in name]
    for name in base:
        del values["model"][name]
    said = refusal(save(values | {"lora": {"base": base}}))
    assert said == "is an adapter, and holds no backbone; give the file that it was trained from"


# --------------------------------------------------------------------------------- columns


def test_a_permutation_of_the_columns_permutes_the_embedding(save):
    theirs, x = get_model(), features_of()
    weights = read_get(save(state_of(theirs)), num_heads=HEADS)
    order = [3, 0, 4, 1, 2]
    model = get_model(seed=2)
    report = adopt(model, weights, order)
    report.check()
    torch.testing.assert_close(model(x[..., order]), theirs(x))
    assert report.columns == order
    assert "region_embed.embed.weight" in report.loaded
    assert report.region_embed == "5 of 5 input columns taken from the file"


def test_fewer_columns_than_the_file_has(save):
    theirs, x = get_model(), features_of()
    weights = read_get(save(state_of(theirs)), num_heads=HEADS)
    model = get_model(seed=2, features=3)
    report = adopt(model, weights, [4, 0, 2])
    without = x.clone()
    without[..., [1, 3]] = 0
    torch.testing.assert_close(model(x[..., [4, 0, 2]]), theirs(without))
    assert report.region_embed == (
        "3 of 3 input columns taken from the file; 2 columns of the file are not in the table"
    )
    assert report.backbone[0] == report.backbone[1]


def test_partly_new_columns_are_kept_and_train_in_full(save):
    theirs = get_model()
    weights = read_get(save(state_of(theirs)), num_heads=HEADS)
    model = get_model(seed=2, features=4)
    before = model.region_embed.embed.weight.detach().clone()
    columns = [-1, 2, -1, 0]
    report = adopt(model, weights, columns)
    report.check()
    now, file = model.region_embed.embed.weight, theirs.region_embed.embed.weight
    assert torch.equal(now[:, [1, 3]], file[:, [2, 0]])
    assert torch.equal(now[:, [0, 2]], before[:, [0, 2]])
    assert torch.equal(model.region_embed.embed.bias, theirs.region_embed.embed.bias)
    assert not [name for name in report.loaded if name.startswith("region_embed")]
    assert report.columns == columns
    assert report.region_embed == (
        "2 of 4 input columns taken from the file, the others newly initialised; it trains in "
        "full; 3 columns of the file are not in the table"
    )
    new = sum(p.numel() for p in model.region_embed.parameters())
    assert report.backbone == (report.backbone[1] - new, report.backbone[1])


@pytest.mark.parametrize(
    ("columns", "reason", "said"),
    [
        (None, "the file does not name its features", "the file does not name its features"),
        ([-1] * 4, "no name is the same", "no name is the same"),
    ],
)
def test_an_embedding_of_other_columns_stays_as_it_is(save, columns, reason, said):
    weights = read_get(save(pretraining(state_of(get_model()))), num_heads=HEADS)
    model = get_model(seed=2, features=4)
    before = state_of(model)
    report = adopt(model, weights, columns, reason)
    report.check()
    after = state_of(model)
    for name in before:
        changed = name == "cls_token" or name.startswith("encoder.")
        assert torch.equal(before[name], after[name]) != changed
    assert report.columns == []
    assert report.region_embed == f"newly initialised: {said}"
    assert f"  region_embed: newly initialised: {said}" in report.lines()
    others = {n for n, why in report.left_out.items() if why.startswith("its features are not")}
    parts = ("head_mask", "region_embed.embed")
    assert others == {f"{part}.{what}" for part in parts for what in ("weight", "bias")}


def test_a_file_without_an_embedding(save):
    state = {k: v for k, v in state_of(get_model()).items() if not k.startswith("region_embed")}
    _, report = load_get(save({"model": v1(state)}), HEADS)
    assert report.region_embed == "newly initialised: the file has none"
    assert report.missing == ["region_embed.embed.weight", "region_embed.embed.bias"]


def masked_model(features=FEATURES):
    config = ModelConfig(
        transformer=TransformerConfig(num_layers=LAYERS, num_heads=HEADS, embed_dim=WIDTH)
    )
    sizes = InputSizes(features - 1, 1, [], {}, [], 2, 2, 0)
    return filled(MaskedRegionModel(config, sizes), seed=12)


def test_the_head_of_masked_pretraining_follows_the_columns(save):
    theirs, x, order = masked_model(), features_of(), [3, 0, 4, 1, 2]
    path = save({"model": v1_pretraining(state_of(theirs))})
    model = masked_model()
    filled(model, seed=13)
    report = adopt(model, read_get(path, num_heads=HEADS), order)
    report.check()
    assert report.backbone[0] == report.backbone[1]
    assert not report.left_out
    before, after = batch_of(x), batch_of(x[..., order])
    before.target_mask[:, ::2] = after.target_mask[:, ::2] = True
    torch.testing.assert_close(model(after), theirs(before)[..., order])


# ---------------------------------------------------------------------------------- report


def scenarios():
    """What a file may hold, beside what a model has, and the columns."""
    state = state_of(get_model())
    dropped = {k: v for k, v in state.items() if ".1.attn." not in k and k != "cls_token"}
    odd = dict(state, **{"extra.weight": torch.ones(2, 2), "encoder.norm.weight": torch.ones(3)})
    return {
        "whole": (state, get_model, range(FEATURES)),
        "permuted": (state, get_model, [4, 3, 2, 1, 0]),
        "partly new": (state, get_model, [0, -1, -1, 3, 1]),
        "new embedding": (state, get_model, None),
        "half missing": (dropped, get_model, range(FEATURES)),
        "odd": (odd, get_model, range(FEATURES)),
        "another width": (state, lambda seed: get_model(seed, width=16), range(FEATURES)),
        "another head": (state, lambda seed: filled(GETRegionFinetune(5, 8, 3, 2, 1)), range(5)),
        "pretraining": (pretraining(state), get_model, range(FEATURES)),
        "masked": (pretraining(state), lambda seed: masked_model(), range(FEATURES)),
        "masked, new": (pretraining(state), lambda seed: masked_model(), None),
        "ours": (state, lambda seed: yeast_model(head="mlp"), range(FEATURES)),
        "deeper": (state, lambda seed: get_model(seed, layers=5), range(FEATURES)),
    }


@pytest.mark.parametrize("scenario", scenarios())
def test_the_report_accounts_for_every_tensor_once(save, scenario):
    state, make, columns = scenarios()[scenario]
    weights = read_get(save({"model": state}), num_heads=HEADS)
    model = make(seed=2)
    own = {n: v for n, v in state_of(model).items()
           if n.partition(".")[0] in ("cls_token", "region_embed", "encoder", "head_exp",
                                      "mask_token", "head_mask")}  # fmt: skip
    report = adopt(model, weights, columns)
    embedding = [name for name in own if name.startswith("region_embed.")]
    new_embedding = (
        embedding if report.region_embed.startswith("new") or scenario == "partly new" else []
    )
    mismatched, left = list(report.mismatched), list(report.left_out)
    of_file = [*report.loaded, *mismatched, *report.unexpected, *left]
    assert len(of_file) == len(set(of_file))
    in_part = embedding if scenario == "partly new" else []
    assert set(of_file) | set(in_part) == set(weights.tensors) | set(weights.left_out)
    of_model = [*report.loaded, *report.missing, *mismatched]
    assert len(of_model) == len(set(of_model))
    head = {"head_mask.weight", "head_mask.bias"} if scenario == "masked, new" else set()
    assert set(of_model) | set(new_embedding) | head == set(own)
    after = state_of(model)
    for name in report.loaded:
        file, now = weights.tensors[name], after[name]
        if name == "region_embed.embed.weight":
            file = file[:, list(columns)]
        assert torch.equal(file, now)
    loaded = sum(own[name].numel() for name in report.loaded)
    assert report.backbone == (loaded, sum(value.numel() for value in own.values()))
    for each in [*report.missing, *mismatched]:
        assert torch.equal(own[each], after[each])  # and what was not loaded is as it was
    text = "\n".join(report.lines())
    whole = report.encoder[0] == report.encoder[1]
    assert ("encoder: " + f"{report.encoder[0]:,} of {report.encoder[1]:,} parameters loaded "
            f"({'100.0' if whole else ''}" in text)  # fmt: skip
    assert text.count("(100.0 %)") == whole + (report.backbone[0] == report.backbone[1])
    assert json.loads(json.dumps(report.to_dict()))["loaded"] == report.loaded


def test_lines_of_a_report():
    report = LoadReport(
        "a.pth",
        "expression model",
        ["note one", "note two"],
        loaded=[f"t{i}" for i in range(6)],
        missing=["m"],
        mismatched={"x": "x: 2 in the file, 3 in the model"},
        unexpected=["u", "v"],
        left_out={"a": "reason one", "b": "reason two", "c": "reason one"},
        region_embed="taken",
        backbone=(1_234_567, 2_000_000),
        encoder=(10, 10),
    )
    assert report.lines() == [
        "a.pth: expression model",
        "  note one",
        "  note two",
        "  backbone: 1,234,567 of 2,000,000 parameters loaded (61.7 %)",
        "  encoder: 10 of 10 parameters loaded (100.0 %)",
        "  6 tensors loaded: t0, t1, t2, t3, ... (6)",
        "  1 tensor missing in the file: m",
        "  1 tensor of another shape: x: 2 in the file, 3 in the model",
        "  2 tensors unexpected: u, v",
        "  2 tensors left out (reason one): a, c",
        "  1 tensor left out (reason two): b",
        "  region_embed: taken",
    ]


@pytest.mark.parametrize(
    ("loaded", "total", "share"),
    [(85_267_201, 85_267_202, "99.9"), (1, 1, "100.0"), (0, 7, "0.0"), (0, 0, "0.0"),
     (9_999, 10_000, "99.9"), (1, 1_001, "0.0"), (1, 3, "33.3"), (10**12 - 1, 10**12, "99.9")],
)  # fmt: skip
def test_a_hundred_per_cent_is_said_only_where_nothing_is_lacking(loaded, total, share):
    report = LoadReport("a.pth", "kind", [], backbone=(loaded, total), encoder=(loaded, total))
    said = f"{loaded:,} of {total:,} parameters loaded ({share} %)"
    assert report.lines()[1:] == [f"  backbone: {said}", f"  encoder: {said}"]


def test_a_report_as_a_dictionary_is_json_and_whole(save):
    _, report = load_get(save(pretraining(state_of(get_model()))), HEADS)
    read = json.loads(json.dumps(report.to_dict()))
    assert read == report.to_dict()
    assert set(read) == set(LoadReport.__dataclass_fields__)
    assert LoadReport(**read | {"backbone": tuple(read["backbone"]),
                                "encoder": tuple(read["encoder"])}) == report  # fmt: skip


def test_what_a_check_lets_pass(save):
    whole = LoadReport("a.pth", "kind", [], encoder=(10, 10))
    whole.missing, whole.left_out = ["head_exp.head.weight"], {"mask_token": "no such part"}
    whole.mismatched = {"head_exp.head.bias": "head_exp.head.bias: 1 in the file, 2 in the model"}
    whole.check(strict=True, min_loaded_fraction=1.0)  # embedding and head may be new
    short = LoadReport("a.pth", "kind", [], encoder=(9, 10), missing=["encoder.norm.bias"])
    short.check(strict=False, min_loaded_fraction=0.9)
    with pytest.raises(CheckpointError, match="^a.pth: does not fit: encoder.norm.bias is missing"):
        short.check(strict=True, min_loaded_fraction=0.9)
    with pytest.raises(CheckpointError, match=r"gives 9 of the encoder's 10 parameters \(90.0%\)"):
        short.check(strict=False, min_loaded_fraction=0.91)


def test_parameters_stay_the_same_objects_and_keep_whether_they_train(save):
    model = get_model(seed=2)
    model.encoder.norm.weight.requires_grad_(False)
    ids = {name: (id(p), p.requires_grad) for name, p in model.named_parameters()}
    weights = read_get(save(state_of(get_model())), num_heads=HEADS)
    adopt(model, weights, range(FEATURES)).check()
    assert {name: (id(p), p.requires_grad) for name, p in model.named_parameters()} == ids


# --------------------------------------------------------------------- found by trying


@pytest.mark.parametrize("width", [65, 96, 160])
def test_a_width_that_is_no_multiple_of_64_does_not_tell_the_heads(save, width):
    said = refusal(save(wide_state(width)), num_heads=None)
    assert said.startswith(f"is {width} wide, and does not tell its number of heads")


def minlora_state(**changes):
    state, _ = with_adapters(state_of(get_model()), "minlora")
    of_weight = "encoder.blocks.0.attn.qkv.parametrizations.weight.0"
    return state | {f"{of_weight}.{name}": value for name, value in changes.items()}


MALFORMED = {
    "ranks of A and B differ": minlora_state(lora_B=torch.zeros(3 * WIDTH, 3)),
    "A is no matrix": minlora_state(lora_A=torch.zeros(3)),
    "LayerScale is one number": {"encoder.blocks.0.gamma_1": torch.tensor(2.0)},
    "LayerScale of another length": {"encoder.blocks.0.gamma_1": torch.full((WIDTH + 1,), 2.0)},
    "a bias is one number": {"encoder.blocks.0.attn.qkv.bias": torch.tensor(1.0)},
    "the first projection is empty": {"encoder.blocks.0.attn.proj.weight": torch.zeros(0, 0)},
    "a sparse tensor": {"cls_token": torch.zeros(1, 1, WIDTH).to_sparse()},
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_tensors_are_refused_in_one_line(save, what):
    state = MALFORMED[what]
    state = state if "cls_token" in state and len(state) > 1 else state_of(get_model()) | state
    refusal(save({"model": state}))


TWICE = {
    "prefix": lambda s: s | {f"module.{key}": 0 * value for key, value in s.items()},
    "original and weight": lambda s: minlora_state()
    | {"encoder.blocks.0.attn.qkv.weight": torch.zeros(3 * WIDTH, WIDTH)},
    "base and weight": lambda s: with_adapters(s, "yeast")[0]
    | {"encoder.blocks.0.attn.qkv.weight": torch.zeros(3 * WIDTH, WIDTH)},
    "q_bias and qkv.bias": lambda s: s
    | {"encoder.blocks.0.attn.qkv.bias": torch.zeros(3 * WIDTH)},
}  # fmt: skip


@pytest.mark.parametrize("what", TWICE)
def test_two_names_of_one_tensor_however_they_come_about(save, what):
    said = refusal(save({"model": TWICE[what](state_of(get_model()))}))
    assert said.startswith("holds two tensors that both mean ")


def test_a_head_of_which_rows_are_new_is_not_loaded_whole(save):
    path = save(pretraining(state_of(get_model())))
    report = adopt(masked_model(), read_get(path, num_heads=HEADS), [0, -1, -1, 3, 1])
    assert not [name for name in report.loaded if name.startswith("head_mask.")]


@pytest.mark.parametrize("change", [{"head_mask.bias": None}, {"head_mask.weight": (3, WIDTH)}])
def test_a_masked_head_that_lacks_something_is_reported(save, change):
    state = pretraining(state_of(get_model()))
    ((name, shape),) = change.items()
    del state[name]
    state |= {} if shape is None else {name: torch.zeros(shape)}
    report = adopt(masked_model(), read_get(save(state), num_heads=HEADS), range(FEATURES))
    assert name in (report.missing if shape is None else report.mismatched)


@pytest.mark.parametrize(("width", "hidden"), [(88, 120), (104, 240)])
def test_any_ratio_of_the_mlp_is_rebuilt(save, width, hidden):
    state = wide_state(width)
    for name, shape in (("fc1.weight", (hidden, width)), ("fc1.bias", (hidden,)),
                        ("fc2.weight", (width, hidden))):  # fmt: skip
        state[f"encoder.blocks.0.mlp.{name}"] = torch.zeros(shape)
    _, report = load_get(save(state), HEADS)
    assert report.backbone[0] == report.backbone[1]


def test_a_block_far_beyond_the_others_is_refused_in_a_short_line(save):
    """The number is the file's: with 10 ** 7 in its place, as many blocks would be built."""
    state = state_of(get_model()) | {"encoder.blocks.500.norm1.bias": torch.zeros(WIDTH)}
    assert len(refusal(save(state))) < 300
