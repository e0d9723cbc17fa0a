"""LoRA, over a table of toy models: the start, what moves, what does not, merging, saving."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tests.contract.test_model_contracts import make_batch, make_model
from yeast_get.model import lora
from yeast_get.model.get_backbone import Attention, Encoder, GETRegionFinetune
from yeast_get.model.lora import LoRALinear


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)), ["0", "2"]


def encoder():
    return Encoder(16, 2, 4), ["attn", "mlp"]


def get():
    return GETRegionFinetune(6, 16, 2, 4, 2, drop_path_rate=0.0), ["encoder", "head_exp"]


def yeast():
    return make_model("film"), ["encoder"]


INPUTS = {mlp: (5, 6), encoder: (3, 7, 16), get: (3, 7, 6)}
MODELS = [mlp, encoder, get, yeast]
each_model = pytest.mark.parametrize("toy", MODELS, ids=lambda toy: toy.__name__)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
each_mode = pytest.mark.parametrize("mode", ["train", "eval", "no_grad"])


def toy_model(toy, dtype=torch.float32):
    """A toy, its targets, and an input."""
    torch.manual_seed(0)
    model, targets = toy()
    for part in model.modules():  # so that train and eval can be compared
        if hasattr(part, "rate"):
            part.rate = 0.0
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    if toy is yeast:
        model.config.region_identity.dropout = 0.0
        batch = make_batch(5)
        batch.motif, batch.accessibility = batch.motif.to(dtype), batch.accessibility.to(dtype)
        batch.condition_number = batch.condition_number.to(dtype)
        batch.condition_present = batch.condition_present.to(dtype)
        batch.dose = batch.dose.to(dtype)
        return model.to(dtype), targets, batch
    return model.to(dtype), targets, torch.randn(INPUTS[toy], dtype=torch.float32).to(dtype)


def call(model, value, mode):
    if mode == "train":
        return model.train()(value)
    model.eval()
    if mode == "eval":
        return model(value)
    with torch.no_grad():
        return model(value)


def shaken(model):
    """The adapters with some update in them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _, adapter in lora.adapters(model):
            adapter.lora_B.normal_(std=0.1)
    return model


def freeze_but_adapters(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(("lora_A", "lora_B")))


# --------------------------------------------------------------------------------- the start


@each_model
@each_dtype
@each_mode
def test_the_adapted_model_starts_as_the_model(toy, dtype, mode):
    model, targets, value = toy_model(toy, dtype)
    before = call(model, value, mode)
    names = set(model.state_dict())
    paths = lora.inject(model, targets, rank=2, alpha=4)
    # to the last bits: of a frozen weight torch may choose another kernel for a view
    torch.testing.assert_close(call(model, value, mode), before, rtol=1e-6, atol=1e-6)
    added = {f"{path}.lora_{x}" for path in paths for x in "AB"}
    assert set(model.state_dict()) == names | added
    for _, adapter in lora.adapters(model):
        assert adapter.lora_A.dtype == adapter.lora_B.dtype == torch.float32
        assert adapter.weight.dtype == dtype
        assert adapter.lora_A.abs().max() > 0


@each_mode
def test_it_starts_so_under_autocast_and_gives_its_dtype(mode):
    model, targets, value = toy_model(get)
    with torch.autocast("cpu", torch.bfloat16):
        before = call(model, value, mode)
        lora.inject(model, targets, rank=2, alpha=4)
        after = call(model, value, mode)
        assert torch.equal(before, after)
        assert shaken(model)(value).dtype == before.dtype


# ------------------------------------------------------------------------ what moves, what not


