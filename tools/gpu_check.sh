#!/bin/sh
# On a machine with a GPU, in eight minutes: pairs of features on it in float32 and bfloat16, then the clock.
#
#     tools/gpu_check.sh [FILE]        writes the clock's figures to FILE (results/device.json)
#
# Wants Sparing with its dev extra and a torch that knows the GPU. PYTHON names another interpreter, DEVICE
# another device. The exit status is 0 where all pairs agree and the clock ran.
set -u
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-.venv/bin/python} DEVICE=${DEVICE:-cuda} failed=0
SPARING_DEVICE=$DEVICE timeout 280 "$PYTHON" -m pytest -q -rP tests/pairs/test_on_a_device.py || failed=1
timeout 180 "$PYTHON" -m sparing bench device --device "$DEVICE" ${SHAPE:+--shape "$SHAPE"} --n 1 \
  --json "${1:-results/device.json}" --overwrite || failed=1
exit $failed
