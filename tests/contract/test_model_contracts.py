"""What the model promises about its inputs, on parameters refilled at random."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from yeast_get.batch import CONDITION_FIELDS, DOSE_NOT_RECORDED, NONE, UNKNOWN, Batch, InputSizes
from yeast_get.config import (
    EncoderConfig,
    FeatureEncodersConfig,
    FusionConfig,
    HeadConfig,
    ModelConfig,
    RegionEmbedConfig,
    RegionIdentityConfig,
    TransformerConfig,
)
from yeast_get.model import lora
from yeast_get.model.yeast_model import YeastModel

KNOWN = 12


def bins(columns):
    """Of each column the whole range and its upper half."""
    return [[j, low, 4.0, 0.5, 0.3] for j in range(columns) for low in (-4.0, 0.0)]


SIZES = InputSizes(
    region_features=6,
    accessibility=2,
    numbers=["temperature", "type", "before"],  # "type" is also a method of every module
    categories={"medium": 4, "carbon.source": 5},
    drugs=["drug", "drug_2"],
    drug_vocabulary=6,
    targets=2,
    known_regions=9,
    encoding=bins(8),
    number_scales=[[30.0, 5.0, 0.1], [0.0, 1.0, -0.3], [28.0, 4.0, 0.2]],
    steps=[[0, 2]],
    known_conditions=KNOWN,
    known_samples=KNOWN,
)
NO_CONDITIONS = replace(
    SIZES, accessibility=0, numbers=[], categories={}, drugs=[], encoding=[], number_scales=[],
    steps=[], known_conditions=1,
)  # fmt: skip
B = 4
ROWS = ("region_row", "condition_row")
OF_WINDOWS = ("target", "target_mask", "observation_index")

each_kind = pytest.mark.parametrize("kind", ["concat", "film", "tokens", "factors"])
each_other_kind = pytest.mark.parametrize("kind", ["concat", "film", "tokens"])
each_length = pytest.mark.parametrize("length", [1, 5])


def make_model(kind="film", sizes=SIZES, position="none", head="mlp", identity=True):
    """A small model whose every weight is random, so that nothing hides behind a zero."""
    config = ModelConfig(
        feature_encoders=FeatureEncodersConfig(embed_dim=6),
        fusion=FusionConfig(kind=kind, hidden_dim=8, factors=2),
        region_embed=RegionEmbedConfig(feature_dropout=0, dropout=0),
        encoder=EncoderConfig(drop_rate=0),
        transformer=TransformerConfig(
            num_layers=2, num_heads=2, embed_dim=8, positional_encoding=position
        ),
        region_identity=RegionIdentityConfig(enabled=identity),
        head=HeadConfig(kind=head, hidden_dim=32),
    )
    model = YeastModel(config, sizes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        if model.region_identity is not None:
            model.region_identity.weight[0] = 0
        if model.by_factors is not None:
            remember(model.by_factors, sizes, generator)
    return model.eval()


def remember(head, sizes, generator):
    """Fill a head of factors with the conditions of `make_batch`, and noise."""

    def noise(*shape):
        return torch.randn(shape, generator=generator)

    batch, out = make_batch(1, sizes, KNOWN), len(head.loadings.centre)
    fields = {name: getattr(batch, name)[: sizes.known_conditions] for name in CONDITION_FIELDS}
    code = torch.arange(KNOWN) % sizes.known_conditions
    loadings = noise(KNOWN, sizes.targets, out // sizes.targets)
    head.loadings.remember(fields, code, torch.arange(1, len(code) + 1), loadings)
    head.loadings.own[1:] += noise(KNOWN, out)
    head.known[1:] = noise(*head.known[1:].shape)


def make_batch(length=5, sizes=SIZES, b=B):
    """The first windows of twelve, each in a condition of its own."""
    return make_windows(length, sizes, max(b, KNOWN)).of_windows(torch.arange(b))


def make_windows(length, sizes, b):
    g, c = torch.Generator().manual_seed(2), torch.Generator().manual_seed(3)
    numbers, drugs = len(sizes.numbers), len(sizes.drugs)
    vocabularies = list(sizes.categories.values())
    category = [torch.randint(1, size, (b,), generator=c) for size in vocabularies]
    return Batch(
        motif=torch.randn(b, length, sizes.region_features, generator=g),
        accessibility=torch.randn(b, length, sizes.accessibility, generator=g),
        region_mask=torch.ones(b, length, dtype=torch.bool),
        region_index=torch.zeros(b, length, dtype=torch.int64),
        region_vocab=torch.randint(0, sizes.known_regions + 1, (b, length), generator=g),
        sample_vocab=torch.arange(b) % (sizes.known_samples + 1),
        condition_number=torch.randn(b, numbers, generator=c),
        condition_present=torch.ones(b, numbers),
        condition_category=torch.stack(category, 1) if category else torch.zeros(b, 0).long(),
        condition_other=torch.randint(2, (b, len(vocabularies) + drugs), generator=c).float(),
        drug=torch.randint(2, sizes.drug_vocabulary, (b, drugs), generator=c),
        dose=torch.rand(b, drugs, generator=c) + 0.2,
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
    "number of the pre-culture": ("condition_number", 2, lambda x: x + 1),
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


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("sample_vocab", lambda x: x + 5),
        ("region_vocab", lambda x: (x + 5) % 10),
        *(("condition_other", lambda x, j=j: x + F.one_hot(torch.tensor(j), 4) * (1 - 2 * x))
          for j in range(4)),
    ],
)  # fmt: skip
def test_what_only_factors_look_at(field, change):
    batch = make_batch()
    changed = replace(batch, **{field: change(getattr(batch, field))})
    for kind in ("concat", "film", "tokens"):
        model = make_model(kind, identity=False)
        assert torch.equal(model(batch), model(changed))
    model = make_model("factors", identity=False)
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
    assert each_sample_differs(one, model(make_batch(length)))


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
    model, batch = make_model(kind), make_batch(b=KNOWN)
    batch.drug[0], batch.drug[1, 0], batch.drug[2, 1], batch.drug[3, 0] = 3, NONE, NONE, UNKNOWN
    batch.dose[4] = 0.7
    of_words, of_drugs = batch.condition_other.split([2, 2], dim=1)
    swapped = replace(
        batch,
        drug=batch.drug.flip(1),
        dose=batch.dose.flip(1),
        condition_other=torch.cat((of_words, of_drugs.flip(1)), dim=1),
    )
    assert same(model(batch), model(swapped))


@each_kind
def test_a_number_that_was_not_recorded_cannot_leak(kind):
    model, batch = make_model(kind), with_value(make_batch(), "condition_present", 0, 0.0)
    leak = with_value(batch, "condition_number", 0, 1e6)
    assert torch.equal(model(batch), model(leak))


@each_kind
def test_the_last_block_makes_nothing_of_the_class_token(kind):
    model, batch, rows = make_model(kind), make_batch(), []
    for block in model.encoder.blocks:
        block.mlp.register_forward_hook(lambda *hooked: rows.append(hooked[2].shape[1]))
    model(batch)
    assert rows == [6, 5]  # of five regions and the class token


@each_other_kind
def test_no_condition_fields_at_all(kind):
    model, batch = make_model(kind, NO_CONDITIONS), make_batch(sizes=NO_CONDITIONS)
    assert model.feature_encoder(batch).shape == (B, 0, 6)
    assert not list(model.fusion.parameters())
    plain = make_model("film", NO_CONDITIONS)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(batch), plain(batch))


def test_factors_without_condition_fields_have_the_mean_of_the_samples():
    model, batch = make_model("factors", NO_CONDITIONS), make_batch(sizes=NO_CONDITIONS)
    batch.region_vocab[:], batch.sample_vocab[:] = 0, 0
    *loadings, level = model.by_factors.loadings.centre.view(2, -1).unbind(1)
    expected = model.factors(batch) @ torch.stack(loadings) + level
    torch.testing.assert_close(model(batch), expected)


def test_one_token_per_field_and_one_for_all_drugs():
    encoder = make_model().feature_encoder
    assert encoder.names == ["temperature", "type", "before", "medium", "carbon.source", "drug"]
    assert encoder(make_batch()).shape == (B, 6, 6)


@each_other_kind
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
    identity, film = RegionIdentityConfig(enabled=True), FusionConfig(kind="film")
    model = YeastModel(ModelConfig(region_identity=identity, fusion=film), SIZES)
    assert not model.region_identity.weight[0].any()
    assert model.region_identity.weight[1:].all(1).all()
    model(make_batch()).sum().backward()
    assert not model.region_identity.weight.grad[0].any()
    assert model.region_identity.weight.grad.any()


def test_what_is_known_of_a_region_counts_in_evaluation_only():
    """In training it would say what the features are there to learn."""
    model, batch = make_model("factors", identity=False), make_batch()
    unknown = replace(batch, region_vocab=torch.zeros_like(batch.region_vocab))
    known = replace(batch, region_vocab=torch.full_like(batch.region_vocab, 7))
    assert each_sample_differs(model(known), model(unknown))
    more = model.by_factors.known[7] @ model.by_factors.loadings(batch)[..., :-1].mT  # [B,T]
    assert same(model(known) - model(unknown), more.unsqueeze(1).expand(B, 5, 2))
    assert torch.equal(model.train()(known), model(unknown))
    assert torch.equal(model(unknown), model.eval()(unknown))


def test_a_sample_is_known_in_training_and_in_evaluation():
    model, batch = make_model("factors"), make_batch()
    other = replace(batch, sample_vocab=torch.zeros_like(batch.sample_vocab))
    batch.sample_vocab[:] = 3
    head = model.by_factors
    assert same(head.loadings(batch) - head.loadings(other), head.loadings.own[3].view(1, 2, -1))
    for mode in (True, False):
        assert each_sample_differs(model.train(mode)(batch), model(other))


@each_kind
@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("windows", [6, 60])  # the product by window, and by pair of rows
def test_windows_that_share_rows_predict_as_with_rows_of_their_own(kind, identity, windows):
    model, batch = make_model(kind, identity=identity), make_batch(b=KNOWN)
    batch.region_mask[1, 3:] = False
    g = torch.Generator().manual_seed(3)
    rows = {name: torch.randint(KNOWN, (windows,), generator=g) for name in ROWS}
    of_windows = {name: getattr(batch, name)[rows["region_row"]] for name in OF_WINDOWS}
    shared = replace(batch, **rows, **of_windows)
    own = shared.of_windows(torch.arange(windows))
    assert (len(own), own.region_row, own.condition_row) == (windows, None, None)
    real = own.region_mask
    for call in (model, model.encode):
        torch.testing.assert_close(call(shared)[real], call(own)[real], rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------- the whole


@each_other_kind
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


def test_the_product_of_factors_and_loadings():
    model, batch = make_model("factors"), make_batch()
    *loadings, level = model.by_factors.loadings(batch).unbind(2)
    factors = model.factors(batch) + model.by_factors.known[batch.region_vocab]
    expected = torch.einsum("brk,kbt->brt", factors, torch.stack(loadings)) + level.unsqueeze(1)
    torch.testing.assert_close(model(batch), expected)
    assert (model.head, model.head_exp, model.feature_encoder) == (None, None, None)


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
    encoder = YeastModel(ModelConfig(fusion=FusionConfig(kind="film")), SIZES).feature_encoder
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
    one_by_one = [model(batch.of_windows(torch.tensor([i]))) for i in range(B)]
    assert same(model(batch), torch.cat(one_by_one))


@each_kind
def test_weights_round_trip(kind):
    model, batch = make_model(kind, position="learned"), make_batch()
    config = model.config
    copy = YeastModel(config, SIZES).eval()
    assert each_sample_differs(copy(batch), model(batch))
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy(batch), model(batch))


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("adapted", [False, True])
@each_kind
def test_activation_checkpointing_keeps_less_and_gives_the_same_gradients(kind, adapted, precision):
    model, batch = make_model(kind).train(), make_batch()
    if adapted:
        lora.inject(model, ["encoder"], rank=2, alpha=4, dropout=0.3)
    for part in model.encoder.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.3

    def kept_and_gradients(checkpointing):
        model.encoder.checkpointing = checkpointing
        kept = {}

        def keep(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model.zero_grad()
        torch.manual_seed(0)
        with (
            torch.autocast("cpu", precision, enabled=precision is not None),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            loss = model(batch).square().sum()
        sizes = sum(kept.values())
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return sizes, gradients, torch.get_rng_state()

    kept, expected, state = kept_and_gradients(checkpointing=False)
    fewer, gradients, other_state = kept_and_gradients(checkpointing=True)
    assert fewer < 0.7 * kept
    assert len(gradients) == len(expected) > 0
    assert all(torch.equal(one, two) for one, two in zip(gradients, expected, strict=True))
    assert torch.equal(state, other_state)
