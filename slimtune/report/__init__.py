"""One run's report: did tuning help, how sure is that, and what exactly ran.

collect    the run folder, read once; what is missing is listed
beside     what stands beside a score
compare    scores, paired differences, the verdict
rows       single answers worth reading         confusion   which label was taken for which
facts      memory, time, environment, data      plots       SVG and PNG
render     HTML and Markdown                    write       all of it, into the run folder
browse     every answer, filtered               side_by_side    several runs, compared
live       a training that still goes on        served      the teacher that answered, the judge that scored
against_base    a tuned model on another task, beside its base
board      a study's leaderboard, as values     board_plots, board_page     drawn, and written
"""

from slimtune.report.compare import Difference, ScoreRow, Verdict
from slimtune.report.write import Report, read_report, report_fragment, write_report

__all__ = ["Difference", "Report", "ScoreRow", "Verdict", "read_report", "report_fragment", "write_report"]
