"""Regions and conditions as vectors of K factors, whose products are the predictions.

A factor model of the training cells (factor analysis, Rubin and Thayer 1982) says what the
conditions are: K loadings and a level each. The Transformer learns which factors a region has from
its motifs and accessibility, without the conditions, so that a region is encoded once for all of
them. What is known of a region or a condition from training is added:

    y[r,c] = level[c] + (factors(features of r) + known[r]) . loadings[c]

`training.factors` fits what stands in the buffers here. Classes stand in the order in which data
flows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from yeast_get.batch import CONDITION_FIELDS, NONE, Batch, InputSizes, rows_of

TRENDS, SMOOTH, SAME_DRUG = 1.0, 1.0, 3.0
"""Variance of trends, of what similar conditions share, and of what a drug does at similar doses,
beside 1 for a condition by itself."""

FAR = 4.0
"""SDs from the mean of training beyond which a trend goes no further."""

WORDS_APART = 1.0
"""Squared distance of two conditions that differ in one word; numbers are in SDs of training."""

JITTER = 1e-3
"""Variance of a condition's loadings that is held for error."""

AT_ONCE = 2_000_000
"""Most numbers in one array while conditions are compared with those of training."""

ALIKE = 1e-6
"""Squared distance below which two conditions are the same."""


class RegionEncoding(nn.Module):
    """Region features [...,F] -> [...,E]: how far each reaches into each of its bins.

    A piecewise-linear encoding (Gorishniy et al., NeurIPS 2022), standardised, and one learned
    gate per bin, by which the network chooses between features.

    Args:
        encoding: See `InputSizes`.
    """

    column: Tensor
    low: Tensor
    width: Tensor
    mean: Tensor
    sd: Tensor

    def __init__(self, encoding: list[list[float]]) -> None:
        super().__init__()
        column, low, high, mean, sd = np.array(encoding, dtype=np.float32).T
        width = high - low  # torch would import for a second to subtract on its meta device
        self.register_buffer("column", torch.tensor(column).long(), persistent=False)
        for name, values in (("low", low), ("width", width), ("mean", mean), ("sd", sd)):
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.gate = nn.Parameter(torch.ones(len(encoding)))

    def forward(self, features: Tensor) -> Tensor:
        """Encode every region by itself."""
        reach = ((features[..., self.column] - self.low) / self.width).clamp(0, 1)
        return (reach - self.mean) * (self.gate / self.sd)


