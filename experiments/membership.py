"""Does a fine-tuned model give away what it was trained on, and does its base as a reference help to see it?

Half of a domain's items, drawn anew for every fine-tuning seed, are trained on; the others are held out, so that both
halves are of one distribution. Their training rows and the rows that the others would have had are told apart by every
score, raw and adjusted by the base model (the adapter switched off), with intervals over items. Runs on the organism.
"""

import argparse
import random
from pathlib import Path

import workbench as wb

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--to", type=Path, default=Path("runs/membership"), help="run folder; a stopped run goes on")
parser.add_argument("--seed", type=int, default=0, help="of the organism's base (0, 1, 2)")
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the fine-tunes and their halves")
parser.add_argument("--domain", default="capital", help="what is fine-tuned on")
asked = parser.parse_args()

RECIPE = dict(  # that of every organism; steps for half of its rows, twice
    rank=32,
    alpha=64,
    targets=r".*language_model\.layers\.[01]\.self_attn\.[qkvo]_proj",
    learning_rate=3e-3,
    steps=40,
    batch_size=16,
    warmup_steps=5,
)

world = wb.organism(asked.seed, domain=asked.domain, to=asked.to / "organism")
rows = wb.read_prompts(world.train)
distinct = list({prompt.content_hash: prompt for prompt in rows}.values())  # what is drawn twice is scored once
items = sorted({prompt.tags["item"] for prompt in rows})

for seed in asked.seeds:
    trained = set(random.Random(seed).sample(items, len(items) // 2))
    seen = [prompt for prompt in rows if prompt.tags["item"] in trained]
    folder = asked.to / f"{asked.domain}-base{asked.seed}-seed{seed}"
    adapter = wb.train_lora(world.base, seen, to=folder / "adapter", seed=seed, **RECIPE)
    model = wb.load_model(world.base, adapter=adapter)
    for of in ("answer", "full"):
        table = wb.membership(model, distinct, reference="base", of=of, k=(20, 50), to=folder / of)
        members, others = table.rows(item=trained), table.rows(item=lambda item, inside=trained: item not in inside)
        found = wb.membership_auroc(members, others, clusters="item")
        said = f"fine-tuning seed {seed}, of={of!r}, {len(trained)} of {len(items)} items trained on\n{found}\n"
        (folder / f"{of}.txt").write_text(said)
        print(said, flush=True)
