# shellcheck shell=bash
# Creates .venv and installs the pinned packages and this repository into it; quick when nothing has changed.
#
#   bash scripts/setup_env.sh run      what the library and the quickstart need   (requirements/run.txt)
#   bash scripts/setup_env.sh test     the same, the optional extras and the tools (requirements/test.txt)
#   source scripts/setup_env.sh run    also puts .venv/bin first on this shell's PATH
#
# PROTEINLM_PYTHON  the Python that creates the environment (default: the first of python3, python3.13 ... that fits)
# PROTEINLM_VENV    path of the environment (default: .venv next to this directory)
# pip's own variables apply, such as PIP_EXTRA_INDEX_URL (see requirements/run.txt for torch without CUDA).
set -euo pipefail

setup_env_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)"
setup_env_venv="${PROTEINLM_VENV:-$setup_env_root/.venv}"

setup_env_fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The pinned versions have wheels for these.
setup_env_fits() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

setup_env_find_python() {
    local candidate
    if [ -n "${PROTEINLM_PYTHON:-}" ]; then
        setup_env_fits "$PROTEINLM_PYTHON" ||
            setup_env_fail "PROTEINLM_PYTHON=$PROTEINLM_PYTHON is not a Python 3.10, 3.11, 3.12 or 3.13"
        printf '%s\n' "$PROTEINLM_PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if setup_env_fits "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    setup_env_fail "no Python 3.10, 3.11, 3.12 or 3.13 found ($(python3 --version 2>/dev/null || echo 'python3 is missing'))." \
        "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name one: PROTEINLM_PYTHON=/path/to/python3"
}

# True for an environment created by this script that was not moved: console scripts such as torchrun contain its path.
setup_env_venv_usable() {
    setup_env_fits "$setup_env_venv/bin/python" && [ -x "$setup_env_venv/bin/pip" ] &&
        [ "$(cat "$setup_env_venv/made_at" 2>/dev/null || echo "$setup_env_venv")" = "$setup_env_venv" ]
}

setup_env_make_venv() {
    local python
    if [ -e "$setup_env_venv" ] && [ ! -e "$setup_env_venv/pyvenv.cfg" ]; then
        setup_env_fail "$setup_env_venv exists and is not a virtual environment; it is not changed"
    fi
    python="$(setup_env_find_python)" || exit 1
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        setup_env_fail "$python has no venv module (Debian, Ubuntu: apt install python3-venv)"
    echo "setup: creating $setup_env_venv with $("$python" --version)"
    "$python" -m venv --clear "$setup_env_venv" || setup_env_fail "could not create $setup_env_venv"
    printf '%s\n' "$setup_env_venv" >"$setup_env_venv/made_at"
}

# A hash of everything that determines the installation: pins, package metadata, Python and path.
setup_env_fingerprint() {
    "$setup_env_venv/bin/python" - "$setup_env_root" <<'PYTHON'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
digest = hashlib.sha256(f"{root} {sys.version}".encode())
metadata = [root / "pyproject.toml", root / "setup.py", root / "tape" / "version.py"]
for path in [*sorted(root.glob("requirements/*.txt")), *metadata]:
    digest.update(path.read_bytes())
print(digest.hexdigest())
PYTHON
}

setup_env_pip() {
    local log="$setup_env_venv/install.log"
    if ! "$setup_env_venv/bin/python" -m pip --disable-pip-version-check install --no-input --progress-bar off "$@" \
        >>"$log" 2>&1; then
        tail -n 30 "$log" >&2
        setup_env_fail "pip install $* failed; the full log is $log"
    fi
}

setup_env_install() {
    local set_name="$1" started=$SECONDS
    echo "setup: installing requirements/$set_name.txt (torch is the large one; progress: tail -f $setup_env_venv/install.log)"
    rm -f "$setup_env_venv"/*.stamp "$setup_env_venv/install.log"
    setup_env_pip -r "$setup_env_root/requirements/$set_name.txt"
    setup_env_pip --no-deps --no-build-isolation --editable "$setup_env_root"
    echo "setup: installed in $((SECONDS - started)) s"
}

setup_env_main() {
    local set_name="${1:-}" fingerprint stamp
    case "$set_name" in
    run | test) ;;
    *) setup_env_fail "usage: setup_env.sh run|test" ;;
    esac
    setup_env_venv_usable || setup_env_make_venv
    fingerprint="$(setup_env_fingerprint)"
    # The test requirements include the run requirements, so the test stamp is valid for both.
    for stamp in "$setup_env_venv/$set_name.stamp" "$setup_env_venv/test.stamp"; do
        if [ "$(cat "$stamp" 2>/dev/null)" = "$fingerprint" ]; then
            return
        fi
    done
    setup_env_install "$set_name"
    printf '%s\n' "$fingerprint" >"$setup_env_venv/$set_name.stamp"
}

setup_env_main "${1:-}"
export PATH="$setup_env_venv/bin:$PATH" VIRTUAL_ENV="$setup_env_venv"
unset PYTHONHOME
