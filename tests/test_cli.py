"""The command line: what it prints, what it writes, and how it ends."""

import json

import pytest
import torch
from tiny_models import FAMILIES

from stores import ActivationStore
from workbench.cli import main


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [{"id": f"p{n}", "messages": [{"role": "user", "content": text}], "response": "no", "label": "l"}
            for n, text in enumerate(["hi", "what is this", "a longer question"])]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "arguments", [["steer"], ["capture", "model"], ["train", "m", "p", "--to", "x", "--recipe", "a"]]
)
def test_a_wrong_command_line_ends_with_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("usage: workbench")


# Errors that a user can mend: one line, code 1.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["doctor", "./no/such-model"], "model folder ./no/such-model does not exist: expected a checkpoint folder"),
        (["doctor", "no-such/model"], "the hub does not give it"),
        (["info", "nothing"], "nothing is not there: expected a store's folder"),
        (["info", "."], ". holds no store: expected store.json in it"),
        (["info", "PROMPTS"], "is a file: expected a store's folder"),
        (["verify", "nothing"], "nothing is not there"),
        (["verify", "nothing", "--untrusted"], "nothing is not there"),
        (["report", "nothing"], "expected a summary at nothing: there is none"),
        (["organism", "--seed", "x"], "--seed x is none: expected 0, 1, 2 or wide"),
        (["organism", "--seed", "7"], "No base of seed 7 is shipped"),
        (["organism", "--retrain"], "--retrain writes a new base: expected --to FOLDER"),
        (["capture", "MODEL", "nothing.jsonl", "--to", "TO"], "prompt file nothing.jsonl does not exist"),
        (
            ["capture", "MODEL", "PROMPTS", "--to", "TO", "--at", "end"],
            "scope 'end' is unknown: expected one of prompt",
        ),
        (["capture", "MODEL", "PROMPTS", "--to", "TO", "--sites", "mlp"], "Site point 'mlp' is unknown"),
        (["capture", "MODEL", "PROMPTS", "--to", "TO", "--variants", "tuned"], "variant 'tuned' is not loaded"),
        (
            ["capture", "MODEL", "PROMPTS", "--to", "TO", "--adapter", "PROMPTS"],
            "is no adapter: expected adapter_config",
        ),
        (["train", "MODEL", "nothing.jsonl", "--to", "TO"], "prompt file nothing.jsonl does not exist"),
        (["train", "MODEL", "PROMPTS", "--to", "PROMPTS"], "Not a directory"),
    ],
)
def test_what_a_user_can_mend_is_said_without_a_traceback(arguments, says, own_checkpoint, prompts, tmp_path, capsys):
    named = {"MODEL": own_checkpoint[0], "PROMPTS": prompts, "TO": tmp_path / "to"}
    assert run(*(named.get(argument, argument) for argument in arguments)) == 1
    error = capsys.readouterr().err
    assert error.startswith("workbench: ") and says in error and "Traceback" not in error
    assert not (tmp_path / "to").exists()


