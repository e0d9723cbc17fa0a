"""Opening checkpoints: what they hold is read, what they want to run is not."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pathlib
import pickle
import shutil
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from yeast_get.errors import CheckpointError
from yeast_get.model.checkpoint_file import Dropped, find_setting, open_checkpoint

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3)}


@pytest.fixture
def saved(tmp_path):
    """Save values as torch does."""

    def save(values, **options):
        path = tmp_path / "model.pth"
        torch.save(values, path, **options)
        return path

    return save


@pytest.fixture
def refused(tmp_path):
    """The one line with which a file is refused."""

    def refuse(content) -> str:
        path = content
        if isinstance(content, bytes):
            path = tmp_path / "model.pth"
            path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path)
        (line,) = caught.value.lines()
        assert "\n" not in line
        assert line.startswith(f"error: {path}: ")
        return line

    return refuse


def with_pickle(path, pickled: bytes, **options) -> None:
    """Replace the pickle of a saved file."""
    old = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(old)) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            is_pickle = record.filename.endswith("/data.pkl")
            content = pickled if is_pickle else source.read(record)
            target.writestr(record.filename, content, **(options if is_pickle else {}))


# -------------------------------------------------------------------------------- what is read


def test_tensors_and_plain_values_come_as_they_were(saved):
    values = {"model": WEIGHTS, "epoch": 3, "names": ["x", "y"], "nested": {"a": (1, 2.5, None)}}
    read = open_checkpoint(saved(values))
    assert torch.equal(read["model"]["a.weight"], WEIGHTS["a.weight"])
    assert {k: read[k] for k in ("epoch", "names", "nested")} == {
        k: values[k] for k in ("epoch", "names", "nested")
    }


@pytest.mark.parametrize(
    "company",
    [
        argparse.Namespace(lr=1e-3),
        np.float64(0.94),
        pathlib.Path("/tmp/x"),
        torch.__version__,
        {"dtype": np.dtype("float64")},
    ],
    ids=["namespace", "numpy scalar", "path", "torch version", "dtype"],
)
def test_what_get_s_files_hold_beside_their_weights_is_dropped(saved, company):
    read = open_checkpoint(saved({"model": WEIGHTS, "company": company}))
    assert torch.equal(read["model"]["a.weight"], WEIGHTS["a.weight"])
    held = read["company"]
    assert isinstance(held["dtype"] if isinstance(held, dict) else held, Dropped)


def test_the_numpy_scalar_of_numpy_1_is_dropped_too(saved, tmp_path):
    path = saved({"model": WEIGHTS, "best": np.float64(0.94)})
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read(next(n for n in archive.namelist() if n.endswith("/data.pkl")))
    assert b"numpy._core.multiarray\nscalar" in pickled
    with_pickle(path, pickled.replace(b"numpy._core.", b"numpy.core."))
    assert isinstance(open_checkpoint(path)["best"], Dropped)


@pytest.fixture
def foreign(monkeypatch):
    """Make a class under a foreign name, for as long as it takes to pickle it."""

    def make(module: str, name: str) -> type:
        def never(self, *args):
            raise AssertionError(f"{module}.{name} was built")

        made = type(name, (), {"__module__": module, "__setstate__": never})
        parts = module.split(".")
        for i in range(len(parts)):
            dotted = ".".join(parts[: i + 1])
            if dotted not in sys.modules:
                monkeypatch.setitem(sys.modules, dotted, types.ModuleType(dotted))
        setattr(sys.modules[module], name, made)
        return made

    return make


def test_settings_of_omegaconf_are_looked_into_and_never_built(saved, foreign):
    config, node = foreign("omegaconf.dictconfig", "DictConfig"), foreign("omegaconf.nodes", "Any")

    def leaf(value):
        made = node()
        made._val = value
        return made

    def branch(**content):
        made = config()
        made._content = content
        return made

    cfg = branch(model=branch(encoder=branch(num_heads=leaf(12), drop=leaf(0.5))))
    path = saved({"state_dict": WEIGHTS, "hyper_parameters": {"cfg": cfg}})
    for module in [name for name in sys.modules if name.startswith("omegaconf")]:
        del sys.modules[module]
    read = open_checkpoint(path)
    assert not any(name.startswith("omegaconf") for name in sys.modules)
    assert find_setting(read, "num_heads", int) == 12
    assert find_setting(read, "drop", float) == 0.5
    assert find_setting(read, "num_heads", float) is None
    assert find_setting(read, "depth", int) is None


@pytest.mark.parametrize("module", ["lightning.pytorch.callbacks", "pytorch_lightning.utilities"])
def test_leftovers_of_lightning_are_never_built(saved, foreign, module):
    made = foreign(module, "Leftover")()
    made.state = 3
    path = saved({"state_dict": WEIGHTS, "callbacks": {"x": made}})
    assert isinstance(open_checkpoint(path)["callbacks"]["x"], Dropped)


def test_a_setting_is_found_in_circles_and_in_what_is_shared_a_thousandfold():
    circle = {"a": []}
    circle["a"].append(circle)
    assert find_setting(circle, "num_heads", int) is None
    shared = {"num_heads": 7}
    for _ in range(64):
        shared = {"left": shared, "right": [shared, shared]}
    assert find_setting(shared, "num_heads", int) == 7


# ------------------------------------------------------------------------------ what is not run


class Payload:
    """Does something when it is unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (os.system, f"{os.system.__module__}.system"),
        (builtins.eval, "builtins.eval"),
        (builtins.exec, "builtins.exec"),
        (shutil.copy, "shutil.copy"),
    ],
)
def test_code_is_named_and_not_run(saved, refused, tmp_path, call, named):
    marker = tmp_path / "ran"
    code = (
        f"__import__('pathlib').Path({str(marker)!r}).touch()"
        if call in (eval, exec)
        else f"touch {marker}"
    )
    arguments = (sys.executable, str(marker)) if call is shutil.copy else (code,)
    path = saved({"model": WEIGHTS, "extra": Payload(call, *arguments)})
    said = refused(path)
    assert f"wants to import {named}, which may run code" in said
    assert "finetune.trust_checkpoint: true" in said
    assert not marker.exists()
    assert torch.equal(open_checkpoint(path, trust=True)["model"]["a.weight"], WEIGHTS["a.weight"])
    assert marker.exists()


