#!/bin/sh
# Start every role by hand, each as a process of its own: launch/local/run.sh MODEL
# Ctrl-C stops all of them. `epd serve` does this and also supervises: it waits until all are ready,
# restarts what dies, and stops the roles one after another. With EPD_DRY_RUN=1 it only prints.
set -eu
model=${1:?usage: launch/local/run.sh MODEL [--set key=value]...}
shift
here=$(dirname "$0")
python=${PYTHON:-python3}
roles="gateway encode prefill decode"

if [ "${EPD_DRY_RUN:-0}" = 1 ]; then
    for role in $roles; do
        echo "OMP_NUM_THREADS=1 $python -m epd $role --config $here/$role.yaml --set model=$model $*"
    done
    exit 0
fi

pids=
trap 'kill $pids 2>/dev/null || :; wait' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for role in $roles; do
    OMP_NUM_THREADS=1 "$python" -m epd "$role" --config "$here/$role.yaml" \
        --set "model=$model" "$@" &
    pids="$pids $!"
done
wait
