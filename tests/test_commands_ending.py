"""How a command ends: exit codes, errors in words and in JSON, and what a store or the machine is said to be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from store_samples import filled_store, shards

import workbench as wb
from workbench import cli, installed
from workbench.cli import main
from workbench.commands import stores

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "commands.md").read_text()


def doctor_that(monkeypatch, error: BaseException) -> None:
    def fails(*_, **__):
        print("on the way")
        raise error

    monkeypatch.setattr("workbench.installed.environment", fails)
    monkeypatch.delitem(vars(wb), "environment", raising=False)


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("expected more"), 1),
        (FileNotFoundError("expected a file"), 1),
        (ModuleNotFoundError("pip install it"), 1),
        (OutOfMemoryError("give it less"), 1),
        (wb.UnitsFailed("sweep", {"unit": "why"}), 1),
        (KeyError("what"), 4),
        (RuntimeError("expected all tensors on one device"), 4),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_how_a_command_ends_in_words_and_in_json(error, code, monkeypatch, capsys):
    doctor_that(monkeypatch, error)
    assert main(["env"]) == code
    out, said = capsys.readouterr()
    assert out == "" and said.startswith("on the way\n") and ("Traceback" in said) == (code == 4)
    assert said.splitlines()[-1].startswith("workbench: " if code != 1 or "\n" not in str(error) else "")
    assert main(["env", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["exit"] == code and told["error"]["kind"] == type(error).__name__
    assert str(error) in told["error"]["says"]
    assert f"\n| {code} | " in PAGE, "what it means stands in the documentation"


def test_a_traceback_is_shown_to_who_asks(monkeypatch, capsys):
    doctor_that(monkeypatch, ValueError("expected more"))
    monkeypatch.setenv("WORKBENCH_TRACEBACK", "1")
    assert main(["env"]) == 1 and "Traceback" in capsys.readouterr().err


def test_who_stops_reading_is_no_error(tmp_path):
    code = "from workbench.cli import _printed; raise SystemExit(_printed('x\\n' * 10**6, 3))"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(30) == 3 and child.stderr.read() == b""


def test_numbers_that_json_does_not_have_are_null(capsys):
    assert json.loads(cli._as_json({"loss": float("nan"), "all": [1.5, (float("inf"),)]})) == {
        "loss": None,
        "all": [1.5, [None]],
    }


def test_what_the_machine_has_is_said_without_a_secret(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz0123456789")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setitem(installed.OPTIONAL, "no-such-package", installed.Part("nothing", "pip install it"))  # fmt: skip
    assert main(["env", "--json"]) == 0
    told = capsys.readouterr().out
    facts = json.loads(told)
    assert "hf_" not in told and os.environ["HF_TOKEN"] and facts["environment"]["OMP_NUM_THREADS"] == "1"
    assert facts["workbench"] == wb.__version__ and facts["packages"]["torch"] and facts["device"]["kind"]
    assert facts["optional"]["no-such-package"] == {"version": None, "for": "nothing", "install": "pip install it"}
    assert main(["env"]) == 0
    assert "no-such-package absent (pip install it): nothing" in capsys.readouterr().out


def test_every_extra_is_said_with_its_command():
    """`test` and `dev` are for who works on the house itself."""
    text = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", text, flags=re.MULTILINE)) - {"test", "dev"}
    installs = " ".join(part["install"] for part in wb.environment()["optional"].values())
    assert extras and all(f"'.[{extra}]'" in installs for extra in extras)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["/an/env/bin/workbench", "info", "a b"], ": workbench info 'a b'"),
        (["mine.py", "--seed", "1"], ": python mine.py --seed 1"),
        ([], ""),
        ("mine.py", ""),
    ],
)
def test_the_command_that_made_a_store_is_said_as_it_is_typed(words, says, tmp_path):
    filled_store(tmp_path / "s", provenance={"command": words})
    assert stores._made_by(tmp_path / "s") == says
    (tmp_path / "s" / "store.json").write_text("{}")
    assert stores._made_by(tmp_path / "s") == ""


def test_rows_that_are_gone_are_said_with_the_command_that_makes_them(tmp_path, capsys):
    command = ["/somewhere/workbench/cli.py", "capture", "my model", "--to", "s"]
    filled_store(tmp_path / "s", provenance={"command": command})
    shards(tmp_path / "s")[0].unlink()
    assert main(["verify", str(tmp_path / "s")]) == 3
    said = capsys.readouterr().err
    assert said == f"next: workbench repair {tmp_path / 's'}, and the command that made it: " + (
        "workbench capture 'my model' --to s\n"
    )
    assert main(["repair", str(tmp_path / "s")]) == 3, "nothing could be moved, and rows are missing all the same"
    out, err = capsys.readouterr()
    assert (
        "was committed and is gone" in out
        and "workbench capture 'my model' --to s; it makes the missing units anew" in err
    )
