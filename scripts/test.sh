#!/usr/bin/env bash
# Lint, format check, types and the whole test suite; makes its own environment. Arguments go to pytest:
#   bash scripts/test.sh                        everything
#   bash scripts/test.sh tests/tape -k masking  a part of it
#   bash scripts/test.sh -n 0 tests/tape        in one process (default: two, a file of tests stays in one), say for --pdb
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup_env.sh test

# One thread per process: the distributed tests start as many processes as there are cores.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

echo "test: ruff"
python -m ruff check .
python -m ruff format --check .
echo "test: mypy"
python -m mypy
echo "test: pytest"
python -m pytest -n 2 --dist loadfile --durations=15 --durations-min=1 "$@"
