#!/usr/bin/env bash
# All that needs an NVIDIA GPU, in under nine minutes; docs/gpu.md explains it.
#   bash benchmarks/gpu.sh --kit gpu-kit
#   bash benchmarks/gpu.sh --device cpu --dry-run
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=python3
if [ -x "$root/.venv/bin/python" ]; then python="$root/.venv/bin/python"; fi
export PYTHONPATH="$root:$root/src${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m benchmarks.gpu.run "$@"
