"""The numbers and names of the published GET, recorded by running it, judge our backbone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from yeast_get.batch import Batch, InputSizes
from yeast_get.config import FusionConfig, HeadConfig, ModelConfig, TransformerConfig
from yeast_get.model.get_backbone import GETRegionFinetune
from yeast_get.model.yeast_model import YeastModel

ENTRIES = ["out1_rand", "out2_rand"]


@pytest.fixture(scope="module")
def fixtures(data_dir):
    path = data_dir / "get_fixtures"
    if not path.is_dir():
        pytest.skip(f"no GET fixtures at {path}")
    return path


@pytest.fixture(scope="module")
def tiny(fixtures):
    return torch.load(fixtures / "get_tiny_reference.pt", weights_only=True)


def model_for(tiny, state_dict):
    config, output_dim = tiny["config"], state_dict["head_exp.head.weight"].shape[0]
    sizes = [config[name] for name in ("num_motif", "embed_dim", "num_layers", "num_heads")]
    model = GETRegionFinetune(*sizes, output_dim)
    model.load_state_dict(state_dict)
    return model.eval()


def assert_equal(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("entry", ENTRIES)
def test_outputs_and_activations(tiny, entry):
    recorded = tiny[entry]
    model = model_for(tiny, recorded["state_dict"])
    watched = {
        "region_embed": model.region_embed,
        "block0": model.encoder.blocks[0],
        "block1": model.encoder.blocks[1],
        "encoder_norm": model.encoder.norm,
        "head_pre_softplus": model.head_exp.head,
    }
    assert set(watched) == set(recorded["activations"])
    seen = {}
    for name, module in watched.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    assert_equal(model(recorded["input"]), recorded["output"])
    for name, activation in recorded["activations"].items():
        assert_equal(seen[name], activation)


@pytest.mark.parametrize("entry", ENTRIES)
def test_loss_and_every_gradient(tiny, entry):
    recorded = tiny[entry]
    model = model_for(tiny, recorded["state_dict"])
    features = recorded["input"].clone().requires_grad_()
    loss = nn.PoissonNLLLoss(log_input=False)(model(features), recorded["target"])
    loss.backward()
    assert_equal(loss.detach(), recorded["loss"])
    assert_equal(features.grad, recorded["input_grad"])
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(grads) == set(recorded["grads"])
    for name, grad in recorded["grads"].items():
        assert_equal(grads[name], grad)


@pytest.mark.parametrize("entry", ENTRIES)
def test_jacobian_of_one_region(tiny, entry):
    recorded = tiny[entry]
    features = recorded["input"].clone().requires_grad_()
    model_for(tiny, recorded["state_dict"])(features)[:, 3, 0].sum().backward()
    assert_equal(features.grad, recorded["jacobian_focus3_strand0"])


def test_merged_lora_weights(tiny):
    recorded = tiny["out2_lora"]
    model = model_for(tiny, recorded["merged_state_dict"])
    assert_equal(model(recorded["input"]), recorded["output"])


def test_the_epsilon_of_the_norms_would_show(tiny):
    recorded = tiny["out2_rand"]
    model = model_for(tiny, recorded["state_dict"])
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    with pytest.raises(AssertionError):
        assert_equal(model(recorded["input"]), recorded["output"])


def test_start_from_scratch_is_drawn_as_theirs(tiny):
    torch.manual_seed(0)
    theirs = tiny["out2_init"]["state_dict"]
    config = tiny["config"]
    sizes = [config[name] for name in ("num_motif", "embed_dim", "num_layers", "num_heads")]
    for name, ours in GETRegionFinetune(*sizes, 2).state_dict().items():
        if ours.dim() == 2:
            bound = math.sqrt(6 / sum(ours.shape))
            for weight in (ours, theirs[name]):
                assert 0.9 * bound < weight.abs().max() <= bound
                assert weight.abs().mean() == pytest.approx(bound / 2, rel=0.25)
        else:
            torch.testing.assert_close(ours, theirs[name])


def test_published_size_has_the_published_names_and_shapes(fixtures):
    rows = (fixtures / "get_state_dict_layout.tsv").read_text().splitlines()
    with torch.device("meta"):
        model = GETRegionFinetune(283, 768, 12, 12, 2)
    layout = [
        f"{name}\t{'x'.join(map(str, tensor.shape))}\t{str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in model.state_dict().items()
    ]
    assert sorted(layout) == sorted(rows)
    assert sum(parameter.numel() for parameter in model.parameters()) == 85_267_202


def test_stochastic_depth_of_the_published_size():
    with torch.device("meta"):
        model = GETRegionFinetune(283, 768, 12, 12, 2)
    rates = [block.drop_path.rate for block in model.encoder.blocks]
    assert rates == pytest.approx([0.1 * i / 11 for i in range(12)])


# ------------------------------------------------------------- GET inside YeastModel


def yeast_twin(get, kind):
    """A YeastModel of GET's size, with conditions, that holds the weights of `get`."""
    heads = get.encoder.blocks[0].attn.num_heads
    width, features = get.region_embed.embed.weight.shape
    config = ModelConfig(
        fusion=FusionConfig(kind=kind, hidden_dim=8),
        transformer=TransformerConfig(
            num_layers=len(get.encoder.blocks), num_heads=heads, embed_dim=width
        ),
        head=HeadConfig(kind="get"),
    )
    targets = get.head_exp.head.out_features
    sizes = InputSizes(features - 1, 1, ["temperature"], {"medium": 3}, ["drug"], 4, targets, 0)
    model = YeastModel(config, sizes)
    report = model.load_state_dict(get.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert {name.split(".")[0] for name in report.missing_keys} == {"feature_encoder", "fusion"}
    return model.eval()


def batch_of(features, targets):
    b, r, _ = features.shape
    return Batch(
        motif=features[..., :-1],
        accessibility=features[..., -1:],
        region_mask=torch.ones(b, r, dtype=torch.bool),
        region_index=torch.zeros(b, r, dtype=torch.int64),
        region_vocab=torch.zeros(b, r, dtype=torch.int64),
        condition_number=torch.randn(b, 1),
        condition_present=torch.ones(b, 1),
        condition_category=torch.ones(b, 1, dtype=torch.int64),
        drug=torch.full((b, 1), 3),
        dose=torch.ones(b, 1),
        target=torch.zeros(b, r, targets),
        target_mask=torch.ones(b, r, targets, dtype=torch.bool),
        observation_index=torch.zeros(b, r, dtype=torch.int64),
    )


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", ["concat", "film", "tokens"])
def test_yeast_model_with_get_weights_starts_as_get(tiny, kind, entry):
    recorded = tiny[entry]
    get = model_for(tiny, recorded["state_dict"])
    twin = yeast_twin(get, kind)
    batch = batch_of(recorded["input"], recorded["target"].shape[-1])
    assert_equal(twin(batch), recorded["output"])
    assert_equal(twin.encode(batch), recorded["activations"]["encoder_norm"][:, 1:])


def test_only_the_embedding_and_the_head_differ_for_another_table():
    get = {k: v.shape for k, v in GETRegionFinetune(11, 32, 2, 4, 2).state_dict().items()}
    config = ModelConfig(transformer=TransformerConfig(num_layers=2, num_heads=4, embed_dim=32))
    sizes = InputSizes(50, 1, ["temperature"], {}, [], 2, 1, 0)
    ours = {k: v.shape for k, v in YeastModel(config, sizes).state_dict().items()}
    differ = {name for name, shape in get.items() if ours.get(name) != shape}
    assert differ == {"region_embed.embed.weight", "head_exp.head.weight", "head_exp.head.bias"}
