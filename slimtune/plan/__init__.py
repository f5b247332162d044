"""The plan of a run, made before anything is downloaded: what will be loaded, how it trains, and whether it fits.

usual_batch          rows of a step, where nobody says (batch.py)
make_plan            the fastest settings whose predicted peak fits, and why
parts_gib            the prediction itself, part by part (memory.py; calibration.py fits its constants)
estimate_speed       how long and for how much, as a range (speed.py)
disk_gib, ram_gib    what the job takes beside the card (host.py)
possible_layouts     how rows may be laid out (collation.py)
longest_row          the longest row that fits (longest.py)
rows_at_a_time       how many examples are answered together (rows.py)
yarn_for             how a context beyond the native one is reached (context.py)
"""

from slimtune.plan.batch import MOST_ROWS, trained_on, usual_batch
from slimtune.plan.collation import SHARED_PREFIX_TYPES, possible_layouts
from slimtune.plan.context import Yarn, context_problem, holds_needles, refuse_needles, usable_tokens, yarn_for
from slimtune.plan.host import disk_gib, ram_gib, refuse_full_disk
from slimtune.plan.longest import longest_row
from slimtune.plan.memory import Setting, Together, filled, high_gib, parts_gib, with_levers
from slimtune.plan.pinned import pinned_words
from slimtune.plan.planner import Plan, choose_precision, make_plan
from slimtune.plan.rows import rows_at_a_time
from slimtune.plan.speed import Speed, estimate_speed

__all__ = [
    "MOST_ROWS",
    "SHARED_PREFIX_TYPES",
    "Plan",
    "Setting",
    "Speed",
    "Together",
    "Yarn",
    "choose_precision",
    "context_problem",
    "disk_gib",
    "estimate_speed",
    "filled",
    "high_gib",
    "holds_needles",
    "longest_row",
    "make_plan",
    "parts_gib",
    "pinned_words",
    "possible_layouts",
    "ram_gib",
    "refuse_full_disk",
    "refuse_needles",
    "rows_at_a_time",
    "trained_on",
    "usable_tokens",
    "usual_batch",
    "with_levers",
    "yarn_for",
]
