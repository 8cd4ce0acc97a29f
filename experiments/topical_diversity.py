"""Does a fine-tune spread further where its data are more varied in topic, or less?

Vendi scores (orders 0.5, 1, 2) and the mean distance of every domain's rows, all domains at one number of rows, each
with an interval over its rows and with how much it grows with their number: over the base model's own residual stream
(the answer's mean at one layer, the middle one by default, with and without the component that all domains share), and
with --encoder FOLDER over question and answer as a sentence encoder sees them. Against the misalignment of the domains:
correlations with intervals, two-sided, since nobody stated a sign; one domain is one point. Resumable.
"""

import workbench as wb

study = wb.DomainStudy.from_command_line(
    __doc__,
    default_to="runs/topical_diversity",
    needs=("domains",),
    **dict(texts=250, orders=[0.5, 1.0, 2.0], layer=int, encoder=str),
)
asked = study.asked
texts = wb.domain_texts(study.domains, most=asked.texts, seed=study.seed)
rows = [row for each in texts.values() for row in each]

if plan := study.plan:  # --dry-run
    model = study.plan_shared()
    plan.capture(rows, "base", at="response", pool="mean", model=model)
    plan.stop("embeddings by --encoder" if asked.encoder else "")

with study.phase("embeddings of the rows"):
    base = study.model.variant("base")
    site = wb.Site(base.n_layers // 2 if asked.layer is None else asked.layer)
    folder = study.folder / f"rows-{site.layer}"
    store = wb.capture(base, rows, sites=site, at="response", pool="mean", variants=["base"], to=folder)
    embedded = {"": wb.embeddings_by(store, "domain", site)}
    if asked.encoder:
        said = {domain: [wb.said_in(row) for row in each] for domain, each in texts.items()}
        embedded["encoder"] = {domain: wb.encoded_texts(asked.encoder, each) for domain, each in said.items()}

with wb.if_measurable(study, "the diversity of the domains' rows"), study.phase("diversity at one number of rows"):
    found = []
    for of, vectors in embedded.items():
        for centre in (False, True):
            found += wb.diversity(vectors, orders=asked.orders, centre=centre, of=of, seed=study.seed)
    study.add(found)

    with wb.if_measurable(study, "diversity against misalignment"), study.phase("diversity against misalignment"):
        table = wb.diversity_table(found, wb.outcomes(study.ranking, study.metric))
        ranked = wb.predictors(table)
        study.add(table, of=study.metric)
        study.add(ranked, condition="diversity")
        print(ranked)

study.finish()
