"""Files are read without running their code, and refused in one line."""

from __future__ import annotations

import argparse
import builtins
import collections
import io
import math
import os
import pathlib
import pickle
import subprocess
import sys
import time
import types
import typing
import zipfile

import numpy as np
import pytest
import torch
from torch.serialization import set_crc32_options

from yeast_get.errors import CheckpointError
from yeast_get.model import checkpoint_file
from yeast_get.model.checkpoint_file import Dropped, find_setting, open_checkpoint

TENSORS = {"w": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, -2])}


def archive(path, pickled, compression=zipfile.ZIP_STORED):
    """A file as torch.save makes it, around a pickle of our own."""
    with zipfile.ZipFile(path, "w", compression) as records:
        records.writestr("archive/data.pkl", pickled)
        records.writestr("archive/byteorder", "little")
        records.writestr("archive/version", "3\n")
    return path


def refusal(path, **options):
    """The one line with which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].fix
    return text


@pytest.fixture
def saved(tmp_path):
    """Save an object, give the path."""

    def save(values, **options):
        path = tmp_path / "checkpoint.pth"
        torch.save(values, path, **options)
        return path

    return save


# --------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("as_text", [False, True])
def test_tensors_and_plain_python_come_back_as_they_were(saved, trust, as_text):
    values = {
        "model": collections.OrderedDict(TENSORS),
        "half": torch.randn(3, 2).bfloat16(),
        "transposed": torch.arange(6.0).view(2, 3).T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "plain": [1, 2.5, "text", None, True, (3, -4), {"a": 10**12}],
    }
    path = saved(values)
    read = open_checkpoint(str(path) if as_text else path, trust=trust)
    assert list(read) == list(values)
    assert read["plain"] == values["plain"]
    for name in ("half", "transposed", "parameter"):
        assert read[name].dtype == values[name].dtype
        assert torch.equal(read[name], values[name])
    assert list(read["model"]) == ["w", "b"]
    assert all(torch.equal(read["model"][name], each) for name, each in TENSORS.items())
    assert read["half"].device.type == "cpu"


def test_state_of_an_optimizer_and_its_default_dict_are_read(saved):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = collections.defaultdict(dict, {"a": {"step": 3}})
    read = open_checkpoint(saved({"optimizer": optimizer.state_dict(), "state": state}))
    assert read["state"] == {"a": {"step": 3}}
    assert torch.equal(
        read["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )


def test_shared_tensors_stay_shared(saved):
    w = torch.zeros(4)
    read = open_checkpoint(saved({"a": w, "b": w[:2]}))
    read["a"][0] = 5
    assert read["b"][0] == 5


def test_reading_leaves_the_list_of_allowed_classes_as_it_was(saved):
    path = saved({"args": argparse.Namespace(a=1)})
    before = set(torch.serialization.get_safe_globals())
    open_checkpoint(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError, match="argparse.Namespace was not an allowed"):
        torch.load(path, weights_only=True)


# ---------------------------------------------------------------------- what would run code


class Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def evil(kind, marker):
    script = f"open({str(marker)!r}, 'w').close()"
    if kind == "os.system":
        return Runs(os.system, f"touch '{marker}'"), f"{os.name}.system"
    if kind == "subprocess":
        called = Runs(subprocess.check_call, ["touch", str(marker)])
        return called, "commands.check_call"  # the older name, which torch.save writes
    return Runs(getattr(builtins, kind), script), f"builtins.{kind}"


@pytest.mark.parametrize("kind", ["os.system", "eval", "exec", "subprocess"])
@pytest.mark.parametrize("place", ["alone", "beside tensors", "as a key", "in settings"])
def test_code_is_refused_by_name_and_not_run(saved, tmp_path, kind, place):
    marker = tmp_path / "marker"
    bad, name = evil(kind, marker)
    values = {
        "alone": bad,
        "beside tensors": {"model": TENSORS, "epoch": bad},
        "as a key": {bad: 1},
        "in settings": {"model": TENSORS, "args": argparse.Namespace(num_heads=bad)},
    }
    path = saved(values[place])
    text = refusal(path)
    assert f"wants to import {name}, which may run code, and was not read; ask for" in text
    assert "finetune.trust_checkpoint: true" in text
    assert not marker.exists()
    open_checkpoint(path, trust=True)
    assert marker.exists()


def test_every_foreign_name_is_told_up_to_eight(saved, tmp_path):
    names = ["abs", "any", "bin", "chr", "hex", "len", "max", "min", "oct", "sum"]
    pickled = b"\x80\x02]("
    pickled += b"".join(f"cbuiltins\n{name}\n".encode() for name in names) + b"e."
    text = refusal(archive(tmp_path / "a.pth", pickled))
    told = ", ".join(f"builtins.{name}" for name in names[:8])
    assert f"wants to import {told} and 2 more, which" in text


GADGETS = ["lightning.os\nsystem", "typing.sys\nexit", "omegaconf.evil\nrun", "torchmetrics\nrun"]


@pytest.mark.parametrize("gadget", GADGETS)
def test_a_call_through_a_harmless_package_is_dropped_and_not_made(tmp_path, gadget):
    called = b"c" + gadget.encode() + b"\nX\x04\x00\x00\x00echo\x85R"
    path = archive(tmp_path / "a.pth", b"\x80\x02" + called + b".")
    read = open_checkpoint(path)
    assert isinstance(read, Dropped)
    assert read.state == ("echo",)


def test_a_package_whose_name_begins_like_a_harmless_one_is_foreign(tmp_path):
    for name in ("omegaconf_evil.run", "typing_extensions.run", "lightningx.a"):
        module, _, what = name.rpartition(".")
        path = archive(tmp_path / "a.pth", f"\x80\x02c{module}\n{what}\n.".encode("latin-1"))
        assert f"wants to import {name}, which" in refusal(path)


# ------------------------------------------------------------------ what is dropped, not built


def test_leftovers_of_the_published_files_are_dropped(saved):
    values = {
        "model": TENSORS,
        "args": argparse.Namespace(lr=1e-3, num_heads=12),
        "best": np.float64(0.5),
        "count": np.int64(3),
        "path": pathlib.PurePosixPath("/a/b") if os.name == "nt" else pathlib.Path("/a/b"),
        "version": torch.__version__,
    }
    read = open_checkpoint(saved(values))
    assert all(torch.equal(read["model"][name], each) for name, each in TENSORS.items())
    assert read["args"].state == {"lr": 1e-3, "num_heads": 12}
    for name in ("best", "count", "path", "version"):
        assert isinstance(read[name], Dropped)
        assert not isinstance(read[name], (str, np.generic, pathlib.PurePath))


@pytest.mark.parametrize("name", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_a_numpy_scalar_of_either_numpy_is_dropped(tmp_path, name):
    pickled = pickle.dumps({"best": np.float64(0.5), "num_heads": 4}, protocol=2)
    ours = b"cnumpy._core.multiarray\n"
    assert ours in pickled
    path = archive(tmp_path / "a.pth", pickled.replace(ours, f"c{name}\n".encode()))
    read = open_checkpoint(path)
    assert isinstance(read["best"], Dropped)
    assert read["num_heads"] == 4


@pytest.fixture
def foreign(tmp_path):
    """Modules that exist while a file is written; `forget` removes them, as on our machines."""
    made = []

    def make(module, name, bases=(), **content):
        parts = module.split(".")
        for i in range(len(parts)):
            dotted = ".".join(parts[: i + 1])
            if dotted not in sys.modules:
                sys.modules[dotted] = types.ModuleType(dotted)
                made.append(dotted)
        cls = type(name, bases, content | {"__module__": module})
        setattr(sys.modules[module], name, cls)
        return cls

    def forget():
        while made:
            del sys.modules[made.pop()]

    make.forget = forget
    yield make
    forget()


def omegaconf(foreign, values):
    """Values as nodes that look like OmegaConf's, each of which knows its parent."""
    kinds = {
        kind: foreign(module, kind)
        for module, kind in (
            ("omegaconf.dictconfig", "DictConfig"),
            ("omegaconf.listconfig", "ListConfig"),
            ("omegaconf.nodes", "AnyNode"),
            ("omegaconf.base", "ContainerMetadata"),
            ("omegaconf.base", "Metadata"),
        )
    }

    def node(value, key, parent):
        is_leaf = not isinstance(value, dict | list)
        kind = "AnyNode" if is_leaf else "DictConfig" if isinstance(value, dict) else "ListConfig"
        made = kinds[kind]()
        metadata = kinds["Metadata" if is_leaf else "ContainerMetadata"]()
        metadata.__dict__.update(key=key, ref_type=typing.Any, optional=True)
        made.__dict__.update(_metadata=metadata, _parent=parent)
        if is_leaf:
            made._val = value
        elif isinstance(value, dict):
            made._content = {k: node(v, k, made) for k, v in value.items()}
        else:
            made._content = [node(v, k, made) for k, v in enumerate(value)]
        return made

    return node(values, None, None)


