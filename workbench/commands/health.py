"""`workbench doctor` and `env`: whether a model can be believed, and what this machine has."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from workbench.commands.model_arguments import add_model, source_of
from workbench.commands.said import DONE, FAULTY, Add, Said


def add_health(add: Add) -> None:
    doctor = add(
        "doctor",
        _doctor,
        "check a model before believing its numbers",
        "workbench doctor ./my-model --adapter ./my-lora",
    )
    add_model(doctor)
    doctor.add_argument("--quick", action="store_true", help="what a large model is asked on load: a few forwards")

    add(
        "env",
        _env,
        "versions, device and optional parts, with what installs them: what a bug report needs",
        "workbench env --json",
    )


def _doctor(a: argparse.Namespace) -> Said:
    import workbench as wb

    # Loaded unchecked: the table is wanted above all of a model that would be refused.
    checkup = wb.doctor(source_of(a, options={"check": False}).load(), quick=a.quick)
    facts = {
        "model": checkup.model,
        "passed": checkup.passed,
        "checks": [dataclasses.asdict(check) for check in checkup.checks],
    }
    return Said(str(checkup), facts, DONE if checkup.passed else FAULTY)


def _env(a: argparse.Namespace) -> Said:
    import workbench as wb

    facts = wb.environment()
    return Said("\n".join(described(facts)), facts)


def described(facts: dict[str, Any]) -> list[str]:
    """What `environment` found, a line a subject."""
    git, device, here = facts["git"], facts["device"], facts["environment"]
    commit = "" if git is None else f", commit {git['commit'][:12]}{' and changes' if git['dirty'] else ''}"
    packages = [f"{name} {version or 'absent'}" for name, version in facts["packages"].items()]
    lines = [
        f"workbench  {facts['workbench']}{commit}",
        f"python     {facts['python']} on {facts['platform']}, {facts['cpus']} cores",
        f"device     {', '.join(f'{name} {value}' for name, value in device.items() if value is not None)}",
        *(
            f"{'packages' if at == 0 else '':<10} {', '.join(packages[at : at + 6])}"
            for at in range(0, len(packages), 6)
        ),
    ]
    for at, (name, part) in enumerate(facts["optional"].items()):
        state = part["version"] or f"absent ({part['install']})"
        lines.append(f"{'optional' if at == 0 else '':<10} {name} {state}: {part['for']}")
    if here:
        lines.append(f"set        {', '.join(f'{name}={value}' for name, value in here.items())}")
    return lines
