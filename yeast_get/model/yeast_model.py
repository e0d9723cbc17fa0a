"""The network: regions through GET's encoder, growth conditions fused into it, expression out.

    motif, accessibility --RegionEmbed--> region tokens --------+
    conditions --FeatureEncoder--> one token per field --FeatureFusion--> YeastTransformer --> head

Classes stand in the order in which data flows. `YeastModel` keeps GET's parameters (`cls_token`,
`region_embed`, `encoder`, `head_exp`) at its top level, so that their names are GET's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from yeast_get.batch import NONE, UNKNOWN, Batch, InputSizes, rows_of
from yeast_get.config import ModelConfig
from yeast_get.model.dropout import Dropout
from yeast_get.model.factors import FactorHead, RegionEncoding
from yeast_get.model.get_backbone import (
    LAYER_NORM_EPS,
    Encoder,
    ExpressionHead,
    Modulation,
    RegionEmbed,
    initialise,
    prepend_class_token,
)

POSITION_BASE = 300.0
"""Ratio of the slowest to the fastest sine: GET's, made for windows of some hundred regions."""

FASTER_GATES = 100.0
"""The gates of the encoded features learn at this many times the rate: they choose features first.

So does the scaling layer of RealMLP (Holzmüller et al., NeurIPS 2024)."""

SMALL = 0.02
"""Standard deviation of what is added to the region tokens: identities, learned positions."""


# ---------------------------------------------------------------------------------- conditions


class DrugEncoder(nn.Module):
    """All drug fields as one token: the sum over the slots of dose x the drug's own vector.

    A drug whose dose was not recorded adds a second vector of its own; no drug, and a dose of 0,
    add exactly nothing. The sum makes the order of the slots meaningless.
    """

    def __init__(self, vocabulary: int, embed_dim: int) -> None:
        super().__init__()
        self.per_dose = nn.Embedding(vocabulary, embed_dim)
        self.dose_not_recorded = nn.Embedding(vocabulary, embed_dim)

    def forward(self, drug: Tensor, dose: Tensor) -> Tensor:
        """Drugs [B,Cd] and doses [B,Cd] (0 = none, negative = not recorded) -> [B,Dc]."""
        dose = dose.unsqueeze(-1)  # [B,Cd,1]
        recorded = dose * self.per_dose(drug)  # [B,Cd,Dc]
        effect = torch.where(dose < 0, self.dose_not_recorded(drug), recorded)
        return (effect * (drug != NONE).unsqueeze(-1)).sum(dim=1)


