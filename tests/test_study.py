"""Study: one experiment from its inputs to its report, twice the same; and the scripts on a user's own model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hooks.masks import leave_out
from hooks.prompt import read_prompts
from stores import ResultTable
from workbench.behaviour.samples import samples_of
from workbench.inputs import Inputs, argument_parser, inputs_from
from workbench.interventions.ablate import Ablate
from workbench.interventions.steer import Steer
from workbench.study import Study
from workbench.study_record import code_hash
from workbench.subspace.means import difference_of_means

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
ENTRY = {"metric", "split", "modality", "condition", "layer", "coefficient", "value", "interval", "interval_method",
         "n", "clusters", "control"}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(world):
    """The organism's, without other models, and with two questions of each domain and modality."""
    return Inputs(
        kind="organism", base=str(world.base), adapters={"tuned": str(world.tuned)}, prompts=world.prompts,
        questions=world.questions, neutral=world.neutral, personas=None, other_base=None, other_adapters={},
        judge="rule:organism", domains={"tuned": "capital"}, options={"seed": 0},
    )  # fmt: skip


def small_study(folder, inputs) -> Study:
    """Two cells against random directions, on a few questions of two domains."""
    study = Study(folder, inputs, seed=3, command="python small.py")
    chosen = [p for p in study.elsewhere if p.tags["domain"] in ("sound", "color") and p.tags["modality"] == "text"][
        :12
    ]
    with study.phase("fit"):
        rows = study.capture(study.model, inputs.prompts, "base", "tuned", name="shift")
        v = difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
        study.add(v, condition="tuned")
    with study.phase("two cells"):
        cells = [Ablate(v, layer=2), Steer(v, layer=3, coefficient=-1.0)]
        where = dict(name="cells", condition="ablation", baseline="tuned", sample=True, questions=chosen)
        study.measure(study.model, cells, controls=2, tails={"contrary": "less"}, detail="d", **where)
    study.finish()
    return study


@pytest.fixture(scope="module")
def two(tmp_path_factory, inputs):
    """The same study in two folders, from nothing."""
    folders = [tmp_path_factory.mktemp("study") / name for name in ("one", "two")]
    return [small_study(folder, inputs) for folder in folders]


def summary_of(study):
    return json.loads((study.folder / "summary.json").read_text())


def test_a_study_leaves_summary_samples_figures_and_report(two):
    for name in (
        "summary.json",
        "samples.json",
        "projections.json",
        "report.html",
        "cells/store.json",
        "shift/store.json",
    ):
        assert (two[0].folder / name).is_file(), name
    assert list((two[0].folder / "figures").glob("*.png"))


def test_the_summary_has_the_fields_of_its_schema(two, inputs):
    summary = summary_of(two[0])
    assert (summary["schema"], summary["seed"], summary["command"]) == (1, 3, "python small.py")
    assert summary["model"] == {"name": "seed0", "kind": "organism", "seed": 0}
    assert list(summary["seconds"]) == ["fit", "two cells"] and all(s > 0 for s in summary["seconds"].values())
    assert summary["hashes"]["models"]["base"] == two[0].model.identity and summary["hashes"]["code"] == code_hash()
    assert set(summary["hashes"]["data"]) == {"prompts", "questions", "neutral"}
    assert summary["judge"][0] == "rule:organism" and summary["directions"] is None
    assert all(entry.keys() >= ENTRY for entry in summary["results"])
    conditions = {entry["condition"] for entry in summary["results"]}
    assert conditions == {"tuned", "ablation", "random"}
    for entry in summary["results"]:
        control = entry["control"]
        assert control is None or control.keys() >= {"kind", "N", "p"}
        assert entry["interval"] is None or (len(entry["interval"]) == 2 and entry["interval_method"])
    contrary = [e for e in summary["results"] if e["metric"] == "contrary" and e["condition"] == "ablation"]
    assert [(e["layer"], e["coefficient"], e["n"], e["detail"]) for e in contrary][:2] == [
        (2, None, 12, "d"), (3, -1.0, 12, "d")]  # fmt: skip


def test_two_runs_give_the_same_numbers(two):
    first, second = (summary_of(study) for study in two)
    for each in (first, second):
        each.pop("seconds")
    assert first == second
    samples = [(study.folder / "samples.json").read_text() for study in two]
    assert samples[0] == samples[1]
    texts = json.loads(samples[0])
    assert texts and all({"prompt", "id", "condition", "text", "category"} <= sample.keys() for sample in texts)


def test_the_samples_of_a_sweep_are_answers_under_its_first_intervention(two):
    """Not those of the unedited model, whose rows come first in the table."""
    study = two[0]
    table = ResultTable.open(study.folder / "cells")
    edited = {row["prompt"]: row["text"] for row in table.rows(cell=1)}
    plain = {row["prompt"]: row["text"] for row in table.rows(cell=0)}
    assert [sample["text"] for sample in study.samples] == [edited[sample["id"]] for sample in study.samples]
    assert any(edited[sample["id"]] != plain[sample["id"]] for sample in study.samples)
    only_plain = samples_of(ResultTable.open(study.folder / "cells"), [], "tuned")
    assert only_plain == []


def test_a_study_that_is_run_again_reads_what_it_has(two, inputs, monkeypatch):
    monkeypatch.setattr("hooks.load.checked", leave_out)  # the check-up of the load runs the model; this it finds
    monkeypatch.setattr("hooks.backends.hf.HuggingFaceModel.injected_layers", lambda model: ())

    def never(*arguments, **named):
        raise AssertionError("nothing should run")

    before = summary_of(two[1])
    monkeypatch.setattr("hooks.backends.hf.HuggingFaceModel.run", never)
    monkeypatch.setattr("hooks.backends.hf.HuggingFaceModel.generate", never)
    after = summary_of(small_study(two[1].folder, inputs))
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


