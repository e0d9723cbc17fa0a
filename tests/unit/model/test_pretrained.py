"""Reading GET checkpoints: layouts, variants, refusals, and a report that adds up."""

from __future__ import annotations

import argparse
import json
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from yeast_get.errors import CheckpointError
from yeast_get.model import lora
from yeast_get.model.get_backbone import GETRegionFinetune
from yeast_get.model.pretrained import adopt, load_get, read_get

FEATURES, WIDTH, LAYERS, HEADS = 5, 16, 3, 4


def make_get(features=FEATURES, width=WIDTH, layers=LAYERS, heads=HEADS, outputs=2):
    """A model in which nothing is zero."""
    model = GETRegionFinetune(features, width, layers, heads, outputs)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def get():
    return make_get()


@pytest.fixture
def write(tmp_path):
    def write(values, name="get.pth"):
        torch.save(values, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def refused(write):
    """The one line with which a state dict, or a whole file, is refused."""

    def refuse(state, load=load_get, whole=False, **options) -> str:
        options.setdefault("num_heads", HEADS)
        with pytest.raises(CheckpointError) as caught:
            load(write(state if whole else {"model": state}), **options)
        (line,) = caught.value.lines()
        return line

    return refuse


def windows(features=FEATURES):
    return torch.randn(2, 7, features, generator=torch.Generator().manual_seed(2))


def same_outputs(model, other, x=None):
    x = windows() if x is None else x
    torch.testing.assert_close(model(x), other(x), rtol=1e-5, atol=1e-6)


def v1(name):
    """A name of version 1."""
    for old, new in (
        ("encoder.blocks.", "blocks."),
        ("encoder.norm.", "fc_norm."),
        ("region_embed.embed.", "region_embed.proj."),
        ("head_exp.head.", "head."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def all_is_loaded(report):
    assert report.missing == report.unexpected == []
    assert report.mismatched == report.left_out == {}
    assert report.backbone[0] == report.backbone[1] > report.encoder[1] == report.encoder[0]


# ---------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("names", ["current", "v1"])
@pytest.mark.parametrize("where", [("model",), ("state_dict",), ("model", "state_dict"), ()])
def test_wrappers_and_names_in_any_combination(get, write, prefix, names, where):
    rename = v1 if names == "v1" else str
    values = {prefix + rename(name): value for name, value in get.state_dict().items()}
    for key in reversed(where):
        values = {key: values, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    model, report = load_get(write(values), HEADS)
    same_outputs(model, get)
    all_is_loaded(report)
    assert ("names of version 1" in report.layout) == (names == "v1")


def test_half_precision_is_read_as_float32(get, write):
    half = {name: value.half() for name, value in get.state_dict().items()}
    model, _ = load_get(write(half), HEADS)
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())
    expected = make_get()
    expected.load_state_dict({name: value.float() for name, value in half.items()})
    same_outputs(model, expected)


@pytest.mark.parametrize("scale", ["auto", 0.7])
def test_minlora_s_adapters_are_merged(get, write, scale):
    adapted = make_get()
    paths = lora.inject(adapted, ["encoder"], rank=4, alpha=1 if scale == "auto" else 4 * 0.7)
    with torch.no_grad():
        for _, each in lora.adapters(adapted):
            each.lora_B.normal_()
    state = {}
    for name, value in adapted.state_dict().items():
        path, _, last = name.rpartition(".")
        if path in paths and last != "bias":
            middle = "original" if last == "weight" else f"0.{last}"
            name = f"{path}.parametrizations.weight.{middle}"
        state[f"model.{name}"] = value
    for path in paths:
        mask = f"model.{path}.parametrizations.weight.0.lora_dropout_mask"
        state[mask] = torch.ones(1, get.get_submodule(path).in_features)
    model, report = load_get(write({"state_dict": state}), HEADS, lora_scale=scale)
    torch.testing.assert_close(model(windows()), adapted(windows()), rtol=1e-4, atol=1e-5)
    all_is_loaded(report)
    shown = "0.25 (alpha / rank" if scale == "auto" else "0.7"
    assert any(f"{len(paths)} LoRA adapters merged, scale {shown}" in n for n in report.notes)


def yeast_layout(get, key_bias):
    state = {}
    for name, value in get.state_dict().items():
        if name.endswith("q_bias"):
            v_bias = get.state_dict()[name.replace("q_bias", "v_bias")]
            state[name.replace("q_bias", "qkv.bias")] = torch.cat((value, key_bias, v_bias))
        elif not name.endswith("v_bias"):
            state[name] = value
    return state


def test_the_yeast_layout_drops_a_key_bias_that_changes_nothing(get, write):
    key_bias = torch.randn(WIDTH)
    model, report = load_get(write({"model_state_dict": yeast_layout(get, key_bias)}), HEADS)
    all_is_loaded(report)
    assert "yeast layout" in report.layout
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-5}
    attention, tokens = model.encoder.blocks[0].attn, torch.randn(2, 6, WIDTH)
    bias = torch.cat((attention.q_bias, key_bias, attention.v_bias))
    q, k, v = (
        each.view(2, 6, HEADS, -1).transpose(1, 2)
        for each in (attention.qkv(tokens) + bias).chunk(3, dim=-1)
    )
    out = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 6, WIDTH)
    torch.testing.assert_close(attention(tokens), attention.proj(out), rtol=1e-4, atol=1e-5)


def test_the_yeast_layout_s_adapters_have_another_alpha(get, write):
    state = yeast_layout(get, torch.zeros(WIDTH))
    a, b = torch.randn(8, WIDTH), torch.randn(WIDTH, 8)
    path = "encoder.blocks.1.attn.proj"
    weight = state.pop(f"{path}.weight")
    state |= {f"{path}.base.weight": weight, f"{path}.base.bias": state.pop(f"{path}.bias"),
              f"{path}.lora_A": a, f"{path}.lora_B": b}  # fmt: skip
    model, _ = load_get(write(state), HEADS)
    merged = model.encoder.blocks[1].attn.proj.weight
    torch.testing.assert_close(merged, weight + 16 / 8 * b @ a)


def test_layer_scale_is_folded_and_changes_no_output(get, write):
    gammas = {f"encoder.blocks.{i}.gamma_{k}": torch.rand(WIDTH) for i in range(LAYERS)
              for k in (1, 2)}  # fmt: skip
    model, report = load_get(write(get.state_dict() | gammas), HEADS)
    all_is_loaded(report)

    def scaled(block, i):
        def forward(tokens):
            one, two = (gammas[f"encoder.blocks.{i}.gamma_{k}"] for k in (1, 2))
            tokens = tokens + one * block.attn(block.norm1(tokens))
            return tokens + two * block.mlp(block.norm2(tokens))

        return forward

    tokens = torch.randn(2, 6, WIDTH)
    expected = tokens
    for i, block in enumerate(get.encoder.blocks):
        expected = scaled(block, i)(expected)
    torch.testing.assert_close(
        model.encoder(tokens), get.encoder.norm(expected), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("names", ["current", "v1"])
def test_masked_pretraining_has_no_head_and_the_report_says_so(get, write, names):
    state = {n: v for n, v in get.state_dict().items() if not n.startswith("head_exp")}
    state |= {"head_mask.weight": torch.randn(FEATURES, WIDTH), "head_mask.bias": torch.zeros(5),
              "mask_token": torch.randn(1, 1, WIDTH)}  # fmt: skip
    if names == "v1":
        table = (("region_embed.embed.", "encoder.region_embed.proj."),
                 ("cls_token", "encoder.cls_token"), ("head_mask.", "encoder.head."))  # fmt: skip
        state = {next((b + k[len(a):] for a, b in table if k.startswith(a)), k): v
                 for k, v in state.items()}  # fmt: skip
    model, report = load_get(write({"model": state}), HEADS)
    assert "masked pretraining" in report.layout
    assert report.missing == ["head_exp.head.weight", "head_exp.head.bias"]
    assert set(report.left_out) == {"mask_token", "head_mask.weight", "head_mask.bias"}
    assert report.encoder[0] == report.encoder[1]
    assert torch.equal(model.cls_token, get.cls_token)
    assert torch.equal(model.region_embed.embed.weight, get.region_embed.embed.weight)


# ------------------------------------------------------------------------------------- heads


def test_the_number_of_heads_is_the_file_s_then_the_argument_s_then_a_guess(write):
    wide = make_get(width=128, layers=1, heads=8)
    state = wide.state_dict()
    told = write({"state_dict": state, "config": {"encoder": {"num_heads": 8}}})
    for argument, file, heads, how in (
        (None, told, 8, "as the file says"),
        (8, told, 8, "as the file says"),
        (4, write(state, "b.pth"), 4, "as given"),
        (None, write(state, "b.pth"), 2, "width / 64"),
    ):
        model, report = load_get(file, argument)
        assert model.encoder.blocks[0].attn.num_heads == heads
        assert f"{heads} heads ({how}" in report.notes[0]
    same_outputs(load_get(told)[0], wide)


def test_a_number_of_heads_that_cannot_be(get, refused):
    config = {"model": get.state_dict(), "config": {"num_heads": 4}}
    assert "trained with 4 heads, and finetune.num_heads is 2" in refused(
        config, whole=True, num_heads=2
    )
    assert "16 wide, and does not tell its number of heads" in refused(
        get.state_dict(), num_heads=None
    )
    assert "16 wide, which 3 heads do not divide" in refused(get.state_dict(), num_heads=3)


# ---------------------------------------------------------------------------------- refusals


def without(state, pattern):
    return {name: value for name, value in state.items() if not re.search(pattern, name)}


def test_a_file_of_another_model(refused):
    said = refused({"linear1.weight": torch.zeros(2, 2)})
    assert "holds none of GET's tensors (it holds linear1.weight)" in said
    assert "holds none of GET's tensors (it holds no tensors)" in refused([1, 2], whole=True)


@pytest.mark.parametrize("strict", [True, False])
def test_a_block_that_is_missing(get, refused, strict):
    state = without(get.state_dict(), r"blocks\.1\.")
    said = refused(state, strict=strict, min_loaded_fraction=0.0)
    assert "holds nothing that fits encoder block 1 of the model" in said


def test_half_a_block_is_missing(get, refused, write):
    state = without(get.state_dict(), r"blocks\.1\.mlp\.fc1\.weight")
    assert "does not fit: encoder.blocks.1.mlp.fc1.weight is missing" in refused(
        state, min_loaded_fraction=0.5
    )
    total = sum(p.numel() for p in get.encoder.parameters())
    loaded = total - 4 * WIDTH * WIDTH
    said = refused(state, strict=False)
    assert f"gives {loaded:,} of the encoder's {total:,} parameters" in said
    assert "finetune.min_loaded_fraction is 0.9" in said
    model, report = load_get(write(state), HEADS, strict=False, min_loaded_fraction=0.5)
    assert report.missing == ["encoder.blocks.1.mlp.fc1.weight"]
    assert torch.equal(model.encoder.norm.weight, get.encoder.norm.weight)


@pytest.mark.parametrize("name", ["cls_token", "encoder.norm.bias"])
def test_one_small_tensor_is_missing(get, refused, write, name):
    state = without(get.state_dict(), f"^{name}$")
    assert f"does not fit: {name} is missing" in refused(state)
    _, report = load_get(write(state), HEADS, strict=False)
    assert report.missing == [name]


def test_a_tensor_that_no_get_model_has(get, refused, write):
    state = get.state_dict() | {"encoder.extra": torch.zeros(3, 3)}
    assert "does not fit: encoder.extra is unexpected" in refused(state)
    model, report = load_get(write(state), HEADS, strict=False)
    assert report.unexpected == ["encoder.extra"]
    same_outputs(model, get)


def test_another_width_inside_the_file_and_in_the_model(get, refused, write):
    other = make_get(width=8).state_dict()
    state = {n: other[n] if ".1." in n else v for n, v in get.state_dict().items()}
    assert "holds nothing that fits encoder block 1" in refused(state)
    report = adopt(make_get(width=8), read_get(write(get.state_dict()), num_heads=HEADS), range(5))
    assert report.encoder[0] == 0
    assert report.mismatched["encoder.norm.weight"] == (
        "encoder.norm.weight: 16 in the file, 8 in the model"
    )
    with pytest.raises(CheckpointError, match="nothing that fits encoder block 0, 1, 2"):
        report.check(strict=False, min_loaded_fraction=0.0)


def test_adapters_without_a_scale_or_a_base(get, refused):
    path = "encoder.blocks.0.attn.qkv"
    state = get.state_dict() | {f"{path}.lora_A": torch.zeros(2, 16),
                                f"{path}.lora_B": torch.zeros(48, 2)}  # fmt: skip
    assert f"holds LoRA adapters ({path}) and not their scale" in refused(state, lora_scale=None)
    said = refused(without(state, f"{path}.weight"))
    assert f"holds the LoRA adapter of {path} and not the weight that it adapts" in said
    for wrong in (torch.zeros(2, 9), torch.zeros(3, 16), torch.zeros(16)):
        said = refused(state | {f"{path}.lora_A": wrong})
        assert f"the LoRA adapter of {path} does not fit its weight" in said
    said = refused(without(state, "lora_B"))
    assert f"the LoRA adapter of {path} does not fit its weight" in said


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"encoder.fc_norm.weight": torch.ones(16)}, "was trained with mean pooling"),
        ({"pos_embed.pe": torch.zeros(1000, 1, 16)}, "was trained with positions (pos_embed)"),
    ],
)
def test_variants_with_another_meaning(get, refused, extra, said):
    assert said in refused(get.state_dict() | extra)


