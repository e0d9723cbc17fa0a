"""What the model promises about its inputs, on parameters refilled at random."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from yeast_get.batch import DOSE_NOT_RECORDED, NONE, UNKNOWN, Batch, InputSizes
from yeast_get.config import (
    FeatureEncodersConfig,
    FusionConfig,
    HeadConfig,
    ModelConfig,
    RegionIdentityConfig,
    TransformerConfig,
)
from yeast_get.model.yeast_model import YeastModel

SIZES = InputSizes(
    region_features=6,
    accessibility=2,
    numbers=["temperature", "type"],  # "type" is also a method of every module
    categories={"medium": 4, "carbon.source": 5},
    drugs=["drug", "drug_2"],
    drug_vocabulary=6,
    targets=2,
    known_regions=9,
)
B = 4

each_kind = pytest.mark.parametrize("kind", ["concat", "film", "tokens"])
each_length = pytest.mark.parametrize("length", [1, 5])


def make_model(kind="film", sizes=SIZES, position="none", head="mlp", identity=True):
    """A small model whose every parameter is random, so that nothing hides behind a zero."""
    config = ModelConfig(
        feature_encoders=FeatureEncodersConfig(embed_dim=6),
        fusion=FusionConfig(kind=kind, hidden_dim=8),
        transformer=TransformerConfig(
            num_layers=2, num_heads=2, embed_dim=8, positional_encoding=position
        ),
        region_identity=RegionIdentityConfig(enabled=identity),
        head=HeadConfig(kind=head, hidden_dim=8),
    )
    model = YeastModel(config, sizes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        if model.region_identity is not None:
            model.region_identity.weight[0] = 0
    return model.eval()


def make_batch(length=5, sizes=SIZES, b=B):
    g = torch.Generator().manual_seed(2)
    numbers, drugs = len(sizes.numbers), len(sizes.drugs)
    vocabularies = list(sizes.categories.values())
    category = [torch.randint(1, size, (b,), generator=g) for size in vocabularies]
    return Batch(
        motif=torch.randn(b, length, sizes.region_features, generator=g),
        accessibility=torch.randn(b, length, sizes.accessibility, generator=g),
        region_mask=torch.ones(b, length, dtype=torch.bool),
        region_index=torch.zeros(b, length, dtype=torch.int64),
        region_vocab=torch.randint(0, sizes.known_regions + 1, (b, length), generator=g),
        condition_number=torch.randn(b, numbers, generator=g),
        condition_present=torch.ones(b, numbers),
        condition_category=torch.stack(category, 1) if category else torch.zeros(b, 0).long(),
        drug=torch.randint(2, sizes.drug_vocabulary, (b, drugs), generator=g),
        dose=torch.rand(b, drugs, generator=g) + 0.2,
        target=torch.randn(b, length, sizes.targets, generator=g),
        target_mask=torch.ones(b, length, sizes.targets, dtype=torch.bool),
        observation_index=torch.zeros(b, length, dtype=torch.int64),
    )


def with_value(batch, field, column, value):
    """The batch with one column of one field set to a value, or changed by a function."""
    tensor = getattr(batch, field).clone()
    tensor[..., column] = value(tensor[..., column]) if callable(value) else value
    return replace(batch, **{field: tensor})


def same(a, b):
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def each_sample_differs(a, b):
    return bool(((a - b).abs().flatten(1).amax(1) > 1e-4).all())


# ------------------------------------------------------------------------- conditions


CHANGES = {
    "number": ("condition_number", 0, lambda x: x + 1),
    "number named as a method": ("condition_number", 1, lambda x: x + 1),
    "presence": ("condition_present", 0, 0.0),
    "category": ("condition_category", 0, lambda x: 1 + x % 3),
    "category with a dot": ("condition_category", 1, UNKNOWN),
    "drug": ("drug", 0, lambda x: 2 + (x - 1) % 4),
    "second drug": ("drug", 1, lambda x: 2 + (x - 1) % 4),
    "unknown drug": ("drug", 0, UNKNOWN),
    "no drug": ("drug", 0, NONE),
    "dose": ("dose", 0, lambda x: x + 0.5),
    "second dose": ("dose", 1, lambda x: x + 0.5),
    "dose not recorded": ("dose", 0, DOSE_NOT_RECORDED),
    "motif": ("motif", 3, lambda x: x + 1),
    "accessibility": ("accessibility", 1, lambda x: x + 1),
    "accessibility presence": ("accessibility", 0, lambda x: x + 1),
}


@each_kind
@each_length
@pytest.mark.parametrize("change", CHANGES)
def test_every_input_changes_the_prediction(kind, length, change):
    model, batch = make_model(kind), make_batch(length)
    changed = with_value(batch, *CHANGES[change])
    assert each_sample_differs(model(batch), model(changed))


@each_kind
@each_length
def test_dose_zero_is_no_drug(kind, length):
    model, batch = make_model(kind), with_value(make_batch(length), "dose", 0, 0.0)
    one, other = (model(with_value(batch, "drug", 0, drug)) for drug in (2, UNKNOWN))
    assert torch.equal(one, other)
    for dose in (0.0, 1.0, DOSE_NOT_RECORDED):
        none = with_value(with_value(batch, "drug", 0, NONE), "dose", 0, dose)
        assert torch.equal(model(none), one)


def test_drug_without_recorded_dose_still_tells_drugs_apart():
    model, batch = make_model(), with_value(make_batch(), "dose", 0, DOSE_NOT_RECORDED)
    one, other = (model(with_value(batch, "drug", 0, drug)) for drug in (2, 3))
    assert each_sample_differs(one, other)


def test_the_effect_of_a_drug_token_is_linear_in_the_dose():
    encode, drug = make_model().feature_encoder.drug, torch.tensor([[3, 4]])
    token = encode(drug, torch.tensor([[1.0, 0.0]])) + encode(drug, torch.tensor([[0.0, 2.0]]))
    torch.testing.assert_close(encode(drug, torch.tensor([[1.0, 2.0]])), token)
    torch.testing.assert_close(2 * token, encode(drug, torch.tensor([[2.0, 4.0]])))


@each_kind
def test_order_of_drug_slots_does_not_matter(kind):
    model, batch = make_model(kind), make_batch()
    swapped = replace(batch, drug=batch.drug.flip(1), dose=batch.dose.flip(1))
    assert same(model(batch), model(swapped))


@each_kind
def test_a_number_that_was_not_recorded_cannot_leak(kind):
    model, batch = make_model(kind), with_value(make_batch(), "condition_present", 0, 0.0)
    leak = with_value(batch, "condition_number", 0, 1e6)
    assert torch.equal(model(batch), model(leak))


@each_kind
def test_no_condition_fields_at_all(kind):
    sizes = replace(SIZES, numbers=[], categories={}, drugs=[], accessibility=0)
    model, batch = make_model(kind, sizes), make_batch(sizes=sizes)
    assert model.feature_encoder(batch).shape == (B, 0, 6)
    assert not list(model.fusion.parameters())
    plain = make_model("film", sizes)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(batch), plain(batch))


def test_one_token_per_field_and_one_for_all_drugs():
    encoder = make_model().feature_encoder
    assert encoder.names == ["temperature", "type", "medium", "carbon.source", "drug"]
    assert encoder(make_batch()).shape == (B, 5, 6)


@each_kind
def test_fusion_starts_by_changing_nothing(kind):
    torch.manual_seed(0)
    config = ModelConfig(fusion=FusionConfig(kind=kind))
    model, batch = YeastModel(config, SIZES).eval(), make_batch()
    other = make_batch()
    other.condition_number += 3
    assert torch.equal(model(batch), model(other))


# ---------------------------------------------------------------------------- regions


@each_kind
@pytest.mark.parametrize("position", ["none", "sinusoidal", "learned"])
def test_order_of_regions_matters_only_with_positions(kind, position):
    model, batch = make_model(kind, position=position), make_batch()
    order = torch.tensor([3, 0, 4, 1, 2])
    fields = ("motif", "accessibility", "region_vocab")
    permuted = replace(batch, **{name: getattr(batch, name)[:, order] for name in fields})
    before, after = model(batch)[:, order], model(permuted)
    assert same(before, after) == (position == "none")


@each_kind
def test_neighbours_are_context(kind):
    model, batch = make_model(kind), make_batch()
    changed = replace(batch, motif=batch.motif.clone())
    changed.motif[:, 4] += 1
    assert each_sample_differs(model(batch)[:, :4], model(changed)[:, :4])


@each_kind
def test_padding_is_never_looked_at(kind):
    model, batch = make_model(kind), make_batch()
    batch.region_mask[:, 3:] = False
    changed = replace(batch, motif=batch.motif.clone())
    changed.motif[:, 3:] = 100.0
    assert torch.equal(model(batch)[:, :3], model(changed)[:, :3])
    fields = ("motif", "accessibility", "region_mask", "region_vocab")
    alone = replace(batch, **{name: getattr(batch, name)[:, :3] for name in fields})
    assert same(model(batch)[:, :3], model(alone))


@each_kind
def test_a_window_of_padding_only_is_finite_and_one_region_needs_no_mask(kind):
    model = make_model(kind)
    batch = make_batch()
    batch.region_mask[1] = False
    assert model(batch).isfinite().all()
    batch = make_batch(1)
    batch.region_mask[1] = False
    assert torch.equal(model(batch), model(make_batch(1)))


@each_length
def test_region_identity(length):
    model, batch = make_model(), make_batch(length)
    unknown = replace(batch, region_vocab=torch.zeros_like(batch.region_vocab))
    known = replace(batch, region_vocab=torch.full_like(batch.region_vocab, 7))
    assert each_sample_differs(model(unknown), model(known))
    without = make_model(identity=False)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("region_identity")}
    without.load_state_dict(state)
    assert torch.equal(model(unknown), without(unknown))
    assert torch.equal(without(known), without(unknown))


def test_a_fresh_unknown_region_is_zero_and_stays_so():
    model = YeastModel(ModelConfig(region_identity=RegionIdentityConfig(enabled=True)), SIZES)
    assert not model.region_identity.weight[0].any()
    assert model.region_identity.weight[1:].all(1).all()
    model(make_batch()).sum().backward()
    assert not model.region_identity.weight.grad[0].any()
    assert model.region_identity.weight.grad.any()


# -------------------------------------------------------------------------- the whole


@each_kind
@pytest.mark.parametrize("head", ["mlp", "get"])
def test_prediction_is_head_of_encoding(kind, head):
    model, batch = make_model(kind, head=head), make_batch()
    encoding, prediction = model.encode(batch), model(batch)
    assert encoding.shape == (B, 5, 8)
    assert prediction.shape == (B, 5, 2)
    if head == "get":
        assert model.head is None
        assert (prediction > 0).all()
        assert torch.equal(prediction, model.head_exp(encoding))
    else:
        assert model.head_exp is None
        assert torch.equal(prediction, model.head(encoding))


@each_kind
@each_length
def test_gradients_reach_every_parameter(kind, length):
    model, batch = make_model(kind, position="learned"), make_batch(length)
    batch.condition_present[0] = 0
    batch.dose[0] = DOSE_NOT_RECORDED
    model(batch).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_film_has_a_scale_and_shift_for_every_channel_of_every_branch():
    model = make_model("film")
    model(make_batch()).square().sum().backward()
    assert model.fusion.last.bias.grad.shape == (2 * 4 * 8,)
    assert model.fusion.last.bias.grad.all()


def test_condition_tokens_start_about_equally_long():
    torch.manual_seed(0)
    encoder = YeastModel(ModelConfig(), SIZES).feature_encoder
    length = encoder(make_batch(b=200)).norm(dim=-1).mean(0)
    assert ((length > 0.3) & (length < 3)).all()


@each_kind
@each_length
def test_batch_is_not_changed(kind, length):
    model, batch = make_model(kind).train(), make_batch(length)
    before = {name: tensor.clone() for name, tensor in batch.tensors()}
    model(batch).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in batch.tensors())


@each_kind
@each_length
def test_samples_do_not_see_each_other(kind, length):
    model, batch = make_model(kind), make_batch(length)
    one_by_one = [
        model(Batch(**{name: tensor[i : i + 1] for name, tensor in batch.tensors()}))
        for i in range(B)
    ]
    assert same(model(batch), torch.cat(one_by_one))


def test_weights_round_trip():
    model, batch = make_model(position="learned"), make_batch()
    config = model.config
    copy = YeastModel(config, SIZES).eval()
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(batch), model(batch))
