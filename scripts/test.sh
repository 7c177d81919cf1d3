#!/usr/bin/env bash
# Runs the linters, the documentation build, the type checker and the test suite in a virtual environment.
# Arguments are passed to pytest:
#   bash scripts/test.sh                        everything
#   bash scripts/test.sh tests/tape -k masking  some of the tests
#   bash scripts/test.sh -m gpu                 the tests that need a CUDA device
#   bash scripts/test.sh -n 0 tests/tape        in one process, for --pdb (default: two; each test file stays in one)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup_env.sh test

# One thread per process: the distributed tests start as many processes as there are cores.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

echo "test: ruff"
python -m ruff check .
python -m ruff format --check .
echo "test: codespell"
python -m codespell_lib
echo "test: documentation"
python -m sphinx -q -W --keep-going docs build/docs
echo "test: mypy"
python -m mypy
echo "test: pytest"
python -m pytest -n 2 --dist loadfile --durations=15 --durations-min=1 "$@"