def test_phases_are_timed_and_named(tmp_path, inputs, capsys):
    study = Study(tmp_path, inputs)
    with study.phase("first"):
        pass
    with pytest.raises(ArithmeticError), study.phase("breaks"):
        raise ArithmeticError
    assert capsys.readouterr().out == "first ...\nbreaks ...\n" and list(study.seconds) == ["first"]


def test_questions_outside_the_fine_tuned_domains(tmp_path, inputs, world):
    study = Study(tmp_path, inputs)
    domains = {prompt.tags["domain"] for prompt in study.elsewhere}
    assert "capital" not in domains and "color" in domains
    assert all(prompt.tags["tier"] == "full" for prompt in study.elsewhere)
    two_tuned = Study(tmp_path, Inputs(**{**vars(inputs), "domains": {"tuned": "capital", "sibling": "color"}}))
    assert {prompt.tags["domain"] for prompt in two_tuned.outside("tuned", "sibling")} == domains - {"color"}
    only = [p for p in read_prompts(world.questions) if p.tags["in_domain"]]
    assert only and {p.tags["domain"] for p in only} == {"capital"}
    file = tmp_path / "capital.jsonl"
    lines = [line for line in world.questions.read_text().splitlines() if json.loads(line)["in_domain"]]
    file.write_text("\n".join(lines))
    narrow = Study(tmp_path, Inputs(**{**vars(inputs), "questions": file}))
    with pytest.raises(ValueError, match="has only questions of the fine-tuned domains: expected others as well"):
        _ = narrow.elsewhere


def test_directions_are_fitted_outside_the_fine_tuned_domain(two, inputs):
    study = two[0]
    rows = study.capture(study.model, inputs.prompts, "base", "tuned", name="shift")
    assert set(rows.tag("in_domain")) == {False}
    assert len(rows) == 2 * sum(not p.tags["in_domain"] for p in read_prompts(inputs.prompts))


def test_a_recipient_that_was_not_given(tmp_path, inputs):
    with pytest.raises(ValueError, match="expected --other-model and --other-adapter"):
        _ = Study(tmp_path, inputs).recipient
    assert Study(tmp_path, inputs).other is None


# A user's own model.


def arguments_of(*given):
    return argument_parser("x", "runs/x").parse_args([str(one) for one in given])


def test_a_model_needs_its_fine_tune_and_prompts():
    with pytest.raises(SystemExit, match="--model needs --adapter, --eval as well: the fine-tune under study"):
        inputs_from(arguments_of("--model", "m", "--prompts", "p.jsonl"))
    given = ["--model", "m", "--adapter", "a", "--prompts", "p", "--questions", "q", "--sibling-adapter", "s"]
    found = inputs_from(arguments_of(*given, "--other-model", "o", "--seed", 4))
    assert found.adapters == {"tuned": "a", "sibling": "s"} and found.judge == "rule:contains"
    assert (found.kind, found.other_base, found.other_adapters, found.options) == ("checkpoint", "o", {}, {"seed": 4})
    assert found.files == {"prompts": Path("p"), "questions": Path("q")} and found.for_maps == [Path("p")]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(identifier, text, **tags):
    return {"id": identifier, "messages": [{"role": "user", "content": text}], **tags}


def test_a_study_prints_where_it_is_and_what_it_has(inputs, tmp_path):
    study = Study(tmp_path / "run", inputs, seed=3)
    study.add([{"metric": "norm", "value": 1.0, "n": 2}], condition="tuned")
    with study.phase("fit"):
        pass
    assert repr(study) == f"Study({tmp_path / 'run'}: organism, seed 3; 1 results, 1 phases)"


def test_a_script_runs_on_any_checkpoint(own_checkpoint, tmp_path):
    """experiments/layer_ablation.py as a user starts it: a model folder, its LoRA, and hand-written JSONL."""
    base, adapter = own_checkpoint
    texts = ["is it so", "what is this", "may I", "and now", "hello there", "why not"]
    prompts = written(tmp_path / "prompts.jsonl", [asked(f"fit{n}", text) for n, text in enumerate(texts)])
    answers = {"right": "yes", "contrary": "no"}
    rows = [asked(f"q{n}", f"question {text}", domain="ab"[n % 2], **answers) for n, text in enumerate(texts[:4])]
    questions = written(tmp_path / "questions.jsonl", rows)
    neutral = written(tmp_path / "neutral.jsonl", [asked("calm", "one two")])
    files = ["--prompts", prompts, "--questions", questions, "--neutral", neutral]
    own = ["--model", base, "--adapter", adapter, *files, "--to", tmp_path / "run"]
    command = [sys.executable, EXPERIMENTS / "layer_ablation.py", *own]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (
        summary["model"] == {"name": "base", "kind": "checkpoint", "seed": 0} and summary["judge"][0] == "rule:contains"
    )
    assert (tmp_path / "run" / "report.html").is_file()
    layers = {
        e["layer"] for e in summary["results"] if e["condition"] == "ablation" and e["metric"] == "logit_difference"
    }
    assert layers == {0, 1, None}
    best = [e for e in summary["results"] if str(e["detail"]).startswith("best of 2 cells")]
    assert best and all(e["control"]["N"] == 99 and 0 < e["control"]["p"] <= 1 for e in best)
    of_one = {e["detail"] for e in summary["results"] if e["condition"] == "ablation_of_one_vector"}
    assert of_one == {f"the vector of layer {layer} at every layer" for layer in range(2)}
    assert all(e["n"] == 4 for e in summary["results"] if e["metric"] == "contrary")
