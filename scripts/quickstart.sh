#!/usr/bin/env bash
# From proteins to a table of results, on a machine that has bash and Python >= 3.10:
#
#   bash scripts/quickstart.sh                          the embedded sample, about ten minutes on two cores
#   bash scripts/quickstart.sh --data DIR --out DIR     your own files (formats: scripts/prepare_data.py --help)
#   bash scripts/quickstart.sh --tasks ss cc --size small
#   bash scripts/quickstart.sh --help
#
# The first run creates .venv and installs the pinned packages. A second run repeats only what has changed.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" >/dev/null && pwd)"
source "$here/setup_env.sh" run
exec python "$here/quickstart.py" "$@"
