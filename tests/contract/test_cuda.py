"""The GPU path, where there is a GPU."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

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


def test_a_run_on_cuda_resumes(train, table_path):
    run = train(table_path, "training.max_epochs=2", extra=("--device", "cuda"))
    train(table_path, "training.max_epochs=3", extra=("--device", "cuda", "--resume"))
    assert pd.read_csv(run / "history.csv")["epoch"].max() == 3
