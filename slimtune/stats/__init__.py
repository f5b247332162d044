"""How sure we may be of a number, of a difference, and of a rank.

intervals.py    one score, two models on the same rows
power.py        how many test rows show what
ranks.py        mean ranks over tasks, and what to do about missing cells
rank_draws.py   how sure the order is: P(best), P(top 3), a range of ranks
apart.py        which contestants are apart at all: Friedman, the critical difference, Holm
gains.py        tunability, and the noise between seeds
"""

from slimtune.stats.apart import CriticalDifference, Friedman, critical_difference, friedman, holm
from slimtune.stats.gains import SeedNoise, Tunability, seed_noise, tunability, widened
from slimtune.stats.intervals import (
    ALPHA,
    CELLS,
    DRAWS,
    Comparison,
    Interval,
    bounds_of_draws,
    hardly_vary,
    paired_difference,
    score_interval,
    share_of_error_removed,
    wilson,
)
from slimtune.stats.power import TENTH, Separation, rows_to_separate, smallest_detectable_difference
from slimtune.stats.rank_draws import RankBootstrap, TaskRows, rank_bootstrap
from slimtune.stats.ranks import Block, LeftOut, RankRow, complete_block, mean_ranks, ranks

__all__ = [
    "ALPHA",
    "CELLS",
    "DRAWS",
    "TENTH",
    "Block",
    "Comparison",
    "CriticalDifference",
    "Friedman",
    "Interval",
    "LeftOut",
    "RankBootstrap",
    "RankRow",
    "SeedNoise",
    "Separation",
    "TaskRows",
    "Tunability",
    "bounds_of_draws",
    "complete_block",
    "critical_difference",
    "friedman",
    "hardly_vary",
    "holm",
    "mean_ranks",
    "paired_difference",
    "rank_bootstrap",
    "ranks",
    "rows_to_separate",
    "score_interval",
    "seed_noise",
    "share_of_error_removed",
    "smallest_detectable_difference",
    "tunability",
    "widened",
    "wilson",
]
