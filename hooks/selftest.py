"""The checks that a model passes before its numbers are believed: on load, and by `workbench doctor MODEL`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hooks.asked import Asked
from hooks.checks import CHECKS, QUICK, VITAL
from hooks.checks_of_batches import BLIND

SMALL = 50_000_000  # parameters; below, every check takes a second or so in all


@dataclass(frozen=True)
class Check:
    """One promise about a model: kept (True), broken (False) or not testable here (None), and the number behind it."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Checkup:
    """All checks of one model; `str()` is the table that `workbench doctor` prints."""

    model: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return not self.broken

    @property
    def broken(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)

    def __str__(self) -> str:
        sign = {True: "ok", False: "BROKEN", None: "skipped"}
        width = max(len(check.name) for check in self.checks)
        lines = [f"{check.name:<{width}}  {sign[check.passed]:<7}  {check.detail}" for check in self.checks]
        return "\n".join([self.model, *lines])

    def __repr__(self) -> str:
        kept, skipped = (sum(check.passed is state for check in self.checks) for state in (True, None))
        broken = ", ".join(check.name for check in self.broken) or "none"
        return f"Checkup({self.model}: {kept} checks kept, broken: {broken}, {skipped} not testable here)"

    def record(self) -> dict[str, Any]:
        """The results as provenance keeps them."""
        return {check.name: [check.passed, check.detail] for check in self.checks}


class SelfTestFailed(ValueError):
    """A model that was just loaded breaks a promise that every number rests on; the message is the table."""


def doctor(model: Any, *, quick: bool = False) -> Checkup:
    """Runs every check on a few short prompts; a check that raises counts as broken, with what it raised.

    `quick` leaves out what needs many forwards, and looks at the first, middle and last layer only: some fifteen
    forwards of a few tokens.
    """
    layers = sorted({0, model.n_layers // 2, model.n_layers - 1}) if quick else range(model.n_layers)
    asked = Asked(model, tuple(layers))
    checks = []
    for name, check in CHECKS.items():
        if quick and name not in QUICK:
            continue
        try:
            passed, detail = check(asked)
        except Exception as error:  # a check-up reports, it does not stop at the first trouble
            passed, detail = False, f"{type(error).__name__}: {error}"
        checks.append(Check(name, passed, detail))
    return Checkup(repr(model), tuple(checks))


def checked(model: Any) -> Checkup:
    """The check-up on load: all of it for a small model, the quick part for a large one. Raises SelfTestFailed where a
    promise is broken that captures and edits rest on. A stream that is not all that the model carries is recorded; a
    model whose answers are not those of its full forwards will not generate, one to which pictures are nothing takes
    no prompts with them."""
    size = sum(weight.numel() for weight in model.module.parameters())
    checkup = doctor(model, quick=size > SMALL)
    model.why_not_generate = next((check.detail for check in checkup.broken if check.name == "cache under edits"), None)
    model.injected_layers()  # asked once, here, so that a resumed run need not run the model for it
    if any(check.detail == BLIND for check in checkup.broken):
        model.encoder.why_no_pictures = (
            f"the check-up found that {BLIND} (is the projector trained, and in the files? "
            "load_model(..., check=False) takes it as it is)"
        )
    if any(check.name in VITAL for check in checkup.broken):
        raise SelfTestFailed(
            f"this model breaks a promise that every number rests on:\n{checkup}\nExpected a model without hooks or "
            "patches of others on it. `workbench doctor` shows all checks; load_model(..., check=False) loads it "
            "all the same."
        )
    return checkup
