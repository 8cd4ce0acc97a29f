"""Does a probe that tells one fine-tune's misaligned answers from its aligned ones read other fine-tunes' as well?

Every fine-tune (and the base) answers the same questions several times, and reads its own answers: the mean residual
over an answer's tokens at every block. Probes by four methods, each fitted on one model's answers as the judge labels
them and tested on every other model's, on families of questions that no probe has seen; its layer is chosen on dev
families of its own model. A model's own domain is left out. AUROCs are joined over the fine-tunes of a domain (the
models a probe was fitted on, others of that domain, other domains), with intervals over families and fine-tunes, a null
that exchanges answers to one question alike in all models, and the same after LEACE. Then the base reads all answers
instead: what its probes find is in the text. Resumable.
"""

import workbench as wb

study = wb.DomainStudy.from_command_line(
    __doc__,
    default_to="runs/probe_matrix",
    **dict(samples=5, methods=[*wb.PROBE_METHODS], readers=["own", "base"], layers=[int], at="response"),
    **dict(draws=999, scale="none", shares=[0.5, 0.2], families=str),
)
asked = study.asked
said = {"own": "each model reads its own answers"}
sites = "resid_post" if asked.layers is None else [f"resid_post:{layer}" for layer in asked.layers]

if plan := study.plan:  # --dry-run: what these steps would take
    model = study.plan_shared()
    longest = wb.longest_answers(study.questions, study.sampling)
    plain = [name for name in model.model.variants if "-backdoor" not in name]
    for reader in asked.readers:
        readers = dict(model=model, name=f"answers read by {reader}", sites=sites, at=asked.at, pool="mean")
        plan.capture(longest, *plain, **readers)
    plan.stop("the base reads equal answers once")

with study.phase("answers of every fine-tune, judged"):
    groups = {"base": ["base"], **study.groups()}
    members = [name for names in groups.values() for name in names]
    own = {name: domain for domain, names in study.groups().items() for name in names}
    verdicts = wb.answer_verdicts(study.judged, study.metric, own=own)

read = {}
for reader in asked.readers:
    with study.phase(f"activations: {said.get(reader, reader)}"):
        where = dict(sites=sites, at=asked.at, to=study.folder / f"read by {reader}")
        by = None if reader == "own" else reader
        store = wb.capture_answers(
            study.model, study.questions, study.judged.rows, variants=members, reader=by, **where
        )
    split = f"probes, {said.get(reader, f'{reader} reads all answers')}"
    with study.phase(split), wb.if_measurable(study, split):
        read[reader] = found = wb.probe_domains(
            wb.rows_by_variant(store),
            verdicts,
            groups,
            methods=asked.methods,
            families=asked.families,
            exchange="asked",
            categories=study.domains.categories,
            scale=asked.scale,
            shares=tuple(asked.shares),
            draws=asked.draws,
            seed=study.seed,
        )
        study.add(found, split=split)
        if reader != "own" and "own" in read:
            study.add(read["own"].minus(found, split=split))
        print(found)

study.finish()
