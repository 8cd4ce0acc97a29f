"""What this room asks of captured rows, and the one way rows are joined: by prompt id, and saying how many matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from hooks.site import Site

Sites = Iterable[Site | str | int] | Site | str | int | None  # None: all that were captured


if TYPE_CHECKING:

    class SiteSource(Protocol):
        """What has sites of known widths: rows, or sums over rows."""

        @property
        def sites(self) -> Sequence[Any]: ...
        def d_model(self, site: Any) -> int: ...

    class RowSource(Protocol):
        """Rows of activations, one a (prompt, variant) or (prompt, variant, position): a store's view, or `ArrayRows`.

        `values(site)` is [row, d_model] in the order of `prompt_ids`, `variants` and `labels`. `info` may hold `model`,
        `scope` and `n_layers`. Rows that are differences of two variants have a `matched` that is not None.
        """

        @property
        def sites(self) -> Sequence[str]: ...
        @property
        def prompt_ids(self) -> Sequence[str]: ...
        @property
        def variants(self) -> Sequence[str]: ...
        @property
        def labels(self) -> Sequence[Any]: ...
        @property
        def positions(self) -> np.ndarray: ...
        @property
        def info(self) -> Mapping[str, Any]: ...
        @property
        def matched(self) -> int | None: ...
        def values(self, site: Any, dtype: Any = ...) -> np.ndarray: ...
        def batches(self, site: Any, size: int = ...) -> Iterator[np.ndarray]: ...
        def d_model(self, site: Any) -> int: ...
        def tag(self, name: str) -> Sequence[Any]: ...
        def where(self, **conditions: Any) -> RowSource: ...
        def __len__(self) -> int: ...

else:
    # Asking isinstance(rows, Protocol) while tests run would read every list of a store's view, some of which refuse.
    RowSource = SiteSource = Any


@dataclass(frozen=True)
class Join:
    """Row numbers of two sources that belong together (`left[i]` with `right[i]`), and what stayed over."""

    keys: tuple[Hashable, ...]
    left: Int[np.ndarray, " match"]
    right: Int[np.ndarray, " match"]
    only_left: int
    only_right: int

    @property
    def matched(self) -> int:
        return len(self.keys)


def joined(left: Sequence[Hashable], right: Sequence[Hashable], names: tuple[str, str]) -> Join:
    """The join of two lists of unique keys, in sorted key order so that the order of capture decides nothing.

    Raises ValueError when a key occurs twice on one side, or when nothing matches.
    """
    places = []
    for keys, name in zip((left, right), names, strict=True):
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise ValueError(
                f"{len(twice)} keys occur more than once in {name} (first: {twice[0]!r}): expected one row a prompt "
                f"and variant. Capture with a pooled scope such as at='last', or select one position with where(...)."
            )
        places.append({key: index for index, key in enumerate(keys)})
    both = sorted(places[0].keys() & places[1].keys(), key=str)
    if not both:
        raise ValueError(
            f"no row of {names[0]} matches a row of {names[1]}: rows are joined by prompt id, and these share none "
            f"({_some(left)} against {_some(right)}). Capture both from the same prompts file."
        )
    return Join(
        tuple(both),
        np.array([places[0][key] for key in both], dtype=np.intp),
        np.array([places[1][key] for key in both], dtype=np.intp),
        len(places[0]) - len(both),
        len(places[1]) - len(both),
    )


def chosen_sites(rows: SiteSource, sites: Sites) -> tuple[Site, ...]:
    """The wanted sites of `rows`, in the order asked for; None means all. A bare number is the layer of the one stream.

    Raises ValueError for a site that was not captured; the message lists those that were.
    """
    there = tuple(Site.parse(name) for name in rows.sites)
    if sites is None:
        return there
    return tuple(site_among(there, wanted) for wanted in listed(sites))


def listed(sites: Iterable[Site | str | int] | Site | str | int) -> list[Site | str | int]:
    """One site or several, as a list."""
    return [sites] if isinstance(sites, Site | str | int | np.integer) else list(sites)


def site_range(sites: Sequence[Site]) -> str:
    """How a result says where it is: the site, or the first, the last and how many."""
    if len(sites) < 2:
        return "".join(map(str, sites)) or "no site"
    return f"{sites[0]} .. {sites[-1]} ({len(sites)})"


def site_among(there: Sequence[Site], wanted: Site | str | int) -> Site:
    """The one site of `there` that `wanted` names; a layer number must name exactly one."""
    if isinstance(wanted, int | np.integer):
        found = [site for site in there if site.layer == wanted]
        if len(found) > 1 and len({site.tower for site in found}) > 1:
            found = [site for site in found if site.tower == "language"]
    else:
        found = [site for site in there if site == Site.parse(wanted)]
    if len(found) != 1:
        problem = "is not here" if not found else f"is ambiguous ({', '.join(map(str, found))})"
        raise ValueError(f"site {wanted!s} {problem}: expected one of {', '.join(map(str, there))}.")
    return found[0]


def narrowed(rows: RowSource, sites: Sequence[Site]) -> RowSource:
    """The rows of the one stream these sites belong to; a view of several streams may have other rows in each."""
    streams = {site.stream for site in sites}
    at = getattr(rows, "at", None)
    return rows if at is None or len(streams) != 1 else at(streams.pop())


def one_width(rows: SiteSource, sites: Sequence[Site]) -> int:
    """d_model of these sites; refuses a mixture, since towers of different width share no space."""
    widths = {site.stream: rows.d_model(site) for site in sites}
    if len(set(widths.values())) != 1:
        raise ValueError(
            f"these sites have different widths ({widths}): one result holds one width. Pass sites= for one stream."
        )
    return next(iter(widths.values()))


def prompt_sums(
    rows: RowSource, site: Site, keys: Sequence[str]
) -> tuple[Float[np.ndarray, "key d_model"], np.ndarray]:
    """Float64 sum and count of the rows of each prompt in `keys`, read batch by batch; other rows are left out."""
    place = {key: index for index, key in enumerate(keys)}
    index = np.array([place.get(prompt, -1) for prompt in rows.prompt_ids], dtype=np.intp)
    sums, start = None, 0
    for batch in rows.batches(site):
        mine = index[start : start + len(batch)]
        start += len(batch)
        if sums is None:
            sums = np.zeros((len(keys), batch.shape[1]))
        np.add.at(sums, mine[mine >= 0], np.asarray(batch, np.float64)[mine >= 0])
    if sums is None:
        raise ValueError(f"there are no rows at {site}: the view is empty.")
    return sums, np.bincount(index[index >= 0], minlength=len(keys)).astype(np.float64)


def _some(keys: Sequence[Hashable]) -> str:
    first = ", ".join(map(repr, list(dict.fromkeys(keys))[:3]))
    return f"{first}, ..." if len(keys) > 3 else first or "no rows"