def test_settings_of_omegaconf_are_found_without_omegaconf(saved, foreign):
    config = {"run": ["a", 1], "model": {"cfg": {"num_heads": 6, "eps": 1e-5, "name": "GET"}}}
    node = omegaconf(foreign, config)
    node._metadata.__dict__["object_type"] = dict
    path = saved({"state_dict": TENSORS, "hyper_parameters": {"cfg": node}})
    foreign.forget()
    assert "omegaconf" not in sys.modules
    read = open_checkpoint(path)
    assert "omegaconf" not in sys.modules
    assert all(torch.equal(read["state_dict"][name], each) for name, each in TENSORS.items())
    assert isinstance(read["hyper_parameters"]["cfg"], Dropped)
    assert find_setting(read, "num_heads", int) == 6
    assert find_setting(read, "eps", float) == 1e-5
    assert find_setting(read, "name", str) == "GET"
    assert find_setting(read, "num_heads", float) is None


def test_leftovers_of_lightning_are_dropped_though_their_classes_are_there(
    saved, foreign, tmp_path
):
    marker = tmp_path / "marker"

    def build(self, *args, **kwargs):
        marker.write_text("built")
        raise AssertionError("a class of the file was built")

    cls = foreign("pytorch_lightning.callbacks", "ModelCheckpoint")
    made = cls()
    made.best = 3
    path = saved({"callbacks": {"best": made}, "type": cls, "state_dict": TENSORS})
    cls.__init__ = cls.__setstate__ = build
    cls.__new__ = build
    read = open_checkpoint(path)
    assert read["callbacks"]["best"].state == {"best": 3}
    assert not marker.exists()
    with pytest.raises(CheckpointError):
        open_checkpoint(path, trust=True)
    assert marker.exists()


