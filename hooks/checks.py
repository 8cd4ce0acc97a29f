"""The checks of a model, by name, in the order of the table."""

from __future__ import annotations

from collections.abc import Callable

from hooks import checks_of_batches as batches
from hooks import checks_of_stream as stream
from hooks.asked import Asked, Verdict

CHECKS: dict[str, Callable[[Asked], Verdict]] = {
    "parity": stream.parity,
    "residual chain": stream.chain,
    "zero edit": stream.zero_edit,
    "edits act": stream.edit_acts,
    "hooks removed": stream.hooks_removed,
    "one BOS": batches.one_bos,
    "adapter": stream.adapter,
    "whole-stream patch": stream.whole_stream_patch,
    "padding": batches.padding,
    "cache under edits": batches.cache_under_edits,
    "image": batches.image,
}
# What every number rests on: a model that breaks one of these does not load.
VITAL = ("parity", "residual chain", "zero edit", "edits act", "hooks removed", "adapter")
# What a large model is asked on load.
QUICK = ("residual chain", "zero edit", "hooks removed", "adapter", "whole-stream patch", "padding")
