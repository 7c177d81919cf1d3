# To be sourced. `read_words "$@"` puts the words before -- into $given and those behind it into $options; asked for
# help, it shows the comment at the head of the script and ends it. `usage TEXT` ends it with an error.
set -euo pipefail

given=()
options=()

read_words() {
    if [[ "${1:-}" == "-h" || "${1:-}" == "--help" ]]; then
        awk 'NR > 1 { if (!sub(/^# ?/, "")) exit; print }' "$0"
        exit 0
    fi
    while (( $# )) && [[ "$1" != "--" ]]; do
        given+=("$1")
        shift
    done
    if (( $# )); then shift; fi
    options=("$@")
}

usage() {
    echo "usage: $(basename "$0") $1" >&2
    exit 2
}
