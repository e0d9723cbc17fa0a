from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from yeast_get.batch import Batch, InputSizes
from yeast_get.config import ModelConfig
from yeast_get.model.yeast_model import YeastModel, sinusoids

SIZES = InputSizes(
    5, 1, ["temperature"], {"medium": 4}, ["drug"], 4, 1, known_regions=6,
    encoding=[[0, -3.0, 3.0, 0.5, 0.2], [0, 0.0, 3.0, 0.2, 0.2], [5, -3.0, 3.0, 0.5, 0.2]],
    number_scales=[[30.0, 5.0, 0.0]], known_conditions=3, known_samples=4,
)  # fmt: skip
SMALL = {
    "feature_encoders.embed_dim": 4,
    "fusion.kind": "film",
    "fusion.hidden_dim": 8,
    "region_embed.feature_dropout": 0.0,
    "region_embed.dropout": 0.0,
    "transformer.embed_dim": 8,
    "transformer.num_layers": 2,
    "transformer.num_heads": 2,
    "encoder.drop_rate": 0.0,
    "head.hidden_dim": 8,
    "head.dropout": 0.0,
    "region_identity.enabled": True,
    "region_identity.dropout": 0.0,
}


def make_config(**changes):
    """A small model without any randomness; `section__key=value` changes it."""
    values: dict = {}
    for dotted, value in (SMALL | {k.replace("__", "."): v for k, v in changes.items()}).items():
        section, key = dotted.split(".")
        values.setdefault(section, {})[key] = value
    return ModelConfig.model_validate(values)


def make_model(**changes):
    torch.manual_seed(0)
    model = YeastModel(make_config(**changes), SIZES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def make_batch(b=6, r=3):
    g = torch.Generator().manual_seed(1)
    whole = partial(torch.ones, dtype=torch.int64)
    return Batch(
        motif=torch.randn(b, r, SIZES.region_features, generator=g),
        accessibility=torch.randn(b, r, 1, generator=g),
        region_mask=torch.ones(b, r, dtype=torch.bool),
        region_index=whole(b, r),
        region_vocab=whole(b, r) + 1,
        sample_vocab=whole(b),
        condition_number=torch.randn(b, 1, generator=g),
        condition_present=torch.ones(b, 1),
        condition_category=whole(b, 1),
        condition_other=torch.zeros(b, 2),
        drug=whole(b, 1) + 1,
        dose=torch.ones(b, 1),
        target=torch.zeros(b, r, 1),
        target_mask=torch.ones(b, r, 1, dtype=torch.bool),
        observation_index=whole(b, r),
    )


# ------------------------------------------------------------------ every key has an effect


def trained(model, seed):
    torch.manual_seed(seed)
    return model.train()(make_batch())


RATES = [
    "region_embed__feature_dropout",
    "region_embed__dropout",
    "encoder__drop_rate",
    "encoder__attn_drop_rate",
    "encoder__drop_path_rate",
    "region_identity__dropout",
    "head__dropout",
]


@pytest.mark.parametrize("key", RATES)
def test_a_rate_acts_in_training_only(key):
    plain, with_rate = make_model(), make_model(**{key: 0.5})
    assert torch.equal(trained(plain, 1), trained(plain, 2))
    assert not torch.allclose(trained(with_rate, 1), trained(plain, 1))
    assert not torch.allclose(trained(with_rate, 1), trained(with_rate, 2))
    assert torch.equal(trained(with_rate, 1), trained(with_rate, 1))
    assert torch.equal(with_rate.eval()(make_batch()), plain.eval()(make_batch()))


SHAPES = {
    "feature_encoders__embed_dim": (6, "feature_encoder.categories.field_medium.weight", (4, 6)),
    "fusion__hidden_dim": (16, "fusion.last.weight", (2 * 4 * 8, 16)),
    "transformer__embed_dim": (12, "cls_token", (1, 1, 12)),
    "transformer__num_layers": (3, "encoder.blocks.2.norm1.weight", (8,)),
    "encoder__mlp_ratio": (2.5, "encoder.blocks.0.mlp.fc1.weight", (20, 8)),
    "head__hidden_dim": (5, "head.0.weight", (5, 8)),
    "head__kind": ("get", "head_exp.head.weight", (1, 8)),
    "transformer__positional_encoding": ("learned", "position_embed.weight", (1024, 8)),
}


@pytest.mark.parametrize("key", SHAPES)
def test_a_size_changes_shapes(key):
    value, name, shape = SHAPES[key]
    plain, changed = make_model().state_dict(), make_model(**{key: value}).state_dict()
    assert changed[name].shape == shape
    assert name not in plain or plain[name].shape != shape


@pytest.mark.parametrize("kind", ["concat", "film", "tokens"])
def test_hidden_dim_acts_in_every_fusion(kind):
    counts = {
        sum(p.numel() for p in make_model(fusion__kind=kind, fusion__hidden_dim=h).parameters())
        for h in (8, 16)
    }
    assert len(counts) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("transformer__num_heads", 4), ("transformer__positional_encoding", "sinusoidal")],
)
def test_a_key_without_weights_changes_the_prediction(key, value):
    plain, changed = make_model(), make_model(**{key: value})
    assert plain.state_dict().keys() == changed.state_dict().keys()
    assert not torch.allclose(plain.eval()(make_batch()), changed.eval()(make_batch()))