class ConditionLoadings(nn.Module):
    """Conditions -> loadings and level, by Gaussian-process regression on those of training.

    Two conditions share what their numbers, steps and departures from the usual say linearly, what
    similar conditions have in common, what the same drug does at a similar dose whatever else is
    different, and all of it where they are the same. So a condition of
    training has its own loadings, one between two of them is interpolated, and a new treatment has
    what a step in temperature or any treatment at all did in training. The time since a treatment
    has a trend only as the elapsed time, which is also that of growth, and none goes beyond `FAR`.

    Args:
        sizes: Of the table.
        factors: K.

    Attributes:
        linear, smooth, words: The conditions of training [C,...], as `_describe` gives them.
        scales: Mean of their columns and the inverse of their SD, 0 without [2,X+Y].
        centre: Mean loadings and level of the training samples [T*(K+1)].
        weights: What each of them adds [C,T*(K+1)].
        own: What each sample of training adds to that [samples+1,T*(K+1)]; row 0, unknown, is zero.
        constants: `TRENDS`, `SMOOTH`, `SAME_DRUG`, `WORDS_APART` and `FAR` of training [5].
    """

    linear: Tensor
    smooth: Tensor
    words: Tensor
    scales: Tensor
    centre: Tensor
    weights: Tensor
    own: Tensor
    constants: Tensor

    def __init__(self, sizes: InputSizes, factors: int) -> None:
        super().__init__()
        self.steps, self.targets, self.drugs = sizes.steps, sizes.targets, len(sizes.drugs)
        self.number_scales = sizes.number_scales
        pre_culture = {before for _, before in sizes.steps}
        self.kept = [j for j in range(len(sizes.numbers)) if j not in pre_culture]
        numbers = len(self.kept) + len(sizes.steps)
        passing = [i for i, j in enumerate(self.kept) if j in sizes.since]
        self.lasting = [i for i in range(numbers) if i not in passing]
        words = len(sizes.categories) + len(sizes.drugs)
        known, out = sizes.known_conditions, sizes.targets * (factors + 1)
        widths = (len(self.lasting) + words, numbers + len(sizes.drugs))
        self.register_buffer("linear", torch.zeros(known, widths[0]))
        self.register_buffer("smooth", torch.zeros(known, widths[1]))
        self.register_buffer("words", torch.zeros(known, words, dtype=torch.int64))
        self.register_buffer("scales", torch.ones(2, sum(widths)))
        self.register_buffer("centre", torch.zeros(out))
        self.register_buffer("weights", torch.zeros(known, out))
        self.register_buffer("own", torch.zeros(sizes.known_samples + 1, out))
        constants = [TRENDS, SMOOTH, SAME_DRUG, WORDS_APART, FAR]
        self.register_buffer("constants", torch.tensor(constants))
        self._last: tuple[list[tuple[Tensor, int]], Tensor] | None = None  # what was asked for

    def forward(self, batch: Batch) -> Tensor:
        """The loadings and, last, the level of each condition of a batch [V,T,K+1].

        Batches often hold the very tensors of the batch before; these have their loadings already.
        """
        fields = {name: getattr(batch, name) for name in CONDITION_FIELDS}
        if torch.compiler.is_compiling():
            return self.of(fields)
        read = [*fields.values(), *self.buffers()]
        key = [(each, each._version) for each in read]
        if self._last is None or any(
            one is not other or version != before
            for (one, version), (other, before) in zip(key, self._last[0], strict=True)
        ):
            self._last = key, self.of(fields)
        return self._last[1]

    def of(self, fields: Mapping[str, Tensor]) -> Tensor:
        """As `forward`, of the condition fields of a batch by name."""
        with torch.autocast(self.weights.device.type, enabled=False):
            likeness = self._kernel(*self._describe(fields))
            flat = self.centre + likeness @ self.weights + self.own[fields["sample_vocab"]]
            return flat.unflatten(1, (self.targets, -1))

    def remember(
        self, fields: Mapping[str, Tensor], code: Tensor, vocab: Tensor, loadings: Tensor
    ) -> None:
        """Take over the conditions and the samples of training.

        Args:
            fields: The condition fields of `Batch`, of a sample of each condition [C,...].
            code: The condition of each training sample [samples].
            vocab: Its place among the known samples; samples without names share theirs.
            loadings: Of these samples [samples,T,K+1], the level last.
        """
        linear, smooth, words = self._describe(fields)
        both = torch.cat((linear, smooth), dim=1).double()
        mean = both.mean(dim=0)
        sd = (both - mean).square().mean(dim=0).sqrt()  # which std warns of without any column
        inverse = torch.where(sd > ALIKE, 1 / sd, 0.0)
        self.scales.copy_(torch.stack((mean, inverse)))
        self.linear.copy_(linear)
        self.smooth.copy_(smooth)
        self.words.copy_(words)
        of_sample = loadings.flatten(1).double()
        member = functional.one_hot(code, len(linear)).double()
        flat = (member / member.sum(dim=0)).T @ of_sample
        centre = of_sample.mean(dim=0)
        self.centre.copy_(centre)
        likeness = self._kernel(linear, smooth, words).double()
        likeness.diagonal().add_(JITTER)
        self.weights.copy_(torch.linalg.solve(likeness, flat - centre))
        found = self.centre + self._kernel(linear, smooth, words) @ self.weights
        known = functional.one_hot(vocab, len(self.own)).double()
        more = (known / known.sum(dim=0).clamp(min=1)).T @ (of_sample - found[code])
        more[0] = 0
        self.own.copy_(more)

    def _describe(self, fields: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What has a trend [V,X], all numbers and doses [V,Y], and words [V,W].

        Trends have numbers that last, steps, and departures from the usual. A blank number is taken
        for the usual one, and a step that is not known for none. The order of the drugs means
        nothing, and a dose of zero is no drug.
        """
        present = fields["condition_present"] > 0
        number = fields["condition_number"]
        mean, sd, usual = number.new_tensor(self.number_scales).view(-1, 3).unbind(1)
        number = torch.where(present, number, usual)
        raw = number * sd + mean
        steps = [
            torch.where(present[:, after] & present[:, before], raw[:, after] - raw[:, before], 0.0)
            for after, before in self.steps
        ]
        numbers = torch.cat((number[:, self.kept], *(step.unsqueeze(1) for step in steps)), dim=1)
        lasting = numbers[:, self.lasting]
        category, other = fields["condition_category"], fields["condition_other"]
        of_words, of_drugs = other.tensor_split([category.shape[1]], dim=1)
        none = (fields["drug"] == NONE) | (fields["dose"] == 0)
        drug = fields["drug"].masked_fill(none, NONE)
        dose, of_drugs = fields["dose"].masked_fill(none, 0.0), of_drugs.masked_fill(none, 0.0)
        slot = dose.argsort(dim=1)  # drugs by their place in the vocabulary, then by dose
        order = drug.masked_fill(none, -1).gather(1, slot)
        slot = slot.gather(1, order.argsort(dim=1, descending=True, stable=True))
        linear = torch.cat((lasting, of_words, of_drugs.gather(1, slot)), dim=1)
        smooth = torch.cat((numbers, dose.gather(1, slot)), dim=1)
        return linear, smooth, torch.cat((category, drug.gather(1, slot)), dim=1)

    def _kernel(self, linear: Tensor, smooth: Tensor, words: Tensor) -> Tensor:
        """How much each condition [V] has in common with those of training [V,C]."""
        if torch.compiler.is_compiling():  # which fuses the arrays, and would compile each number
            return self._likeness(linear, smooth, words)
        columns = max(linear.shape[1], smooth.shape[1], words.shape[1], self.drugs**2)
        step = max(AT_ONCE // max(len(self.words) * columns, 1), 1)
        parts = zip(linear.split(step), smooth.split(step), words.split(step), strict=True)
        return torch.cat([self._likeness(*part) for part in parts])

    def _likeness(self, linear: Tensor, smooth: Tensor, words: Tensor) -> Tensor:
        """As `_kernel`, of so few conditions that all may be compared with all at once."""
        split = (linear.shape[1], smooth.shape[1])
        (mean_l, mean_s), (per_l, per_s) = (each.split(split) for each in self.scales)
        trends, shared, drug, word, far = self.constants.unbind()
        varying = (per_l > 0).sum().clamp(min=1)
        ways = [((each - mean_l) * per_l).clamp(-far, far) for each in (linear, self.linear)]
        trend = ways[0] @ ways[1].T / varying
        here, there = (smooth - mean_s) * per_s, (self.smooth - mean_s) * per_s
        apart = (here.unsqueeze(1) - there).square().sum(dim=-1)  # exact, which a product is not
        apart = apart + word * (words.unsqueeze(1) != self.words).sum(dim=-1)
        unlike = (linear.unsqueeze(1) - self.linear).abs().amax(dim=-1) if split[0] else 0 * apart
        same = (apart < ALIKE) & (unlike.square() < ALIKE)
        if self.drugs:
            same = same + drug * self._same_drug(smooth, words, per_s[-self.drugs])
        return trends * trend + shared * torch.exp(-apart / 2) + same

    def _same_drug(self, smooth: Tensor, words: Tensor, per_dose: Tensor) -> Tensor:
        """How many drugs each condition [V] has in common with those of training, by dose [V,C].

        Doses are in SDs of those of the first drug, whichever of its drugs it is.
        """
        drug, dose = words[:, -self.drugs :], smooth[:, -self.drugs :] * per_dose
        known, known_dose = self.words[:, -self.drugs :], self.smooth[:, -self.drugs :] * per_dose
        drug, dose = drug[:, None, :, None], dose[:, None, :, None]
        known, known_dose = known[None, :, None, :], known_dose[None, :, None, :]
        alike = torch.exp(-(dose - known_dose).square() / 2)
        return (alike * ((drug == known) & (drug > NONE))).sum(dim=(2, 3))


class FactorHead(nn.Module):
    """Region tokens and conditions -> predictions: the product of factors and loadings.

    Args:
        embed_dim: D.
        sizes: Of the table.
        most: Most factors K; there are no more than training samples times targets.

    Attributes:
        loadings: Of the conditions.
        known: What is added to the factors of each region of training [regions+1,K]; row 0,
            unknown, is zero. In training it is left out.
    """

    known: Tensor

    def __init__(self, embed_dim: int, sizes: InputSizes, most: int) -> None:
        super().__init__()
        factors = max(min(most, sizes.known_samples * sizes.targets), 1)
        self.from_encoder = nn.Linear(embed_dim, factors)
        self.from_embedding = nn.Linear(embed_dim, factors, bias=False)
        self.loadings = ConditionLoadings(sizes, factors)
        self.register_buffer("known", torch.zeros(sizes.known_regions + 1, factors))

    def factors(self, embedded: Tensor, encoded: Tensor) -> Tensor:
        """The factors [U,R,K] by the features alone, of embedded and encoded regions [U,R,D].

        The embedded regions go past the encoder too, since its norms take from a region how much
        of everything it has.
        """
        return self.from_encoder(encoded) + self.from_embedding(functional.gelu(embedded))

    def forward(self, factors: Tensor, batch: Batch) -> Tensor:
        """Factors by the features [U,R,K] -> predictions [B,R,T] in model space."""
        factors = factors.to(torch.promote_types(factors.dtype, torch.float32))
        if not self.training:
            factors = factors + self.known[batch.region_vocab]
        loadings = self.loadings(batch)  # [V,T,K+1]
        with torch.autocast(factors.device.type, enabled=False):
            return _product(factors, loadings, batch)


def _product(factors: Tensor, loadings: Tensor, batch: Batch) -> Tensor:
    """[U,R,K] and [V,T,K+1] -> [B,R,T]."""
    one = torch.ones_like(factors[..., :1])
    factors = torch.cat((factors, one), dim=-1)
    few = len(factors) * len(loadings) <= factors.shape[-1] * len(batch)
    if few and batch.region_row is not None and batch.condition_row is not None:
        cells = torch.einsum("urk,vtk->uvrt", factors, loadings)  # every pair, each once
        return cells[batch.region_row, batch.condition_row]
    of_window = rows_of(factors, batch.region_row)
    return torch.einsum("brk,btk->brt", of_window, rows_of(loadings, batch.condition_row))
