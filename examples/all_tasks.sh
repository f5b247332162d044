#!/usr/bin/env bash
# Base and tuned on every task, a few rows each: one command, one table, every number of it measured here.
#
#   bash examples/all_tasks.sh                       # all tasks that come with slimtune
#   bash examples/all_tasks.sh banking77 text2sql    # these
#
# It shows that every task runs from rows to report, not what a model can learn: with 8 test rows an interval spans half
# the scale. MODEL, TRAIN_ROWS, TEST_ROWS, EPOCHS and OUT change what is run and where. Run it again and it goes on: what
# is done stays. A task that fails stops no other and is named in the table. TREC is fetched from the hub.
set -u

MODEL=${MODEL:-smollm2-135m-embedded}
TRAIN_ROWS=${TRAIN_ROWS:-16} TEST_ROWS=${TEST_ROWS:-8} EPOCHS=${EPOCHS:-1}
OUT=${OUT:-runs/all-tasks}
tasks=("$@")
if [ "${#tasks[@]}" -eq 0 ]; then
	mapfile -t tasks < <(python -c 'from slimtune.tasks import list_tasks; print(*(job.name for job in list_tasks()), sep="\n")')
	[ "${#tasks[@]}" -gt 0 ] || exit 2 # python has said why
fi
mkdir -p "$OUT" || exit 73

failed=0
for task in "${tasks[@]}"; do
	# 2048 tokens: the schemas of smart_home and voice_banking alone take 1,600; a shorter row costs what it is long. A
	# training row over it is dropped and counted.
	cat >"$OUT/$task.yaml" <<-RECIPE
		# $task with a few rows
		model: $MODEL
		task: $task
		data: {train_rows: $TRAIN_ROWS, test_rows: $TEST_ROWS, long_rows: drop, skip_bad: true}
		train: {epochs: $EPOCHS, batch: 8}
		evaluate: {max_new_tokens: 64, few_shot: 0}
		context: 2048
	RECIPE
	echo "$task"
	slimtune run "$OUT/$task.yaml" --out "$OUT/$task" >"$OUT/$task.log" 2>&1 || {
		failed=1
		tail -n 3 "$OUT/$task.log"
	}
done

python - "$OUT" "${tasks[@]}" <<'TABLE'
import json
import sys
from pathlib import Path

from slimtune.stats import Interval

out, tasks = Path(sys.argv[1]), sys.argv[2:]


def column(task, side):
    summary = json.loads((out / task / side / "evaluation.json").read_text())
    return summary, str(Interval.from_json(summary["score"]))


print("\n| task | scorer | train | test | base | tuned | steps | loss | seconds |")
print("|---|---|---|---|---|---|---|---|---|")
for task in tasks:
    try:
        (base, before), (_, after) = column(task, "base"), column(task, "tuned")
        training = json.loads((out / task / "training.json").read_text())
        rows = json.loads((out / task / "data.json").read_text())["train_rows"]
    except FileNotFoundError as error:
        print(f"| {task} | did not finish: see {task}.log ({Path(error.filename).name} is missing) |")
        continue
    loss = f"{training['first_loss']:.2f} to {training['last_loss']:.2f}"
    print(
        f"| {task} | {base['scorer']} | {rows} | {base['n']} | {before} | {after} | {training['steps']} | {loss} | "
        f"{training['seconds']:.0f} |"
    )
TABLE
exit "$failed"
