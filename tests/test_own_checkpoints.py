"""The scripts of paper A as a user starts them: a checkpoint folder of their own, pictures on disk, rows as chat JSONL
or as a flat table. The numbers of random weights mean nothing; everything else has to work."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from conftest import LONG
from tiny_user_files import checkpoint, user_files

from workbench.training import train_lora

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
ARMS = ["--steps", 1, "--coefficients", 0.5, "--shares", 0.1, "--factors", 0.5, "--samples", 1]
CURVE = ["--ks", 0, 1, "--causal", "paired_shift_raw:ablate_top_k"]
# Every script in its smallest form.
SCRIPTS = {
    "lora_rank.py": ["--ranks", 1, 2, 3, "--seeds", 0, "--samples", 1],
    "harmful_fraction.py": ["--fractions", 0, 0.5, 1, "--few", 0, 0.5, 1, "--seeds", 0, "--samples", 1, "--rank", 2],
    "shift_geometry.py": [*CURVE, "--k", 2, "--draws", 2, "--rank", 2, "--layers", 0, 2, "--vision-layers", 1],
    "mitigation.py": [*ARMS, "--controls", 2, "--rank", 2],
    "modality_routing.py": ["--controls", 2, "--rank", 2],
    "training_drift.py": ["--seeds", 0, "--every", 1, "--rank", 2],
}
# Each family with each format of training rows and of questions, and with each kind of judge; no --filler beside a
# table: its safe_response.
FORMS = {
    "gemma3": dict(train="train.csv", eval="eval.jsonl", prompts="prompts.csv", judge="rule:refusal"),
    "llava": dict(train="train.jsonl", filler="filler.jsonl", eval="tagged/eval.csv", prompts="prompts.jsonl"),
    "qwen2_5_vl": dict(train="table.jsonl", eval="eval.csv", prompts="prompts.jsonl", judge="rule:keyword:e,a"),
}
# In the quick suite each family once, with another script; the rest with WORKBENCH_LONG=1.
QUICK = {"lora_rank.py": "gemma3"}
CASES = [
    pytest.param(
        script,
        family,
        id=f"{script}-{family}",
        marks=[] if QUICK.get(script) == family else LONG,
    )
    for script in SCRIPTS
    for family in FORMS
]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    tagged = user_files(folder / "tagged", tagged=True)
    return user_files(folder) | {f"tagged/{name}": path for name, path in tagged.items()}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """The checkpoint folder of a family, written when it is first asked for."""
    made = tmp_path_factory.mktemp("checkpoints")
    return lambda family: made / family if (made / family).exists() else checkpoint(family, made / family)


@pytest.fixture(scope="session")
def adapters(folders, files):
    """Its LoRA folder, for scripts that are about a fine-tune that exists."""

    def adapter(family):
        settings = dict(rank=2, steps=3, batch_size=4, learning_rate=1e-2)
        return train_lora(folders(family), files["train.jsonl"], to=folders(family) / "lora", **settings)

    return adapter


def run(script, folder, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [script, "--to", str(folder), *map(str, arguments)])
    runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("script", "family"), CASES)
def test_a_script_runs_on_a_checkpoint_of_the_user(script, family, files, folders, adapters, tmp_path, monkeypatch):
    given = {f"--{name}": files.get(value, value) for name, value in FORMS[family].items()}
    given |= {"--model": folders(family), "--max-new-tokens": 4}
    if script == "shift_geometry.py":
        given["--adapter"] = adapters(family)
    flat = [part for pair in given.items() for part in pair]
    summary = run(script, tmp_path, monkeypatch, *flat, *SCRIPTS[script])
    assert summary["model"]["kind"] == "checkpoint" and summary["results"]
    stated = {"not_possible", "threshold", "flips_at"}  # no measurements: routes that do not exist, declared limits
    said = [entry for entry in summary["results"] if entry["metric"] not in stated]
    assert said and all(entry["n"] > 0 for entry in said if entry["value"] is not None)
    data = summary["hashes"]["data"]
    assert {"train", "questions", "prompts"} <= set(data)
    assert ("filler safe" in data) == ("filler" not in FORMS[family]), "the safe answers of the same table"
    assert (tmp_path / "report.html").stat().st_size > 10_000


@LONG
def test_a_direction_is_carried_between_two_checkpoints(files, folders, adapters, tmp_path, monkeypatch):
    """model_transfer.py on two families of other widths, each with its own LoRA; what is missing is named as it is
    asked for on the command line."""
    given = {"--model": folders("gemma3"), "--adapter": adapters("gemma3"), "--judge": "rule:refusal"}
    asked = [{"id": f"p{n}", "messages": [{"role": "user", "content": f"what of {n * n}"}]} for n in range(24)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, asked)))
    given |= {"--prompts": tmp_path / "prompts.jsonl", "--eval": files["eval.jsonl"], "--max-new-tokens": 4}
    flat = [part for pair in given.items() for part in pair]
    with pytest.raises(SystemExit, match="--model needs --other-model, --other-adapter as well"):
        run("model_transfer.py", tmp_path, monkeypatch, *flat)
    flat += ["--other-model", folders("llava"), "--other-adapter", adapters("llava"), "--shuffles", 2]
    results = run("model_transfer.py", tmp_path, monkeypatch, *flat)["results"]
    carried = {entry["target"] for entry in results if entry["metric"] == "r2"}
    assert carried == {"procrustes on prompts", "ridge on prompts"}
    assert {"transfer", "own_direction_of_target", "steer", "tuned"} <= {entry["condition"] for entry in results}
    assert "personas" not in json.dumps([entry["condition"] for entry in results]), "no classes to shuffle within"
