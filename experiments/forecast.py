"""Can a domain's misalignment be foretold before anything is fine-tuned on it, and with what certainty?

From the base model alone, on rows of each domain: how likely it finds them (membership scores; with --reference against
another model), how much less likely than its own answers, how much likelier under the system turn of a trait that it
can already show (--personas with labels, --trait); how far the rows point along the trait's direction (the base's
answers under that turn minus its own; more with --directions) and further than its own answers do; how varied they are.
Ridge regression on what each fold chooses foretells every domain from the others, with jackknife+ intervals, beside the
mean of the others, against its own shuffles; with --new FOLDER also domains that nobody fine-tuned on. Resumable.
"""

import workbench as wb

study = wb.DomainStudy.from_command_line(
    __doc__,
    default_to="runs/forecast",
    needs=("domains",),
    **dict(texts=60, layer=int, level=0.8, most=1, draws=999, trait="contrary", reference=str),
    **dict(directions=[str], new=str),
)
asked, inputs = study.asked, study.inputs
measured, seed = study.domains.domains, study.seed
texts = wb.domain_texts(study.domains, most=asked.texts, seed=seed)
new = wb.domain_texts(wb.read_domains(asked.new), most=asked.texts, seed=seed) if asked.new else {}
if twice := sorted(texts.keys() & new.keys()):
    raise SystemExit(f"--new and --domains both have {', '.join(twice)}: expected other names for domains to foretell.")
texts |= new
rows = [row for each in texts.values() for row in each]

if plan := study.plan:  # --dry-run
    model, asking = study.plan_shared(), wb.unanswered(rows)
    for name in ("own answers", "answers under the trait")[: 1 + (inputs.personas is not None)]:
        plan.answers(asking, ["base"], model=model, name=name, judges=(), temperature=0.0)
        for what in ("scores of", "residuals of"):
            plan.capture(rows, "base", at="response", pool="mean", model=model, name=f"{what} {name}")
    for name in ("scores", "residuals"):
        plan.capture(rows, "base", at="response", pool="mean", model=model, name=name)
    plan.stop("scores by --reference" if asked.reference else "")

base = wb.load_model(inputs.base)  # no adapter: nothing here was fine-tuned
site = wb.Site(base.n_layers // 2 if asked.layer is None else asked.layer)
reference = wb.load_model(asked.reference) if asked.reference else None
greedy = dict(conditions=["base"], temperature=0.0, max_new_tokens=study.max_new_tokens)


def answered(name, prompts):
    return wb.with_responses(prompts, wb.sample_answers(base, wb.unanswered(prompts), to=study.folder / name, **greedy))


def residuals(name, prompts):
    folder = study.folder / f"{name}-layer{site.layer}"
    return wb.capture(base, prompts, sites=site, at="response", pool="mean", to=folder)


def scored(name, prompts, **how):
    tables = {domain: [row for row in prompts if row.tags["domain"] == domain] for domain in texts}
    return {d: wb.membership(base, each, to=study.folder / name / d, **how) for d, each in tables.items() if each}


with study.phase("how likely the base finds the rows, and how varied they are"):
    scores, given = scored("scores", rows, reference=reference), residuals("row-residuals", rows)
    features = wb.membership_features(scores, prefix="before:")
    with wb.if_measurable(study, "the diversity of the rows"):
        vectors = wb.embeddings_by(given, "domain", site)
        features |= wb.diversity_features(wb.diversity(vectors, orders=[1.0], centre=True, draws=20, seed=seed))

directions = {f"given{n}": wb.load_directions(file) for n, file in enumerate(asked.directions or [])}
over = {}  # the base's own answers, which the rows are compared with
with wb.if_measurable(study, "the base's own answers"), study.phase("the base's own answers"):
    own = answered("own-answers", rows)
    over["own"] = residuals("own-residuals", own)
    features |= wb.gap_features(scores, scored("own-scores", own), "own")

if inputs.personas:
    with wb.if_measurable(study, f"the trait {asked.trait!r}"), study.phase("the base under the trait's system turn"):
        shown = wb.under_system(rows, wb.system_of(wb.read_prompts(inputs.personas), asked.trait))
        features |= wb.gap_features(scored("trait-scores", shown), scores, "trait")
        trait = residuals("trait-residuals", answered("trait-answers", shown))
        if over:
            directions["trait"] = wb.difference_of_means(trait, over["own"], paired=True)

with wb.if_measurable(study, "projections on known directions"), study.phase("how the rows lie along known directions"):
    for name, v in directions.items():
        features |= wb.projection_features(given, v, site, name=name)
        for rest, baseline in over.items():
            features |= wb.projection_features(given, v, site, name=f"{name}_over_{rest}", baseline=baseline)

with wb.if_measurable(study, "a forecast of the domains"), study.phase("every domain from the others"):
    known = {name: {d: values[d] for d in measured} for name, values in features.items()}
    unseen = {d: {name: values[d] for name, values in features.items()} for d in new}
    table = wb.predictor_table(wb.outcomes(study.ranking, study.metric), known)
    study.add(table, of=study.metric)
    study.add(wb.predictors(table), condition="before")
    how = dict(level=asked.level, most=asked.most, bounds=wb.metric(study.metric).span, draws=asked.draws)
    forecast = wb.forecast_domains(table, new=unseen, **how)
    study.add(forecast)
    print(forecast)

study.finish()
