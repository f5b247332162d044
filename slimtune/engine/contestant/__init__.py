"""One contestant of a speed test, in a process of its own: `python -m slimtune.engine.contestant JOB OUT`.

job      what it is given, what it may tell: no torch here
clock    the steps, timed and counted, whoever makes them
ours     slimtune's own trainer
theirs   Unsloth as its documentation has it, and TRL with PEFT and bitsandbytes alone
"""
