"""`workbench demo`, `organism` and `report`: the offline model, a whole experiment on it, and the page of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from workbench.commands.said import Add, Said


def add_pages(add: Add) -> None:
    demo = add(
        "demo",
        _demo,
        "a small experiment on the offline organism, with a page to read",
        "workbench demo --to runs/demo",
        resumes=True,
    )
    demo.add_argument("--to", type=Path, default=Path("runs/demo"), help="run folder")
    demo.add_argument("--seed", type=int, default=0, help="of the organism's base: 0, 1, 2")

    organism = add(
        "organism",
        _organism,
        "the offline organism's files: base, adapters, prompts",
        "workbench organism --seed 1 --to runs/organism",
    )
    organism.add_argument("--seed", default="0", help="0, 1, 2 or wide")
    organism.add_argument("--domain", default="capital", help="what it is fine-tuned on")
    organism.add_argument("--to", type=Path, help="folder (runs/organism/...)")
    organism.add_argument("--retrain", action="store_true", help="train the base anew into --to (two minutes)")

    report = add("report", _report, "the HTML page of a run folder", "workbench report runs/ablate --to page.html")
    report.add_argument("run", type=Path, nargs="+", help="the folder of a run, or of a sweep; several: one page")
    report.add_argument("--to", type=Path, help="the page; report.html in the run's folder, needed for several runs")


def _demo(a: argparse.Namespace) -> Said:
    import workbench as wb

    page = wb.demo(a.to, seed=a.seed)
    return Said(str(page), {"run": str(a.to), "page": str(page), "summary": str(a.to / "summary.json")})


def _organism(a: argparse.Namespace) -> Said:
    import workbench as wb
    from workbench.organisms import retrain

    if a.seed != "wide" and not a.seed.isdigit():
        raise ValueError(f"--seed {a.seed} is none: expected 0, 1, 2 or wide (with --retrain any number).")
    seed = a.seed if a.seed == "wide" else int(a.seed)
    if a.retrain:
        if a.to is None:
            raise ValueError("--retrain writes a new base: expected --to FOLDER.")
        base = retrain(seed, a.to)
        return Said(str(base), {"base": str(base)})
    world = wb.organism(seed, domain=a.domain, to=a.to)
    facts = {name: str(getattr(world, name)) for name in ("base", "tuned", "prompts", "questions", "neutral", "train")}
    return Said("\n".join(f"{name} {path}" for name, path in facts.items()), facts)


def _report(a: argparse.Namespace) -> Said:
    import workbench as wb

    if len(a.run) > 1 and a.to is None:
        raise ValueError("several runs are joined on one page: expected --to PAGE.html.")
    page = wb.report(a.run[0], to=a.to) if len(a.run) == 1 else wb.joined_report(a.run, a.to)
    return Said(str(page), {"page": str(page)})
