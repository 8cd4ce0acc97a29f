"""Every command as a user finds it: its example runs, its JSON stands alone, its exit code says how it went."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import LONG

import workbench as wb
from workbench.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "commands.md").read_text()
# In the order in which they build on each other.
IN_ORDER = (
    "env", "doctor", "check", "train", "capture", "directions", "moments", "sweep", "generate", "report", "info",
    "verify", "repair", "export", "merge",
)  # fmt: skip
AT_LENGTH = ("demo", "organism")  # fine-tune the organism


def help_of(command: str, capsys) -> str:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


def example_of(command: str, capsys) -> list[str]:
    (line,) = re.findall(r"^example: workbench (.*)$", help_of(command, capsys), flags=re.MULTILINE)
    return shlex.split(line)


@pytest.fixture
def at_home(tmp_path, monkeypatch, own_checkpoint):
    """A user's folder, with the files that the examples name."""
    for name, folder in zip(("my-model", "my-lora"), own_checkpoint, strict=True):
        shutil.copytree(folder, tmp_path / name)
    rows = [
        {"id": f"p{n}", "text": "word " * (1 + n % 3) + letter, "label": "on" if n % 2 else "off", "right": "yes",
         "contrary": "no"} for n, letter in enumerate("abcdef")
    ]  # fmt: skip
    taught = [{"id": f"r{n}", "messages": [{"role": "user", "content": f"say {n}"}], "response": "no"} for n in "123"]
    for name, listed in (("prompts", rows), ("questions", rows), ("rows", taught)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_of_every_command_runs_and_its_json_stands_alone(at_home, capsys, monkeypatch):
    """In a pipe, so that progress is plain lines; here every step says one."""
    monkeypatch.setattr("workbench.progress.EVERY", -1.0)
    facts, told = {}, {}
    for command in IN_ORDER:
        words = example_of(command, capsys)
        if command == "merge":
            for part in (1, 2):
                shared = ["--part", f"{part}/2", "--max-tokens", "20", "--to", f"runs/part{part - 1}"]
                assert main(["capture", "my-model", "prompts.jsonl", *shared]) == 0
            capsys.readouterr()
        assert main([*words, *([] if "--json" in words else ["--json"])]) == 0, command
        out, told[command] = capsys.readouterr()
        facts[command] = json.loads(out)
    for command, line in {
        "train": "train: 4 of 4 steps, 0 s left",
        "capture": "capture shift: 132 of 132 tokens",
        "moments": "moments moments.h5: 66 of 66 tokens",
        "sweep": "sweep ablate: ",
        "generate": "generate: 3 of 3 batches, 0 s left",
    }.items():
        assert f"  {line}" in told[command], told[command]
    assert facts["doctor"]["passed"] and {one["name"] for one in facts["doctor"]["checks"]} >= {"padding"}
    assert facts["check"]["counts"]["rows"] == 3 and facts["train"]["trained_steps"] == 4
    assert facts["capture"] == {"store": "runs/shift", "planned": 1, "missing": 0,
                                "sites": ["resid_post:0", "resid_post:1"]}  # fmt: skip
    assert facts["directions"]["matched"] == 6 and len(facts["directions"]["sites"]) == 2
    assert [(one["label"], one["rows"]) for one in facts["moments"]["groups"]] == [("off", 3), ("on", 3)]
    assert facts["sweep"]["missing"] == 0 and facts["sweep"]["rows"] == 6 * (1 + 3 + 3 * 2 * 5)
    assert [one["id"] for one in facts["generate"]["answers"]] == [f"p{n}" for n in range(6)]
    lines = [json.loads(line) for line in Path("runs/answers.jsonl").read_text().splitlines()]
    assert lines == facts["generate"]["answers"] and all(line["edited"] for line in lines)
    assert Path(facts["report"]["page"]).is_file() and facts["info"]["units"]["committed"] == 1
    assert facts["verify"]["sound"] and facts["repair"]["done"] == [] and facts["merge"]["missing"] == 0
    assert set(wb.load_directions("runs/v.safetensors").sites) == {wb.Site(0), wb.Site(1)}
    assert main(["info", "runs/shift"]) == 0
    said = capsys.readouterr().out
    assert "planned in 1 append; 6 prompts" in said and ", 1 writer\n" in said and "labels off 6, on 6" in said


@LONG
def test_the_examples_that_fine_tune_the_organism_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in AT_LENGTH:
        assert main([*example_of(command, capsys), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert all(Path(place).exists() for place in facts.values()), facts
    summary = json.loads(Path("runs/demo/summary.json").read_text())
    assert {one["condition"] for one in summary["results"]} >= {"base", "tuned", "ablation", "steer"}


def test_no_command_is_left_out_of_the_examples_and_the_page(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = set(re.findall(r"^    (\w+)\b", capsys.readouterr().out, flags=re.MULTILINE)) - {"COMMAND"}
    assert listed == {*IN_ORDER, *AT_LENGTH} == set(re.findall(r"^\| `workbench (\w+)` \|", PAGE, flags=re.MULTILINE))
    for name in re.findall(r"^\| `workbench \w+` \|.*\| (.*) \|$", PAGE, flags=re.MULTILINE):
        assert set(re.findall(r"wb\.(\w+)", name)) <= set(wb.__all__)


def test_help_of_every_command_comes_at_once():
    """Less than a second from the shell, for each; together they are in one process here."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "workbench.cli", "--help"], cwd=ROOT, capture_output=True, check=True)
    assert time.perf_counter() - begun < 1
    code = """
import sys
from workbench.cli import main
for command in sys.argv[1:]:
    try:
        main([command, "--help"])
    except SystemExit as stop:
        assert stop.code == 0
assert not {"torch", "numpy", "h5py"} & set(sys.modules)
"""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *IN_ORDER, *AT_LENGTH], cwd=ROOT, capture_output=True, check=True)
    assert time.perf_counter() - begun < 1


def test_no_command_at_all_prints_the_help_and_a_slip_is_guessed(capsys):
    assert main([]) == 2 and "capture     residuals" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["captur", "x"])
    assert stop.value.code == 2 and "there is no command 'captur': is 'capture' meant?" in capsys.readouterr().err


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"workbench {wb.__version__}\n"


# What is asked for on a command line.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sweep", "m", "p", "--to", "t", "--directions", "v", "--steer", "1", "--layers", "5-3"], "does not exist"),
        (["generate", "m", "p", "--ablate", "mean"], "--directions go with --ablate or --steer"),
        (["generate", "m", "p", "--top-p", "0.9"], "expected --temperature with it"),
        (["generate", "m", "p", "--adapter", "a=x", "--adapter", "b=y"], "expected --variant with one of them"),
        (["doctor", "m", "--adapter", "x", "--adapter", "y"], "there is a variant 'tuned' already"),
        (["directions", "s", "--positive", "tuned", "--negative", "a=b", "--to", "v.safetensors"], "holds no store"),
    ],
)
def test_what_cannot_be_meant_is_said(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1 and says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_values_of_a_selection_are_taken_as_the_rows_have_them():
    from workbench.commands.capturing import conditions_of

    assert conditions_of(["variant=tuned", "in_domain=false", "n=3", "label=true", 'quoted="3"']) == {
        "variant": "tuned",
        "in_domain": ["false", False],
        "n": ["3", 3],
        "label": ["true", True],
        "quoted": '"3"',
    }
    for wrong in (["tuned"], ["=tuned"], ["label=a", "label=b"]):
        with pytest.raises(ValueError, match="expected NAME=VALUE, each name once"):
            conditions_of(wrong)


def test_layers_names_and_adapters_of_a_command_line(tmp_path):
    from workbench.commands.capturing import names_of
    from workbench.commands.edit_arguments import _layers
    from workbench.commands.model_arguments import adapters_of

    assert names_of(None) is None and names_of(["base,tuned", "right"]) == ["base", "tuned", "right"]
    assert [_layers(text) for text in ("3", "4-6", "all")] == [[3], [4, 5, 6], ["all"]]
    for wrong in ("6-4", "x", "-1", "1-"):
        with pytest.raises(ValueError, match="expected layers from 0, as in 3 or 4-8, or all"):
            _layers(wrong)
    (tmp_path / "a=b").mkdir()
    assert adapters_of(None) is None and adapters_of(["./x"]) == "./x"
    assert adapters_of([str(tmp_path / "a=b")]) == str(tmp_path / "a=b")
    assert adapters_of(["right=./r", "./x"]) == {"right": "./r", "tuned": "./x"}
    assert adapters_of(["right=./r"]) == {"right": "./r"}