@each_model
@each_dtype
@pytest.mark.parametrize("autocast", [False, True])
def test_twenty_steps_move_every_adapter_and_no_bit_of_the_base(toy, dtype, autocast):
    model, targets, value = toy_model(toy, dtype)
    lora.inject(model, targets, rank=2, alpha=4)
    freeze_but_adapters(model)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1
    )
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = (model.train()(value).float() - 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, value_now in model.state_dict().items():
        moved = not torch.equal(value_now, before[name])
        assert moved == name.endswith(("lora_A", "lora_B")), name
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_injecting_freezes_the_maps_themselves_and_their_biases():
    model, _, _ = toy_model(mlp)
    lora.inject(model, ["2"], rank=1, alpha=1)
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trains == {"0.weight", "0.bias", "2.lora_A", "2.lora_B"}


# ---------------------------------------------------------------------------------- merging


@each_model
@each_dtype
@each_mode
def test_merged_equals_unmerged_and_neither_is_the_base(toy, dtype, mode):
    model, targets, value = toy_model(toy, dtype)
    base = call(model, value, mode).float()
    lora.inject(model, targets, rank=2, alpha=4)
    unmerged = call(shaken(model), value, mode).float()
    weights = copy.deepcopy(model.state_dict())
    lora.merge(model)
    merged = call(model, value, mode).float()
    lora.merge(model)  # once more changes nothing
    assert torch.equal(call(model, value, mode).float(), merged)
    # relative to the output as a whole: its single numbers may be near zero
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    norm = torch.linalg.vector_norm
    difference = norm(merged - unmerged) / norm(unmerged)
    assert difference < tolerance
    assert norm(unmerged - base) / norm(base) > 3 * tolerance
    lora.unmerge(model)
    lora.unmerge(model)
    assert torch.equal(call(model, value, mode).float(), unmerged)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@each_model
def test_merged_weights_need_no_lora(toy):
    model, targets, value = toy_model(toy)
    plain = copy.deepcopy(model)
    lora.inject(model, targets, rank=2, alpha=4)
    expected = call(shaken(model), value, "eval")
    plain.load_state_dict(lora.merged_state(model))
    torch.testing.assert_close(call(plain, value, "eval"), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(call(model, value, "eval"), expected)  # it was not touched


@each_model
def test_saved_and_loaded_it_is_the_same(toy, tmp_path):
    model, targets, value = toy_model(toy)
    lora.inject(model, targets, rank=2, alpha=4)
    expected = call(shaken(model), value, "eval")
    torch.save(model.state_dict(), tmp_path / "a.pth")
    other, _, _ = toy_model(toy)
    lora.inject(other, targets, rank=2, alpha=4)
    other.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True))
    assert torch.equal(call(other, value, "eval"), expected)


def test_a_merged_model_is_neither_saved_nor_loaded():
    model, targets, _ = toy_model(mlp)
    lora.inject(model, targets, rank=2, alpha=4)
    state = copy.deepcopy(model.state_dict())
    lora.merge(model)
    with pytest.raises(RuntimeError, match="unmerge them before saving"):
        model.state_dict()
    with pytest.raises(RuntimeError, match="unmerge them before saving"):
        lora.merged_state(model)
    with pytest.raises(RuntimeError, match="unmerge them before loading"):
        model.load_state_dict(state)
    lora.unmerge(model)
    model.load_state_dict(state)


def test_an_adapter_that_is_not_finite_is_not_merged():
    model, targets, _ = toy_model(mlp)
    lora.inject(model, targets, rank=2, alpha=4)
    before = model[0].weight.clone()
    with torch.no_grad():
        model[0].lora_B[0, 0] = math.inf
    with pytest.raises(ValueError, match="not finite and cannot be merged"):
        lora.merge(model)
    assert torch.equal(model[0].weight, before)


def test_an_average_of_the_model_keeps_its_adapters():
    model, targets, value = toy_model(get)
    lora.inject(model, targets, rank=2, alpha=4)
    averaged = AveragedModel(model)
    averaged.update_parameters(shaken(model))
    expected = call(model, value, "eval")
    assert torch.equal(call(averaged.module, value, "eval"), expected)
    assert dict(averaged.module.named_parameters()).keys() == dict(model.named_parameters()).keys()


