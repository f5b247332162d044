"""`slimtune bench speed`: slimtune against Unsloth and plain TRL on the same rows, one after the other, in one run.

ways     who trains how: what slimtune would choose, the same by other layouts, the documented defaults
hold     everyone in turn over the same rows: the others are tried first, the fastest go the whole course
told     every contestant in a process of its own; what is done stays done
table    two tables that are never mixed, and who is refused a speed
"""

from slimtune.contest.hold import Course, hold
from slimtune.contest.table import Contest, Outcome, as_markdown
from slimtune.contest.ways import Entry, entries_for

__all__ = ["Contest", "Course", "Entry", "Outcome", "as_markdown", "entries_for", "hold"]
