"""Forward hooks: at every site the edits act first, then the keep looks; the run stops after the last wanted block, and
the hooks are removed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from hooks.edits import LowRankEdit
from hooks.model import Edits, Keeps, Tally, Where
from hooks.positions import Tokens
from hooks.site import Site

_ORDER = {"resid_pre": 0, "resid_post": 1}


class _Enough(Exception):
    """Raised inside the forward once every wanted residual has been seen."""


class Visit:
    """What the hooks of one run, or of one generation, have gathered so far."""

    def __init__(self, keep: Keeps, edits: Edits, owners: Mapping[str, Sequence[int]], stop: bool) -> None:
        self.keep, self.edits = keep, edits
        self.kept: dict[Site, list[Tensor]] = {site: [] for site in keep}
        self.tallies = {site: [Tally.empty(len(owners[site.tower])) for _ in listed] for site, listed in edits.items()}
        self._owners = owners
        self.seen: set[Site] = set()
        # Vision sites come before every language site; within a tower the layer, then input before output.
        wanted = sorted({*keep, *edits}, key=lambda site: (site.tower == "language", site.layer, _ORDER[site.point]))
        self.last = wanted[-1] if wanted and stop else None

    def at(self, site: Site, resid: Any, tokens: Tokens) -> Tensor:
        """Edits the residual, in list order, then shows it to the site's keep."""
        self.seen.add(site)
        _check_shape(site, resid, tokens)
        for edit, tally in zip(self.edits.get(site, ()), self.tallies.get(site, ()), strict=True):
            ours = isinstance(edit, LowRankEdit)
            before, counted = resid, tally.edited.clone()
            # A plain callable gets a copy: writing into it cannot change what was kept before, nor pass uncounted.
            resid = edit(before if ours else before.clone(), Where(site, tokens, tally))
            if not isinstance(resid, Tensor) or resid.shape != before.shape or resid.dtype != before.dtype:
                came = f"{tuple(resid.shape)} {resid.dtype}" if isinstance(resid, Tensor) else type(resid).__name__
                raise TypeError(
                    f"the edit at {site} returned {came}: expected {tuple(before.shape)} {before.dtype}, a new tensor."
                )
            if not ours and torch.equal(counted, tally.edited):
                # It did not count: compare, so that an edit that edits nothing cannot pass as one.
                tally.add(((resid != before).any(dim=-1) & (tokens.position >= 0)).sum(dim=-1))
        if site in self.keep and (kept := self.keep[site](resid, Where(site, tokens))) is not None:
            self.kept[site].append(kept)
        return resid

    def close(self) -> None:
        """Raises RuntimeError when a hook never fired; gives the counts of a vision tower to its prompts."""
        missing = [str(site) for site in [*self.keep, *self.edits] if site not in self.seen]
        if missing:
            raise RuntimeError(
                f"the hooks at {', '.join(missing)} never fired: the forward did not pass these blocks. Text-only "
                "rows do not pass a vision tower or cross-attention blocks; give prompts with images, or leave "
                "these sites out."
            )
        prompts = len(self._owners["language"])
        for site, tallies in self.tallies.items():
            if site.tower != "language":
                self.tallies[site] = [tally.by_prompt(self._owners[site.tower], prompts) for tally in tallies]


@contextmanager
def hooked(
    towers: Mapping[str, Sequence[nn.Module]],
    keep: Keeps,
    edits: Edits,
    tokens_of: Callable[[str, Tensor], Tokens],
    owners: Mapping[str, Sequence[int]],
    *,
    stop: bool = False,
) -> Iterator[Visit]:
    """Hooks the blocks while the body runs its forward. `tokens_of(tower, resid)` gives the tokens that a residual
    belongs to; `owners[tower]` the prompt that each of its rows belongs to (a vision tower's rows are images). With
    `stop` the forward ends after the last wanted site."""
    visit = Visit(keep, edits, owners, stop)
    handles = []

    def before(site: Site) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
            resid = args[0] if args else kwargs["hidden_states"]
            new = visit.at(site, resid, tokens_of(site.tower, resid))
            if site == visit.last:
                raise _Enough
            if new is resid:
                return None
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        return hook

    def after(site: Site) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            # A block returns a tensor, or a container whose first entry is the stream; the same container goes back.
            resid = output if isinstance(output, Tensor) else output[0]
            new = visit.at(site, resid, tokens_of(site.tower, resid))
            if site == visit.last:
                raise _Enough
            if new is resid:
                return None
            return new if isinstance(output, Tensor) else type(output)((new, *output[1:]))

        return hook

    try:
        for site in {*keep, *edits}:
            if site.tower not in towers or site.layer >= len(towers[site.tower]):
                depth = len(towers.get(site.tower, ()))
                raise ValueError(
                    f"site {site} is outside this model: expected layers 0..{depth - 1} of its {site.tower} tower."
                )
            block = towers[site.tower][site.layer]
            if site.point == "resid_pre":
                handles.append(block.register_forward_pre_hook(before(site), prepend=True, with_kwargs=True))
            else:  # in front of the recorder hooks that transformers leaves behind: they too see the edited stream
                handles.append(block.register_forward_hook(after(site), prepend=True))
        with suppress(_Enough):
            yield visit
        visit.close()
    finally:
        for handle in handles:
            handle.remove()


def _check_shape(site: Site, resid: Any, tokens: Tokens) -> None:
    if not isinstance(resid, Tensor) or resid.dim() != 3 or resid.shape[:2] != tokens.position.shape:
        came = tuple(resid.shape) if isinstance(resid, Tensor) else type(resid).__name__
        raise RuntimeError(
            f"the residual at {site} is {came}: expected {tuple(tokens.position.shape)} rows and positions and one "
            "width. This architecture's stream is not [row, pos, d_model] here, so its numbers would be misread."
        )