def test_numbers_that_are_none(get, refused):
    state = get.state_dict()
    state["encoder.blocks.2.mlp.fc1.bias"][3] = float("nan")
    assert "not finite: encoder.blocks.2.mlp.fc1.bias" in refused(state)
    state = make_get().state_dict()
    state["region_embed.embed.weight"] = torch.zeros(3)
    assert "no matrix, or not finite: region_embed.embed.weight" in refused(state)


def test_two_tensors_of_one_meaning(get, refused):
    state = {v1(name): value for name, value in get.state_dict().items()}
    state |= {"encoder.norm.weight": torch.ones(WIDTH)}
    assert "two tensors that both mean encoder.norm.weight" in refused(state)
    state = get.state_dict() | {"module.cls_token": torch.ones(1, 1, WIDTH)}
    assert "two tensors that both mean cls_token" in refused(state)


def test_a_tensor_that_claims_to_be_larger_than_its_file_is_not_read(get, refused):
    """An expanded tensor of a terabyte; as a number of the file it would fill the memory."""
    huge = torch.zeros(1).expand(1 << 19, 1 << 19)
    state = get.state_dict() | {"encoder.norm.weight": huge}
    assert "encoder.norm.weight is missing" in refused(state)


def test_features_that_do_not_fit_the_embedding(get, refused):
    named = {"names": ["a"], "center": [0.0], "offset": [0.0], "scale": [1.0]}
    values = {"state_dict": get.state_dict(), "features": named}
    assert "describes other features than the 5 of its region_embed" in refused(values, whole=True)


