"""The plan of a run, made before anything is downloaded: what will be loaded, how it trains, and whether it fits.

make_plan            the fastest settings whose predicted peak fits, and why
parts_gib            the prediction itself, part by part (memory.py)
choose_collation     how rows are laid out (collation.py)
yarn_for             how a context beyond the native one is reached (context.py)
"""

from slimtune.plan.collation import SHARED_PREFIX_FAMILIES, choose_collation
from slimtune.plan.context import Yarn, context_problem, usable_tokens, yarn_for
from slimtune.plan.memory import Setting, parts_gib
from slimtune.plan.planner import Plan, choose_precision, make_plan

__all__ = [
    "SHARED_PREFIX_FAMILIES",
    "Plan",
    "Setting",
    "Yarn",
    "choose_collation",
    "choose_precision",
    "context_problem",
    "make_plan",
    "parts_gib",
    "usable_tokens",
    "yarn_for",
]
