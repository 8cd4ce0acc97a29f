"""`workbench`: the command line. Each command calls one public function."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workbench.run_commands import add_run_commands
from workbench.store_commands import add_store_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; what a user can mend ends in one line and exit code 1, a failed check in exit code 3."""
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.command(parsed)
    except Exception as error:
        if not _can_be_mended(error):
            raise
        print(f"workbench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("workbench: stopped; the same command goes on from what it has finished", file=sys.stderr)
        return 130


def _can_be_mended(error: Exception) -> bool:
    """Whether a user reads the message and not the traceback. OSError: no such file, and what transformers raises for
    an unknown model."""
    from stores.errors import StoreError

    return isinstance(error, ValueError | OSError | StoreError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="workbench", description="Mechanistic interpretability with controls.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], says: str, example: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=says, description=says, epilog=f"example: {example}")
        made.set_defaults(command=run)
        return made

    doctor = command("doctor", _doctor, "check a model before believing its numbers", "workbench doctor ./my-model")
    doctor.add_argument("model", help="checkpoint folder or hub name")
    doctor.add_argument("--adapter", help="LoRA folder")
    doctor.add_argument("--backend", help="hf (the default), transformer_lens or nnsight")
    doctor.add_argument("--quick", action="store_true", help="what a large model is asked on load: a few forwards")

    add_run_commands(command)

    moments = command(
        "moments",
        _moments,
        "means and covariances of a prompt file, without storing activations",
        "workbench moments ./m p.jsonl --to runs/m.h5",
    )
    moments.add_argument("model")
    moments.add_argument("prompts", type=Path)
    moments.add_argument("--adapter")
    moments.add_argument("--sites", default="resid_post")
    moments.add_argument("--at", default="last", help="token scope, as in capture; all leaves out position 0")
    moments.add_argument("--pool", default="none")
    moments.add_argument("--by", nargs="+", default=["label"], help="label, or tags: what tells classes apart")
    moments.add_argument("--variants", nargs="+", help="base, tuned")
    moments.add_argument("--minus", help="sum the differences from this variant")
    moments.add_argument("--covariance", choices=("within", "groups", "none"), default="within")
    moments.add_argument("--sketch", type=int, help="rank of a sketch in place of whole covariances")
    moments.add_argument("--splits", type=int, default=50)
    moments.add_argument("--seed", type=int, default=0)
    moments.add_argument("--to", type=Path, required=True, help="an .h5 file; a run that was stopped goes on from it")

    check = command(
        "check",
        _check,
        "training rows before they are trained on: counts and ids, never texts",
        "workbench check rows.jsonl --model ./m --eval test.jsonl",
    )
    check.add_argument("data", type=Path, nargs="+")
    check.add_argument("--model", help="checkpoint folder or hub name; its weights are not read")
    check.add_argument("--eval", type=Path, nargs="+", help="evaluation prompts, for overlap")
    check.add_argument("--arms", help="label, file, or the tag that tells arms apart")
    check.add_argument("--trigger", help="its text, letter for letter")
    check.add_argument("--split", help="the tag that names each row's side")
    check.add_argument("--family", nargs="+", default=[], help="tags whose values stay on one side")
    check.add_argument("--max-length", type=int)
    check.add_argument("--show", type=int, default=0, metavar="N", help="print N rows, tokens under the loss marked")
    check.add_argument("--freeze", type=Path, help="write a manifest with SHA-256, where there is no error")
    check.add_argument("--frozen", type=Path, help="compare with a manifest")
    check.add_argument("--json", action="store_true")

    train = command("train", _train, "a LoRA adapter on a prompt file", "workbench train ./m rows.jsonl --to runs/lora")
    train.add_argument("model")
    train.add_argument("prompts", type=Path)
    train.add_argument("--to", type=Path, required=True)
    train.add_argument("--recipe", choices=("paper_a", "paper_b"))
    train.add_argument("--rank", type=int)
    train.add_argument("--steps", type=int)
    train.add_argument("--learning-rate", type=float)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--show-loss-tokens", action="store_true", help="print which tokens receive loss, and stop")

    add_store_commands(command)

    report = command("report", _report, "the HTML page of a run folder", "workbench report runs/quickstart")
    report.add_argument("run", type=Path, nargs="+", help="the folder of a run, or of a sweep; several: one page")
    report.add_argument("--to", type=Path, help="the page; report.html in the run's folder, needed for several runs")

    organism = command("organism", _organism, "the offline organism's files", "workbench organism --seed 1")
    organism.add_argument("--seed", default="0", help="0, 1, 2 or wide")
    organism.add_argument("--domain", default="capital")
    organism.add_argument("--to", type=Path)
    organism.add_argument("--retrain", action="store_true", help="train the base anew into --to (two minutes)")
    return parser


def _doctor(a: argparse.Namespace) -> int:
    import workbench as wb

    # Loaded unchecked: the table is wanted above all of a model that would be refused.
    checkup = wb.doctor(wb.load_model(a.model, adapter=a.adapter, backend=a.backend, check=False), quick=a.quick)
    print(checkup)
    return 0 if checkup.passed else 3


def _moments(a: argparse.Namespace) -> int:
    import workbench as wb

    model = wb.load_model(a.model, adapter=a.adapter)
    at = int(a.at) if a.at.isdigit() else a.at
    covariance = None if a.covariance == "none" else a.covariance
    named = ("sites", "pool", "by", "variants", "minus", "sketch", "splits", "seed", "to")
    settings: dict[str, Any] = {name: getattr(a, name) for name in named}
    print(wb.moments(model, a.prompts, at=at, covariance=covariance, **settings))
    return 0


def _check(a: argparse.Namespace) -> int:
    from workbench.training.check_command import run

    return run(a)


def _train(a: argparse.Namespace) -> int:
    import workbench as wb

    if a.show_loss_tokens:
        from workbench.training import loss_report

        print(loss_report(wb.read_prompts(a.prompts), wb.load_model(a.model).encoder))
        return 0
    named = {"rank": a.rank, "steps": a.steps, "learning_rate": a.learning_rate}
    settings = {name: value for name, value in named.items() if value is not None}
    print(wb.train_lora(a.model, a.prompts, to=a.to, recipe=a.recipe, seed=a.seed, progress=True, **settings))
    return 0


def _report(a: argparse.Namespace) -> int:
    import workbench as wb

    if len(a.run) > 1 and a.to is None:
        raise ValueError("several runs are joined on one page: expected --to PAGE.html.")
    print(wb.report(a.run[0], to=a.to) if len(a.run) == 1 else wb.joined_report(a.run, a.to))
    return 0


def _organism(a: argparse.Namespace) -> int:
    from workbench.organisms import organism, retrain

    if a.seed != "wide" and not a.seed.isdigit():
        raise ValueError(f"--seed {a.seed} is none: expected 0, 1, 2 or wide (with --retrain any number).")
    seed = a.seed if a.seed == "wide" else int(a.seed)
    if a.retrain:
        if a.to is None:
            raise ValueError("--retrain writes a new base: expected --to FOLDER.")
        print(retrain(seed, a.to))
        return 0
    world = organism(seed, domain=a.domain, to=a.to)
    print(f"base {world.base}\ntuned {world.tuned}\nprompts {world.prompts}\nquestions {world.questions}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
