"""YeastDataset: windows of regions in samples, gathered by index into batches.

Region features, accessibility, conditions and targets each live once, on the device where they
fit; a batch is an index gather. A window is R regions of one chromosome in one sample; with
R = 1 it is one observation.
"""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from yeast_get.batch import CONDITION_FIELDS, DOSE_NOT_RECORDED, NONE, UNKNOWN, Batch, rows_of
from yeast_get.config import AugmentationConfig
from yeast_get.data.expression_data import ExpressionData
from yeast_get.data.features import FeatureSchema
from yeast_get.errors import DataError, Problem


@dataclass
class Windows:
    """W windows of R regions.

    Attributes:
        place: [W] int32, alike only where the regions are.
        region: [W,R] int32 row of the region table, -1 = padding.
        sample: [W] int32.
        observation: [W,R] int32 (int64 for very large tables), -1 = none.
    """

    place: np.ndarray
    region: np.ndarray
    sample: np.ndarray
    observation: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)


class WindowPlan:
    """Cuts a table into windows: with a random offset for training, always alike otherwise."""

    def __init__(
        self, data: ExpressionData, regions_per_window: int, one_offset: bool = False
    ) -> None:
        """Sort the regions along their chromosomes.

        Args:
            data: The table.
            regions_per_window: R.
            one_offset: Whether all samples have the same random offset, so that they share windows.

        Raises:
            DataError: Where windows are asked for and a region has no coordinates.
        """
        self.data, self.size, self.one_offset = data, regions_per_window, one_offset
        self.chromosomes: list[np.ndarray] = []
        if regions_per_window == 1:
            return
        unplaced = [
            i
            for i in range(data.num_regions)
            if data.chrom[i] is None or not np.isfinite(data.start[i])
        ]
        if unplaced:
            some = ", ".join(data.region_id[unplaced[:5]])
            raise DataError(
                Problem(
                    f"{len(unplaced)} regions have no chromosome or start ({some})",
                    "data.regions_per_window above 1 needs columns chrom, start and end",
                    file=data.source,
                )
            )
        for chrom in sorted(set(data.chrom)):
            on_it = np.flatnonzero(data.chrom == chrom)
            self.chromosomes.append(on_it[np.argsort(data.start[on_it], kind="stable")])
        self._lookup = np.full((data.num_regions, data.num_samples), -1, dtype=np.int32)
        self._lookup[data.region_index, data.sample_index] = np.arange(data.num_observations)

    def batch_size(self, train: np.ndarray) -> int:
        """Windows per batch that make about 64 batches of the training rows [N] bool.

        At least 32, and at most 16,384 regions in all.
        """
        windows = int(train.sum()) if self.size == 1 else len(self.windows(train))
        return max(min(max(windows // 64, 32), 16384 // self.size), 1)

    def windows(self, wanted: np.ndarray, rng: np.random.Generator | None = None) -> Windows:
        """Windows that hold at least one wanted observation.

        Args:
            wanted: [N] bool.
            rng: Draws the offset of each chromosome (and sample); None cuts from the first region,
                so that every observation stands in exactly one window, and R is at most the number
                of regions of the longest chromosome.
        """
        data = self.data
        if self.size == 1:
            at = np.flatnonzero(wanted).astype(np.int32)
            these = slice(None) if len(at) == len(wanted) else at  # of all rows, no copies
            region = data.region_index[these]
            return Windows(
                region, region.reshape(-1, 1), data.sample_index[these], at.reshape(-1, 1)
            )
        places, regions, samples, first = [], [], [], 0
        for order in self.chromosomes:
            cut = _cut(order, self.size, 0 if rng is None else int(rng.integers(self.size)))
            for sample in range(data.num_samples):
                if rng is not None and not self.one_offset and sample:
                    first += len(cut)
                    cut = _cut(order, self.size, int(rng.integers(self.size)))
                places.append(np.arange(first, first + len(cut), dtype=np.int32))
                regions.append(cut)
                samples.append(np.full(len(cut), sample, dtype=np.int32))
            first += len(cut)
        place = np.concatenate(places)
        region, sample_of = np.concatenate(regions), np.concatenate(samples)
        if rng is None:  # all padding is at the end: no model need go through what no region fills
            region = region[:, : max(map(len, self.chromosomes))]
        observation = self._lookup[region, sample_of[:, None]]
        observation[region < 0] = -1
        keep = (np.append(wanted, False)[observation]).any(axis=1)
        return Windows(place[keep], region[keep], sample_of[keep], observation[keep])


def _cut(order: np.ndarray, size: int, offset: int) -> np.ndarray:
    """Regions of one chromosome in windows [W,R], -1 for the padding at both ends."""
    padded = np.concatenate([np.full(offset, -1), order])
    padded = np.concatenate([padded, np.full(-len(padded) % size, -1)])
    return padded.reshape(-1, size).astype(np.int32)


class YeastDataset(Dataset[Batch]):
    """Gathers the batch of any windows of one table.

    Args:
        data: The table.
        schema: Fitted on the training rows of the table that the model was trained on.
        regions_per_window: R.
        device: Where the tensors live.
        augmentation: Noise for training; None for none.
        seed: Seed of that noise.
        by_region: For a model that encodes regions apart from conditions: training goes through
            the regions, all samples of some at a time, so that each is encoded once, and they
            share offsets and noise.
    """

    def __init__(
        self,
        data: ExpressionData,
        schema: FeatureSchema,
        regions_per_window: int = 1,
        device: torch.device | str = "cpu",
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
        by_region: bool = False,
    ) -> None:
        self.plan = WindowPlan(data, regions_per_window, one_offset=by_region)
        self.by_region = by_region
        self.augmentation = augmentation
        self.device = torch.device(device)
        self.num_samples = data.num_samples
        self.samples = samples = schema.sample_inputs(data)
        self.motif = self._put(schema.region_inputs(data))  # [P,M]
        self.absent = self._put(schema.absent_motif())  # [M]
        self.accessibility = self._put(schema.accessibility_inputs(data))  # [P,1|S,A]
        self.accessibility_varies = schema.accessibility is not None and bool(
            np.isfinite(schema.accessibility["scale"])
        )
        self.region_vocab = self._put(schema.region_vocab(data))  # [P]
        self.sample_vocab = self._put(schema.sample_vocab(data, samples))  # [S]
        self.number, self.present = self._put(samples.number), self._put(samples.present)
        self.category, self.other = self._put(samples.category), self._put(samples.other)
        self.drug, self.dose = self._put(samples.drug), self._put(samples.dose)
        self.target = self._put(np.nan_to_num(schema.to_model(data.target), copy=False))  # [N,T]
        self.measured = self._put(~np.isnan(data.target))  # [N,T]
        fields = self.number.shape[1] + self.category.shape[1] + 2 * self.drug.shape[1]
        columns = max(len(self.absent), fields, 1)
        self.noise = None if augmentation is None else _Noise(seed, columns, self.device)
        self.wanted = torch.zeros(data.num_observations, dtype=torch.bool, device=self.device)
        self.windows = Windows(*(np.zeros((0, 1), dtype=np.int32) for _ in range(4)))

    def without_noise(self) -> YeastDataset:
        """The same table, with the same tensors, for other windows."""
        plain = copy.copy(self)
        plain.augmentation = plain.noise = None
        return plain

    def _of_samples(self) -> dict[str, torch.Tensor]:
        """The condition fields of `Batch` of all samples [S]."""
        parts = (self.number, self.present, self.category, self.other, self.drug, self.dose)
        return dict(zip(CONDITION_FIELDS, (self.sample_vocab, *parts), strict=True))

    def conditions_of(self, sample: torch.Tensor) -> dict[str, torch.Tensor]:
        """The condition fields of `Batch` of some samples [V]."""
        return {name: each[sample] for name, each in self._of_samples().items()}

    def _put(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def use(
        self, wanted: np.ndarray, epoch: int = 0, rng: np.random.Generator | None = None
    ) -> None:
        """Choose the observations [N] bool to go through, and cut their windows."""
        self.windows = self.plan.windows(wanted, rng)
        self.wanted = self._put(wanted)
        if self.noise is not None:
            self.noise.epoch = epoch

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, at: np.ndarray) -> Batch:
        """The batch of windows `at` [B]; -1 is a window of padding alone."""
        config = self.augmentation
        dropout = config is not None and config.condition_dropout > 0
        noise = dropout or (config is not None and config.on_regions)  # of each cell its own
        batch, cell = self._gather(
            at, share_regions=self.by_region or not noise, share_samples=not dropout
        )
        self._augment(batch, cell)
        return batch

    def _gather(
        self, at: np.ndarray, share_regions: bool = False, share_samples: bool = False
    ) -> tuple[Batch, torch.Tensor]:
        """The batch without noise, and the cell (region, sample) of each of its regions [U,R].

        Args:
            at: [B] windows.
            share_regions: Whether windows of the same regions share a row, as far as they can.
            share_samples: Whether windows of one sample do.
        """
        windows, one = self.windows, np.arange(len(at))
        first, region_row, sample_of, condition_row = one, None, windows.sample[at], None
        if share_regions and self.accessibility.shape[1] == 1:  # else each sample has its own
            first, region_row = _shared(np.where(at < 0, -1, windows.place[at]))
        if share_samples and self.num_samples <= len(at):  # all: the same tensors in every batch
            conditions, condition_row = self._of_samples(), sample_of.astype(np.int64)
        else:
            if share_samples:
                which, condition_row = _shared(sample_of)
                sample_of = sample_of[which]
            conditions = self.conditions_of(self._put(sample_of.astype(np.int64)))
        region = self._put(windows.region[at[first]].astype(np.int64))  # [U,R]
        of_window = self._put(windows.sample[at[first]].astype(np.int64))  # [U]
        region = region.masked_fill(self._put(at[first] < 0).unsqueeze(1), -1)
        real, row = region >= 0, region.clamp(min=0)
        of_sample = of_window if self.accessibility.shape[1] > 1 else torch.zeros_like(of_window)
        observation, target, mask = self._targets(at)
        motif, accessibility = self.motif[row], self.accessibility[row, of_sample.unsqueeze(1)]
        if self.plan.size > 1:  # a window of one region has no padding
            motif, accessibility = motif * real.unsqueeze(-1), accessibility * real.unsqueeze(-1)
        batch = Batch(
            motif=motif,
            accessibility=accessibility,
            region_mask=real,
            region_index=region,
            region_vocab=self.region_vocab[row] * real,
            **conditions,
            target=target,
            target_mask=mask,
            observation_index=observation,
            region_row=None if region_row is None else self._put(region_row),
            condition_row=None if condition_row is None else self._put(condition_row),
        )
        return batch, row * self.num_samples + (0 if self.by_region else of_window.unsqueeze(1))

    def _targets(self, at: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The observations [B,R] of windows `at` [B], -1 for none, their targets and masks [B,R,T].

        What was not measured has a target of 0 in the table.
        """
        observation = self._put(self.windows.observation[at].astype(np.int64))
        if self.plan.size == 1 and (at >= 0).all():  # each window is a wanted observation
            return observation, self.target[observation], self.measured[observation]
        observation = observation.masked_fill(self._put(at < 0).unsqueeze(1), -1)
        known = observation.clamp(min=0)
        scored = (observation >= 0) & self.wanted[known]
        mask = scored.unsqueeze(-1) & self.measured[known]
        return torch.where(scored, observation, -1), self.target[known] * mask, mask

    def _augment(self, batch: Batch, cell: torch.Tensor) -> None:
        """Noise on a batch, a function of seed, epoch and cell [U,R] (region, sample) alone."""
        config, noise = self.augmentation, self.noise
        if config is None or noise is None:
            return
        real = batch.region_mask.unsqueeze(-1)
        is_motif = ~torch.isnan(self.absent)
        if config.motif_dropout:
            gone = noise.uniform(cell, len(self.absent), 1) < config.motif_dropout
            batch.motif = torch.where(gone & is_motif & real, self.absent, batch.motif)
        if config.motif_noise:
            added = noise.normal(cell, len(self.absent), 2) * config.motif_noise
            batch.motif = batch.motif + added * (is_motif & real)
        if config.accessibility_noise and self.accessibility_varies:
            added = noise.normal(cell, 1, 4) * config.accessibility_noise * real
            *rest, value = batch.accessibility.split(1, dim=-1)
            batch.accessibility = torch.cat([*rest, value + added], dim=-1)
        if config.condition_dropout:
            of_window = rows_of(cell[:, 0], batch.region_row)
            self._drop_conditions(batch, noise, of_window, config.condition_dropout)

    @staticmethod
    def _drop_conditions(
        batch: Batch, noise: _Noise, cell: torch.Tensor, probability: float
    ) -> None:
        """Make conditions unrecorded at random, so that UNKNOWN is trained."""
        sizes = [x.shape[1] for x in (batch.condition_number, batch.condition_category, batch.drug)]
        keep = noise.uniform(cell, sum(sizes) + sizes[2], 6) >= probability
        number, category, drug, dose = keep.split([*sizes, sizes[2]], dim=-1)
        batch.condition_number = batch.condition_number * number
        batch.condition_present = batch.condition_present * number
        batch.condition_category = torch.where(category, batch.condition_category, UNKNOWN)
        batch.condition_other = batch.condition_other * torch.cat((category, drug), dim=-1)
        batch.drug = torch.where(drug, batch.drug, UNKNOWN)
        lost = ~(drug & dose) & (batch.drug != NONE)  # with its drug, or alone
        batch.dose = torch.where(lost, DOSE_NOT_RECORDED, batch.dose)


class MaskedRegionDataset(YeastDataset):
    """Batches for masked pretraining: some regions are hidden, and their features are the target.

    `target_mask` is True in the regions to hide (GET's masked regions), all features alike; which
    these are is a function of seed, epoch and cell. Noise is on the visible features alone.

    Args:
        data: From `regions_only`.
        mask_ratio: Share of the wanted regions to hide.
        schema: As `YeastDataset`, and likewise the rest.
        regions_per_window: R.
        device: Where the tensors live.
        augmentation: Noise on the visible features; None for none.
        seed: Seed of the hiding and of the noise.
    """

    def __init__(
        self,
        data: ExpressionData,
        mask_ratio: float,
        schema: FeatureSchema,
        regions_per_window: int,
        device: torch.device | str = "cpu",
        augmentation: AugmentationConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(data, schema, regions_per_window, device, augmentation, seed)
        self.mask_ratio = mask_ratio
        self.hiding = _Noise(seed, 1, self.device)

    def use(
        self, wanted: np.ndarray, epoch: int = 0, rng: np.random.Generator | None = None
    ) -> None:
        """As in `YeastDataset`."""
        super().use(wanted, epoch, rng)
        self.hiding.epoch = epoch

    def __getitem__(self, at: np.ndarray) -> Batch:
        """The batch of windows `at` [B], with T = M + A targets."""
        batch, cell = self._gather(at)  # windows of their own: each hides regions of its own
        features = torch.cat((batch.motif, batch.accessibility), dim=-1)  # [B,R,M+A]
        hidden = batch.target_mask & (self.hiding.uniform(cell, 1, 8) < self.mask_ratio)  # [B,R,1]
        batch.target_mask = hidden.expand(features.shape)
        batch.target = features * batch.target_mask
        self._augment(batch, cell)
        return batch


class _Noise:
    """Random numbers as a function of seed, epoch, cell and stream.

    A bank of numbers is drawn once from the seed; every cell takes a run of it from an offset that
    is a hash of epoch, cell and stream.
    """

    SIZE = 1 << 20

    def __init__(self, seed: int, columns: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.uniforms = torch.rand(self.SIZE + columns, generator=generator).to(device)
        self.normals = torch.randn(self.SIZE + columns, generator=generator).to(device)
        self.epoch = 0

    def uniform(self, cell: torch.Tensor, columns: int, stream: int) -> torch.Tensor:
        """[..., columns] in [0, 1)."""
        return self.uniforms.unfold(0, columns, 1)[self._offset(cell, stream)]

    def normal(self, cell: torch.Tensor, columns: int, stream: int) -> torch.Tensor:
        """[..., columns] standard normal."""
        return self.normals.unfold(0, columns, 1)[self._offset(cell, stream)]

    def _offset(self, cell: torch.Tensor, stream: int) -> torch.Tensor:
        key = torch.tensor(self.epoch * 16 + stream, dtype=torch.int64, device=cell.device)
        return _mix(cell + _mix(key)) & (self.SIZE - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """The finaliser of splitmix64 (Steele et al., 2014), on wrapping int64."""
    x = x - 0x61C8864680B583EB
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


MANY_PLACES = 16
"""In a batch of fewer places than this, the windows of each are shuffled too."""


class EpochSampler(Sampler[np.ndarray]):
    """Positions of windows, a batch at a time: shuffled by seed and epoch, or in order.

    Args:
        count: Number of windows, or the place [count] of each: windows of one place stay together.
        batch_size: Windows per batch.
        rng: Shuffles; None keeps the order.
        first_batch: Batches to leave out at the start, where an epoch is taken up again.
        shard: (k, n): only the k-th of n parts of every batch, filled up with -1 to one length.
    """

    def __init__(
        self,
        count: int | np.ndarray,
        batch_size: int,
        rng: np.random.Generator | None = None,
        first_batch: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        order = _order(count, batch_size, rng)
        self.batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        self.batches = self.batches[first_batch:]
        part, parts = shard
        if parts > 1:  # neighbours to one rank, since they may share regions
            self.batches = [
                np.pad(each, (0, -len(each) % parts), constant_values=-1).reshape(parts, -1)[part]
                for each in self.batches
            ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)


def _order(count: int | np.ndarray, batch_size: int, rng: np.random.Generator | None) -> np.ndarray:
    """All windows, shuffled where there is a generator; see `EpochSampler`.

    In batches of many places the windows of each stay in their order, since few of them are cut.
    """
    if isinstance(count, int):
        return np.arange(count) if rng is None else rng.permutation(count)
    if rng is None:
        return np.argsort(count, kind="stable")
    number = np.bincount(count)
    there = number > 0
    few = len(there) <= 1 << 16  # numpy sorts 16 bits by their digits
    turn = np.zeros(len(there), dtype=np.uint16 if few else np.int64)
    shuffled = None
    if number.max(initial=0) * MANY_PLACES > batch_size:
        shuffled = rng.permutation(len(count))
    turn[there] = rng.permutation(int(there.sum()))
    if shuffled is None:
        return np.argsort(turn[count], kind="stable")
    return shuffled[np.argsort(turn[count][shuffled], kind="stable")]


def _shared(key: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The first of each key from -1 up, and which of these [n] each is; None where all differ."""
    there = np.bincount(key + 1) > 0  # a table of all keys, faster than to sort or to hash them
    keys = int(there.sum())
    if keys == len(key):
        return np.arange(len(key)), None
    row = (there.cumsum() - 1)[key + 1]
    first = np.empty(keys, dtype=np.int64)
    first[row[::-1]] = np.arange(len(key))[::-1]
    return first, row


def _leave_signals_alone(worker: int) -> None:
    """What ends a run comes to all its processes, and is the main one's to obey."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def batches(
    dataset: YeastDataset, sampler: EpochSampler, num_workers: int = 0
) -> DataLoader[Batch]:
    """A loader of whole batches; workers only help where the tensors stay in host memory."""
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        worker_init_fn=_leave_signals_alone,
        generator=torch.Generator(),  # its own, so that it draws nothing from the global one
    )