# ------------------------------------------------------------------------------ into a model


def test_columns_go_where_their_names_are(get, write):
    weights = read_get(write(get.state_dict()), num_heads=HEADS)
    order, model = [3, 0, 4, 1, 2], make_get().eval()
    report = adopt(model, weights, order)
    all_is_loaded(report)
    assert report.region_embed == "5 of 5 input columns taken from the file"
    x = windows()
    torch.testing.assert_close(model(x[..., order]), get(x), rtol=1e-5, atol=1e-6)


def test_columns_without_a_namesake_are_new_and_the_embedding_trains(get, write):
    weights = read_get(write(get.state_dict()), num_heads=HEADS)
    model = GETRegionFinetune(4, WIDTH, LAYERS, HEADS, 2)
    fresh = model.region_embed.embed.weight.detach().clone()
    report = adopt(model, weights, [2, -1, 0, -1])
    new = model.region_embed.embed.weight
    theirs = get.region_embed.embed.weight
    assert torch.equal(new[:, [0, 2]], theirs[:, [2, 0]])
    assert torch.equal(new[:, [1, 3]], fresh[:, [1, 3]])
    assert torch.equal(model.region_embed.embed.bias, get.region_embed.embed.bias)
    assert not any(name.startswith("region_embed") for name in report.loaded)
    assert report.region_embed == (
        "2 of 4 input columns taken from the file, the others newly initialised; it trains in "
        "full; 3 columns of the file are not in the table"
    )


