"""The benchmark of one big table tells the phases of a command apart, by time and memory."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT

COMMAND = """
import sys, time
from pathlib import Path
output = Path(sys.argv[sys.argv.index("--output") + 1])
output.mkdir()
big = bytearray(b"x" * (200 << 20))
del big
(output / "first.csv").touch()
time.sleep(0.4)
if "--fail" in sys.argv:
    sys.exit("error: it is broken")
"""


@pytest.fixture
def scale(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale

    return scale


def test_a_phase_has_the_memory_that_was_taken_in_it(scale, tmp_path, capsys):
    (tmp_path / "command.py").write_text(COMMAND)
    phases = scale.run(
        [tmp_path / "command.py"], tmp_path / "run", {"making": "first.csv", "resting": ""}
    )
    assert [each.name for each in phases] == ["making", "resting"]
    assert phases[0].peak > 200 << 20
    assert phases[1].peak < 150 << 20
    assert 0.2 < phases[1].seconds < 5
    scale.show("a command", phases, 1000)
    last = capsys.readouterr().out.splitlines()[-2]
    assert last.startswith("| all of it |")
    assert last.split("|")[-2].strip() == f"{phases[0].peak / 2**30:.2f}"


def test_a_command_that_fails_says_why(scale, tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)
    with pytest.raises(SystemExit, match="it is broken"):
        scale.run([tmp_path / "command.py", "--fail"], tmp_path / "run", {"all": ""})