def test_an_enum_of_lightning_is_dropped(saved, foreign):
    cls = foreign("lightning.pytorch.trainer.states", "TrainerFn")
    cls.__reduce__ = lambda self: (cls, ("fit",))
    path = saved({"state": cls(), "num_heads": 2})
    foreign.forget()
    read = open_checkpoint(path)
    assert read["state"].state == ("fit",)


# ----------------------------------------------------------------------------- find_setting


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"num_heads": 4}, 4),
        ({"a": [{"b": ({"num_heads": 4},)}]}, 4),
        ({"a": {"num_heads": 8}, "num_heads": 4}, 4),  # the nearest
        ({"num_heads": "4"}, None),
        ({"num_heads": 4.0}, None),
        ({"num_heads": True}, None),  # which Python counts as an integer
        ({"num_heads": None, "b": {"num_heads": 5}}, 5),
        ({"heads": 4}, None),
        ([], None),
        (None, None),
        (torch.zeros(2), None),
        ({"num_heads": torch.tensor(4)}, None),
    ],
)
def test_find_setting(values, found):
    assert find_setting(values, "num_heads", int) == found


def test_find_setting_ends_where_structures_hold_themselves():
    around: dict = {"list": []}
    around["self"] = around
    around["list"] += [around, around["list"]]
    node = Dropped()
    node.state = {"_parent": node, "_content": around}
    around["node"] = node
    assert find_setting(around, "num_heads", int) is None
    around["list"].append({"num_heads": 7})
    assert find_setting(node, "num_heads", int) == 7


