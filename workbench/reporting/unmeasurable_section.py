"""Section: what of a study the data did not allow, each step with its reason (`wb.if_measurable`)."""

from __future__ import annotations

from workbench.behaviour.unmeasurable import LEFT_OUT
from workbench.reporting.blocks import Block, Note
from workbench.reporting.summary import Summary


def unmeasurable(summary: Summary) -> list[Block]:
    """One note a step, high on the page: a section that is not there would say nothing."""
    return [
        Note(f"Not measurable: {step.condition}: {step.detail}", kind="warning")
        for step in summary.where(metric=LEFT_OUT)
    ]
