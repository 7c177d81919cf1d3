#!/usr/bin/env bash
# Downloads TAPE's published data sets and Pfam, resumable and verified. `--help` shows the options:
#   bash scripts/download_data.sh                     the five tasks, into ./data
#   bash scripts/download_data.sh stability pfam --target DIR
# Uses the first Python that has lmdb, numpy and tqdm; if there is none, creates the quickstart's environment.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

find_python() {
    local candidate
    for candidate in "${VIRTUAL_ENV:-$root/.venv}/bin/python" "$root/.venv/bin/python" python3 python; do
        if "$candidate" -c 'import lmdb, numpy, tqdm' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

if ! python="$(find_python)"; then
    source "$root/scripts/setup_env.sh" run
    python=python
fi
exec "$python" "$root/scripts/download_data.py" "$@"