def test_find_setting_looks_once_at_what_is_shared():
    shared: object = {"last": 1}
    for _ in range(200):
        shared = [shared, shared]
    started = time.process_time()
    assert find_setting({"a": shared}, "num_heads", int) is None
    assert find_setting({"a": shared}, "last", int) == 1
    assert time.process_time() - started < 2


# -------------------------------------------------------------------------------- refusals


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        for trust in (False, True):
            assert refusal(path, trust=trust).endswith("there is no such file; check the path")


CONTENT = {
    "empty": (b"", "is empty; copy it again"),
    "text": (b"learning_rate: 1e-3\n" * 40, "is text, and no checkpoint; give a .pth or .ckpt"),
    "html": (b"<!DOCTYPE html>\n<html>AccessDenied</html>", "is text, and no checkpoint; give a"),
    "junk": (bytes(range(256)) * 20, "is not a file that torch.save of torch 1.6 or later wrote"),
    "one byte": (b"\x80", "is not a file that torch.save of torch 1.6 or later wrote"),
    "pickle": (pickle.dumps({"model": 1}, 2), "is not a file that torch.save of torch 1.6 or"),
    "newer pickle": (pickle.dumps({"model": 1}, 4), "is not a file that torch.save of torch 1.6"),
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("kind", CONTENT)
def test_what_is_no_checkpoint(tmp_path, kind, trust):
    content, said = CONTENT[kind]
    path = tmp_path / "some.pth"
    path.write_bytes(content)
    assert said in refusal(path, trust=trust)


def test_a_plain_pickle_with_code_is_not_run(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "some.pth"
    path.write_bytes(pickle.dumps(evil("exec", marker)[0]))
    assert "is not a file that torch.save" in refusal(path)
    assert not marker.exists()


def test_the_old_format_of_torch_save(saved):
    path = saved({"model": TENSORS}, _use_new_zipfile_serialization=False)
    assert "is not a file that torch.save of torch 1.6 or later wrote" in refusal(path)
    assert "save it anew" in refusal(path, trust=True)


def test_a_newer_protocol_within_torch_save_is_refused_in_one_line(saved):
    path = saved({"model": TENSORS}, pickle_protocol=4)
    refusal(path)
    assert torch.equal(open_checkpoint(path, trust=True)["model"]["w"], TENSORS["w"])


@pytest.mark.parametrize("names", [["a.txt"], [], ["a/data.pkl", "b/data.pkl"], ["word/x.xml"]])
def test_a_zip_archive_of_something_else(tmp_path, names):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as records:
        for name in names:
            records.writestr(name, "text")
    said = refusal(path)
    if names:
        assert "is a zip archive, and not one that torch.save wrote; give a .pth or .ckpt" in said


def test_compressed_records_are_refused_before_they_are_unpacked(tmp_path):
    path = archive(tmp_path / "bomb.pth", bytes(1 << 24), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16
    assert "holds compressed records, which torch.save never writes" in refusal(path)


def test_one_compressed_tensor_is_enough(saved, tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(saved({"model": TENSORS})) as old, zipfile.ZipFile(path, "w") as new:
        for record in old.infolist():
            compressed = record.filename.endswith("data/0")
            kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
            new.writestr(record.filename, old.read(record), kind)
    assert "holds compressed records" in refusal(path)


def test_a_file_without_checksums_is_not_called_damaged(saved):
    set_crc32_options(False)
    try:
        path = saved({"model": TENSORS})
    finally:
        set_crc32_options(True)
    assert "was saved without checksums" in refusal(path)


def test_a_pickle_that_is_too_long_is_not_read(saved, monkeypatch):
    path = saved({"model": TENSORS, "notes": "x" * (3 << 20)})
    open_checkpoint(path)
    monkeypatch.setattr(checkpoint_file, "LONGEST_PICKLE", 1 << 20)
    assert "holds 3 MiB beside its tensors; give a file with weights only" in refusal(path)


def nested(depth, width=2):
    """The pickle of a dict whose key is a tuple of the same tuple, and so on."""
    pickled = b"\x80\x02}" + b"(" * depth + b")"
    for i in range(depth):
        pickled += bytes([ord("q"), i]) + bytes([ord("h"), i]) * (width - 1) + b"t"
    return pickled + b"K\x01s."


def quick_refusal(path, seconds=20):
    """The last line of a process of its own that reads a file, which a bomb would never end."""
    script = "import sys; from yeast_get.model.checkpoint_file import open_checkpoint as o\n"
    script += "try: o(sys.argv[1]); print('read')\nexcept Exception as e: print(e)"
    command = [sys.executable, "-c", script, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    return ran.stdout.strip().splitlines()[-1]


def test_tuples_that_take_for_ever_to_hash_are_refused(tmp_path):
    path = archive(tmp_path / "bomb.pth", nested(60))
    said = quick_refusal(path)
    assert "nests tuples so that reading never ends, as files do that are made to hang" in said


def test_tuples_of_a_usual_depth_are_read(tmp_path):
    read = open_checkpoint(archive(tmp_path / "a.pth", nested(5)))
    (key,) = read
    depth = 0
    while key:
        key, depth = key[0], depth + 1
    assert depth == 5


# ---------------------------------------------------------------------------------- damage


def file_of_every_kind(saved):
    return saved(
        {"model": TENSORS, "args": argparse.Namespace(a=1), "best": np.float64(0.5), "n": [1] * 40}
    )


@pytest.mark.parametrize("trust", [False, True])
def test_a_file_that_was_cut_off_at_any_length(saved, trust, tmp_path):
    whole = file_of_every_kind(saved).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        said = refusal(path, trust=trust)
        if length > 4:
            assert "is damaged or cut off" in said
            assert said.endswith("; copy it again")


def is_refused(path):
    """Whether a file is refused, in one line; any other error is one."""
    try:
        open_checkpoint(path)
    except CheckpointError as error:
        lines = str(error).splitlines()
    else:
        return False
    assert len(lines) == 1
    return True


def test_a_file_with_a_wrong_byte_is_read_or_refused_in_one_line(saved, tmp_path):
    whole = file_of_every_kind(saved).read_bytes()
    path = tmp_path / "wrong.pth"
    refused = 0
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        refused += is_refused(path)
    assert refused > 20


def test_a_wrong_byte_among_the_opcodes_is_refused_in_one_line(tmp_path):
    """As above, with checksums that fit: the reader itself meets the damage."""
    buffer = io.BytesIO()
    torch.save({"args": argparse.Namespace(a=1), "n": [1, 2.5, (3, "x"), math.inf]}, buffer)
    with zipfile.ZipFile(buffer) as records:
        name = next(each for each in records.namelist() if each.endswith("/data.pkl"))
        whole = records.read(name)
    refused = 0
    for at in range(len(whole)):
        pickled = whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :]
        refused += is_refused(archive(tmp_path / "wrong.pth", pickled))
    assert refused > 50


# --------------------------------------------------------------------- found by trying


@pytest.mark.parametrize(("depth", "width"), [(16, 4), (8, 40)])
def test_wide_tuples_that_take_for_ever_to_hash_are_refused(tmp_path, depth, width):
    path = archive(tmp_path / "bomb.pth", nested(depth, width))
    assert "made to hang a reader" in quick_refusal(path, seconds=8)


def test_lightnings_dict_is_read_as_a_plain_one(saved, foreign):
    cls = foreign("lightning.fabric.utilities.data", "AttributeDict", (dict,))
    path = saved({"hparams": cls({"a": 1}), "num_heads": 3})
    foreign.forget()
    assert open_checkpoint(path)["num_heads"] == 3


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_newer_protocol_is_not_called_damage(saved, protocol):
    assert "damaged" not in refusal(saved({"model": TENSORS}, pickle_protocol=protocol))


def test_a_path_of_python_3_13_is_dropped(tmp_path):
    pickled = b"\x80\x02cpathlib._local\nPosixPath\nX\x01\x00\x00\x00a\x85R."
    assert isinstance(open_checkpoint(archive(tmp_path / "a.pth", pickled)), Dropped)
