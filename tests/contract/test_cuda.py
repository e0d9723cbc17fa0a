"""The GPU path, where there is a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import SMALL, options
from yeast_get.training import loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_on_cuda_gives_the_predictions_of_the_cpu(train, evaluate, table_path, precision):
    run = train(table_path, f"training.precision={precision}", extra=("--device", "cuda"))
    on_gpu = pd.read_csv(run / "predictions.csv")["y_pred"]
    on_cpu = pd.read_csv(evaluate(run, table_path) / "predictions.csv")["y_pred"]
    tolerance = 1e-4 if precision == "fp32" else 5e-2
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_pretraining_and_lora_on_cuda(train, evaluate, table_path, precision, compiled):
    cuda = ("--device", "cuda")
    settings = (f"training.precision={precision}", f"training.compile={compiled}".lower())
    window = ("task.stage=pretrain", "data.regions_per_window=8")
    base = train(table_path, *window, *settings, output="base", extra=cuda) / "pretrained.pth"
    run = train(
        table_path, f"finetune.checkpoint={base}", "lora.enabled=true", *settings, extra=cuda
    )
    before = torch.load(base, weights_only=True)["state_dict"]
    after = torch.load(run / "best_model.pth", weights_only=True)["model"]
    assert all(torch.equal(value, after[name]) for name, value in before.items() if name in after)
    on_gpu = pd.read_csv(run / "predictions.csv")["y_pred"]
    on_cpu = pd.read_csv(evaluate(run, table_path) / "predictions.csv")["y_pred"]
    tolerance = 1e-3 if precision == "fp32" else 5e-2
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp64"])
@pytest.mark.parametrize("step", [8, 12])  # of 6 an epoch
def test_a_run_on_cuda_resumes_to_the_bit(train, table_path, monkeypatch, precision, step):
    settings = (
        f"training.precision={precision}", "training.deterministic=true",
        "model.encoder.drop_rate=0.3", "training.ema_decay=0.9",
    )  # fmt: skip
    cuda = ("--device", "cuda")
    whole = train(table_path, *settings, output="whole", extra=cuda)
    after = loop._after_step

    def stopped(run, progress, *rest):
        after(run, progress, *rest)
        if progress.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_after_step", stopped)
        with pytest.raises(SystemExit):
            train(table_path, *settings, output="part", extra=cuda)
    part = train(table_path, *settings, output="part", extra=(*cuda, "--resume"))
    for name in ("best_model.pth", "history.csv", "metrics.json", "predictions.csv"):
        assert (whole / name).read_bytes() == (part / name).read_bytes(), name


def test_the_scaler_takes_an_overflow_of_fp16_first(train, table_path, monkeypatch, capsys):
    """Beyond fp16's range a step is left out and the scale halved; where none helps, it ends."""
    plain, factor = loop.loss_sum, 1e3

    def steep(*arguments):
        return plain(*arguments) * factor

    monkeypatch.setattr(loop, "loss_sum", steep)
    settings = ("training.precision=fp16", "training.max_epochs=4", "training.warmup_epochs=0")
    run = train(table_path, *settings, extra=("--device", "cuda"))
    last = torch.load(run / "last.pth", weights_only=True)["resume"]
    assert 1 < last["scaler"]["scale"] < 65536
    factor = 1e9
    with pytest.raises(SystemExit) as ended:
        train(table_path, *settings, output="beyond", extra=("--device", "cuda"))
    assert ended.value.code == 2
    assert "a gradient is not finite in epoch" in capsys.readouterr().err


def test_torchrun_trains_on_a_gpu_by_nccl(table_path, tmp_path):
    """One rank per GPU of this machine; with a single GPU, one rank, which needs no NCCL."""
    ranks = torch.cuda.device_count()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(ranks), "-m", "train_yeast", "--data", str(table_path)]
    command += ["--output", str(tmp_path / "run"), *options(SMALL)]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert pd.read_csv(tmp_path / "run" / "history.csv")["epoch"].max() == 3


def test_the_words_of_the_ranks_pass_through_nccl():
    """A group of one, since a machine with one GPU has no room for two ranks under NCCL."""
    code = (
        "import torch, torch.distributed as d, numpy as np\n"
        "torch.cuda.set_device(0)\n"
        "d.init_process_group('nccl', store=d.HashStore(), rank=0, world_size=1)\n"
        "from yeast_get import distributed\n"
        "distributed.size = lambda: 1 + d.is_initialized()\n"
        "distributed._launched = lambda: True\n"
        "import os; os.environ['RANK'] = '0'\n"
        "got = [None]; d.all_gather_object(got, {'rng': torch.get_rng_state()})\n"
        "assert torch.equal(got[0]['rng'], torch.get_rng_state())\n"
        "assert distributed.from_writer(lambda: {'a': np.arange(3)})['a'].tolist() == [0, 1, 2]\n"
        "x = torch.ones(2, device='cuda')\n"
        "assert distributed.sum_over_ranks(x).tolist() == [1, 1]\n"
        "assert distributed.leave()\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
