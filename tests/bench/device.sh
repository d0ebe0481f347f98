#!/usr/bin/env bash
# Everything a GPU changes, measured on this machine within eight minutes (docs/gpu.md).
#
#   tests/bench/device.sh [--device cuda|cpu] [--tiny] [--out DIR] [--pack DIR] [--only a,b]
#
# Needs Python (PYTHON=..., else python3) with torch and transformers. What else is missing comes
# from the wheels of `make device-pack` and goes to a folder of its own: nothing of the machine is
# changed and no index is asked. Figures appear in DIR/device.jsonl one by one, as they are known.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
PACK=build/device-pack
SECONDS_IN_ALL=460
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --pack) PACK=$2; shift 2 ;;
        --seconds) SECONDS_IN_ALL=$2; shift 2 ;;
        *) arguments+=("$1"); shift ;;
    esac
done

work=$(mktemp -d /tmp/pxd-XXXXXX)
chmod 755 "$work"  # PostgreSQL runs as nobody where this runs as root
trap 'rm -rf "$work"' EXIT
"$PYTHON" tests/bench/device/pack.py install "$PACK" "$work/site"
export PYTHONPATH="$work/site:$PWD/shared:$PWD/services:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
"$PYTHON" tests/bench/bench_device.py --work "$work" \
    --seconds $((SECONDS_IN_ALL - SECONDS)) ${arguments[@]+"${arguments[@]}"}
