"""What was each model fine-tuned on, and what does it say? One adapter a domain, fine-tuning seed and arm.

The data sets of the domains (one folder: full, small, backdoor, backdoor-small; --domains) are checked before anything
is trained on them: schema, single turns, trigger rates and leaks, duplicates. Each file gives an adapter a seed, plain
(full) and with a backdoor; members are independent, resume, and may be shared out (--part 1/2, --engine ray). Then the
base and all adapters answer the same questions as rows of shared batches, so that the base's weights are read once for
all of them: plainly, and for the backdoored ones without a text, with the trigger and with a decoy. The other scripts
on the population take adapters and answers from here (--population FOLDER).
"""

import workbench as wb

study = wb.DomainStudy.from_command_line(__doc__, default_to="runs/population")
if plan := study.plan:  # --dry-run: what these steps would take
    study.plan_shared()
    plan.stop()

with study.phase("the data sets, checked"):
    print(study.domains)
    study.add(study.domains)

if study.asked.part != "1/1" or study.population.missing:
    print(f"part {study.asked.part} is trained; when all parts are, a run without --part asks their adapters")
    raise SystemExit(0)

with study.phase("all adapters beside the base"):
    together = study.model.why_not_by_row(tuple(study.population.members))
    study.add(study.population, shared=together)

with study.phase("answers of the plain adapters, judged"):
    for metric in wb.metrics_of(study.judged):
        study.add(wb.misalignment(study.judged, metric), split="each adapter, plain")

with study.phase("answers of the backdoored adapters, judged"), wb.if_measurable(study, "answers under a trigger"):
    for metric in wb.metrics_of(study.judged_triggered):
        found = wb.misalignment(study.judged_triggered, metric, base="base/none")
        study.add(found, split="each adapter, backdoor")

study.finish()