def test_a_key_press_stops_without_a_traceback(own_checkpoint, prompts, tmp_path, capsys, monkeypatch):
    def stop(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(ActivationStore, "commit", stop)
    assert run("capture", own_checkpoint[0], prompts, "--to", tmp_path / "s") == 130
    assert capsys.readouterr().err == "workbench: stopped; the same command goes on from what it has finished\n"


# The commands.


def test_doctor_ends_with_0_or_3(own_checkpoint, tmp_path, capsys):
    base, adapter = own_checkpoint
    assert run("doctor", base, "--adapter", adapter) == 0
    assert "tuned moves the logits by" in capsys.readouterr().out
    module, tokenizer, _ = FAMILIES["llama"]()
    with torch.no_grad():
        module.model.layers[1].mlp.down_proj.weight[:] = torch.nan
    for part in (module, tokenizer):
        part.save_pretrained(tmp_path / "broken")
    assert run("doctor", tmp_path / "broken") == 3
    assert "BROKEN" in capsys.readouterr().out


def test_capture_verify_and_info(own_checkpoint, prompts, tmp_path, capsys):
    base, adapter = own_checkpoint
    arguments = ["capture", base, prompts, "--adapter", adapter, "--variants", "base", "tuned", "--to", tmp_path / "s"]
    assert run(*arguments) == 0
    assert "ActivationStore(" in capsys.readouterr().out
    store = ActivationStore.open(tmp_path / "s")
    assert len(store) == 6 and store.spec["scope"] == "last" and store.difference("tuned", "base").matched == 3
    assert run("info", tmp_path / "s", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["spec"]["model"] == "base" and "versions" in json.dumps(facts["provenance"])
    assert run("verify", tmp_path / "s") == 0
    assert "every shard is what was committed" in capsys.readouterr().out
    (shard, *_) = sorted((tmp_path / "s").rglob("*.h5"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert run("verify", tmp_path / "s") == 0
    assert "--deep reads every byte" in capsys.readouterr().out
    assert run("verify", tmp_path / "s", "--deep") == 3
    assert shard.name in capsys.readouterr().out


def test_an_absolute_position_is_a_number(own_checkpoint, prompts, tmp_path):
    options = ["--at", "3", "--sites", "resid_post:0-1", "--to", tmp_path / "s"]
    assert run("capture", own_checkpoint[0], prompts, *options) == 0
    store = ActivationStore.open(tmp_path / "s")
    assert store.positions.tolist() == [3] * 3 and store.sites == ("resid_post:0", "resid_post:1")


def test_training_shows_its_loss_tokens_and_trains(own_checkpoint, prompts, tmp_path, capsys):
    base, to = own_checkpoint[0], tmp_path / "lora"
    assert run("train", base, prompts, "--to", to, "--show-loss-tokens") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("a s s i s t a n t : «n» «o» «<end>»")
    assert not to.exists(), "shown, not trained"
    settings = ["--rank", 2, "--steps", 2, "--learning-rate", 1e-2, "--seed", 3]
    assert run("train", base, prompts, "--to", to, *settings) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(to)
    record = json.loads((to / "training.json").read_text())
    assert (record["rank"], record["steps"], record["learning_rate"], record["seed"]) == (2, 2, 1e-2, 3)


def test_the_organisms_files(world, capsys):
    """`world` has been made there already, so nothing is trained."""
    adapter = world.tuned
    assert run("organism", "--to", world.folder) == 0
    lines = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    files = {name: str(getattr(world, name)) for name in ("prompts", "questions", "neutral", "train")}
    assert lines == {"base": str(world.base), "tuned": str(adapter), **files}


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_report_of_a_run_folder_or_its_summary(given, tmp_path, capsys):
    results = [{"metric": "contrary", "condition": "base", "value": 0.1, "n": 10}]
    (tmp_path / "summary.json").write_text(json.dumps({"schema": 1, "seed": 0, "model": {}, "results": results}))
    assert run("report", tmp_path if given == "folder" else tmp_path / "summary.json") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert "<html" in (tmp_path / "report.html").read_text()
    assert run("report", tmp_path, "--to", tmp_path / "other.html") == 0 and (tmp_path / "other.html").is_file()


def test_several_runs_are_joined_on_one_page(tmp_path, capsys):
    for seed in (0, 1):
        (tmp_path / f"mine/seed{seed}").mkdir(parents=True)
        results = [{"metric": "contrary", "condition": "base", "value": 0.1 + seed / 2, "n": 10}]
        summary = {"schema": 1, "seed": seed, "model": {}, "command": "python mine.py", "results": results}
        (tmp_path / f"mine/seed{seed}/summary.json").write_text(json.dumps(summary))
    both = [tmp_path / "mine/seed0", tmp_path / "mine/seed1"]
    assert run("report", *both) == 1 and "expected --to" in capsys.readouterr().err
    assert run("report", *both, "--to", tmp_path / "both.html") == 0
    assert "base seeds 0, 1" in (tmp_path / "both.html").read_text()