# --------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize("rslora", [False, True])
def test_the_fused_qkv_is_w_plus_s_b_a(rslora):
    torch.manual_seed(0)
    attention = Attention(16, 4)
    lora.inject(attention, ["qkv"], rank=4, alpha=6, rslora=rslora)
    qkv, x = shaken(attention).qkv, torch.randn(3, 7, 16)
    scale = 6 / 2 if rslora else 6 / 4
    assert qkv.scale == scale
    weight = qkv.weight + scale * qkv.lora_B @ qkv.lora_A
    expected = x @ weight.T
    torch.testing.assert_close(qkv(x), expected, rtol=1e-5, atol=1e-5)
    plain = Attention(16, 4)
    state = {k: v for k, v in attention.state_dict().items() if "lora" not in k}
    plain.load_state_dict(state | {"qkv.weight": weight.detach()})
    torch.testing.assert_close(attention(x), plain(x), rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_and_on_the_adapter_alone():
    torch.manual_seed(0)
    base = nn.Linear(6, 5)
    adapter = LoRALinear(base, 2, 4, dropout=0.5)
    x = torch.randn(9, 6)
    assert torch.equal(adapter.train()(x), base(x))  # B is zero
    nn.init.normal_(adapter.lora_B)
    assert not torch.equal(adapter(x), adapter(x))
    update = adapter.eval()(x) - base(x)
    assert torch.equal(adapter(x), adapter(x))
    torch.manual_seed(3)
    mean = sum(adapter.train()(x) - base(x) for _ in range(4000)) / 4000
    torch.testing.assert_close(mean, update, rtol=0.1, atol=0.2)


def test_a_rank_below_one_and_a_second_injection_are_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        LoRALinear(nn.Linear(2, 2), 0, 1)
    model, targets, _ = toy_model(mlp)
    lora.inject(model, targets, rank=1, alpha=1)
    with pytest.raises(ValueError, match="has adapters already"):
        lora.inject(model, targets, rank=1, alpha=1)


# ------------------------------------------------------------------------------------ targets


class Named(nn.Module):
    """Names that a substring would confuse."""

    def __init__(self):
        super().__init__()
        self.seq = nn.ModuleDict({"q": nn.Linear(2, 2), "kq": nn.Linear(2, 2)})
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"attn": nn.ModuleDict({"proj": nn.Linear(2, 2)}), "norm": nn.Identity()})
            for _ in range(12)
        )
        self.proj = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (["q"], ["seq.q"]),
        (["seq"], ["seq.q", "seq.kq"]),
        (["attn.proj"], [f"blocks.{i}.attn.proj" for i in range(12)]),
        (["blocks.1"], ["blocks.1.attn.proj"]),
        (["proj"], [*(f"blocks.{i}.attn.proj" for i in range(12)), "proj"]),
        (["seq.q", "blocks.11"], ["seq.q", "blocks.11.attn.proj"]),
        ("proj", ["proj"]),
        (r"blocks\.\d\.attn\.proj", [f"blocks.{i}.attn.proj" for i in range(10)]),
        (r".*q", ["seq.q", "seq.kq"]),
    ],
)
def test_targets_are_whole_names_and_a_text_is_a_whole_expression(targets, found):
    assert lora.find(Named(), targets) == found


def test_exclude_and_new_are_left_as_they_are():
    model = Named()
    assert lora.find(model, ["seq", "proj"], exclude=["blocks"]) == ["seq.q", "seq.kq", "proj"]
    assert lora.find(model, ["seq"], new=["seq.q"]) == ["seq.kq"]
    assert lora.find(model, ["seq"], exclude="seq[.]k.*") == ["seq.q"]


@pytest.mark.parametrize("targets", [["eq"], ["norm"], "seq", [], ["attn.q"]])
def test_targets_that_match_no_linear_map_change_nothing(targets):
    model = Named()
    before = dict(model.named_modules())
    with pytest.raises(ValueError, match=r"none matches; there are seq\.q, seq\.kq, blocks\.0"):
        lora.inject(model, targets, rank=1, alpha=1)
    assert dict(model.named_modules()) == before
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_targets_of_which_all_are_new_or_excluded_are_refused():
    with pytest.raises(ValueError, match="of 2 that match, all are excluded or newly initialised"):
        lora.inject(Named(), ["seq"], rank=1, alpha=1, exclude=["seq.q"], new=["seq.kq"])


def test_encoder_takes_every_linear_map_of_the_encoder():
    model, _, _ = toy_model(get)
    paths = lora.find(model, ["encoder"])
    assert len(paths) == 8
    assert all(path.startswith("encoder.blocks.") for path in paths)


def test_the_file_stands_alone_and_is_short(root):
    text = (root / "yeast_get" / "model" / "lora.py").read_text("utf-8")
    assert "yeast_get" not in text
    assert len(text.splitlines()) <= 250
