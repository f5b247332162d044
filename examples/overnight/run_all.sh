#!/usr/bin/env bash
# One recipe after the other, on a box that is rented by the hour.
#
#   nohup bash examples/overnight/run_all.sh lfm2-350m-edge my.yaml > overnight.log 2>&1 &
#
# Without names it takes those below. A recipe that fails does not stop the others, and is named at the end. After a
# Ctrl-C, a kill or a lost box the same command in the same folder goes on: what is done already takes seconds.
#
# STOP_COMMAND stops the meter. It runs last, whatever happened, also after Ctrl-C; only kill -9 leaves it no time. Say
#   export STOP_COMMAND='sudo shutdown -h now'
# or what your provider has instead. Without it nothing is shut down, and the box goes on costing.
#
# It ends with 0 where all are done, with 75 where some are open and the same command goes on, with 1 where one failed.
set -u

recipes=("$@")
if [ "${#recipes[@]}" -eq 0 ]; then
	recipes=( # `slimtune list recipes` has more; the small ones first, so that there is something to read early
		lfm2-350m-edge
		qwen3-1.7b-voice-banking
		qwen3-4b-2507-voice-banking
		qwen3-8b-voice-banking
	)
fi
finished=() open=() failed=()
child='' stopping=''

stop_the_meter() {
	local code=$?
	trap '' INT TERM HUP # nothing comes between the box and its end
	if [ -n "${STOP_COMMAND:-}" ]; then
		echo "Stopping the meter: $STOP_COMMAND"
		bash -c "$STOP_COMMAND" || echo "STOP_COMMAND failed with exit code $?: the box may go on costing."
	fi
	exit "$code"
}

stop() {
	stopping=yes
	if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi # slimtune ends at the next whole step
}

trap stop_the_meter EXIT
trap stop INT TERM HUP

run() { # in the background, where a signal to this script is passed on at once and not after hours; sets `code`
	slimtune run "$1" &
	child=$!
	wait "$child"
	code=$?
	while kill -0 "$child" 2>/dev/null; do # the signal ended the waiting, not slimtune
		wait "$child"
		code=$?
	done
	child=''
}

if ! command -v slimtune >/dev/null; then
	echo "There is no command slimtune here, so nothing was run. Say first: source .venv/bin/activate"
	exit 1
fi

for recipe in "${recipes[@]}"; do
	if [ -n "$stopping" ]; then
		open+=("$recipe")
		continue
	fi
	echo "=== $(date '+%F %T')  slimtune run $recipe"
	run "$recipe"
	if [ "$code" -eq 0 ]; then
		finished+=("$recipe")
	elif [ "$code" -eq 75 ] || [ -n "$stopping" ]; then
		open+=("$recipe")
	else
		failed+=("$recipe (exit code $code)")
	fi
done

echo "=== $(date '+%F %T')  done ${#finished[@]}, open ${#open[@]}, failed ${#failed[@]}"
if [ "${#finished[@]}" -gt 0 ]; then printf 'done: %s\n' "${finished[@]}"; fi
if [ "${#open[@]}" -gt 0 ]; then printf 'open, the same command goes on: %s\n' "${open[@]}"; fi
if [ "${#failed[@]}" -gt 0 ]; then printf 'failed, its message stands above: %s\n' "${failed[@]}"; fi
if [ "${#failed[@]}" -gt 0 ]; then exit 1; fi
if [ "${#open[@]}" -gt 0 ]; then exit 75; fi
