"""What the adapters promise, over a table of toy models, in every mode and precision."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from yeast_get.batch import Batch, InputSizes
from yeast_get.config import (
    EncoderConfig,
    FeatureEncodersConfig,
    FusionConfig,
    HeadConfig,
    ModelConfig,
    RegionEmbedConfig,
    TransformerConfig,
)
from yeast_get.model import lora
from yeast_get.model.get_backbone import Attention, Encoder, GETRegionFinetune
from yeast_get.model.yeast_model import YeastModel

# ---------------------------------------------------------------- toy models and their inputs


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))


def yeast():
    config = ModelConfig(
        feature_encoders=FeatureEncodersConfig(embed_dim=4),
        fusion=FusionConfig(kind="concat", hidden_dim=8),
        transformer=TransformerConfig(num_layers=2, num_heads=2, embed_dim=8),
        region_embed=RegionEmbedConfig(feature_dropout=0.0, dropout=0.0),
        encoder=EncoderConfig(drop_rate=0.0),
        head=HeadConfig(hidden_dim=8, dropout=0.0),
    )
    return YeastModel(config, InputSizes(5, 1, ["temperature"], {"medium": 4}, ["drug"], 4, 1, 0))


def batch(b=6, r=3):
    whole = torch.ones(b, r, dtype=torch.int64)
    one = whole[:, :1]
    return Batch(
        motif=torch.randn(b, r, 5),
        accessibility=torch.randn(b, r, 1),
        region_mask=whole.bool(),
        region_index=whole,
        region_vocab=0 * whole,
        sample_vocab=0 * one[:, 0],
        condition_number=torch.randn(b, 1),
        condition_present=torch.ones(b, 1),
        condition_category=one,
        condition_other=torch.zeros(b, 2),
        drug=one + 1,
        dose=torch.ones(b, 1),
        target=torch.zeros(b, r, 1),
        target_mask=torch.ones(b, r, 1, dtype=torch.bool),
        observation_index=whole,
    )


MODELS = {  # how to make it, the targets, an input
    "mlp": (mlp, ["0", "3"], lambda: torch.randn(6, 6)),
    "encoder": (lambda: Encoder(8, 2, 2), ["attn", "mlp"], lambda: torch.randn(6, 4, 8)),
    "get": (
        lambda: GETRegionFinetune(5, 8, 2, 2, 2, drop_path_rate=0.0),
        ["region_embed", "encoder"],
        lambda: torch.randn(6, 3, 5),
    ),
    "yeast": (yeast, ["encoder"], batch),
}
MODES = ["train", "eval", "eval and no_grad"]
PRECISIONS = ["float32", "bfloat16", "autocast"]

each_model = pytest.mark.parametrize("name", MODELS)
each_mode = pytest.mark.parametrize("mode", MODES)
each_precision = pytest.mark.parametrize("precision", PRECISIONS)


class Toy:
    """A model whose every parameter is random, an input, and how to call the one on the other."""

    def __init__(self, name, precision="float32", mode="eval"):
        torch.manual_seed(0)
        self.make, self.targets, make_input = MODELS[name]
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.autocast, self.mode = precision == "autocast", mode
        self.input = self._cast(make_input())
        self.model = self.fresh()

    def fresh(self):
        model = filled(self.make()).to(self.dtype)
        return model.train(self.mode == "train")

    def inject(self, model=None, **options):
        options = {"rank": 2, "alpha": 4} | options
        return lora.inject(self.model if model is None else model, self.targets, **options)

    def __call__(self, model=None):
        model = self.model if model is None else model
        with (
            torch.no_grad() if "no_grad" in self.mode else nullcontext(),
            torch.autocast("cpu", torch.bfloat16, enabled=self.autocast),
        ):
            return model(self.input)

    def tolerance(self):
        return 1e-5 if self.dtype is torch.float32 and not self.autocast else 1e-2

    def _cast(self, values):
        if isinstance(values, torch.Tensor):
            return values.to(self.dtype)
        floats = {k: v for k, v in values.tensors() if v.is_floating_point()}
        return replace(values, **{k: v.to(self.dtype) for k, v in floats.items()})


def filled(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return module


def move_adapters(model, std=0.3):
    """Adapters as after some training: neither A nor B is zero."""
    with torch.no_grad():
        for _, adapter in lora.adapters(model):
            adapter.lora_A.normal_(std=std)
            adapter.lora_B.normal_(std=std)


def adapted(name, precision="float32", mode="eval", **options):
    toy = Toy(name, precision, mode)
    toy.inject(**options)
    move_adapters(toy.model)
    return toy


def distance(a, b):
    """Between two tensors, relative to the length of the second."""
    a, b = a.detach().float(), b.detach().float()
    return float((a - b).norm() / b.norm())


def snapshot(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# ------------------------------------------------------------------------- start and training


@each_model
@each_mode
@each_precision
def test_the_adapted_model_starts_as_the_model_itself(name, mode, precision):
    toy = Toy(name, precision, mode)
    before = toy()
    paths = toy.inject()
    assert paths == [path for path, _ in lora.adapters(toy.model)]
    assert len(paths) > 1
    after = toy()
    assert after.dtype == before.dtype
    assert torch.equal(after, before)


@each_model
@each_precision
def test_adapters_are_float32_and_the_model_keeps_its_precision(name, precision):
    toy = adapted(name, precision)
    for parameter, value in toy.model.named_parameters():
        is_adapter = parameter.rpartition(".")[2] in ("lora_A", "lora_B")
        assert value.dtype == (torch.float32 if is_adapter else toy.dtype)
    before = Toy(name, precision)()
    assert toy().dtype == before.dtype
    assert distance(toy(), before) > 0.05


@each_model
@each_precision
def test_training_moves_every_adapter_and_no_frozen_tensor(name, precision):
    toy = Toy(name, precision, "train")
    paths = toy.inject()
    model, before = toy.model, snapshot(toy.model)
    wanted = torch.randn_like(toy().detach().float())
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        functional.mse_loss(toy().float(), wanted).backward()
        optimizer.step()
    after = snapshot(model)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n in before if n.rpartition(".")[0] in paths and "lora_" not in n}
    assert all(model.get_parameter(name).grad is None for name in frozen)
    assert_same_bits({n: before[n] for n in frozen}, {n: after[n] for n in frozen})
    adapters = [f"{path}.lora_{which}" for path in paths for which in "AB"]
    assert [n for n in adapters if torch.equal(before[n], after[n])] == []


@each_model
def test_gradients_of_the_frozen_maps_are_never_computed(name):
    toy = adapted(name, mode="train")
    toy().square().sum().backward()
    for _, adapter in lora.adapters(toy.model):
        frozen = [adapter.weight] if adapter.bias is None else [adapter.weight, adapter.bias]
        assert all(not each.requires_grad and each.grad is None for each in frozen)
        assert adapter.lora_A.grad.any()
        assert adapter.lora_B.grad.any()


@each_model
def test_names_are_those_of_the_base_and_the_adapters(name):
    toy = Toy(name)
    base, ids = toy.model.state_dict(), {n: id(p) for n, p in toy.model.named_parameters()}
    paths = toy.inject()
    state = toy.model.state_dict()
    added = {f"{path}.lora_{which}" for path in paths for which in "AB"}
    assert set(state) == set(base) | added
    assert not added & set(base)
    now = {n: id(p) for n, p in toy.model.named_parameters()}
    assert {n: now[n] for n in ids} == ids  # shared, not copied
    assert_same_bits({n: state[n] for n in base}, base)


@each_model
def test_an_average_of_the_weights_follows_them(name):
    toy = adapted(name)
    averaged = AveragedModel(toy.model, multi_avg_fn=get_ema_multi_avg_fn(0.75))
    assert torch.equal(toy(averaged), toy())
    averaged.update_parameters(toy.model)  # the first is a copy
    before = snapshot(toy.model)
    move_adapters(toy.model)
    averaged.update_parameters(toy.model)
    now, mean = toy.model.state_dict(), averaged.module.state_dict()
    for each in before:
        torch.testing.assert_close(mean[each], 0.75 * before[each] + 0.25 * now[each])
    lora.merge(averaged.module)
    assert all(not adapter.merged for _, adapter in lora.adapters(toy.model))
    assert_same_bits(toy.model.state_dict(), now)


def test_a_copy_of_a_merged_model_unmerges_by_itself():
    toy = adapted("get")
    before = snapshot(toy.model)
    lora.merge(toy.model)
    twin = copy.deepcopy(toy.model)
    lora.unmerge(twin)
    assert_same_bits(snapshot(twin), before)
    assert all(adapter.merged for _, adapter in lora.adapters(toy.model))
    assert distance(toy(twin), toy()) < 1e-5


# ------------------------------------------------------------------------------------ merging


@each_model
@each_mode
@each_precision
def test_merged_equals_unmerged_and_neither_is_the_base(name, mode, precision):
    base, toy = Toy(name, precision, mode)(), adapted(name, precision, mode)
    unmerged = toy()
    lora.merge(toy.model)
    merged = toy()
    assert merged.dtype == unmerged.dtype
    assert distance(merged, unmerged) < toy.tolerance()
    assert distance(unmerged, base) > 0.05
    assert distance(merged, base) > 0.05


@each_model
@each_precision
def test_merge_and_unmerge_are_idempotent_and_exact(name, precision):
    toy = adapted(name, precision)
    before, output = snapshot(toy.model), toy()
    parameters = [id(p) for p in toy.model.parameters()]

    def weights():
        return {n: p.detach().clone() for n, p in toy.model.named_parameters()}

    for _ in range(3):
        lora.merge(toy.model)
        once, seen = weights(), toy()
        lora.merge(toy.model)
        assert_same_bits(weights(), once)
        assert torch.equal(toy(), seen)
        lora.unmerge(toy.model)
        assert_same_bits(snapshot(toy.model), before)
        lora.unmerge(toy.model)
        assert_same_bits(snapshot(toy.model), before)
        assert torch.equal(toy(), output)
    assert [id(p) for p in toy.model.parameters()] == parameters


@each_model
def test_a_merged_model_is_neither_saved_nor_loaded(name):
    toy = adapted(name)
    state = snapshot(toy.model)
    lora.merge(toy.model)
    with pytest.raises(RuntimeError, match="^the adapters are merged; unmerge them before saving$"):
        toy.model.state_dict()
    with pytest.raises(RuntimeError, match="^the adapters are merged; unmerge them before loading"):
        toy.model.load_state_dict(state)
    lora.unmerge(toy.model)
    assert_same_bits(toy.model.state_dict(), state)


@each_model
@each_precision
def test_merged_state_is_a_plain_model(name, precision):
    toy = adapted(name, precision)
    plain, before = toy.fresh(), snapshot(toy.model)
    state = lora.merged_state(toy.model)
    assert not any(value.requires_grad for value in state.values())
    plain.load_state_dict(state, strict=True)
    assert not list(lora.adapters(plain))
    assert distance(toy(plain), toy()) < toy.tolerance()
    assert_same_bits(snapshot(toy.model), before)  # and the model is as it was
    lora.merge(toy.model)
    assert torch.equal(toy(plain), toy())


@each_model
@each_precision
def test_saved_and_loaded_outputs_are_the_same(name, precision, tmp_path):
    toy = adapted(name, precision)
    torch.save(toy.model.state_dict(), tmp_path / "adapted.pth")
    loaded = filled(toy.fresh(), seed=7)
    toy.inject(loaded)
    assert distance(toy(loaded), toy()) > 0.05
    loaded.load_state_dict(torch.load(tmp_path / "adapted.pth", weights_only=True))
    assert torch.equal(toy(loaded), toy())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["lora_A", "lora_B"])
def test_an_adapter_that_is_not_finite_is_not_merged(value, which):
    toy = adapted("mlp")
    adapter = toy.model[3]
    with torch.no_grad():
        getattr(adapter, which)[0, 0] = value
    weight = adapter.weight.clone()
    message = "^an adapter is not finite and cannot be merged$"
    for attempt in (adapter.merge, lambda: lora.merged_state(toy.model)):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert not adapter.merged
    assert torch.equal(adapter.weight, weight)


def test_a_sum_beyond_the_precision_of_the_weight_is_not_merged():
    linear = nn.Linear(3, 3).half()
    adapter = lora.LoRALinear(linear, rank=1, alpha=1)
    with torch.no_grad():
        adapter.lora_A.fill_(300)
        adapter.lora_B.fill_(300)  # 90,000 is finite in float32 and not in float16
    with pytest.raises(ValueError, match="not finite"):
        adapter.merge()
    assert adapter.weight.isfinite().all()


# -------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_on_gets_fused_map_is_the_formula(rslora):
    torch.manual_seed(0)
    attention, rank, alpha = filled(Attention(12, 3)).eval(), 5, 7.0
    weight = attention.qkv.weight.detach().clone()
    assert lora.inject(attention, ["qkv"], rank=rank, alpha=alpha, rslora=rslora) == ["qkv"]
    move_adapters(attention)
    a, b = attention.qkv.lora_A, attention.qkv.lora_B
    assert a.shape == (5, 12)
    assert b.shape == (36, 5)
    scale = alpha / math.sqrt(rank) if rslora else alpha / rank
    by_hand = weight + scale * (b @ a)
    x = torch.randn(2, 4, 12)
    torch.testing.assert_close(attention.qkv(x), x @ by_hand.T, rtol=1e-5, atol=1e-5)
    plain = filled(Attention(12, 3)).eval()
    heard = distance(attention(x), plain(x))
    with torch.no_grad():
        plain.qkv.weight.copy_(by_hand)
    assert distance(attention(x), plain(x)) < 1e-5
    assert heard > 0.05


@pytest.mark.parametrize(("rank", "alpha"), [(1, 1), (4, 16), (8, 1), (9, 3)])
def test_scale(rank, alpha):
    linear = nn.Linear(3, 2)
    assert lora.LoRALinear(linear, rank, alpha).scale == pytest.approx(alpha / rank)
    root = lora.LoRALinear(linear, rank, alpha, rslora=True).scale
    assert root == pytest.approx(alpha / math.sqrt(rank))


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_gradients_are_those_of_the_formula(shape):
    torch.manual_seed(0)
    adapter = lora.LoRALinear(nn.Linear(5, 4), rank=2, alpha=3).double()
    nn.init.normal_(adapter.lora_B)
    given = (torch.randn(shape, dtype=torch.float64, requires_grad=True), *adapter.parameters())

    def formula(x, weight, bias, a, b):
        return x @ (weight + 1.5 * b @ a).T + bias

    out = adapter(given[0])
    torch.testing.assert_close(out, formula(*given))
    ours, theirs = (
        torch.autograd.grad(each.square().sum(), (given[0], adapter.lora_A, adapter.lora_B))
        for each in (out, formula(*given))
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_acts_in_training_and_on_the_adapter_alone():
    torch.manual_seed(0)
    linear, x = nn.Linear(50, 4), torch.randn(3, 50)
    base = linear(x).detach()
    adapter = lora.LoRALinear(linear, rank=2, alpha=3, dropout=0.4)
    assert torch.equal(adapter.train()(x), base)  # B is zero, and the base is not dropped
    move_adapters(adapter)
    a, b = adapter.lora_A, adapter.lora_B
    whole = base + 1.5 * x @ a.T @ b.T
    torch.testing.assert_close(adapter.eval()(x), whole)
    adapter.train()
    torch.manual_seed(3)
    once = adapter(x)
    torch.manual_seed(3)
    dropped = functional.dropout(x, 0.4)
    assert (dropped == 0).any()
    torch.testing.assert_close(once, base + 1.5 * dropped @ a.T @ b.T)
    assert distance(once, whole) > 0.01


def test_the_whole_model_in_training_differs_by_the_dropout_of_the_adapters_alone():
    toy = adapted("get", mode="train", dropout=0.5)
    assert distance(toy(), toy()) > 0.01
    toy.model.eval()
    assert torch.equal(toy(), toy())
    with torch.no_grad():
        for _, adapter in lora.adapters(toy.model):
            adapter.lora_B.zero_()
    still = toy()
    toy.model.train()
    assert torch.equal(toy(), still)


# ---------------------------------------------------------------------------------- refusals


def linears(model):
    return {path: id(part) for path, part in model.named_modules() if isinstance(part, nn.Linear)}


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (["nothing"], {}, r"^no linear map is left for adapters at \['nothing'\] \(none matches"),
        ("encoder", {}, r"^no linear map is left for adapters at 'encoder' \(none matches"),
        (["encoder"], {"exclude": ["blocks"]}, r"\(of 8 that match, all are excluded or newly"),
        (["head_exp"], {"new": ["head_exp.head"]}, r"\(of 1 that match, all are excluded or newly"),
        (["encoder"], {"rank": 0}, "^the rank of an adapter is at least 1, not 0$"),
        (["encoder"], {"rank": -2}, "^the rank of an adapter is at least 1, not -2$"),
        (["encoder.norm"], {}, "none matches"),  # it is no linear map
    ],
)
def test_a_refused_injection_leaves_the_model_as_it_was(targets, options, message):
    model = GETRegionFinetune(5, 8, 2, 2, 2)
    model.cls_token.requires_grad_(False)
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    before, state = linears(model), snapshot(model)
    with pytest.raises(ValueError, match=message):
        lora.inject(model, targets, **({"rank": 2, "alpha": 2} | options))
    assert linears(model) == before
    assert {name: p.requires_grad for name, p in model.named_parameters()} == trains
    assert_same_bits(snapshot(model), state)


def test_where_nothing_matches_the_message_names_what_there_is():
    with pytest.raises(ValueError, match=r"none matches; there are 0, 3\)$"):
        lora.inject(mlp(), ["attn"], rank=2, alpha=2)
    model = GETRegionFinetune(5, 8, 2, 2, 2)
    some = r"there are region_embed\.embed, encoder\.blocks\.0\.attn\.qkv, .*, \.\.\.\)$"
    with pytest.raises(ValueError, match=some):
        lora.inject(model, ["nothing"], rank=2, alpha=2)


@pytest.mark.parametrize("again", [["encoder"], ["head_exp"]])
def test_injecting_twice_is_refused(again):
    model = GETRegionFinetune(5, 8, 2, 2, 2)
    lora.inject(model, ["encoder"], rank=2, alpha=2)
    before = linears(model)
    with pytest.raises(ValueError, match="^the model has adapters already$"):
        lora.inject(model, again, rank=2, alpha=2)
    assert linears(model) == before


# ---------------------------------------------------------------------------------- matching


def names_model():
    names = ["q", "q_proj", "seq", "key", "value"]
    inner = nn.ModuleDict({name: nn.Linear(2, 2) for name in names} | {"norm": nn.LayerNorm(2)})
    return nn.ModuleDict({"a": inner, "q": nn.ModuleDict({"last": nn.Linear(2, 2)})})


ALL_IN_A = ["a.q", "a.q_proj", "a.seq", "a.key", "a.value"]


@pytest.mark.parametrize(
    ("targets", "options", "paths"),
    [
        (["q"], {}, ["a.q", "q.last"]),  # and not seq, nor q_proj
        (["seq"], {}, ["a.seq"]),
        (["a"], {}, ALL_IN_A),
        (["a.q"], {}, ["a.q"]),
        (["key", "value"], {}, ["a.key", "a.value"]),
        (["a"], {"exclude": ["q", "seq"]}, ["a.q_proj", "a.key", "a.value"]),
        (["a"], {"exclude": r".*q.*"}, ["a.key", "a.value"]),
        (["a"], {"new": ["a.q", "q"]}, ALL_IN_A[1:]),  # whole paths, and nothing below them
        (["q"], {"new": ["q"]}, ["a.q", "q.last"]),
        (r".*\.q", {}, ["a.q"]),  # a text is a pattern of the whole path
        (r"a\.(q|key)", {}, ["a.q", "a.key"]),
        (r"a\.q.*", {}, ["a.q", "a.q_proj"]),
        (".*", {}, [*ALL_IN_A, "q.last"]),
        (["a.*"], {"exclude": []}, None),  # in a list a star is no pattern
        ("q", {}, None),
    ],
)
def test_targets(targets, options, paths):
    if paths is None:
        with pytest.raises(ValueError, match="none matches"):
            lora.find(names_model(), targets, **options)
    else:
        model = names_model()
        options = {"exclude": (), "new": ()} | options
        assert lora.find(model, targets, **options) == paths
        assert lora.inject(model, targets, rank=1, alpha=1, **options) == paths
        assert [path for path, _ in lora.adapters(model)] == paths


def test_targets_in_a_deep_encoder():
    with torch.device("meta"):
        model = GETRegionFinetune(5, 4, 12, 2, 2)
    inside = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    one = [f"encoder.blocks.1.{name}" for name in inside]
    assert lora.find(model, ["blocks.1"]) == one  # and not 10 nor 11
    assert lora.find(model, ["encoder.blocks.1"]) == one
    assert lora.find(model, ["1"]) == one
    projections = [f"encoder.blocks.{i}.attn.proj" for i in range(12)]
    assert lora.find(model, ["attn.proj"]) == projections
    assert lora.find(model, ["proj"]) == projections
    everywhere = [f"encoder.blocks.{i}.{name}" for i in range(12) for name in inside]
    assert lora.find(model, ["encoder"]) == everywhere
    assert lora.find(model, r"encoder\..*") == everywhere
    last = r"encoder\.blocks\.1[01]\.mlp\.fc\d"
    assert lora.find(model, last) == [p for p in everywhere if "mlp" in p and ".1" in p[:17]][2:]
    kept = lora.find(model, ["encoder"], ["attn", "blocks.11"])
    assert kept == [f"encoder.blocks.{i}.{name}" for i in range(11) for name in inside[2:]]


def test_adapters_of_a_model_that_is_one_linear_map():
    adapter = filled(lora.LoRALinear(nn.Linear(3, 2), rank=1, alpha=1))
    assert [path for path, _ in lora.adapters(adapter)] == [""]
    plain, x = nn.Linear(3, 2), torch.randn(5, 3)
    plain.load_state_dict(lora.merged_state(adapter), strict=True)
    torch.testing.assert_close(plain(x), adapter(x))


# ------------------------------------------------------------------------ all or nothing


def test_where_one_adapter_is_not_finite_none_is_merged():
    toy = adapted("mlp")
    with torch.no_grad():
        toy.model[3].lora_A[0, 0] = math.nan
    before = snapshot(toy.model)
    with pytest.raises(ValueError, match="not finite"):
        lora.merge(toy.model)
    assert [adapter.merged for _, adapter in lora.adapters(toy.model)] == [False, False]
    assert all(torch.equal(before[n], v) for n, v in toy.model.state_dict().items() if "0" in n)


def test_a_bare_linear_map_is_refused_since_nothing_holds_it():
    linear = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="linear"):
        lora.inject(linear, ".*", rank=1, alpha=1)
    assert linear.weight.requires_grad
    assert list(linear.children()) == []


def test_the_file_stands_alone_and_is_short(root):
    text = (root / "yeast_get" / "model" / "lora.py").read_text("utf-8")
    assert "yeast_get" not in text
    assert len(text.splitlines()) <= 250
