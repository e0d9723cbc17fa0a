"""GET's region Transformer, under GET's own parameter names.

Architecture and numerics as published in Fu et al., Nature 2025 (layout as published), written
anew in plain PyTorch: a linear embedding of each region, a learned class token in front, pre-norm
Transformer blocks without positions, a linear head with softplus. A set model: permuting the
regions permutes the outputs. Classes stand in the order in which data flows through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from yeast_get.model.dropout import Dropout

LAYER_NORM_EPS = 1e-6
"""GET's epsilon, not PyTorch's 1e-5."""


class RegionEmbed(nn.Module):
    """[B,R,num_features] -> [B,R,D]: one linear map, no activation, no position."""

    def __init__(self, num_features: int, embed_dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(num_features, embed_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Embed every region by itself."""
        return self.embed(features)


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a whole residual branch of a sample, rescale the rest."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """[B,...] -> the same shape, with the same mean."""
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        shape = (branch.shape[0],) + (1,) * (branch.dim() - 1)
        return branch * branch.new_empty(shape).bernoulli_(keep).div_(keep)


class Attention(nn.Module):
    """Multi-head self-attention with a bias on queries and values, and none on keys."""

    def __init__(
        self, embed_dim: int, num_heads: int, drop_rate: float = 0.0, attn_drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(embed_dim))
        self.v_bias = nn.Parameter(torch.zeros(embed_dim))
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.drop = Dropout(drop_rate)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, prefix: int = 0) -> Tensor:
        """[B,N,D] -> [B,N-prefix,D]: the first tokens are attended to, and do not attend.

        `mask` [B,N] is True where a token may be attended to.
        """
        batch, length, width = tokens.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = self.qkv(tokens)  # the module, not its weight: an adapter may stand in its place
        qkv = qkv + bias.to(qkv.dtype)
        q, k, v = qkv.view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # [B,H,N,d]
        attn_mask = None if mask is None else mask[:, None, None, :]  # [B,1,1,N]
        drop_rate = self.attn_drop_rate if self.training else 0.0
        q = q[:, :, prefix:]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask, drop_rate)
        out = out.transpose(1, 2).reshape(batch, length - prefix, width)  # [B,H,N,d] -> [B,N,D]
        return self.drop(self.proj(out))


class Mlp(nn.Module):
    """[B,N,D] -> [B,N,D]: two linear maps with the exact (erf) GELU between."""

    def __init__(self, embed_dim: int, hidden_dim: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)
        self.drop = Dropout(drop_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform every token by itself."""
        return self.drop(self.fc2(functional.gelu(self.fc1(tokens))))


class Modulation(NamedTuple):
    """How something outside of GET acts on one block; by default it does not.

    Attributes:
        scale_shift: Four [B,1,D]: scale and shift of the attention's normalised input, then of
            the MLP's. Zeros change nothing.
        branch: [B,N,D] -> [B,N,D], one more residual branch, before the other two.
    """

    scale_shift: Sequence[Tensor] | None = None
    branch: Callable[[Tensor], Tensor] | None = None


class Block(nn.Module):
    """A pre-norm Transformer block: attention, then MLP, each added to the tokens."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_norm_eps: float = LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=layer_norm_eps)
        self.attn = Attention(embed_dim, num_heads, drop_rate, attn_drop_rate)
        self.norm2 = nn.LayerNorm(embed_dim, eps=layer_norm_eps)
        self.mlp = Mlp(embed_dim, round(embed_dim * mlp_ratio), drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        modulation: Modulation | None = None,
        prefix: int = 0,
    ) -> Tensor:
        """[B,N,D] -> [B,N-prefix,D]; `mask` and `prefix` as in `Attention`."""
        scale_shift, branch = modulation or Modulation()
        if branch is not None:
            tokens = tokens + branch(tokens)
        normed = self.norm1(tokens)
        if scale_shift is not None:
            normed = torch.addcmul(scale_shift[1], normed, 1 + scale_shift[0])
        tokens = tokens[:, prefix:] + self.drop_path(self.attn(normed, mask, prefix))
        normed = self.norm2(tokens)
        if scale_shift is not None:
            normed = torch.addcmul(scale_shift[3], normed, 1 + scale_shift[2])
        return tokens + self.drop_path(self.mlp(normed))


class Encoder(nn.Module):
    """The blocks and a last LayerNorm; stochastic depth grows linearly from 0 to its rate.

    Attributes:
        checkpointing: Whether the backward pass computes each block anew, from its input, instead
            of keeping what is between: less memory, more time, the same gradients.
    """

    def __init__(
        self,
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_norm_eps: float = LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        rates = [drop_path_rate * i / max(num_layers - 1, 1) for i in range(num_layers)]
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, drop_rate, attn_drop_rate, rate, layer_norm_eps)
            for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim, eps=layer_norm_eps)
        self.checkpointing = False

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        modulations: Sequence[Modulation] | None = None,
        prefix: int = 0,
    ) -> Tensor:
        """[B,N,D], the class token among them -> [B,N-prefix,D], normalised.

        Args:
            tokens: [B,N,D].
            mask: As in `Attention`.
            modulations: One per block.
            prefix: How many of the first tokens are not wanted; the last block makes of them what
                the others attend to, and nothing else.
        """
        again = self.checkpointing and torch.is_grad_enabled()
        for i, block in enumerate(self.blocks):
            modulation = None if modulations is None else modulations[i]
            step = partial(checkpoint, block, use_reentrant=False) if again else block
            tokens = step(tokens, mask, modulation, prefix if block is self.blocks[-1] else 0)
        return self.norm(tokens)


class ExpressionHead(nn.Module):
    """[B,R,D] -> [B,R,T] rates above zero: one linear map and softplus."""

    def __init__(self, embed_dim: int, output_dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(embed_dim, output_dim)

    def forward(self, regions: Tensor) -> Tensor:
        """Predict every region by itself."""
        return functional.softplus(self.head(regions))


def without_dropout(module: nn.Module) -> None:
    """Switch off, for good, every dropout and stochastic depth in a module."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(part, DropPath):
            part.rate = 0.0
        elif isinstance(part, Attention):
            part.attn_drop_rate = 0.0


def prepend_class_token(cls_token: Tensor, regions: Tensor) -> Tensor:
    """[1,1,D] and [B,R,D] -> [B,1+R,D]."""
    return torch.cat((cls_token.expand(len(regions), -1, -1), regions), dim=1)


def initialise(module: nn.Module) -> None:
    """GET's start from scratch: every linear map Xavier-uniform with zero bias."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class GETRegionFinetune(nn.Module):
    """The published expression model, whole; it judges our numerics and holds its state dict."""

    def __init__(
        self,
        num_features: int,
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        output_dim: int,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        layer_norm_eps: float = LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.region_embed = RegionEmbed(num_features, embed_dim)
        self.encoder = Encoder(
            embed_dim,
            num_layers,
            num_heads,
            mlp_ratio,
            drop_path_rate=drop_path_rate,
            layer_norm_eps=layer_norm_eps,
        )
        self.head_exp = ExpressionHead(embed_dim, output_dim)
        initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """[B,R,num_features], accessibility last -> [B,R,output_dim] above zero."""
        tokens = prepend_class_token(self.cls_token, self.region_embed(features))
        return self.head_exp(self.encoder(tokens)[:, 1:])
