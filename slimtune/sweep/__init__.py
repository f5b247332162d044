"""A study: models x tasks x seeds, each one a run, over a folder that survives whoever works on it.

store   the folder of a study: what was asked, what is done, what failed, who is at work
"""
