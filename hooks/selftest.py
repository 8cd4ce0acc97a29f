"""The checks that a model passes before its numbers are believed: `workbench doctor MODEL`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hooks.backends.hf import HuggingFaceModel
from hooks.edits import identity
from hooks.encode import Batch, Encoded
from hooks.model import Where
from hooks.pool import Pool
from hooks.prompt import Message, Prompt
from hooks.site import Site

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # relative, against the largest residual


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
        return all(check.passed is not False for check in self.checks)

    def __str__(self) -> str:
        sign = {True: "ok", False: "BROKEN", None: "skipped"}
        width = max(len(check.name) for check in self.checks)
        lines = [f"{check.name:<{width}}  {sign[check.passed]:<7}  {check.detail}" for check in self.checks]
        return "\n".join([self.model, *lines])

    def record(self) -> dict[str, Any]:
        """The results as provenance keeps them."""
        return {check.name: [check.passed, check.detail] for check in self.checks}


def doctor(model: HuggingFaceModel) -> Checkup:
    """Runs every check on two short prompts; a check that raises counts as broken, with what it raised."""
    checks = []
    for name, check in _CHECKS.items():
        try:
            passed, detail = check(model)
        except Exception as error:  # a check-up reports, it does not stop at the first trouble
            passed, detail = False, f"{type(error).__name__}: {error}"
        checks.append(Check(name, passed, detail))
    return Checkup(repr(model), tuple(checks))


def _batch(model: HuggingFaceModel, *texts: str) -> Batch:
    """Chats where the tokenizer has a template, raw text where it has none."""
    prompts = []
    for n, text in enumerate(texts):
        prompt = Prompt(str(n), (Message("user", (text,)),))
        try:
            model.encoder.rendered(prompt)
        except ValueError:
            prompt = Prompt(str(n), text=text)
        prompts.append(prompt)
    return model.encode(prompts)


_SHORT, _LONG = "name a colour", "name a colour, and then a town by the sea"


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-9))


def _chain(model: HuggingFaceModel) -> tuple[bool | None, str]:
    keep: dict[Site, Any] = {
        Site(layer, point): Pool("all") for layer in range(model.n_layers) for point in ("resid_pre", "resid_post")
    }
    kept = model.run(_batch(model, _SHORT), keep).kept
    broken = [
        layer
        for layer in range(1, model.n_layers)
        if not torch.equal(kept[Site(layer, "resid_pre")], kept[Site(layer - 1)])
    ]
    return (
        not broken,
        f"input of block l is output of block l-1 at {model.n_layers - 1 - len(broken)} of {model.n_layers - 1} joints",
    )


def _replace_with(values: Tensor) -> Any:
    return lambda resid, where: values.to(resid).expand_as(resid).clone()


def _whole_stream_patch(model: HuggingFaceModel) -> tuple[bool | None, str]:
    first = _batch(model, _SHORT)
    second = model.encoder.collate([_with_other_tokens(model, first.encoded[0])])
    sites = [Site(layer) for layer in range(model.n_layers)]
    plain, other = model.run(first), model.run(second, dict.fromkeys(sites, _everything))
    assert plain.logits is not None and other.logits is not None
    if torch.equal(plain.logits, other.logits):
        return None, "two prompts of different tokens have the same logits: nothing to see a patch by"
    worst = 0.0
    for site in sites:
        patched = model.run(first, edits={site: [_replace_with(other.kept[site])]}).logits
        assert patched is not None
        worst = max(worst, _distance(patched, other.logits))
    detail = f"another prompt's residual gives its logits at every layer: worst {worst:.1e}"
    return worst <= TOLERANCE[model.dtype], detail


def _with_other_tokens(model: HuggingFaceModel, one: Encoded) -> Encoded:
    """The prompt with another ordinary token where the user's text ends, and one where the prompt ends. Other words
    would not do: a small vocabulary may know neither, and read both prompts alike."""
    tokenizer, ids = model.tokenizer, one.input_ids.clone()
    for place in {min(one.instruction_end, one.prompt_length) - 1, one.prompt_length - 1}:
        special = {*tokenizer.all_special_ids, model.encoder.image_token_id, int(ids[place])}
        ids[place] = next(token for token in range(len(tokenizer)) if token not in special)
    return replace(one, input_ids=ids)


def _everything(resid: Tensor, where: Where) -> Tensor:
    return resid.clone()


def _padding(model: HuggingFaceModel) -> tuple[bool | None, str]:
    site = Site(model.n_layers - 1)
    keep: dict[Site, Any] = {site: Pool("last")}
    together = model.run(_batch(model, _SHORT, _LONG), keep).kept[site]
    alone = torch.cat([model.run(_batch(model, text), keep).kept[site] for text in (_SHORT, _LONG)])
    off = _distance(together, alone)
    return off <= TOLERANCE[model.dtype], f"padded batch equals single prompts: off by {off:.1e}"


def _zero_edit(model: HuggingFaceModel) -> tuple[bool | None, str]:
    batch = _batch(model, _SHORT)
    edits: dict[Site, Any] = {Site(layer): [identity(1, model.d_model)] for layer in range(model.n_layers)}
    plain, edited = model.run(batch).logits, model.run(batch, edits=edits).logits
    assert plain is not None and edited is not None
    return torch.equal(plain, edited), "an edit by zero leaves the logits bit for bit"


def _hooks_removed(model: HuggingFaceModel) -> tuple[bool | None, str]:
    def count() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.module.modules())

    before = count()
    model.run(_batch(model, _SHORT), {Site(0): Pool("last")})
    return count() == before, f"{count() - before} hooks left behind"


def _generation(model: HuggingFaceModel) -> tuple[bool | None, str]:
    batch = _batch(model, _SHORT, _LONG)
    push = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))

    def steer(resid: Tensor, where: Where) -> Tensor:
        mask = where.mask("answering")[..., None]
        return torch.where(mask, resid + 0.1 * resid.norm(dim=-1, keepdim=True) * (push / push.norm()).to(resid), resid)

    final, edits = Site(model.n_layers - 1), {Site(model.n_layers // 2): [steer]}
    out = model.generate(batch, {final: _newest}, edits, max_new_tokens=4)
    worst = 0.0
    for row, (one, written) in enumerate(zip(batch.encoded, out.token_ids, strict=True)):
        for n in range(len(written)):  # of the residuals: a choice of token would hide most faults
            alone = model.encoder.collate([one.extended(written[:n])])
            kept = model.run(alone, {final: _newest}, edits, logits=False).kept[final]
            worst = max(worst, _distance(out.kept[final][n][row], kept[0]))
    detail = f"a padded batch, token by token, equals full forwards under the same edit: off by {worst:.1e}"
    return worst <= TOLERANCE[model.dtype], detail


def _newest(resid: Tensor, where: Where) -> Tensor:
    return resid[:, -1].clone()


def _adapter(model: HuggingFaceModel) -> tuple[bool | None, str]:
    if model.adapters is None:
        return None, "no adapter loaded"
    batch = _batch(model, _LONG)

    def logits(variant: str) -> Tensor:
        found = model.variant(variant).run(batch).logits
        assert found is not None
        return found

    base = logits("base")
    moved = {variant: _distance(logits(variant), base) for variant in model.variants[1:]}
    restored = torch.equal(logits("base"), base)
    text = ", ".join(f"{variant} moves the logits by {distance:.1e}" for variant, distance in moved.items())
    return restored and all(moved.values()), f"{text}; off again is the base {'bit for bit' if restored else 'NO MORE'}"


_CHECKS: dict[str, Callable[[HuggingFaceModel], tuple[bool | None, str]]] = {
    "residual chain": _chain,
    "whole-stream patch": _whole_stream_patch,
    "padding": _padding,
    "zero edit": _zero_edit,
    "hooks removed": _hooks_removed,
    "cache under edits": _generation,
    "adapter": _adapter,
}
