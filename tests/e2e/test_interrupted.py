"""A run that is stopped, or that goes wrong, while it trains."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest
import torch

from yeast_get.training import loop

SAME = ("best_model.pth", "history.csv", "metrics.json", "predictions.csv")


def same_files(one, other):
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert_same(*(torch.load(run / "last.pth", weights_only=True) for run in (one, other)))


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.fixture
def signalled(monkeypatch):
    """Send the process a signal within one optimizer step."""

    def at(step, number, times=1):
        after = loop._after_step

        def after_step(run, progress, *rest):
            after(run, progress, *rest)
            if progress.step == step - 1:
                workers = [each.pid for each in multiprocessing.active_children()]
                for pid in (*workers, *[os.getpid()] * times):
                    os.kill(pid, number)

        monkeypatch.setattr(loop, "_after_step", after_step)

    return at


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("step", "workers"), [(8, 1), (12, 0)])  # 6 steps an epoch
def test_a_signal_ends_at_the_next_step_and_resume_changes_nothing(
    train, table_path, signalled, monkeypatch, capsys, number, step, workers
):
    """Inside an epoch, and at the end of one; workers that load data get the signal, too."""
    settings = (
        "model.head.dropout=0.3",
        "training.ema_decay=0.9",
        f"training.num_workers={workers}",
    )
    whole = train(table_path, *settings, output="whole")
    with monkeypatch.context():
        signalled(step, number)
        with pytest.raises(SystemExit) as stopped:
            train(table_path, *settings, output="part")
        monkeypatch.undo()
    assert stopped.value.code == 128 + number
    part = whole.parent / "part"
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    said = f"stopped by {name} in epoch 2, after step {step}; {part / 'last.pth'} holds it, "
    assert capsys.readouterr().err == said + "go on with --resume\n"
    assert torch.load(part / "last.pth", weights_only=True)["resume"]["progress"]["step"] == step
    train(table_path, *settings, output="part", extra=("--resume",))
    assert f"resumed in epoch 2, after step {step}" in (part / "train.log").read_text()
    same_files(whole, part)


def test_a_second_ctrl_c_ends_at_once(train, table_path, signalled, capsys):
    signalled(8, signal.SIGINT, times=2)
    with pytest.raises(SystemExit) as stopped:
        train(table_path)
    assert stopped.value.code == 130
    assert "files that were written are whole" in capsys.readouterr().err


def test_a_signal_in_the_last_validation_is_not_lost(train, table_path, monkeypatch, capsys):
    finish = loop._finish_epoch

    def signalled(run, progress, train_loss):
        if progress.epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        finish(run, progress, train_loss)

    monkeypatch.setattr(loop, "_finish_epoch", signalled)
    with pytest.raises(SystemExit) as stopped:
        train(table_path)
    assert stopped.value.code == 143
    assert "in epoch 3, after step 18" in capsys.readouterr().err


def test_handlers_of_signals_are_given_back(train, table_path):
    before = signal.getsignal(signal.SIGINT)
    train(table_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_that_dies_before_its_best_weights_are_written_takes_them_from_last(
    train, table_path, monkeypatch
):
    """Its schedule changes on resume, so that the epoch cannot simply be trained once more."""
    longer = "training.max_epochs=4"
    with monkeypatch.context():
        _die_after_last(monkeypatch, epoch=2)
        with pytest.raises(ZeroDivisionError):
            train(table_path, output="part")
        monkeypatch.undo()
    folder = table_path.parent / "part"
    best = torch.load(folder / "best_model.pth", weights_only=True)
    last = torch.load(folder / "last.pth", weights_only=True)
    assert (best["epoch"], last["epoch"]) == (1, 2)
    assert last["resume"]["progress"]["best_epoch"] == 2
    with monkeypatch.context():
        _die_after_last(monkeypatch, epoch=3)
        with pytest.raises(ZeroDivisionError):
            train(table_path, longer, output="part", extra=("--resume",))
        monkeypatch.undo()
    best = torch.load(folder / "best_model.pth", weights_only=True)
    assert best["epoch"] == 2
    assert all(torch.equal(best["model"][name], value) for name, value in last["model"].items())


def _die_after_last(monkeypatch, epoch):
    save = loop._save_last

    def save_and_die(run, progress):
        save(run, progress)
        if progress.epoch == epoch:
            raise ZeroDivisionError

    monkeypatch.setattr(loop, "_save_last", save_and_die)


class _Explodes(torch.autograd.Function):
    """Leaves a loss as it is, and makes its gradient infinite."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


def test_a_gradient_that_is_not_finite_names_the_rows_and_leaves_the_weights(
    train, table_path, monkeypatch, capsys
):
    plain = loop.loss_sum
    calls = []

    def exploding(*arguments):
        calls.append(1)
        return _Explodes.apply(plain(*arguments)) if len(calls) == 8 else plain(*arguments)

    monkeypatch.setattr(loop, "loss_sum", exploding)
    with pytest.raises(SystemExit) as stopped:
        train(table_path, "training.checkpoint_every_n_steps=1")
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "a gradient is not finite in epoch 2, step 7; the 32 rows of that step begin" in said
    last = torch.load(table_path.parent / "run" / "last.pth", weights_only=True)
    assert last["resume"]["progress"]["step"] == 7
    assert all(bool(each.isfinite().all()) for each in last["resume"]["weights"].values())
