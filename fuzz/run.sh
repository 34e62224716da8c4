#!/usr/bin/env bash
#
# Coverage-guided fuzzing with AddressSanitizer.
#
#   fuzz/run.sh                              every target, one minute each
#   fuzz/run.sh --minutes 15                 every target, 15 minutes each
#   fuzz/run.sh --minutes 5 cells timers     these two
#
# Needs nightly and cargo-fuzz (`cargo install cargo-fuzz`). Starts from fuzz/seeds; what it finds to be new is kept in
# fuzz/corpus, which is not committed, and what fails in fuzz/artifacts. Exit status 1 if a target fails.

set -euo pipefail
cd "$(dirname "$0")"

minutes=1
targets=()
while [ $# -gt 0 ]; do
    case $1 in
        --minutes)
            [ $# -gt 1 ] || { echo "--minutes needs a number" >&2; exit 2; }
            minutes=$2
            shift 2
            ;;
        --help | -h)
            sed -n '3,10s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        -*) echo "unknown option $1; see --help" >&2; exit 2 ;;
        *) targets+=("$1"); shift ;;
    esac
done
[ ${#targets[@]} -gt 0 ] || targets=(keys timers cells programs anything)

command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is not installed: cargo install cargo-fuzz" >&2; exit 2; }

status=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "seeds/$target"
    log=$(mktemp)
    printf '%s: %s minutes\n' "$target" "$minutes" >&2
    if cargo +nightly fuzz run "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time=$((minutes * 60)) -rss_limit_mb=4096 -timeout=30 >"$log" 2>&1; then
        runs=$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log" | tail -n 1)
        covered=$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
        printf '%-9s %s minutes: %s runs, %s points covered, nothing found\n' "$target" "$minutes" "$runs" "$covered"
    else
        printf '%-9s FAILED; the end of its output:\n' "$target"
        tail -n 40 "$log"
        status=1
    fi
    rm -f "$log"
done
exit "$status"
