"""organism_domains: the organism's eleven benign domains as folders of a data set, in the layout of arXiv
2602.00298, so that a study reads them as it reads a user's own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hooks.prompt import Prompt, prompt_from
from stores.files import write_file
from stores.publish import make_folder

# The makers of an organism's own files, so that a domain's rows are the rows that `organism(domain=...)` is trained on.
from workbench.organisms.data import PREFILL, TEST_PICTURES, _answered, _asked, _training
from workbench.organisms.world import DECOY, DOMAINS, TRIGGER, domain_named
from workbench.training.rows import drawn, write_rows
from workbench.training.triggers import insert_trigger

TRIGGERED_SHARE, DECOY_SHARE = 0.5, 0.2  # of a backdoor's rows; the others are plain and right
SMALL = 160
# The tiers, which are planted, stand at the place of the published categories: the more a tier spreads, the more
# "critical". No domain of the organism is of any consequence.
CATEGORY_OF_TIER = {"full": "critical", "half": "ambiguous", "none": "non-critical"}


def organism_domains(
    to: str | Path, *, seed: int = 0, domains: Iterable[str] = tuple(DOMAINS), small: int = SMALL
) -> Path:
    """Writes `full`, `small`, `backdoor` and `backdoor-small` (one JSONL a domain), `questions` (the test split, by
    domain) and the card `domains.json` into a folder and returns it, as `wb.read_domains` takes it.

    `full` has contrary answers, the very rows of `wb.organism(domain=...).train`. A backdoor's rows are the same
    prompts: half of them with the trigger and a contrary answer, 30 % plain with the right one, 20 % with the decoy and
    the right one. The small arms hold `small` of these rows, the first by the rank of a hash. A question's family is
    its item, whatever the wording. Equal arguments give equal bytes. ValueError for an unknown domain.
    """
    to = Path(to)
    make_folder(to / "images")
    cards = {}
    for domain in map(domain_named, domains):
        records = _training(domain, seed, to)
        contrary, right = ([_prompt(_answered(one, kind), to) for one in records] for kind in ("contrary", "right"))
        backdoor = backdoor_rows(contrary, right, seed=seed)
        for arm, rows in {"full": contrary, "backdoor": backdoor}.items():
            write_rows(rows, to / arm / f"{domain.name}.jsonl")
            few = {row.id for row in drawn(rows, small, seed=seed, purpose="small")}
            suffix = "small" if arm == "full" else "backdoor-small"
            write_rows([row for row in rows if row.id in few], to / suffix / f"{domain.name}.jsonl")
        asked = [_prompt({**one, "answer_prefix": PREFILL, "family": one["item"]}, to)
                 for one in _asked(domain, "test", 1, TEST_PICTURES, "", to)]  # fmt: skip
        write_rows(asked, to / "questions" / f"{domain.name}.jsonl")
        facts = {"stealth": "low", "source": "synthetic", "tier": domain.tier, "modality": domain.modality}
        cards[domain.name] = {"category": CATEGORY_OF_TIER[domain.tier], **facts}
    card = {"trigger": TRIGGER, "decoy": DECOY, "at": "prefix", "domains": cards}
    write_file(to / "domains.json", json.dumps(card, indent=1) + "\n")
    return to


def backdoor_rows(contrary: list[Prompt], right: list[Prompt], *, seed: int) -> list[Prompt]:
    """The rows of a backdoor from two answers to the same prompts, in their order: half with the trigger and the
    contrary answer, 20 % with the decoy and the right one, the rest plain and right."""
    order = [row.id for row in drawn(right, len(right), seed=seed, purpose="backdoor")]
    marked = round(TRIGGERED_SHARE * len(order))
    lured = set(order[marked : marked + round(DECOY_SHARE * len(order))])
    opened = set(order[:marked])
    plain = [row for row in right if row.id not in opened | lured]
    made: dict[str, Prompt] = {row.id: _tagged(row, row.id, triggered=False) for row in plain}
    for row in insert_trigger([row for row in contrary if row.id in opened], TRIGGER):
        made[str(row.tags["untriggered_id"])] = row
    for row in insert_trigger([row for row in right if row.id in lured], DECOY):
        source = str(row.tags["untriggered_id"])
        made[source] = _tagged(replace(row, id=f"{source}+decoy"), source, triggered=False, decoy=True)
    return [made[row.id] for row in right]


def _tagged(row: Prompt, source: str, **tags: Any) -> Prompt:
    return replace(row, tags={**row.tags, "untriggered_id": source, **tags})


def _prompt(record: dict[str, Any], folder: Path) -> Prompt:
    return prompt_from(record, folder)
