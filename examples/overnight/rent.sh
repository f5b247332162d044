#!/usr/bin/env bash
# From a blank box, rented by the hour, to a study's leaderboard; then the meter stops.
#
#   curl -fsSLO https://raw.githubusercontent.com/slimtune/slimtune/main/examples/overnight/rent.sh
#   export STOP_COMMAND='sudo shutdown -h now'     # what ends the rent with your provider
#   nohup bash rent.sh t4-small > rent.log 2>&1 &
#
# MATRIX (first word; a name that comes along, or a file) is run for up to HOURS; where USD_PER_HOUR says what the box
# costs, also for up to USD (5 unless set). Everything lies in WHERE: put it on a disk that outlives the box, and the
# same command on the next box goes on. RESULTS, if set, is an rsync target (me@home:studies/) that gets the study at the
# end, whatever happened. Hugging Face's HF_TOKEN is needed for gated models alone; it is read by the hub's client, and
# printed by nothing here.
set -euo pipefail

MATRIX=${1:-t4-small}
WHERE=${WHERE:-$HOME/slimtune-study}
HOURS=${HOURS:-8} USD=${USD:-} USD_PER_HOUR=${USD_PER_HOUR:-}
SOURCE=${SOURCE:-https://github.com/slimtune/slimtune}
if [ -f "$MATRIX" ]; then MATRIX=$(realpath "$MATRIX"); fi
name=$(basename "$MATRIX" .yaml)
store=$WHERE/sweeps/$name
child='' stopping=''

# 5. Whatever happened, also after a failure or Ctrl-C: the results leave the box, then the meter stops.
finish() {
	local code=$?
	trap '' INT TERM HUP
	if [ -d "$store" ] && [ -n "${RESULTS:-}" ]; then
		rsync -a "$store" "$RESULTS" || echo "The results were not copied: they lie in $store."
	fi
	if [ -n "${STOP_COMMAND:-}" ]; then
		echo "Stopping the meter: $STOP_COMMAND"
		bash -c "$STOP_COMMAND" || echo "STOP_COMMAND failed with exit code $?: the box may go on costing."
	else
		echo "STOP_COMMAND is not set: the box goes on costing."
	fi
	exit "$code"
}
stop() {
	stopping=yes
	if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null || true; fi # slimtune ends at the next whole step
}
trap finish EXIT
trap stop INT TERM HUP

# 1. What is here, and what was asked? A box without a card that works is given back in its first minute.
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
limits=(--hours "$HOURS")
if [ -n "$USD_PER_HOUR" ]; then
	limits+=(--usd "${USD:-5}" --usd-per-hour "$USD_PER_HOUR")
elif [ -n "$USD" ]; then
	echo "USD is set and the box's price is not: set USD_PER_HOUR too."
	exit 2
fi
mkdir -p "$WHERE"
cd "$WHERE"

# 2. slimtune, with the versions that were seen to work on a GPU.
if [ ! -d slimtune ]; then git clone --depth 1 "$SOURCE" slimtune; fi
make -C slimtune install
slimtune=$WHERE/slimtune/.venv/bin/slimtune
"$slimtune" doctor

# 3. What will it take? Read this in the log before it is expensive.
"$slimtune" sweep plan "$MATRIX"

if [ -n "$stopping" ]; then exit 75; fi

# 4. The study. In the background, where a signal to this script is passed on at once; cells that are done are kept.
"$slimtune" sweep run "$MATRIX" --store "$store" "${limits[@]}" &
child=$!
code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do # the signal ended the waiting, not slimtune
	code=0
	wait "$child" || code=$?
done
child=''
"$slimtune" sweep status "$store"
"$slimtune" rank "$store" || echo "Nothing to rank yet."
exit "$code" # 0: all done; 75: the same command goes on, here or on the next box
