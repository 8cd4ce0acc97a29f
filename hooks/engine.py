"""Forward hooks: at every site the edits act first, then the keep looks; the run stops after the last wanted block, and
the hooks are removed whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from hooks.edits import LowRankEdit
from hooks.model import Edits, Keeps, NothingEdited, Tally, Where
from hooks.positions import Tokens
from hooks.site import POINTS, Site
from hooks.spot import Spot
from hooks.view import View

ViewOf = Callable[[Site, Tensor], View]
Stop = tuple[nn.Module, str]  # a module and one of its sides, "input" or "output"
Passed = Callable[[Stop, Any], Any]  # what a side holds as the forward passes it -> what goes on from there
Attach = Callable[[Sequence[Stop], Passed], AbstractContextManager[Any]]


class _Enough(Exception):
    """Raised inside the forward once every wanted residual has been seen."""


class Visit:
    """What the hooks of one run, or of one generation, have gathered so far."""

    def __init__(self, keep: Keeps, edits: Edits, view_of: ViewOf, prompts: int, *, once: bool, stop: bool) -> None:
        self.keep, self.edits = keep, edits
        self.kept: dict[Site, list[Tensor]] = {site: [] for site in keep}
        self.tallies: dict[Site, list[Tally]] = {}
        self.sites = stream_order({*keep, *edits})
        self._visits = dict.fromkeys(self.sites, 0)
        self._wanted = {site: (edits.get(site), keep.get(site)) for site in self.sites}
        self._owners: dict[Site, Tensor] = {}
        self._view_of, self._prompts, self._once, self._stop = view_of, prompts, once, stop

    @property
    def complete(self) -> bool:
        """True once the forward may end: every wanted site was seen, and nobody asked for logits."""
        return self._stop and bool(self._visits) and all(self._visits.values())

    def at(self, site: Site, tensor: Tensor) -> Tensor:
        """Edits the residual, in list order, then shows it to the site's keep. Returns `tensor` itself when nothing
        was changed."""
        self._visits[site] = visits = self._visits[site] + 1
        if visits > 1 and (self._once or site.tower != "language"):
            raise RuntimeError(
                f"the hook at {site} fired {visits} times in one forward: expected once. A layer that runs again (a "
                "loop, or a tower that is called once an image) is not one place in the stream."
            )
        edits, keep = self._wanted[site]
        view = self._view_of(site, tensor)
        before = resid = view.rows(tensor)
        tokens = view.tokens
        if edits is not None:
            tallies = self.tallies[site] if site in self.tallies else self._tallies_at(site, tokens)
            for edit, tally in zip(edits, tallies, strict=True):
                resid = _edited(edit, resid, Where(site, tokens, tally))
        if keep is not None and (kept := keep(resid, Where(site, tokens))) is not None:
            self.kept[site].append(kept)
        return tensor if resid is before else view.back(resid)

    def _tallies_at(self, site: Site, tokens: Tokens) -> list[Tally]:
        self.tallies[site] = [Tally.empty(len(tokens.position)) for _ in self.edits[site]]
        if tokens.owner is not None:
            self._owners[site] = tokens.owner
        return self.tallies[site]

    def close(self) -> None:
        """Raises RuntimeError when a hook never fired; gives the counts of a vision tower to its prompts."""
        missing = [str(site) for site, visits in self._visits.items() if not visits]
        if missing:
            raise RuntimeError(
                f"the hooks at {', '.join(missing)} never fired: the forward did not pass these blocks. Text-only "
                "rows do not pass a vision tower; give prompts with images, or leave these sites out."
            )
        for tally in (tally for listed in self.tallies.values() for tally in listed):
            tally.settle()
        for site in self.tallies.keys() - self._owners.keys():
            self.tallies[site] = [tally.widened(self._prompts) for tally in self.tallies[site]]
        for site, owner in self._owners.items():
            self.tallies[site] = [tally.by_prompt(owner.tolist(), self._prompts) for tally in self.tallies[site]]

    def refuse_idle(self) -> None:
        """Raises NothingEdited when edits were given and touched no position of any row."""
        counts = [tally.edited for listed in self.tallies.values() for tally in listed]
        if counts and not any(bool(edited.any()) for edited in counts):
            sites = ", ".join(str(site) for site in self.tallies)
            raise NothingEdited(
                f"the edits at {sites} touched no position of any row: expected at least one. Their scope matches no "
                "token of these prompts (an 'image' scope on text, a 'response' scope on prompts without one)."
            )


def stream_order(sites: Any) -> list[Site]:
    """Sites as the stream meets them: the vision tower first; within a tower by layer, then from its input to its
    output."""
    return sorted(sites, key=lambda site: (site.tower == "language", site.layer, POINTS.index(site.point)))


def _edited(edit: Any, resid: Tensor, where: Where) -> Tensor:
    if isinstance(edit, LowRankEdit):
        return edit(resid, where)
    tally = where.tally
    assert tally is not None
    counted = tally.edited.clone()
    # A plain callable gets a copy: writing into it cannot change what was kept before, nor pass uncounted.
    new = edit(resid.clone(), where)
    if not isinstance(new, Tensor) or new.shape != resid.shape or new.dtype != resid.dtype:
        came = f"{tuple(new.shape)} {new.dtype}" if isinstance(new, Tensor) else type(new).__name__
        raise TypeError(
            f"the edit at {where.site} returned {came}: expected {tuple(resid.shape)} {resid.dtype}, a new tensor."
        )
    if torch.equal(counted.cpu(), tally.edited.cpu()):
        # It did not count: compare, so that an edit that edits nothing cannot pass as one.
        tally.add(((new != resid).any(dim=-1) & (where.tokens.position >= 0)).sum(dim=-1))
    return new


@contextmanager
def hooked(
    spots: Mapping[Site, Spot],
    keep: Keeps,
    edits: Edits,
    view_of: ViewOf,
    prompts: int,
    *,
    once: bool = True,
    stop: bool = False,
    attach: Attach | None = None,
) -> Iterator[Visit]:
    """Hooks the spots of the wanted sites while the body runs its forward. `view_of(site, tensor)` gives the tokens
    that a tensor belongs to. With `once` a site may fire once only (a forward, not a generation); with `stop` the
    forward ends after the last wanted site. `attach` is how a back end hooks (default: torch's own forward hooks)."""
    visit = Visit(keep, edits, view_of, prompts, once=once, stop=stop)
    groups: dict[Stop, list[Site]] = {}
    for site in visit.sites:
        spot = spots[site]
        groups.setdefault((spot.module, spot.side), []).append(site)
        if spot.added_to is not None:
            groups.setdefault((spot.added_to.module, spot.added_to.side), [])
    # The stream itself, in one piece: nearly every site; a decoding step passes here once a layer.
    whole = {site for site in visit.sites if (s := spots[site]).added_to is None and s.scale == 1.0 and not s.flat}
    bases = {spot.added_to: None for site in visit.sites if (spot := spots[site]).added_to is not None}
    streams: dict[Spot, Tensor] = {}  # the stream that a branch is about to be added to, as it is after edits

    def passed(key: Stop, held: Any) -> Any:
        for site in groups[key]:
            spot = spots[site]
            tensor = spot.take(held)
            if site in whole:
                new = visit.at(site, tensor)
                held = held if new is tensor else spot.put(held, new)
                continue
            shaped = tensor.unflatten(0, (prompts, -1)) if spot.flat else tensor
            new = _through(visit, site, spot, shaped, streams)
            held = held if new is shaped else spot.put(held, new.reshape(tensor.shape))
        for base in bases:
            if base is not None and (base.module, base.side) == key:
                streams[base] = base.take(held)
        if visit.complete:
            raise _Enough
        return held

    with (attach or forward_hooks)(list(groups), passed):
        with suppress(_Enough):
            yield visit
        visit.close()


@contextmanager
def forward_hooks(stops: Sequence[Stop], passed: Passed) -> Iterator[None]:
    """torch's own hooks, on one side of each module; removed whatever happens."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return passed((module, "input"), (args, kwargs))

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        new = passed((module, "output"), output)
        return None if new is output else new

    handles = []
    try:
        # Behind all that others do to an input, so that what is kept is what the block reads; and in front of the
        # recorder hooks that transformers leaves on outputs: they too see the edited stream.
        for module, side in stops:
            if side == "input":
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(after, prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _through(visit: Visit, site: Site, spot: Spot, tensor: Tensor, streams: Mapping[Spot, Tensor]) -> Tensor:
    """The tensor after the site was visited, in the module's own terms: a branch is seen as what it adds (times its
    scale), `resid_mid` as the sum, and changed through the branch."""
    if spot.added_to is None and spot.scale == 1.0:  # rows and positions in one axis
        return visit.at(site, tensor)
    branch = tensor if spot.scale == 1.0 else tensor * spot.scale
    if spot.added_to is None:
        new = visit.at(site, branch)
        return tensor if new is branch else new / spot.scale
    total = streams[spot.added_to] + branch
    new = visit.at(site, total)
    return tensor if new is total else tensor + (new - total) / spot.scale


def wanted(keep: Keeps | None, edits: Edits | None) -> list[Site]:
    """The sites that are kept or edited, as the stream meets them."""
    return stream_order({*(keep or {}), *(edits or {})})


def outside(site: Site, depth: int | None, towers: Sequence[str]) -> ValueError:
    """The error for a site that the model does not have."""
    if depth is None:
        return ValueError(f"site {site} is outside this model: it has no {site.tower} tower, but {', '.join(towers)}.")
    return ValueError(f"site {site} is outside this model: expected layers 0..{depth - 1} of its {site.tower} tower.")