def test_all_that_a_file_wants_is_listed(saved, refused):
    wanted = [Payload(os.getcwd), Payload(os.getpid), argparse.Namespace(), Payload(str, 3)]
    said = refused(saved({"model": WEIGHTS, "extra": wanted}))
    assert f"wants to import {os.getcwd.__module__}.getcwd, {os.getpid.__module__}.getpid," in said
    assert "Namespace" not in said


# ---------------------------------------------------------------------------------- damaged files


def test_a_file_that_is_not_there_or_a_folder(refused, tmp_path):
    assert "there is no such file" in refused(tmp_path / "no.pth")
    assert "there is no such file" in refused(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is text, and no checkpoint"),
        (b"\x80\x81\xff" * 50, "is not a file that torch.save of torch 1.6 or later wrote"),
        (pickle.dumps({"a": 1}), "is not a file that torch.save of torch 1.6 or later wrote"),
        (b"PK\x03\x04 half", "is damaged or cut off"),
    ],
)
def test_files_of_something_else(refused, content, said):
    assert said in refused(content)


def test_a_file_of_the_old_kind(saved, refused):
    path = saved(WEIGHTS, _use_new_zipfile_serialization=False)
    assert "is not a file that torch.save of torch 1.6" in refused(path)


def test_a_file_cut_off_anywhere(saved, refused):
    content = saved({"model": {f"t{i}": torch.randn(50) for i in range(20)}}).read_bytes()
    for length in range(1, len(content), max(len(content) // 40, 1)):
        assert refused(content[:length])


def test_a_zip_of_something_else(refused):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is a zip archive, and not one that torch.save wrote" in refused(held.getvalue())


def test_records_that_unpack_to_more_than_they_are(saved, refused):
    path = saved({"model": WEIGHTS})
    with_pickle(path, b"\0" * (1 << 22), compress_type=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16
    assert "holds compressed records" in refused(path)


def test_a_pickle_of_absurd_length(saved, refused, monkeypatch):
    monkeypatch.setattr("yeast_get.model.checkpoint_file.LONGEST_PICKLE", 1 << 20)
    path = saved({"model": WEIGHTS})
    with_pickle(path, b"\0" * (2 << 20))
    assert "holds 2 MiB beside its tensors" in refused(path)


def test_tuples_that_would_take_for_ever_to_hash(saved, refused):
    """t = (u, u) of u = (v, v) of ... as a key; torch's reader would hash it 2 ** 60 times."""
    pickled = b"\x80\x02})q\x00"  # a dict to fill, and the innermost tuple
    for i in range(60):
        pickled += b"0" + bytes([ord("h"), i]) * 2 + b"\x86q" + bytes([i + 1])
    path = saved({"model": WEIGHTS})
    with_pickle(path, pickled + b"K\x01s.")
    assert "nests tuples 60 deep" in refused(path)


def test_a_pickle_of_a_later_protocol_or_of_nonsense(saved, refused):
    path = saved({"model": WEIGHTS})
    with_pickle(path, pickle.dumps({"a": [1, "x"]}, protocol=4))
    assert "is damaged or cut off" in refused(path)
    for pickled in (b".", b"0.", b"u.", b"\x80\x02h\x05.", b"\x80\x02(", os.urandom(200)):
        path = saved({"model": WEIGHTS})
        with_pickle(path, pickled)
        assert refused(path)