@pytest.mark.parametrize("columns", [None, [-1, -1]])
def test_without_any_namesake_the_embedding_is_not_touched(get, write, columns):
    weights = read_get(write(get.state_dict()), num_heads=HEADS)
    model = GETRegionFinetune(2, WIDTH, LAYERS, HEADS, 2)
    fresh = {k: v.clone() for k, v in model.region_embed.state_dict().items()}
    report = adopt(model, weights, columns, "no name is known")
    assert all(torch.equal(v, fresh[k]) for k, v in model.region_embed.state_dict().items())
    assert report.region_embed == "newly initialised: no name is known"
    assert report.columns == []
    report.check()  # a new embedding is no reason to refuse


def test_every_tensor_is_in_the_report_exactly_once(get, write):
    state = get.state_dict()
    del state["head_exp.head.bias"]
    state |= {"mask_token": torch.zeros(1, 1, WIDTH), "what.is.this": torch.zeros(2)}
    state["head_exp.head.weight"] = torch.zeros(3, WIDTH)
    report = adopt(make_get(), read_get(write(state), num_heads=HEADS), range(FEATURES))
    of_file = [*report.loaded, *report.mismatched, *report.unexpected, *report.left_out]
    assert sorted(of_file) == sorted(state)
    of_model = [*report.loaded, *report.mismatched, *report.missing]
    assert sorted(of_model) == sorted(get.state_dict())
    loaded = sum(get.state_dict()[name].numel() for name in report.loaded)
    assert report.backbone == (loaded, sum(p.numel() for p in get.parameters()))


def test_the_report_on_the_screen_and_in_the_manifest(get, write):
    state = get.state_dict()
    del state["head_exp.head.bias"]
    path = write(state)
    _, report = load_get(path, HEADS)
    said = "\n".join(report.lines())
    loaded, total = report.backbone
    assert f"backbone: {loaded:,} of {total:,} parameters loaded (99.9 %)" in said
    assert "(100.0 %)" in said  # of the encoder
    count = len(state)
    assert f"{count} tensors loaded: cls_token, region_embed.embed.weight," in said
    assert f"... ({count})" in said
    assert "1 tensor missing in the file: head_exp.head.bias" in said
    held = json.loads(json.dumps(report.to_dict()))
    assert held["loaded"] == report.loaded
    assert held["file"] == str(path)
    assert held["encoder"] == list(report.encoder)
