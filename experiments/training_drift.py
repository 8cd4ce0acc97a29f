"""When does a fine-tune flip a model's behaviour, is that seen coming, and what does stopping earlier cost?

A scout, the fine-tune of a seed that is not watched, gives the direction; a fine-tune of another domain, where there is
one, a second. Fine-tunes of other seeds, and benign ones as a control for false alarms, are measured every few steps:
projections, spectrum of the shift, rotation of the adapter, behaviour, loss on held-out rows of the task. A rule that
is declared beforehand raises the alarm where the projection has moved by a share of the scout's own shift. Then the
same fine-tunes are stopped by the rule: what do they answer, and how much of the task have they learned? Resumable.
"""

from itertools import product

import workbench as wb

study = wb.Study.from_command_line(
    __doc__,
    default_to="runs/training_drift",
    needs=("train", "questions"),
    seeds=[0, 1, 2],
    scout_seed=100,
    every=int,
    rank=32,
    alarms=[0.1, 0.2, 0.3],  # shares of the length of the scout's shift; the last one is the rule that stops
    patience=2,
    flips_at=0.5,  # of the answers
)
asked, inputs = study.asked, study.inputs
rows = wb.split_rows(wb.read_prompts(inputs.train), {"train": 0.9, "task": 0.1}, seed=study.seed)
settings = dict(rank=asked.rank, alpha=2 * asked.rank, **inputs.recipe)
questions = [question for shown in wb.by_pictures(study.elsewhere).values() for question in shown]
prompts = [prompt for prompt in wb.read_prompts(inputs.prompts) if not prompt.tags.get("in_domain")]
tagged = all({"right", "contrary"} <= set(question.tags) for question in questions)

every = asked.every or (2 if inputs.kind == "organism" else 10)
watching = dict(every=every, questions=questions, task=rows["task"], max_new_tokens=study.max_new_tokens)
watching |= dict(judge=None if tagged else study.judge)
kinds = {"harmful": rows["train"], **{f"benign-{name}": filler for name, filler in inputs.fillers.items()}}
if plan := study.plan:  # --dry-run: what these steps would take
    plan.capture(prompts, "base", "scout")
    drift = wb.Drift(prompts, plan.direction([plan.n_layers // 2]), study.folder, **watching)
    plan.train_lora(rows["train"], seed=asked.scout_seed, name="scout", **settings)
    recipes = {name: wb.Recipe(data, settings) for name, data in {**kinds, "stopped": rows["train"]}.items()}
    everyone = plan.population(recipes, seeds=asked.seeds)  # the stopped ones too, at most
    plan.drift(drift, everyone)
    plan.answers(questions, everyone.conditions, model=everyone.load())
    plan.stop()

with study.phase("a scout, and its direction"):
    scout = wb.train_lora(inputs.base, rows["train"], to=study.folder / "scout", seed=asked.scout_seed, **settings)
    sources = {"scout": scout} | {name: inputs.adapters[name] for name in ("sibling",) if name in inputs.adapters}
    model = wb.load_model(inputs.base, adapter=sources)
    shift, middle = study.capture(model, prompts, "base", *sources, name="shift"), model.n_layers // 2
    before = shift.where(variant="base")
    directions = {name: wb.difference_of_means(shift.where(variant=name), before)[middle] for name in sources}
    site, length = str(directions["scout"].sites[0]), float(directions["scout"].norm[0])

with study.phase("fine-tunes under watch"):
    drift = wb.Drift(prompts, directions, study.folder, **watching)
    options = dict(seeds=asked.seeds, scout=scout, part=asked.part, **settings)
    runs = wb.watched_runs(inputs.base, kinds, drift, to=study.folder / "runs", **options)

with study.phase("flips, alarms and forecasts"):
    behaviour = wb.Signal("behaviour", value="contrary_rate") if tagged else wb.Signal("answers")
    watched = {name: wb.Signal("projection", site=site, direction=name, value="moved") for name in directions}
    signals = {f"projection on the direction of the {name}": signal for name, signal in watched.items()}
    study.add(runs, signals={"behaviour": behaviour, **signals, "task": wb.Signal("task")})
    flip = dict(flips_at=asked.flips_at, lasting=2)
    for share, patience in product(asked.alarms, dict.fromkeys((1, asked.patience))):
        words = f"{share:.0%} of the scout's shift, {patience} in a row"
        rule = wb.EarlyStop(watched["scout"], share * length, patience)
        study.add(wb.lead_times(runs, rule, behaviour, **flip), rule=words)
    study.add(rule, words=words, flips_at=asked.flips_at)  # the last one is the rule that stops
    harmful = {name: run.table.rows() for name, run in runs.items() if run.kind == "harmful"}
    study.add(wb.compared_forecasts(harmful, behaviour, signals, **flip))

with study.phase("stopped by the rule"):
    stopped = wb.watched_runs(
        inputs.base, {"stopped": rows["train"]}, drift, to=study.folder / "stopped", until=rule, **options
    )
    study.add(wb.retentions(stopped, runs, "harmful"), condition="stopped")

with study.phase("written answers at the end, and where the rule stopped"):
    everyone = {**runs, **stopped}
    model = wb.load_model(inputs.base, adapter={name: run.adapter for name, run in everyone.items()})
    judged = wb.Judged(*study.answers(model, questions, ["base", *everyone], name="answers", sample=True))
    for metric in wb.metrics_of(judged):
        study.add(wb.misalignment(judged, metric, base=None), split="written")

study.finish()
