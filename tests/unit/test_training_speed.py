"""The benchmark of training steps times what it says, and its rivals compute the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.conftest import ROOT
from yeast_get.batch import Batch


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import training_speed

    monkeypatch.setattr(training_speed, "REGIONS", 3)
    return training_speed


@pytest.fixture
def turns(monkeypatch, benchmark, tmp_path):
    """With quick products, and steps that a module beside them makes."""
    (tmp_path / "steps.py").write_text(
        "import time, torch\n"
        "def make(side, seconds):\n"
        "    a, held = torch.ones(side, side), []\n"
        "    optimizer = torch.optim.AdamW([torch.ones(1)], fused=True)\n"
        "    def step():\n"
        "        optimizer.step()\n"
        "        held.clear()\n"
        "        held.append(torch.ones(25, 1 << 20))\n"
        "        a @ a\n"
        "        time.sleep(seconds)\n"
        "    return step\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import turns

    monkeypatch.setattr(turns, "product_rate", lambda half: 1e9)
    return turns


def test_a_variant_has_its_own_time_memory_and_operations(turns):
    import steps

    large = torch.ones(300, 1 << 20)  # of the parent, which is none of the variant's
    found = turns.measure({"slow": turns.Variant(steps.make, (100, 0.2), rows=6, steps=2)}, 1)
    row = found["slow"]
    assert 100 <= row["ms per step"] < 10_000
    assert row["rows/s"] == pytest.approx(6e3 / row["ms per step"])
    assert large.sum() > 0
    assert 100 <= row["peak, MB"] < 150  # and not what PyTorch imports for an optimizer
    assert row["GFLOP/s"] == pytest.approx(1 / row["ms per step"])  # 2e6 FLOP in two
    assert row["% of a large product"] == pytest.approx(100 * row["GFLOP/s"])


def test_plain_attention_is_attention(benchmark, monkeypatch):
    fused = functional.scaled_dot_product_attention
    monkeypatch.setattr(functional, "scaled_dot_product_attention", fused)  # given back afterwards
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    mask = torch.rand(2, 1, 1, 5) < 0.7
    mask[..., 0] = True
    expected = fused(q, k, v, mask)
    benchmark._plain_attention()
    torch.testing.assert_close(functional.scaled_dot_product_attention(q, k, v, mask), expected)


@pytest.fixture
def small(benchmark, monkeypatch):
    """A network of one block, 8 wide, in place of the published size."""
    sizes = benchmark.TransformerConfig(num_layers=1, num_heads=2, embed_dim=8)
    monkeypatch.setattr(benchmark, "TransformerConfig", lambda **_: sizes)


@pytest.fixture
def stepped(benchmark, small, monkeypatch):
    """A function that takes a step of plain descent as a kind, and gives what is left of it."""
    monkeypatch.setattr(  # given back afterwards
        functional, "scaled_dot_product_attention", functional.scaled_dot_product_attention
    )
    window = benchmark._get_batch(1)
    monkeypatch.setattr(
        benchmark, "_get_batch", lambda windows: Batch(**{
            name: tensor.expand(windows, *tensor.shape[1:]) for name, tensor in window.tensors()
        })
    )  # fmt: skip

    def step(kind):
        seen = []

        def descent(model, *_):
            seen.append(model)
            trained = [each for each in model.parameters() if each.requires_grad]
            return torch.optim.SGD(trained, lr=0.1)

        monkeypatch.setattr(benchmark, "_optimizer", descent)
        benchmark.make_get(kind, 2, 1, half=False, checkpointing=False, compiled=False)()
        return seen[0]

    return step


def test_the_usual_loop_takes_the_same_step(benchmark, stepped):
    torch.manual_seed(0)
    start = benchmark._get_model(checkpointing=False).state_dict()
    full, usual = stepped("full").state_dict(), stepped("usual").state_dict()
    assert not torch.equal(full["encoder.blocks.0.mlp.fc1.weight"],
                           start["encoder.blocks.0.mlp.fc1.weight"])  # fmt: skip
    for name, value in full.items():
        torch.testing.assert_close(usual[name], value, rtol=1e-4, atol=1e-6)


def test_adapters_of_peft_are_as_many_and_teach_the_rest_the_same(benchmark, stepped, monkeypatch):
    pytest.importorskip("peft")
    groups = benchmark._optimizer
    # it would scale by the gradients of the adapters, which are drawn
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    ours, theirs = stepped("lora"), stepped("peft")
    counts = [sum(each.numel() for each in model.parameters() if each.requires_grad)
              for model in (ours, theirs)]  # fmt: skip
    assert counts[0] == counts[1]
    for name, value in ours.named_parameters():
        if value.requires_grad and "lora_" not in name:
            torch.testing.assert_close(theirs.get_parameter(f"base_model.model.{name}"), value)
    optimizer = groups(theirs, "peft", benchmark.Settings())
    held = [each for group in optimizer.param_groups for each in group["params"]]
    assert (sum(each.numel() for each in held), optimizer.defaults["fused"]) == (counts[0], True)


def test_what_trains_beside_adapters_is_what_get_has_not(benchmark, small):
    model = benchmark.adapted(benchmark._get_model(checkpointing=False), "lora")
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert {name.split(".")[0] for name in trained} == {
        "encoder", "head_exp", "fusion", "feature_encoder"
    }  # fmt: skip
    assert all(
        name.endswith(("lora_A", "lora_B"))
        for name in trained
        if name.startswith(("encoder", "head_exp"))
    )
    optimizer = benchmark._optimizer(model, "lora", benchmark.Settings())
    before = model.encoder.blocks[0].mlp.fc1.lora_B.clone()
    benchmark._step_of(model, optimizer, "poisson")(benchmark._get_batch(2))
    assert not torch.equal(before, model.encoder.blocks[0].mlp.fc1.lora_B)


def test_a_table_is_printed_and_kept(benchmark, monkeypatch, tmp_path, capsys):
    import results

    monkeypatch.setattr(results, "RESULTS", tmp_path / "results.csv")
    results.show("way", {"one": {"ms": 1234.5, "MB": 2.345}, "two": {"ms": 45.67}}, "a table")
    assert capsys.readouterr().out.splitlines()[3:] == [
        "| way | ms | MB |", "| --- | --- | --- |", "| one | 1,234 | 2.35 |", "| two | 45.7 |  |"
    ]  # fmt: skip
    kept = (tmp_path / "results.csv").read_text().splitlines()
    assert [line.split(",")[-2:] for line in kept[1:]] == [
        ["one: ms", "1234"], ["one: MB", "2.345"], ["two: ms", "45.67"]
    ]  # fmt: skip
