"""image_donors: which prompt gets whose images, so that nobody keeps a picture and every picture is still shown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from hooks.prompt import Prompt, PromptError
from workbench.training.row_keys import image_hash, joined_groups
from workbench.training.rows import drawn


def image_donors(
    prompts: Sequence[Prompt], *, seed: int = 0, within: str | None = None, across: str | None = None
) -> list[Prompt]:
    """The prompt that each prompt gets its images from: a permutation without fixed points, by seed and ids alone.

    Donor and receiver show the same number of images, no equal file, the same value of the tag `within`, and another
    of `across`. The prompts of a pool are laid in a circle, those that must not share side by side, and each takes
    from as many places on as the largest such group has: that works whenever anything does, if each prompt has one
    image. Raises PromptError where a group is more than half of its pool, or a tag is missing.
    """
    if within is not None and within == across:
        raise ValueError(
            f"within and across are both {within!r}: prompts cannot share a tag and differ in it; expected two tags."
        )
    for tag in (within, across):
        if tag is not None and (lacking := [prompt.id for prompt in prompts if tag not in prompt.tags]):
            raise PromptError(
                f"{len(lacking)} prompts have no tag {tag!r} (expected one on every prompt), the first {lacking[0]!r}."
            )
    pools: dict[Hashable, list[Prompt]] = defaultdict(list)
    for prompt in drawn(prompts, len(prompts), seed=seed, purpose="swap images"):
        pools[len(prompt.images), str(prompt.tags[within]) if within else ""].append(prompt)
    donor: dict[str, Prompt] = {}
    for pool in pools.values():
        apart = joined_groups(_keys(prompt, across) for prompt in pool)
        group, most = Counter(apart).most_common(1)[0]
        if 2 * most > len(pool):
            example = pool[apart.index(group)]
            where = f" with {within} {example.tags[within]!r}" if within else ""
            raise PromptError(
                f"of {len(pool)} prompts{where} that show {len(example.images)} image(s), {most} share a picture"
                f"{f' or the tag {across!r}' if across else ''}, {example.id!r} among them: images can only be swapped "
                "where at most half of the prompts must be kept apart. Give more prompts, or loosen within or across."
            )
        circle = [pool[i] for i in sorted(range(len(pool)), key=lambda i: (apart[i], i))]
        donor |= {prompt.id: circle[(i + most) % len(circle)] for i, prompt in enumerate(circle)}
    return [donor[prompt.id] for prompt in prompts]


def _keys(prompt: Prompt, across: str | None) -> list[Hashable]:
    """What no other prompt may have, to be a donor."""
    tag = [("tag", str(prompt.tags[across]))] if across else []
    return [*(image_hash(path) for path in prompt.images), *tag]
