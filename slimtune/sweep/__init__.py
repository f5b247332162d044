"""A study: models x tasks x seeds, each one a run, over a folder that survives whoever works on it.

matrix     from a matrix file to its cells, or to every mistake in it
identity   what a cell is of: two that agree in it are one
store      the folder of a study: what was asked, what is done, what failed, who is at work
local      the runner: a process a model, one cell after the other, whatever happens to them
worker     the process that does them; cell: one of them for real
lease      who works on a study, and what it has cost

leaderboard    its cells ranked, compared and priced; it names the modules that do
recommend      which model to take, by own cells, printed ranks and the memory plan; advice: in sentences
"""
