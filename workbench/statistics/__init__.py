"""Intervals, tests and effect sizes; each interval names its method. docs/statistics.md says which one to use where."""

from workbench.statistics.beta_binomial import beta_binomial_interval
from workbench.statistics.bootstrap import bootstrap_interval, paired_bootstrap
from workbench.statistics.clusters import FEW_CLUSTERS, cluster_interval, cluster_means, intraclass_correlation
from workbench.statistics.correlation import (
    correlation,
    correlation_interval,
    correlation_test,
    critical_correlation,
)
from workbench.statistics.effects import cohen_d, effect_interval, effect_size
from workbench.statistics.equivalence import Equivalence, tost, tost_bootstrap, tost_independent
from workbench.statistics.intervals import Interval, t_interval, wilson
from workbench.statistics.many_cells import max_sign_flip_test, max_statistic
from workbench.statistics.multiplicity import benjamini_hochberg, holm
from workbench.statistics.permutation import (
    DRAWS_FOR_P,
    Significance,
    format_p,
    p_value,
    permutation_null,
    permutation_test,
)
from workbench.statistics.pooled import pooled_interval
from workbench.statistics.rates import FEW_EVENTS, DesignEffect, clustered_wilson, design_effect
from workbench.statistics.replication import PseudoReplication, PseudoReplicationWarning, clustered
from workbench.statistics.selection import Selected, selected
from workbench.statistics.separation import auroc, auroc_interval
from workbench.statistics.separation_bootstrap import auroc_bootstrap
from workbench.statistics.sign_flips import sign_flip_null, sign_flip_test, sign_test
from workbench.statistics.splits import Split, dev_confirm
from workbench.statistics.trends import Step, Trend, dose_table, jonckheere_trend, kendall_trend, page_trend
from workbench.statistics.values import Tail

__all__ = [
    "DRAWS_FOR_P",
    "FEW_CLUSTERS",
    "FEW_EVENTS",
    "DesignEffect",
    "Equivalence",
    "Interval",
    "PseudoReplication",
    "PseudoReplicationWarning",
    "Selected",
    "Significance",
    "Split",
    "Step",
    "Tail",
    "Trend",
    "auroc",
    "auroc_bootstrap",
    "auroc_interval",
    "benjamini_hochberg",
    "beta_binomial_interval",
    "bootstrap_interval",
    "cluster_interval",
    "cluster_means",
    "clustered",
    "clustered_wilson",
    "cohen_d",
    "correlation",
    "correlation_interval",
    "correlation_test",
    "critical_correlation",
    "design_effect",
    "dev_confirm",
    "dose_table",
    "effect_interval",
    "effect_size",
    "format_p",
    "holm",
    "intraclass_correlation",
    "jonckheere_trend",
    "kendall_trend",
    "max_sign_flip_test",
    "max_statistic",
    "p_value",
    "page_trend",
    "paired_bootstrap",
    "permutation_null",
    "permutation_test",
    "pooled_interval",
    "selected",
    "sign_flip_null",
    "sign_flip_test",
    "sign_test",
    "t_interval",
    "tost",
    "tost_bootstrap",
    "tost_independent",
    "wilson",
]
