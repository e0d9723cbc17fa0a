from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from yeast_get.model.get_backbone import (
    Attention,
    Block,
    DropPath,
    Encoder,
    Mlp,
    Modulation,
)


def filled(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.eval()


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    out = DropPath(0.3).train()(torch.ones(20_000, 2, 3))
    first = out[:, 0, 0]
    assert torch.equal(out, first[:, None, None].expand_as(out))
    assert torch.allclose(first[first > 0], torch.tensor(1 / 0.7))
    assert (first > 0).float().mean() == pytest.approx(0.7, abs=0.02)


def test_drop_path_is_the_identity_in_evaluation_and_at_rate_zero():
    branch = torch.randn(50, 2, 3)
    assert torch.equal(DropPath(0.9).eval()(branch), branch)
    assert torch.equal(DropPath(0.0).train()(branch), branch)


def test_block_drops_its_two_branches_independently():
    torch.manual_seed(0)
    block = filled(Block(4, 2, drop_path_rate=0.5)).train()
    tokens = torch.randn(1, 2, 4).expand(400, 2, 4)
    distinct = block(tokens).detach().flatten(1).mul(1e4).round().unique(dim=0)
    assert len(distinct) == 4  # none, attention, MLP, both


def test_stochastic_depth_grows_linearly():
    rates = [block.drop_path.rate for block in Encoder(4, 5, 2, drop_path_rate=0.2).blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert Encoder(4, 1, 2, drop_path_rate=0.2).blocks[0].drop_path.rate == 0


def by_hand(attention, tokens):
    """Softmax attention head by head, from the definition."""
    width = tokens.shape[-1]
    size = width // attention.num_heads
    q, k, v = (tokens @ w.T for w in attention.qkv.weight.split(width))
    q, v = q + attention.q_bias, v + attention.v_bias
    heads = []
    for at in range(0, width, size):
        part = slice(at, at + size)
        weight = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)).softmax(-1)
        heads.append(weight @ v[..., part])
    return attention.proj(torch.cat(heads, -1))


def test_attention_is_the_textbook_formula():
    attention = filled(Attention(12, 3))
    tokens = torch.randn(2, 5, 12)
    torch.testing.assert_close(attention(tokens), by_hand(attention, tokens))


def test_masked_tokens_are_as_good_as_absent():
    attention = filled(Attention(12, 3))
    tokens = torch.randn(2, 5, 12)
    mask = torch.tensor([[True, True, True, False, False]]).expand(2, 5)
    torch.testing.assert_close(attention(tokens, mask)[:, :3], attention(tokens[:, :3]))


def test_attention_calls_its_linear_maps_as_modules():
    """An adapter that stands in the place of a linear map must be heard."""

    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    attention = filled(Attention(4, 2))
    tokens = torch.randn(1, 3, 4)
    for name in ("qkv", "proj"):
        before = attention(tokens)
        linear = getattr(attention, name)
        doubled = Doubled(linear.in_features, linear.out_features, linear.bias is not None)
        doubled.load_state_dict(linear.state_dict())
        setattr(attention, name, doubled)
        assert not torch.allclose(attention(tokens), before)


def test_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="10 is not a multiple of num_heads 4"):
        Attention(10, 4)


def test_mlp_uses_the_exact_gelu():
    mlp = filled(Mlp(3, 5))
    tokens = torch.randn(4, 2, 3)
    hidden = mlp.fc1(tokens)
    gelu = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    torch.testing.assert_close(mlp(tokens), mlp.fc2(gelu), rtol=1e-6, atol=1e-6)


def test_modulation():
    block = filled(Block(4, 2))
    tokens = torch.randn(2, 3, 4)
    plain = block(tokens)
    zeros = [torch.zeros(2, 1, 4)] * 4
    torch.testing.assert_close(block(tokens, None, Modulation(scale_shift=zeros)), plain)
    for i in range(4):
        changed = [torch.full((2, 1, 4), 0.5) if j == i else zeros[j] for j in range(4)]
        assert not torch.allclose(block(tokens, None, Modulation(scale_shift=changed)), plain)
    scale, shift = torch.randn(2, 2, 1, 4)
    by_hand = tokens + block.attn(block.norm1(tokens) * (1 + scale) + shift)
    by_hand = by_hand + block.mlp(block.norm2(by_hand) * (1 + shift) + scale)
    modulation = Modulation(scale_shift=[scale, shift, shift, scale])
    torch.testing.assert_close(block(tokens, None, modulation), by_hand)
    branch = Modulation(branch=lambda x: 2 * x)
    torch.testing.assert_close(block(tokens, None, branch), block(3 * tokens))


@pytest.mark.parametrize("module", [Attention(4, 2, 0.5), Mlp(4, 8, 0.5)])
def test_drop_rate_acts_on_what_a_branch_returns(module):
    module, tokens = filled(module), torch.randn(100, 3, 4)
    assert module(tokens).all()
    dropped = module.train()(tokens)
    assert (dropped == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * module.eval()(tokens)[kept])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_tokens_that_nobody_reads_are_attended_to_and_left_out(checkpointing):
    encoder = filled(Encoder(8, 2, 2))
    encoder.checkpointing = checkpointing
    tokens, mask = torch.randn(3, 5, 8), torch.rand(3, 5) < 0.7
    mask[:, 0] = True
    modulations = [
        Modulation([torch.randn(3, 1, 8) for _ in range(4)], lambda x: x.roll(1, dims=1))
        for _ in encoder.blocks
    ]
    torch.testing.assert_close(
        encoder(tokens, mask, modulations, prefix=2), encoder(tokens, mask, modulations)[:, 2:]
    )
    rows = []
    encoder.blocks[1].mlp.register_forward_hook(lambda *hooked: rows.append(hooked[2].shape[1]))
    encoder(tokens, mask, modulations, prefix=2)
    assert rows == [3]