@pytest.mark.parametrize(("most", "factors"), [(3, 3), (4, 4), (70, 4)])
def test_there_are_no_more_factors_than_training_samples(most, factors):
    head = make_model(fusion__kind="factors", fusion__factors=most).by_factors
    assert head.from_encoder.weight.shape == head.from_embedding.weight.shape == (factors, 8)
    assert head.known.shape == (7, factors)
    assert head.loadings.weights.shape == (3, factors + 1)
    assert head.loadings.own.shape == (5, factors + 1)


def test_kinds_of_fusion_differ():
    kinds = ("concat", "film", "tokens", "factors")
    assert len({frozenset(make_model(fusion__kind=k).state_dict()) for k in kinds}) == 4


def test_features_enter_as_they_are_where_nothing_is_encoded():
    plain = YeastModel(make_config(), replace(SIZES, encoding=[]))
    assert plain.encoding is None
    assert plain.region_embed.embed.weight.shape == (8, 6)
    assert make_model().region_embed.embed.weight.shape == (8, 3)


def test_feature_dropout_drops_bins_of_a_region():
    model = make_model(region_embed__feature_dropout=0.5).train()
    torch.manual_seed(0)
    with torch.no_grad():
        model.region_embed.embed.weight.copy_(torch.eye(8, 3))
        model.region_embed.embed.bias.zero_()
        model.region_identity.weight.zero_()
        entered = model._embed(make_batch(b=100))[..., :3]
    whole = model.encoding(torch.cat((make_batch(b=100).motif, make_batch(b=100).accessibility), 2))
    kept = entered != 0
    assert kept.float().mean() == pytest.approx(0.5, abs=0.06)
    torch.testing.assert_close(entered[kept], 2 * whole[kept])


def test_region_identity_can_be_off():
    model = make_model(region_identity__enabled=False)
    assert model.region_identity is None
    assert not any("identity" in name for name in model.state_dict())


def test_region_identity_dropout_means_unknown():
    model = make_model(region_identity__dropout=0.25).train()
    torch.manual_seed(0)
    kept = model._known(torch.full((200, 100), 3))
    assert set(kept.unique().tolist()) == {0, 3}
    assert (kept == 0).float().mean() == pytest.approx(0.25, abs=0.01)


# ----------------------------------------------------------------------------- positions


def test_learned_positions_have_an_end():
    config = make_config(transformer__positional_encoding="learned")
    model = YeastModel(config, SIZES, max_regions=3)
    assert model(make_batch(r=3)).shape == (6, 3, 1)
    with pytest.raises(ValueError, match="4 regions is longer .* max_regions = 3"):
        model(make_batch(r=4))


def test_learned_position_is_added_at_its_place():
    model = make_model(transformer__positional_encoding="learned")
    regions = torch.randn(2, 3, 8)
    added = model.with_positions(regions) - regions
    torch.testing.assert_close(added, model.position_embed.weight[:3].expand(2, 3, 8))


def test_sinusoids_tell_places_apart_and_do_not_depend_on_the_window():
    table = sinusoids(400, 16)
    assert torch.equal(table[:50], sinusoids(50, 16))
    assert torch.allclose(table.square().sum(1), torch.tensor(8.0))
    place = torch.arange(400.0)
    torch.testing.assert_close(table[:, :2], torch.stack((place.sin(), place.cos()), dim=1))
    assert torch.cdist(table, table).fill_diagonal_(9).min() > 0.1


# ---------------------------------------------------------------------- parameter groups


@pytest.mark.parametrize(
    ("kind", "head"),
    [("concat", "mlp"), ("film", "mlp"), ("film", "get"), ("tokens", "mlp"), ("factors", "mlp")],
)
def test_every_parameter_is_in_exactly_one_group(kind, head):
    model = make_model(
        fusion__kind=kind, head__kind=head, transformer__positional_encoding="learned"
    )
    groups = model.parameter_groups(0.05)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    decays = {group["name"]: group["weight_decay"] for group in groups}
    identity = {} if kind == "factors" else {"region_identity": 0.1}
    assert decays == {"decay": 0.05, "no_decay": 0.0, "gates": 0.0, **identity}
    assert {g["name"]: g["faster"] for g in groups if g["faster"] != 1} == {"gates": 100}
    group_of = {id(p): group["name"] for group in groups for p in group["params"]}
    names = {name: group_of[id(p)] for name, p in model.named_parameters()}
    assert names.pop("encoding.gate") == "gates"
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 and name in names:
            assert names[name] == "no_decay"
    embeddings = [n for n in names if "categories" in n or ".drug." in n]
    assert len(embeddings) == (0 if kind == "factors" else 3)
    for name in ["cls_token", "position_embed.weight", *embeddings]:
        assert names.pop(name) == "no_decay"
    if identity:
        assert names.pop("region_identity.weight") == "region_identity"
    rest = {name for name, group in names.items() if group == "decay"}
    assert rest == {name for name in names if dict(model.named_parameters())[name].dim() == 2}
    assert "encoder.blocks.0.attn.qkv.weight" in rest


def test_identities_have_a_decay_of_their_own():
    groups = make_model(region_identity__weight_decay=0.7).parameter_groups(0.05)
    assert [g["weight_decay"] for g in groups if g["name"] == "region_identity"] == [0.7]


def test_frozen_parameters_are_in_no_group():
    model = make_model()
    model.encoder.requires_grad_(False)
    model.region_identity.requires_grad_(False)
    groups = model.parameter_groups(0.05)
    assert {group["name"] for group in groups} == {"decay", "no_decay", "gates"}
    params = [p for group in groups for p in group["params"]]
    assert all(p.requires_grad for p in params)
    assert len(params) == sum(p.requires_grad for p in model.parameters())
