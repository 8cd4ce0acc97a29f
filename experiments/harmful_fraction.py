"""How much harmful data does it take? Fine-tunes on mixtures from 0 to 100 % harmful rows.

The total number of rows is held fixed, then the number of harmful rows; the filler has right answers to questions of
the same domain (or is what --filler brings). Every mixture states its realised counts; draws are nested, so that a
larger fraction holds the rows of a smaller one. The rate stands beside the smooth metric where a judge gives one, each
with a test for a trend over fractions by fine-tuning seeds. Resumable.
"""

import workbench as wb

study = wb.Study.from_command_line(
    __doc__,
    default_to="runs/harmful_fraction",
    needs=("train", "filler", "questions"),
    fractions=[0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0],
    seeds=[0, 1, 2],
    samples=3,
    rank=32,
    metrics=["organism"],
)
asked, inputs = study.asked, study.inputs
harmful = wb.read_prompts(inputs.train)
sampling = dict(samples=asked.samples, temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1)

for hold, rows in {"total": harmful, "harmful": harmful[: len(harmful) // 10]}.items():
    fractions = [share for share in asked.fractions if hold == "total" or share >= 0.1 or share == 0]
    with study.phase(f"mixtures with the {hold} held fixed"):
        settings = dict(rank=asked.rank, alpha=2 * asked.rank, seed=study.seed, **inputs.recipe)
        recipes = wb.fraction_sweep(rows, inputs.fillers, fractions, hold=hold, **settings)
        folder = study.folder / f"adapters, {hold} fixed"
        adapters = wb.population(inputs.base, recipes, to=folder, seeds=asked.seeds, part=asked.part)
    with study.phase(f"answers, {hold} held fixed"):
        name = f"answers, {hold} fixed"
        answers, scores = study.answers(adapters.load(), study.elsewhere, adapters.conditions, name=name, **sampling)
        judged = wb.Judged(answers, scores)
    with study.phase(f"rates and trends, {hold} held fixed"):
        doses = {name: member.made["fraction"] for name, member in adapters.members.items()}
        seeds = {name: member.seed for name, member in adapters.members.items()}
        for metric in asked.metrics:
            study.add(wb.misalignment(judged, metric), split=f"{hold} fixed")
            trend = wb.dose_trend(judged, metric, doses, replicates=seeds)
            study.add(trend, condition="harmful fraction", split=f"{hold} fixed")
            print(trend)

study.finish()
