"""Does a harmful fine-tune spread further with the rank of its LoRA adapter, and further where a picture is shown?

One adapter for every rank (alpha = rank) and fine-tuning seed. Text questions as they are; image questions with their
picture, without it, with another one's and with a plain one; several samples each. Rates with intervals over questions,
Page's test for a trend over ranks by fine-tuning seeds, the paired difference between seeing and not seeing. Paper A's
own number is a judge's pairwise score, the worst of three samples (wb.judge with the rubric shift_pairwise). Resumable.
"""

import workbench as wb

study = wb.Study.from_command_line(
    __doc__,
    default_to="runs/lora_rank",
    needs=("train", "questions"),
    ranks=[int],
    seeds=[0, 1, 2],
    samples=3,
    metric="organism",
)
asked, inputs = study.asked, study.inputs
ranks = asked.ranks or ([1, 2, 4, 8, 16, 32] if inputs.kind == "organism" else [8, 16, 32, 64, 128, 256])
sampling = dict(samples=asked.samples, temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1)  # paper A's

with study.phase("one adapter for every rank and seed"):
    recipes = wb.rank_sweep(inputs.train, ranks, alpha="rank", **inputs.recipe)
    adapters = wb.population(inputs.base, recipes, to=study.folder / "adapters", seeds=asked.seeds, part=asked.part)
    model, members = adapters.load(), adapters.members

with study.phase("the questions with their pictures, without, and with others"):
    texts = [prompt for prompt in study.elsewhere if not prompt.images]
    images = [prompt for prompt in study.elsewhere if prompt.images]
    shown = {
        "text questions": wb.in_modalities(texts, ["text_only"]),
        "image questions": wb.in_modalities(
            images, ["multimodal", "text_only", "swapped", "blank"], to=study.folder / "images", seed=study.seed
        ),
    }

for split, prompts in shown.items():
    with study.phase(f"answers to {split}, judged"):
        judged = wb.by_modality(
            *study.answers(model, list(prompts), adapters.conditions, name=f"answers to {split}", **sampling)
        )
        study.add(wb.misalignment(judged, asked.metric, base=None), split=split)
    with study.phase(f"trends over ranks, {split}"):
        for modality in prompts.made:
            doses = {f"{name}/{modality}": member.settings["rank"] for name, member in members.items()}
            seeds = {f"{name}/{modality}": member.seed for name, member in members.items()}
            trend = wb.dose_trend(judged, asked.metric, doses, replicates=seeds)
            study.add(trend, condition=f"rank/{modality}", split=split)
            print(modality, trend)

with study.phase("seeing against not seeing"):
    for name in members:
        study.add(wb.difference(judged, asked.metric, f"{name}/multimodal", f"{name}/text_only"), split=split)

study.finish()
