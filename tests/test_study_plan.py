"""--dry-run of a whole script against the script itself: forwards, tokens and bytes, counted by hooks and on disk."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from conftest import LONG
from test_planning_training import Watched, file_bytes
from tiny_user_files import checkpoint, user_files

import hooks.adapters
import hooks.shortcuts
import workbench.study
from hooks.load import load_model
from hooks.prompt import read_prompts
from workbench.behaviour.choice_reading import read_choices
from workbench.inputs import argument_parser
from workbench.interventions.ablate import Ablate
from workbench.planning.study_plan import StudyPlan, add_plan_arguments
from workbench.training.population import population
from workbench.training.recipes import rank_sweep

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


class Enough(Exception):
    """The script has asked all that its plan speaks of."""


class Read:
    """What passes a model while answers are sampled: its calls and their real tokens; no answer ends early. Calls that
    measure what a model allows are counted apart, and four short ones that look at the rows of its adapters left out.
    After `scripts_answers` calls the script has answered everything: Enough."""

    def __init__(self, monkeypatch, scripts_answers: int) -> None:
        self.calls = self.tokens = self.measuring = self.looks = 0
        self.state = "answers"
        real, left = workbench.study.sample_answers, [scripts_answers]

        def sample(model, *given, **named):
            model.stop_ids = frozenset([10**6])
            hook = model.module.register_forward_pre_hook(self._count, with_kwargs=True)
            try:
                return real(model, *given, **named)
            finally:
                hook.remove()
                left[0] -= 1
                if not left[0]:
                    raise Enough

        monkeypatch.setattr(workbench.study, "sample_answers", sample)
        self._apart(monkeypatch, hooks.shortcuts, "_measured", "measuring")
        self._apart(monkeypatch, hooks.adapters, "measured_reads", "looks")

    def _apart(self, monkeypatch, module, name, state) -> None:
        real = getattr(module, name)

        def apart(*given):
            self.state = state
            try:
                return real(*given)
            finally:
                self.state = "answers"

        monkeypatch.setattr(module, name, apart)

    def _count(self, module, args, given) -> None:
        if self.state != "answers":
            setattr(self, self.state, getattr(self, self.state) + 1)
            return
        self.calls += 1
        ids, mask = given["input_ids"], given.get("attention_mask")
        self.tokens += ids.numel() if mask is None else int((mask[:, -ids.shape[1] :] != 0).sum())


def started(script, folder, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [script, "--to", str(folder), *map(str, arguments)])
    runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")


def planned(script, folder, monkeypatch, *arguments):
    with pytest.raises(SystemExit) as left:
        started(script, folder, monkeypatch, *arguments, "--dry-run")
    assert left.value.code == 0
    return json.loads((folder / "dry_run.json").read_text())


def refuse_difference(said, trained, read, folders, new) -> None:
    """The planned steps against what the hooks and the disk say: adapters first, then answers."""
    adapters, *answers = said["steps"]
    found = adapters["forwards"], adapters["tokens"], adapters["loss_tokens"], adapters["pictures"]
    assert found == trained.counts and adapters["adapters"] == len(folders)
    assert adapters["disk_bytes"] == sum(map(file_bytes, folders)) == said["total"]["disk_bytes"]
    assert sum(step["forwards"] for step in answers) == read.calls + read.measuring
    assert sum(step["measuring"] for step in answers) == read.measuring and read.looks == 4
    # The first token of an answer comes of the prompt's own forward.
    assert sum(step["tokens"] + step["written"] * (new - 1) // new for step in answers) == read.tokens


@LONG
def test_lora_rank_on_a_gemma3_folder_takes_what_was_said(tmp_path, monkeypatch, capsys):
    """The plan from config, tokenizer and processor alone; then the script itself, with the weights beside them."""
    files = user_files(tmp_path)
    own = ["--model", checkpoint("gemma3", tmp_path / "model"), "--train", files["train.jsonl"]]
    own += ["--eval", files["eval.jsonl"], "--max-new-tokens", 4, "--device", "cpu", "--judge", "rule:refusal"]
    small = [*own, "--ranks", 1, 2, 4, "--seeds", 0, "--samples", 2, "--companions", "rule:coherence"]
    (weights,) = (tmp_path / "model").glob("*.safetensors")
    weights.rename(tmp_path / "away")
    said = planned("lora_rank.py", tmp_path / "run", monkeypatch, *small)
    table = capsys.readouterr().out
    assert not list(tmp_path.glob("run/adapters/*")) and not (tmp_path / "run" / "summary.json").exists()
    (tmp_path / "away").rename(weights)
    trained, read = Watched(monkeypatch), Read(monkeypatch, scripts_answers=2)
    with pytest.raises(Enough):
        started("lora_rank.py", tmp_path / "run", monkeypatch, *small)
    folders = [record.parent for record in tmp_path.glob("run/adapters/*/training.json")]
    refuse_difference(said, trained, read, folders, new=4)
    total = said["total"]
    assert len(folders) == 3 and total["replies_judged"] == sum(step["replies_judged"] for step in said["steps"])
    assert f"{total['forwards']:,}" in table and f"{total['tokens']:,}" in table and "nothing was run" in table
    assert "Exact: batches, tokens read" in table and "speed is never predicted" in table


@LONG
def test_ranks_on_the_organism_take_what_was_said(tmp_path, monkeypatch, inputs_of_world):
    """The same steps as the script's, on few questions of text and image."""
    study = workbench.study.Study(tmp_path, inputs_of_world)
    plan = StudyPlan(tmp_path, inputs_of_world, 8, "cpu", 2**34)
    kinds = [[p for p in study.elsewhere if bool(p.images) == shows][:9] for shows in (False, True)]
    sampling = dict(samples=2, temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1)
    recipes = rank_sweep(inputs_of_world.train, [1, 3], batch_size=16, steps=3, learning_rate=1e-2)
    adapters = plan.population(recipes, seeds=[0])
    for asked in kinds:
        plan.answers(asked, adapters.conditions, model=adapters.load(), **sampling)
    trained, read = Watched(monkeypatch), Read(monkeypatch, scripts_answers=2)
    real = population(inputs_of_world.base, recipes, to=tmp_path / "adapters", seeds=[0], progress=False)
    model = real.load()
    with pytest.raises(Enough):
        for n, asked in enumerate(kinds):
            study.answers(model, asked, real.conditions, name=f"answers {n}", **sampling)
    refuse_difference(plan.record(), trained, read, list(real.adapters.values()), new=8)


