"""`workbench sweep` and `generate`: what a model does while directions are taken out of it, or added."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from workbench.commands.edit_arguments import add_edits, interventions_of
from workbench.commands.model_arguments import active_variant, add_model, source_of
from workbench.commands.said import Add, Said
from workbench.commands.sharing import add_sharing, engine_of

_VARIANT = "which variant acts: base, or the adapter's (the default where there is one)"


def add_intervening(add: Add) -> None:
    sweep = add(
        "sweep",
        _sweep,
        "what ablating or steering along directions does, one row for every cell and prompt",
        "workbench sweep ./my-model questions.jsonl --adapter ./my-lora --directions runs/v.safetensors --ablate mean "
        "--layers 0 1 all --controls 5 --to runs/ablate",
        resumes=True,
    )
    add_model(sweep)
    sweep.add_argument("prompts", type=Path, help="JSONL; read with the tags right and contrary, or judged")
    sweep.add_argument("--to", type=Path, required=True, help="folder; what was stopped goes on from what it holds")
    sweep.add_argument("--variant", help=_VARIANT)
    add_edits(sweep, grid=True)
    sweep.add_argument("--judge", help="rule:contains, hf:FOLDER, openai:MODEL, ...: of written answers; without one "
                       "the deciding token is read alone")  # fmt: skip
    sweep.add_argument("--rubric", help="of a judge that is a language model: a shipped one's name, or a YAML file")
    sweep.add_argument("--controls", type=int, default=0, metavar="N", help="random twins of every cell; 99 for any p")
    sweep.add_argument("--control-kinds", nargs="+", metavar="KIND", help="isotropic, orthogonal, energy_matched; by "
                       "default all that there is data for")  # fmt: skip
    sweep.add_argument("--activations", type=Path, help="a store captured where the cells edit, for energy_matched")
    sweep.add_argument("--neutral", type=Path, help="prompts that nothing should change, for KL")
    sweep.add_argument("--seed", type=int, default=0)
    sweep.add_argument("--max-new-tokens", type=int, default=16)
    sweep.add_argument("--max-tokens", type=int, default=8192, help="padded tokens of one pass")
    sweep.add_argument("--explain", action="store_true", help="say which passes are shared, and why")
    add_sharing(sweep)

    generate = add(
        "generate",
        _generate,
        "answers to a prompt file, with directions taken out or added",
        "workbench generate ./my-model questions.jsonl --adapter ./my-lora --directions runs/v.safetensors --steer -1 "
        "--layers 0-1 --to runs/answers.jsonl",
    )
    add_model(generate)
    generate.add_argument("prompts", type=Path, help="JSONL, one prompt a line")
    generate.add_argument("--to", type=Path, help="a new .jsonl file; without it answers are printed")
    generate.add_argument("--variant", help=_VARIANT)
    add_edits(generate, grid=False)
    generate.add_argument("--max-new-tokens", type=int, default=64)
    generate.add_argument("--max-tokens", type=int, default=4096, help="padded prompt tokens of one batch")
    generate.add_argument("--temperature", type=float, help="draw tokens at this temperature (the default is greedy)")
    generate.add_argument("--top-p", type=float, help="with --temperature: of the likeliest tokens with this share")
    generate.add_argument("--seed", type=int, default=0, help="of the draws")


def _sweep(a: argparse.Namespace) -> Said:
    import workbench as wb

    cells = interventions_of(a, grid=True)
    scorer = None if a.judge is None else wb.judge(a.judge, **({} if a.rubric is None else {"rubric": a.rubric}))
    named = ("controls", "control_kinds", "neutral", "seed", "max_new_tokens", "max_tokens", "explain", "part", "to")
    settings: dict[str, Any] = {name: getattr(a, name) for name in named}
    if a.activations is not None:
        settings["activations"] = wb.ActivationStore.open(a.activations).rows()
    source = source_of(a, variant=active_variant(a))
    table = wb.sweep(source, a.prompts, cells, judge=scorer, engine=engine_of(a), **settings)
    facts = {"table": str(a.to), "planned": len(table.plan), "missing": len(table.missing())}
    return Said(str(table), {**facts, "rows": len(table), "columns": list(table.columns)},
                then=f"workbench report {a.to}" if not table.missing() else "")  # fmt: skip


def _generate(a: argparse.Namespace) -> Said:
    import workbench as wb

    edits, sampling = interventions_of(a, grid=False), _sampling(a)
    if a.to is not None and a.to.exists():
        raise FileExistsError(f"{a.to} is there already: expected a new name for the answers.")
    model = source_of(a, variant=active_variant(a)).load()
    limits = {"max_new_tokens": a.max_new_tokens, "max_tokens": a.max_tokens}
    done = wb.generate(model, a.prompts, *edits, progress=True, **limits, **sampling)
    answers = [{"id": one.prompt.id, "text": one.text, "finished": one.finished, "edited": one.edited} for one in done]
    facts: dict[str, Any] = {"answers": answers}
    if a.to is None:
        return Said("\n".join(f"{one['id']}: {one['text']}" for one in answers), facts)
    from stores.files import write_file

    write_file(a.to, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers))
    cut = sum(not one["finished"] for one in answers)
    return Said(f"{a.to}: {len(answers)} answers, {cut} cut off by --max-new-tokens", {"to": str(a.to), **facts})


def _sampling(a: argparse.Namespace) -> dict[str, Any]:
    if a.temperature is None:
        if a.top_p is not None:
            raise ValueError("--top-p is of drawn tokens: expected --temperature with it.")
        return {}
    drawn = {"do_sample": True, "temperature": a.temperature, "seed": a.seed}
    return drawn if a.top_p is None else {**drawn, "top_p": a.top_p}
