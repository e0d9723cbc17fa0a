import pytest
import torch
from torch import nn

from yeast_get.model.dropout import Dropout


def dropped(p, seed=0, shape=(101, 103), dtype=torch.float32):
    torch.manual_seed(seed)
    return Dropout(p).train()(torch.ones(shape, dtype=dtype))


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_share_of_p_is_zero_and_the_rest_is_scaled_by_that_share(p, dtype):
    out = dropped(p, shape=(1000, 1000), dtype=dtype)
    kept = out[out != 0]
    assert out.dtype == dtype
    assert 1 - len(kept) / out.numel() == pytest.approx(p, abs=4 * (p * (1 - p) / 1e6) ** 0.5)
    share = round(p * 65536) / 65536  # of 16 bits, which torch's own does not round to
    assert kept.unique().tolist() == [torch.tensor(1 / (1 - share), dtype=dtype).item()]


def test_each_number_is_dropped_by_itself():
    """Four numbers share one draw of the generator, of which each has bits of its own."""
    zero = (dropped(0.5, shape=(250_000, 4)) == 0).double()
    assert (torch.corrcoef(zero.T) - torch.eye(4)).abs().max() < 0.01
    assert torch.corrcoef(torch.stack((zero[1:, 0], zero[:-1, 0])))[0, 1].abs() < 0.01


def test_the_gradient_goes_through_what_is_kept():
    torch.manual_seed(0)
    x = torch.randn(50, 3, requires_grad=True)
    out = Dropout(0.5).train()(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x, out)


def test_the_seed_of_torch_decides():
    assert torch.equal(dropped(0.3), dropped(0.3))
    assert not torch.equal(dropped(0.3), dropped(0.3, seed=1))


@pytest.mark.parametrize(("p", "expected"), [(0.0, 1.0), (1.0, 0.0), (1e-9, 1.0)])
def test_nothing_and_all_are_dropped_at_the_ends(p, expected):
    assert (dropped(p) == expected).all()


def test_nothing_is_dropped_outside_of_training():
    x = torch.randn(5, 0, 3), torch.randn(7)
    assert all(torch.equal(Dropout(0.5).eval()(each), each) for each in x)
    assert Dropout(0.5).train()(x[0]).shape == (5, 0, 3)
    assert isinstance(Dropout(), nn.Dropout)  # as `without_dropout` looks for them
