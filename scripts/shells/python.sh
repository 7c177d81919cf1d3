# To be sourced: $root is the repository, $python its interpreter ($PYTHON, the active environment's, .venv's, python3).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
for python in "${PYTHON:-}" "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" "$root/.venv/bin/python" python3; do
    if command -v "$python" >/dev/null; then break; fi
done
# Only looked for: importing it takes seconds.
if ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' 2>/dev/null; then
    echo "error: $python has no torch: run 'bash scripts/setup_env.sh run', or name another interpreter in PYTHON" >&2
    exit 1
fi

# Shows a command, then runs it.
run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}
