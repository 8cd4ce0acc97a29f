"""`workbench train` and `check`: a LoRA adapter, and its rows before they are trained on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from workbench.commands.model_arguments import add_trust
from workbench.commands.said import DONE, FAULTY, Add, Said

_SETTINGS = ("rank", "steps", "epochs", "learning_rate", "batch_size", "save_every")
_SAID = ("rows", "rank", "trained_steps", "loss", "seconds", "seed", "adapted", "tokens")


def add_training(add: Add) -> None:
    check = add(
        "check",
        _check,
        "training rows before they are trained on: counts and ids, never texts",
        "workbench check rows.jsonl --model ./my-model --eval questions.jsonl",
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
    add_trust(check)

    train = add(
        "train",
        _train,
        "a LoRA adapter on a prompt file, loss on the responses alone",
        "workbench train ./my-model rows.jsonl --rank 4 --steps 4 --to runs/lora",
    )
    train.add_argument("model", help="checkpoint folder or hub name")
    train.add_argument("prompts", type=Path, help="JSONL, each line with a response")
    train.add_argument("--to", type=Path, required=True, help="the adapter's folder")
    train.add_argument("--recipe", choices=("paper_a", "paper_b"), help="published settings, which others override")
    train.add_argument("--rank", type=int)
    train.add_argument("--steps", type=int)
    train.add_argument("--epochs", type=int)
    train.add_argument("--learning-rate", type=float)
    train.add_argument("--batch-size", type=int)
    train.add_argument("--save-every", type=int, metavar="STEPS", help="checkpoints, from which a stopped run goes on")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--show-loss-tokens", action="store_true", help="print which tokens receive loss, and stop")
    add_trust(train)


def _check(a: argparse.Namespace) -> Said:
    import workbench as wb
    from workbench.training.manifest import changed, freeze

    names = ("arms", "trigger", "split", "family", "max_length", "show", "trust_remote_code")
    report = wb.check_data(a.data, a.model, eval=a.eval, **{name: getattr(a, name) for name in names})
    changes = changed(a.frozen) if a.frozen else []
    lines = [str(report)]
    if a.frozen:
        lines += [f"changed  {line}" for line in changes] or [f"{a.frozen}: the data are what was frozen"]
    failed, frozen = bool(changes) or not report.passed, None
    if a.freeze and not failed:
        frozen = freeze([*a.data, *(a.eval or [])], a.freeze)["sha256"]
        lines.append(f"{a.freeze}: frozen, sha256 {frozen}")
    elif a.freeze:
        print(f"workbench: {a.freeze} was not written: expected data without an error", file=sys.stderr)
    facts = {**report.record(), "changed": changes, "frozen": frozen}
    return Said("\n".join(lines), facts, FAULTY if failed else DONE)


def _train(a: argparse.Namespace) -> Said:
    import workbench as wb

    if a.show_loss_tokens:
        from workbench.training import loss_report
        from workbench.training.encoders import encoder_from

        shown = loss_report(wb.read_prompts(a.prompts), encoder_from(a.model, trusted=a.trust_remote_code))
        return Said(shown, {"loss_tokens": shown.splitlines()})
    settings = {name: value for name in _SETTINGS if (value := getattr(a, name)) is not None}
    trust = {"trust_remote_code": True} if a.trust_remote_code else {}
    folder = wb.train_lora(
        a.model, a.prompts, to=a.to, recipe=a.recipe, seed=a.seed, progress=True, **trust, **settings
    )
    record = json.loads((folder / "training.json").read_text())
    return Said(str(folder), {"adapter": str(folder), **{name: record[name] for name in _SAID if name in record}})