def test_a_study_of_ones_own_model_is_planned_without_weights(tmp_path, monkeypatch, own_checkpoint):
    """The folder has config and tokenizer alone; device and its memory come from the command line."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in own_checkpoint[0].glob("*"):
        if file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    rows = [{"id": f"r{n}", "messages": [{"role": "user", "content": f"say {n}"}], "response": "no"} for n in range(6)]
    for name in ("train", "eval"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["--model", bare, "--train", tmp_path / "train.jsonl", "--eval", tmp_path / "eval.jsonl"]
    small = ["--ranks", 2, 3, "--seeds", 0, 5, "--samples", 2, "--max-new-tokens", 7, "--device-memory", 24]
    said = planned("lora_rank.py", tmp_path / "run", monkeypatch, *own, *small, "--judge", "rule:refusal")
    assert (said["kind"], said["device"], said["device_memory_bytes"]) == ("checkpoint", "cuda", 24 * 2**30)
    adapters, answers = said["steps"]
    assert adapters["adapters"] == 4 and adapters["forwards"] == 4 * 6  # paper A's recipe: batches of one
    assert answers["written"] == 5 * 6 * 2 * 7 and answers["at_most"]


def test_a_script_without_a_plan_ends_before_it_runs_anything(tmp_path, monkeypatch, inputs_of_world):
    study = workbench.study.Study(tmp_path, inputs_of_world)
    parser = argument_parser("x", "runs/x")
    add_plan_arguments(parser)
    study.asked = parser.parse_args(["--dry-run"])
    for run in (lambda: study.model, lambda: study.answers(None, [], name="a")):
        with pytest.raises(SystemExit, match="does not say what its steps would take"):
            run()
    assert workbench.study.Study(tmp_path, inputs_of_world).plan is None


@pytest.fixture
def inputs_of_world(world):
    return workbench.study.Inputs(
        kind="organism", base=str(world.base), adapters={"tuned": str(world.tuned)}, prompts=world.prompts,
        questions=world.questions, neutral=world.neutral, personas=None, other_base=None, other_adapters={},
        judge="rule:organism", train=world.train, domains={"tuned": "capital"},
    )  # fmt: skip


def forwards_of_choices(base, questions, names):
    """How often the module is called, load and its checks left out."""
    model, called = load_model(base), []
    model.module.register_forward_pre_hook(lambda *_: called.append(1))
    read_choices(model, questions, dict.fromkeys(names, "base"))
    return len(called)


def test_steps_of_a_study_are_those_of_the_dry_run(tmp_path, inputs_of_world, capsys):
    """Captures over adapters that do not exist yet, sweeps with every kind of control, and a direction before one."""
    plan = StudyPlan(tmp_path, inputs_of_world, 8, "cpu", 2**34)
    prompts = read_prompts(inputs_of_world.prompts)[:12]
    questions = read_prompts(inputs_of_world.questions)[:6]
    both = plan.capture(prompts, "base", "to come", name="shift")
    assert both.forwards == 2 * plan.capture(prompts, "base").forwards and both.value_bytes > 0
    cells = [Ablate(plan.direction(), layer=layer) for layer in range(plan.n_layers)]
    plain = plan.measure(cells, questions, written=False)
    drawn = plan.measure(cells, questions, written=False, controls=3, activations="captured later")
    twice = plan.measure(cells, questions, written=False, controls=3, control_kinds=["isotropic", "orthogonal"])
    assert plain.tokens < twice.tokens < drawn.tokens
    choices = plan.read_choices(questions, {"base": "base", "tuned": "tuned"})
    assert choices.tokens == 2 * sum(len(plan.model.model.encoder.encode(one)) for one in map(_asked, questions))
    every = read_prompts(inputs_of_world.questions)  # with pictures and without: several batches
    said = plan.model.read_choices(every, {"a": "base", "b": "base"})
    assert said.forwards == forwards_of_choices(inputs_of_world.base, every, ["a", "b"]) == 2 * said.batches > 2
    with pytest.raises(SystemExit):
        plan.stop()
    record = json.loads((tmp_path / "dry_run.json").read_text())
    assert [step["what"] for step in record["steps"]] == ["shift", "capture", *["measure"] * 3, "read_choices"]
    assert record["total"]["forwards"] == sum(step["forwards"] for step in record["steps"])
    assert record["total"]["peak_memory_bytes"] == max(step["peak_memory_bytes"] for step in record["steps"])
    assert "1 shift" in capsys.readouterr().out


def _asked(question):
    from workbench.interventions.readout import prefilled

    return prefilled(question)
