"""Does membership inference on a domain's training rows tell how misaligned a fine-tune on them becomes?

Every membership score of a domain's rows (the answer given the question): under the model fine-tuned on them, under its
base, adjusted by the base; with --reference also under the base against a model that was not instruction-tuned. Means
over rows and fine-tuning seeds, held against the misalignment of the domains on questions about other domains; one
domain is one point. Single features are ranked without fitting, their signs stated beforehand; fitted predictors are
compared with their own shuffles under the same leave-out procedure, pairs left out for the AUROC. "Misaligned" is above
the median domain unless --threshold says otherwise. Texts pooled over domains stand beside, with the p that counts
domains and the one that counts texts. Resumable.
"""

import statistics

import workbench as wb

study = wb.DomainStudy.from_command_line(
    __doc__,
    default_to="runs/membership_predictor",
    needs=("domains",),
    **dict(texts=int, k=[20], form="template", shots=2, max_length=int, reference=str, threshold=float, draws=999),
)
asked = study.asked
few = 120 if study.inputs.kind == "organism" else 250  # the paper's small sets have 250 rows
arm = "full" if "full" in study.arms else "small"
texts = wb.domain_texts(study.domains, arm=arm, most=asked.texts or few, seed=study.seed)
scoring = dict(of="answer", k=asked.k, text=asked.form, max_length=asked.max_length)

if plan := study.plan:  # --dry-run
    model = study.plan_shared()
    for domain, rows in texts.items():
        own = [name for name in model.model.variants if name.startswith(f"{domain}-plain")]
        plan.capture(rows, "base", *own, at="response", pool="mean", model=model, name=f"scores of {domain}")
    plan.stop("membership scores are counted as one forward of each text and model, without their prefix")

with study.phase("membership scores of every domain's rows"):
    groups = study.groups(arm)
    scored = {}
    for domain, names in groups.items():
        how = dict(scoring, recall_prefix=wb.other_texts(texts, domain, asked.shots), reference="base")
        tables = {name: study.folder / "scores" / name for name in names}
        found = [wb.membership(study.model.variant(n), texts[domain], to=to, **how) for n, to in tables.items()]
        scored[domain] = [row for table in found for row in table.rows()]
    features = wb.membership_features(scored)

if asked.reference:
    with study.phase("the base against the reference, before any fine-tuning"):
        base, other = study.model.variant("base"), wb.load_model(asked.reference)
        how = dict(scoring, reference=other)
        before = {d: wb.membership(base, texts[d], to=study.folder / "scores" / f"before-{d}", **how) for d in groups}
        features |= wb.membership_features(before, prefix="before:")

with wb.if_measurable(study, "misalignment of the domains against membership scores"):
    with study.phase("single features, their signs stated beforehand"):
        table = wb.predictor_table(wb.outcomes(study.ranking, study.metric), features)
        threshold = statistics.median(table.measured.tolist()) if asked.threshold is None else asked.threshold
        found = wb.predictors(table, threshold=threshold)
        study.add(table, of=study.metric)
        study.add(found, condition="membership")
        study.add(wb.pooled_aurocs(scored, table, threshold=threshold))
        print(found)
    with study.phase("fitted predictors against their own shuffles"):
        for kind, part in wb.feature_kinds(table).items():
            for model in ("ridge", "logistic"):
                fitted = wb.fitted_predictor(part, model=model, threshold=threshold, draws=asked.draws)
                study.add(fitted, condition=kind)
                print(kind, fitted)
    with study.phase("the same with labels dealt at random: is p honest here?"):
        study.add(wb.shuffled_populations(table), condition="membership")

study.finish()
