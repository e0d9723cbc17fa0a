"""LoRA: low-rank adapters on the linear maps of any model (Hu et al., 2021). Needs torch alone.

An adapted map computes W x + b + s B A x, where W and b stay as they are, A and B are trained, and
B is zero at the start, so that the adapted model begins as the model itself.

    inject(model, ["encoder"], rank=8, alpha=16)   # adapters in place of linear maps, W frozen
    ... train whatever has requires_grad ...
    merge(model); ...; unmerge(model)              # W + s B A as one matrix, and back to the bit
    merged_state(model)                            # a plain state dict that needs no LoRA

`LoRALinear` is an `nn.Linear` that shares the parameters of the one it replaces, so their names in
a state dict stay what they were; `lora_A` and `lora_B` stand beside them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

Paths = str | Sequence[str]
"""Which modules are meant: see `is_meant`."""


class _Adapted(torch.autograd.Function):
    """W x + b + s B A x. autograd would multiply thin matrices in orders that are slow for BLAS."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: Tensor, *given: Any) -> Tensor:
        """Inputs [n,in] of the map and of its adapter, W, b, A, B and s -> [n,out]."""
        weight, bias, a, b, ctx.scale = given
        a, b = a.to(seen.dtype), b.to(seen.dtype)
        low = a @ seen.t()  # [rank,n]
        ctx.save_for_backward(seen, weight, a, b, low)
        out = functional.linear(x, weight, bias)
        if out.dtype == low.dtype:
            return out.addmm_(low.t(), b.t(), alpha=ctx.scale)
        return out + (low.t() @ b.t()).mul_(ctx.scale).to(out.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        seen, weight, a, b, low = ctx.saved_tensors
        of_out = grad.to(low.dtype)
        of_low = (b.t().contiguous() @ of_out.t()).mul_(ctx.scale)  # [rank,n]
        of_b = (low @ of_out).mul_(ctx.scale).t()
        of_x = grad @ weight.to(grad.dtype) if ctx.needs_input_grad[0] else None
        return of_x, of_low.t() @ a, None, None, of_low @ seen, of_b, None


class LoRALinear(nn.Linear):
    """A linear map with an adapter beside it.

    The adapter is float32 whatever the map is, and their sum has the precision of the map.

    Args:
        base: The map; its weight and bias are shared, and frozen.
        rank: Rows of A, columns of B.
        alpha: Numerator of the scale s.
        dropout: On the input of the adapter alone, in training.
        rslora: Whether s is alpha / sqrt(rank) (Kalajdzievski, 2023) and not alpha / rank.

    Raises:
        ValueError: If the rank is below 1.
    """

    def __init__(
        self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0, rslora: bool = False
    ) -> None:
        nn.Module.__init__(self)  # not nn.Linear's, which would make a weight of its own
        if rank < 1:
            raise ValueError(f"the rank of an adapter is at least 1, not {rank}")
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        for parameter in base.parameters():
            parameter.requires_grad_(False)
        self.scale = alpha / (math.sqrt(rank) if rslora else rank)
        self.dropout = dropout
        place: dict[str, Any] = {"device": base.weight.device, "dtype": torch.float32}
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, **place))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, **place))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self._unmerged: Tensor | None = None  # W as it was, while it is merged
        self.train(base.training)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        kind = input.device.type
        if self.merged:
            return functional.linear(input, self.weight, self.bias)
        flat = input.reshape(-1, self.in_features)
        if torch.is_autocast_enabled(kind):
            seen = flat = flat.to(torch.get_autocast_dtype(kind))  # once, for both
        else:
            seen = flat.to(self.lora_A.dtype)
        seen = functional.dropout(seen, self.dropout, self.training)
        given = (self.weight, self.bias, self.lora_A, self.lora_B, self.scale)
        out: Tensor = _Adapted.apply(flat, seen, *given)
        return out.view(*input.shape[:-1], self.out_features)

    @property
    def merged(self) -> bool:
        """Whether the adapter stands in the weight."""
        return self._unmerged is not None

    def merged_weight(self) -> Tensor:
        """W + s B A [out_features,in_features], added in float32, in the precision of W.

        Raises:
            ValueError: If it is not finite.
        """
        if self.merged:
            return self.weight.detach()
        with torch.no_grad():
            a, b, weight = self.lora_A.float(), self.lora_B.float(), self.weight
            total = torch.addmm(weight.float(), b, a, alpha=self.scale).to(weight.dtype)
        if not total.isfinite().all():
            raise ValueError("an adapter is not finite and cannot be merged")
        return total

    def merge(self) -> None:
        """Put the adapter into the weight; nothing happens where it is there already."""
        if not self.merged:
            total, self._unmerged = self.merged_weight(), self.weight.detach().clone()
            self.weight.data.copy_(total)

    def unmerge(self) -> None:
        """Give the weight back as it was, to the bit; nothing happens where it is not merged."""
        if self._unmerged is not None:
            self.weight.data.copy_(self._unmerged)
            self._unmerged = None

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if self.merged:
            raise RuntimeError("the adapters are merged; unmerge them before saving")
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if self.merged:
            raise RuntimeError("the adapters are merged; unmerge them before loading")
        super()._load_from_state_dict(*args, **kwargs)


