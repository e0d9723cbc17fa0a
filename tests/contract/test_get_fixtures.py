"""The numbers and names of the published GET, recorded by running it, judge our backbone."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from yeast_get.batch import Batch, InputSizes
from yeast_get.config import FusionConfig, HeadConfig, ModelConfig, TransformerConfig
from yeast_get.model import lora
from yeast_get.model.get_backbone import GETRegionFinetune, initialise
from yeast_get.model.pretrained import adopt, load_get, read_get
from yeast_get.model.yeast_model import MaskedRegionModel, YeastModel
from yeast_get.training.losses import loss_sum

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


def theirs_from_seed_0(sizes):
    """A model with the reference's start under seed 0, drawn by our `initialise`.

    The reference draws every linear map as torch does, then the matrices of encoder and head anew,
    and only then as it wants them: so many numbers of the generator are gone before.
    """
    model = GETRegionFinetune(*sizes).eval()
    drawn = 0
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            drawn += sum(parameter.numel() for parameter in part.parameters())
            drawn += part.weight.numel() if not name.startswith("region_embed") else 0
    torch.manual_seed(0)
    for start in range(0, drawn, 1 << 22):
        torch.rand(min(1 << 22, drawn - start))
    initialise(model)
    return model


@pytest.mark.parametrize("outputs", [1, 2])
def test_start_from_scratch_is_theirs(tiny, outputs):
    config, recorded = tiny["config"], tiny[f"out{outputs}_init"]
    names = ("num_motif", "embed_dim", "num_layers", "num_heads")
    model = theirs_from_seed_0([config[name] for name in names] + [outputs])
    for name, ours in model.state_dict().items():
        assert_equal(ours, recorded["state_dict"][name])
    assert_equal(model(recorded["input"]), recorded["output"])


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
        sample_vocab=torch.zeros(b, dtype=torch.int64),
        condition_number=torch.randn(b, 1),
        condition_present=torch.ones(b, 1),
        condition_category=torch.ones(b, 1, dtype=torch.int64),
        condition_other=torch.zeros(b, 2),
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


# ------------------------------------------------------------- through the reader of files


def all_of_the_backbone(report):
    assert report.missing == report.unexpected == []
    assert report.mismatched == report.left_out == {}
    assert report.backbone[0] == report.backbone[1]


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("get_legacy_like_checkpoint.pth", "out2_rand"),
        ("get_ddp_like_checkpoint.pth", "out2_rand"),
        ("get_lightning_like_lora.ckpt", "out2_lora"),
    ],
)
def test_each_imitation_of_a_published_file_is_loaded_whole(fixtures, tiny, file, entry):
    model, report = load_get(fixtures / file, num_heads=4)
    all_of_the_backbone(report)
    assert_equal(model(tiny[entry]["input"]), tiny[entry]["output"])


@pytest.mark.parametrize("entry", ["base", "lora"])
def test_the_yeast_layout(fixtures, tmp_path, entry):
    held = torch.load(fixtures / "get_yeastfork_tiny.pt", weights_only=True)
    recorded = held[entry]
    path = tmp_path / "best_model.pth"
    torch.save({"model_state_dict": recorded["state_dict"], "config": held["config"]}, path)
    model, report = load_get(path)
    all_of_the_backbone(report)
    assert "4 heads (as the file says)" in report.notes[0]
    assert_equal(model(recorded["input"]), recorded["output"])


def test_lora_before_merging(tiny):
    """Our adapters, with the recorded matrices in them."""
    recorded = tiny["out2_lora"]
    wrapped = recorded["state_dict"]
    base = {k: v for k, v in wrapped.items() if "parametrizations" not in k}
    paths = {k.partition(".parametrizations")[0] for k in wrapped if "parametrizations" in k}
    base |= {f"{p}.weight": wrapped[f"{p}.parametrizations.weight.original"] for p in paths}
    model = model_for(tiny, base)
    rank, alpha = recorded["rank"], recorded["alpha"]
    made = lora.inject(model, ["region_embed", "encoder"], rank=rank, alpha=alpha)
    assert set(made) == paths
    for path, adapter in lora.adapters(model):
        assert adapter.scale == recorded["scaling"]
        with torch.no_grad():
            adapter.lora_A.copy_(wrapped[f"{path}.parametrizations.weight.0.lora_A"])
            adapter.lora_B.copy_(wrapped[f"{path}.parametrizations.weight.0.lora_B"])
    assert_equal(model(recorded["input"]), recorded["output"])
    merged = lora.merged_state(model)
    for name, theirs in recorded["merged_state_dict"].items():
        assert_equal(merged[name], theirs)


@pytest.mark.parametrize("names", ["current", "legacy"])
def test_masked_pretraining(fixtures, tiny, tmp_path, names):
    recorded, config = tiny["pretrain"], tiny["config"]
    state = recorded["state_dict"]
    if names == "legacy":
        table = (("region_embed.embed.", "encoder.region_embed.proj."),
                 ("cls_token", "encoder.cls_token"), ("head_mask.", "encoder.head."))  # fmt: skip
        state = {next((b + k[len(a):] for a, b in table if k.startswith(a)), k): v
                 for k, v in state.items()}  # fmt: skip
    torch.save({"model": state}, tmp_path / "checkpoint-799.pth")
    weights = read_get(tmp_path / "checkpoint-799.pth", num_heads=config["num_heads"])
    size = TransformerConfig(
        num_layers=config["num_layers"], num_heads=config["num_heads"],
        embed_dim=config["embed_dim"],
    )  # fmt: skip
    sizes = InputSizes(config["num_motif"] - 1, 1, [], {}, [], 2, 1, 0)
    model = MaskedRegionModel(ModelConfig(transformer=size), sizes).eval()
    report = adopt(model, weights, range(config["num_motif"]))
    all_of_the_backbone(report)
    batch = batch_of(recorded["input"], config["num_motif"])
    batch.target = recorded["input"]
    hidden = recorded["mask"].bool()
    batch.target_mask = hidden.unsqueeze(-1).expand(batch.target.shape)
    prediction = model(batch)
    assert_equal(prediction[hidden], recorded["pred_masked"])
    assert_equal(batch.target[hidden], recorded["obs_masked"])
    loss = loss_sum("mse", prediction, batch.target, batch.target_mask) / batch.target_mask.sum()
    assert_equal(loss, recorded["loss"])


def shrunk(layout):
    """The names of a published layout, with tensors of a model 4 wide on 6 columns."""
    small = {768: 4, 2304: 12, 3072: 16, 283: 6, 545: 6}
    tensors = {}
    for row in layout.read_text().splitlines():
        name, shape, _ = row.split("\t")
        tensors[name] = torch.ones([small.get(int(n), int(n)) for n in shape.split("x")])
    return tensors


@pytest.mark.parametrize(
    "layout", ["", "_legacy_v1", "_lora", "_yeastfork", "_pretrain", "_legacy_pretrain"]
)
def test_every_name_of_the_published_layouts_is_known(fixtures, tmp_path, layout):
    torch.save({"model": shrunk(fixtures / f"get_state_dict_layout{layout}.tsv")}, tmp_path / "f")
    model, report = load_get(tmp_path / "f", num_heads=2)
    assert len(model.encoder.blocks) == 12
    assert report.unexpected == []
    assert report.mismatched == {}
    assert report.encoder[0] == report.encoder[1]
    pretraining = "pretrain" in layout
    assert bool(report.missing) == bool(report.left_out) == pretraining


@pytest.mark.slow
def test_published_size_from_a_seed(fixtures):
    said = json.loads((fixtures / "get_published_size_summary.json").read_text())
    model = theirs_from_seed_0([283, 768, 12, 12, 2])
    assert sum(p.numel() for p in model.parameters()) == said["params"]
    state = model.state_dict()
    for name, total in said["sd_abs_sum"].items():
        assert float(state[name].double().abs().sum()) == pytest.approx(total, rel=1e-5), name
    features = torch.rand(2, 200, 283, generator=torch.Generator().manual_seed(42))
    features[..., -1] = 1
    assert float(features.sum()) == pytest.approx(said["input_sum"], rel=1e-5)
    with torch.no_grad():
        output = model(features)
    assert list(output.shape) == said["out_shape"]
    for name in ("mean", "std", "min", "max"):
        assert float(getattr(output, name)()) == pytest.approx(said[name], rel=1e-5), name
    assert output[0, 0].tolist() == pytest.approx(said["first"], rel=1e-5)
    assert output[-1, -1].tolist() == pytest.approx(said["last"], rel=1e-5)