class FeatureEncoder(nn.Module):
    """One small encoder per condition field, each giving one token.

    A number is [value, was it recorded] through two linear maps, a category an embedding, and all
    drug fields together one token named "drug". A value that was not recorded cannot leak.

    Attributes:
        names: Name of each token: numbers, categories, "drug".
    """

    def __init__(self, sizes: InputSizes, embed_dim: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.names = [*sizes.numbers, *sizes.categories, *(["drug"] if sizes.drugs else [])]
        self.numbers = nn.ModuleDict(
            {
                _key(name): nn.Sequential(
                    nn.Linear(2, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim)
                )
                for name in sizes.numbers
            }
        )
        self.categories = nn.ModuleDict(
            {
                _key(name): nn.Embedding(vocabulary, embed_dim)
                for name, vocabulary in sizes.categories.items()
            }
        )
        self.drug = DrugEncoder(sizes.drug_vocabulary, embed_dim) if sizes.drugs else None
        for part in self.modules():
            if isinstance(part, nn.Embedding):  # tokens about as long as those of the numbers
                nn.init.normal_(part.weight, std=embed_dim**-0.5)
                with torch.no_grad():
                    part.weight[UNKNOWN] = 0  # says nothing where training has no blank

    def forward(self, batch: Batch) -> Tensor:
        """The condition tokens [V,C,Dc]; C = 0 where the table has no condition fields."""
        present = batch.condition_present
        value = torch.where(present > 0, batch.condition_number, 0.0)
        pairs = torch.stack((value, present), dim=-1)  # [B,Cn,2]
        tokens = [encode(pairs[:, j]) for j, encode in enumerate(self.numbers.values())]
        for j, embed in enumerate(self.categories.values()):
            tokens.append(embed(batch.condition_category[:, j]))
        if self.drug is not None:
            tokens.append(self.drug(batch.drug, batch.dose))
        if not tokens:
            return present.new_zeros(len(present), 0, self.embed_dim)
        return torch.stack(tokens, dim=1)


def _key(name: str) -> str:
    """A field's name as a module's: any text, no dot, no clash with a method (`type`, `keys`)."""
    return "field_" + name.replace("%", "%25").replace(".", "%2E")


# -------------------------------------------------------------------------------------- fusion


class FeatureFusion(nn.Module):
    """How the condition tokens meet the regions. This one, for tables without any, does nothing.

    A kind overrides one of the two methods. Its last linear map is zero at the start, so that at
    step 0 the model is the pretrained one.
    """

    def into_regions(self, regions: Tensor, conditions: Tensor) -> Tensor:
        """Region tokens [B,R,D] and condition tokens [B,C,Dc] -> region tokens [B,R,D]."""
        return regions

    def into_blocks(self, conditions: Tensor) -> list[Modulation] | None:
        """Condition tokens [B,C,Dc] -> what they do to each block of the encoder."""
        return None


class ConcatFusion(FeatureFusion):
    """Region token h and all condition tokens c: h + MLP([h; c]).

    The MLP's first linear map is kept in two parts, so that c is mapped once per sample and not
    once per region.
    """

    def __init__(self, config: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        width, hidden = config.transformer.embed_dim, config.fusion.hidden_dim
        self.from_region = nn.Linear(width, hidden)
        self.from_conditions = nn.Linear(
            num_tokens * config.feature_encoders.embed_dim, hidden, bias=False
        )
        self.last = nn.Linear(hidden, width)

    def into_regions(self, regions: Tensor, conditions: Tensor) -> Tensor:
        """Add the MLP's output to each region token."""
        sample = self.from_conditions(conditions.flatten(1)).unsqueeze(1)  # [B,1,hidden]
        return regions + self.last(functional.gelu(self.from_region(regions) + sample))


class FilmFusion(FeatureFusion):
    """The conditions scale and shift the normalised input of every branch of every block."""

    def __init__(self, config: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        hidden = config.fusion.hidden_dim
        self.num_layers = config.transformer.num_layers
        self.trunk = nn.Sequential(
            nn.Linear(num_tokens * config.feature_encoders.embed_dim, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
        )
        self.last = nn.Linear(hidden, self.num_layers * 4 * config.transformer.embed_dim)

    def into_blocks(self, conditions: Tensor) -> list[Modulation]:
        """One scale and shift per branch and block, the same for all tokens of a sample."""
        flat = self.last(self.trunk(conditions.flatten(1)))
        parts = flat.view(len(flat), self.num_layers * 4, 1, -1).unbind(1)  # [B,1,D] each
        return [Modulation(parts[4 * i : 4 * i + 4]) for i in range(self.num_layers)]


class CrossAttention(nn.Module):
    """A residual branch in which tokens attend to the condition tokens."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)
        self.last = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens: Tensor, conditions: Tensor) -> Tensor:
        """Tokens [B,N,D] and condition tokens [B,C,D] -> [B,N,D]."""
        batch, length, width = tokens.shape
        heads = self.num_heads
        q = self.q(self.norm(tokens)).view(batch, length, heads, -1).transpose(1, 2)  # [B,H,N,d]
        kv = self.kv(conditions).view(batch, conditions.shape[1], 2, heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4)  # [B,H,C,d] each
        out = functional.scaled_dot_product_attention(q, k, v)
        return self.last(out.transpose(1, 2).reshape(batch, length, width))


class TokenFusion(FeatureFusion):
    """In every block the tokens attend to the condition tokens, which an MLP widens to D."""

    def __init__(self, config: ModelConfig, num_tokens: int) -> None:
        super().__init__()
        width, hidden = config.transformer.embed_dim, config.fusion.hidden_dim
        self.widen = nn.Sequential(
            nn.Linear(config.feature_encoders.embed_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
        )
        self.blocks = nn.ModuleList(
            CrossAttention(width, config.transformer.num_heads)
            for _ in range(config.transformer.num_layers)
        )

    def into_blocks(self, conditions: Tensor) -> list[Modulation]:
        """One branch of cross-attention per block."""
        wide = self.widen(conditions)  # [B,C,D]
        return [Modulation(branch=partial(block, conditions=wide)) for block in self.blocks]


def _fusion(config: ModelConfig, num_tokens: int) -> FeatureFusion:
    if num_tokens == 0:
        return FeatureFusion()
    kinds: dict[str, Callable[[ModelConfig, int], FeatureFusion]]
    kinds = {"concat": ConcatFusion, "film": FilmFusion, "tokens": TokenFusion}
    return kinds[config.fusion.kind](config, num_tokens)


# ------------------------------------------------------------------------------------- regions


class YeastTransformer(nn.Module):
    """GET's encoder with its class token, and positions where they are wanted.

    A base class and not a part of `YeastModel`, because a part would put its name before GET's.
    """

    def __init__(self, config: ModelConfig, max_regions: int) -> None:
        super().__init__()
        self.config = config
        self.region_identity: nn.Embedding | None = None
        size, numerics = config.transformer, config.encoder
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.embed_dim))
        self.encoder = Encoder(
            size.embed_dim,
            size.num_layers,
            size.num_heads,
            numerics.mlp_ratio,
            numerics.drop_rate,
            numerics.attn_drop_rate,
            numerics.drop_path_rate,
            numerics.layer_norm_eps or LAYER_NORM_EPS,
        )
        self.positional_encoding = size.positional_encoding
        self.position_embed: nn.Embedding | None = None
        if size.positional_encoding == "learned":
            self.position_embed = nn.Embedding(max_regions, size.embed_dim)
            nn.init.normal_(self.position_embed.weight, std=SMALL)

    def with_positions(self, regions: Tensor) -> Tensor:
        """Add to each region [B,R,D] the code of its place in the window, 0..R-1."""
        if self.positional_encoding == "none":
            return regions
        length, width = regions.shape[1:]
        if self.position_embed is None:
            return regions + sinusoids(length, width).to(regions)
        if length > self.position_embed.num_embeddings:
            raise ValueError(
                f"a window of {length} regions is longer than the learned positions, "
                f"max_regions = {self.position_embed.num_embeddings}"
            )
        return regions + self.position_embed.weight[:length]

    def transform(
        self, regions: Tensor, region_mask: Tensor, modulations: list[Modulation] | None
    ) -> Tensor:
        """Region tokens [B,R,D] -> [B,R,D], normalised; padding [B,R] False is not attended to."""
        mask = None
        if regions.shape[1] > 1:  # a region alone has no neighbour that could be padding
            mask = functional.pad(region_mask, (1, 0), value=True)  # the class token is real
        tokens = prepend_class_token(self.cls_token, regions)
        return self.encoder(tokens, mask, modulations, prefix=1)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The trainable parameters for an optimizer, each in exactly one group.

        Args:
            weight_decay: For the weights of linear maps and their adapters. Biases, norms, the
                class token, gates and embeddings have none; identities of regions have
                `region_identity.weight_decay`.

        Returns:
            Groups with "name" ("decay", "no_decay", "gates", "region_identity"), "params",
            "weight_decay" and "faster", by which their rate is multiplied; none of them empty.
        """
        decays = {"decay": weight_decay, "no_decay": 0.0, "gates": 0.0}
        decays["region_identity"] = self.config.region_identity.weight_decay
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in decays}
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                is_weight = isinstance(module, nn.Linear) and name in ("weight", "lora_A", "lora_B")
                group = "decay" if is_weight else "no_decay"
                if module is self.region_identity:
                    group = "region_identity"
                elif isinstance(module, RegionEncoding):
                    group = "gates"
                if parameter.requires_grad:
                    groups[group].append(parameter)
        return [
            {
                "name": name,
                "params": params,
                "weight_decay": decays[name],
                "faster": FASTER_GATES if name == "gates" else 1.0,
            }
            for name, params in groups.items()
            if params
        ]


def sinusoids(length: int, width: int) -> Tensor:
    """A fixed code [length,width] of places: sines in even columns, cosines in odd ones."""
    rate = POSITION_BASE ** (-torch.arange(0, width, 2) / width)
    angle = torch.arange(length).unsqueeze(1) * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).view(length, width)


def region_features(batch: Batch) -> Tensor:
    """GET's input [B,R,M+A]: motif scores and other features, accessibility last."""
    if not batch.accessibility.shape[-1]:
        return batch.motif
    return torch.cat((batch.motif, batch.accessibility), dim=-1)


class PredictionHead(nn.Sequential):
    """[B,R,D] -> [B,R,T] in model space: two linear maps with ReLU and dropout between."""

    def __init__(self, embed_dim: int, hidden_dim: int, targets: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(embed_dim, hidden_dim),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden_dim, targets),
        )


class YeastModel(YeastTransformer):
    """Motifs, accessibility and growth conditions in, expression in model space out.

    Args:
        config: The `model` section.
        sizes: What the table needs.
        max_regions: Longest window that learned positions allow.

    Attributes:
        cls_token, region_embed, encoder, head_exp: GET's parameters under GET's names (Fu et al.,
            Nature 2025; layout as published). `head_exp` is None unless `head.kind` is "get".
        feature_encoder: Condition fields to condition tokens.
        fusion: Condition tokens into the regions or the blocks.
        encoding: Features to their encoded bins; None where `region_embed.bins` is 0.
        by_factors: The head where `fusion.kind` is "factors"; None otherwise.
        region_identity: An embedding per training region, row 0 (unknown) zero; None when off.
        head: The MLP; None where `head.kind` is "get" or there are factors.
    """

    def __init__(self, config: ModelConfig, sizes: InputSizes, max_regions: int = 1024) -> None:
        super().__init__(config, max_regions)
        width = config.transformer.embed_dim
        features = sizes.region_features + sizes.accessibility
        self.encoding = RegionEncoding(sizes.encoding) if sizes.encoding else None
        self.feature_drop = Dropout(config.region_embed.feature_dropout)
        self.region_embed = RegionEmbed(len(sizes.encoding) or features, width)
        self.embed_drop = Dropout(config.region_embed.dropout)
        if config.region_identity.enabled and not config.fusion.by_factors:
            self.region_identity = nn.Embedding(sizes.known_regions + 1, width, padding_idx=0)
            nn.init.normal_(self.region_identity.weight[1:], std=SMALL)
        head, factors = config.head, config.fusion.by_factors
        encoders = None if factors else FeatureEncoder(sizes, config.feature_encoders.embed_dim)
        self.feature_encoder = encoders
        self.fusion = _fusion(config, 0 if encoders is None else len(encoders.names))
        self.by_factors = FactorHead(width, sizes, config.fusion.factors) if factors else None
        self.head_exp = ExpressionHead(width, sizes.targets) if head.kind == "get" else None
        self.head = (
            PredictionHead(width, head.hidden_dim, sizes.targets, head.dropout)
            if head.kind == "mlp" and not factors
            else None
        )
        initialise(self)
        for name, part in self.fusion.named_modules():
            if name.split(".")[-1] == "last":
                nn.init.zeros_(part.weight)

    def forward(self, batch: Batch) -> Tensor:
        """The predictions [B,R,T] in model space; those of padding mean nothing."""
        if self.by_factors is not None:
            return self.by_factors(self.factors(batch), batch)
        head: Any = self.head if self.head_exp is None else self.head_exp
        return head(self.encode(batch))

    def factors(self, batch: Batch) -> Tensor:
        """The factors [U,R,K] of the regions by their features alone."""
        assert self.by_factors is not None, "fusion.kind: factors"
        embedded = self._embed(batch)
        return self.by_factors.factors(embedded, self.transform(embedded, batch.region_mask, None))

    def encode(self, batch: Batch) -> Tensor:
        """The encoder's normalised region tokens [B,R,D], without the class token.

        Raises:
            ValueError: If a window is longer than the learned positions.
        """
        if self.feature_encoder is None:
            encoded = self.transform(self._embed(batch), batch.region_mask, None)
            return rows_of(encoded, batch.region_row)
        regions = rows_of(self._embed(batch), batch.region_row)
        conditions = rows_of(self.feature_encoder(batch), batch.condition_row)
        regions = self.fusion.into_regions(regions, conditions)
        mask = rows_of(batch.region_mask, batch.region_row)
        return self.transform(regions, mask, self.fusion.into_blocks(conditions))

    def _embed(self, batch: Batch) -> Tensor:
        """Region tokens [U,R,D] by features, identity and place."""
        features = region_features(batch)
        if self.encoding is not None:
            features = self.encoding(features)
        regions = self.embed_drop(self.region_embed(self.feature_drop(features)))
        if self.region_identity is not None:
            regions = regions + self.region_identity(self._known(batch.region_vocab))
        return self.with_positions(regions)

    def _known(self, region_vocab: Tensor) -> Tensor:
        """The identities [B,R], in training some of them dropped to unknown."""
        dropout = self.config.region_identity.dropout
        if not self.training or dropout == 0:
            return region_vocab
        kept = torch.rand(region_vocab.shape, device=region_vocab.device) >= dropout
        return region_vocab * kept


class Ensemble(nn.Module):
    """Several models of one table as one: its predictions are the mean of theirs.

    Lakshminarayanan et al. (2017): networks that differ in their random start and the order of
    their batches alone, whose spread tells how little the data decides.

    Attributes:
        members: The models.
    """

    def __init__(self, members: Iterable[YeastModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, batch: Batch) -> Tensor:
        """The mean prediction [B,R,T] in model space."""
        return torch.stack([member(batch) for member in self.members]).mean(dim=0)

    def encode(self, batch: Batch) -> Tensor:
        """The tokens [B,R,D] of the first member, since those of others lie in other spaces."""
        return members_of(self)[0].encode(batch)


def members_of(model: YeastModel | Ensemble) -> list[YeastModel]:
    """The members of an ensemble, or a single model as the only one."""
    return cast(list[YeastModel], list(model.members)) if isinstance(model, Ensemble) else [model]


class MaskedRegionModel(YeastTransformer):
    """GET's masked pretraining: the features of hidden regions from their neighbours.

    The embedding of a hidden region is replaced by one learned token, and a linear map predicts
    its features from its encoding (Fu et al., Nature 2025). Growth conditions have no part in it.

    Args:
        config: The `model` section.
        sizes: What the table needs.
        max_regions: Longest window that learned positions allow.

    Attributes:
        cls_token, region_embed, encoder, mask_token, head_mask: Under GET's names.
    """

    def __init__(self, config: ModelConfig, sizes: InputSizes, max_regions: int = 1024) -> None:
        super().__init__(config, max_regions)
        width, features = config.transformer.embed_dim, sizes.region_features + sizes.accessibility
        self.region_embed = RegionEmbed(features, width)
        self.embed_drop = Dropout(config.region_embed.dropout)
        self.mask_token = nn.Parameter(SMALL * torch.randn(1, 1, width))
        self.head_mask = nn.Linear(width, features)
        initialise(self)

    def forward(self, batch: Batch) -> Tensor:
        """Predicted features [B,R,M+A]; where `target_mask` is True the region is hidden."""
        hidden = batch.target_mask.any(dim=-1, keepdim=True)  # [B,R,1]
        regions = self.embed_drop(self.region_embed(region_features(batch)))
        regions = torch.where(hidden, self.mask_token.to(regions.dtype), regions)
        return self.head_mask(self.transform(self.with_positions(regions), batch.region_mask, None))