def is_meant(path: str, targets: Paths) -> bool:
    """Whether a dotted path is among the targets.

    A text is a regular expression that the whole path matches. A list holds names of modules: the
    path is meant where it contains one of them as consecutive whole components, so that `encoder`
    takes all that is in it, `attn.proj` every such projection, and `q` never takes `seq`.
    """
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    return any(f".{target}." in f".{path}." for target in targets)


def find(
    model: nn.Module, targets: Paths, exclude: Paths = (), new: Collection[str] = ()
) -> list[str]:
    """Paths of the linear maps that adapters would go to.

    Args:
        model: Where to look.
        targets: As `is_meant`.
        exclude: Likewise, of what is left as it is.
        new: Paths of maps that were newly initialised; they train in full and are left out.

    Raises:
        ValueError: Where nothing is meant, naming what there is.
    """
    parts = model.named_modules()  # not the model itself, which nothing holds
    linear = [path for path, part in parts if path and isinstance(part, nn.Linear)]
    meant = [path for path in linear if is_meant(path, targets)]
    found = [path for path in meant if path not in new and not is_meant(path, exclude)]
    if not found:
        why = f"of {len(meant)} that match, all are excluded or newly initialised"
        some = ", ".join(linear[:6]) + (", ..." if len(linear) > 6 else "")
        raise ValueError(
            f"no linear map is left for adapters at {targets!r} "
            f"({why if meant else f'none matches; there are {some}'})"
        )
    return found


def inject(
    model: nn.Module, targets: Paths, *, rank: int, alpha: float, dropout: float = 0.0,
    rslora: bool = False, exclude: Paths = (), new: Collection[str] = (),
) -> list[str]:  # fmt: skip
    """Put an adapter in the place of each linear map that `find` finds, and freeze the map.

    All is looked up before anything is changed, so that an error leaves the model as it was.

    Returns:
        The paths of the adapted maps.

    Raises:
        ValueError: As `find`, or where the model has adapters already.
    """
    if any(True for _ in adapters(model)):
        raise ValueError("the model has adapters already")
    paths = find(model, targets, exclude, new)
    made = {}
    for path in paths:
        base = model.get_submodule(path)
        assert isinstance(base, nn.Linear)
        made[path] = LoRALinear(base, rank, alpha, dropout, rslora)
    for path, adapter in made.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, adapter)
    return paths


def adapters(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The adapted maps of a model, by path."""
    for path, part in model.named_modules():
        if isinstance(part, LoRALinear):
            yield path, part


def merge(model: nn.Module) -> None:
    """Put every adapter into its weight: the model then computes without them.

    Raises:
        ValueError: Where one is not finite; then none is merged.
    """
    for _, adapter in adapters(model):
        adapter.merged_weight()
    for _, adapter in adapters(model):
        adapter.merge()


def unmerge(model: nn.Module) -> None:
    """Undo `merge`: every weight is what it was, to the bit."""
    for _, adapter in adapters(model):
        adapter.unmerge()


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """A state dict for the model as it was before `inject`, with the adapters in the weights."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    for path, adapter in adapters(model):
        prefix = f"{path}." if path else ""
        state[f"{prefix}weight"] = adapter.merged_weight()
        del state[f"{prefix}lora_A"], state[f"{prefix}lora_B"]
    return state
