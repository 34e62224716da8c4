#!/usr/bin/env bash
# Instructions per operation, counted by callgrind: the figure to trust on a busy machine.
#
#   benches/instructions.sh                                  every row of mainstay and tokio's LocalSet
#   benches/instructions.sh --row yield --row join           some rows, or groups of rows
#   benches/instructions.sh --peer mainstay --ops 50000      other peers, other counts
#
# Each workload of `compare` runs with n and with 2n operations; a cell is (I(2n) - I(n)) / n. So the set-up, the
# first growth of an executor and the process itself drop out, and what is left repeats to about an instruction.
# The workload's own instructions are in it: `loop_only` has those of an empty one.
#
# Not measured: cache misses, locked instructions (one counts as much as any other), system calls. The memory row
# has no instructions per operation; yield_1m would take minutes, and runs only if it is named.
set -euo pipefail

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
}

rows=()
peers=()
ops=10000
while (($#)); do
    case "$1" in
        --row) rows+=("${2:?--row needs a name}"); shift 2 ;;
        --peer) peers+=("${2:?--peer needs a name}"); shift 2 ;;
        --ops) ops="${2:?--ops needs a number}"; shift 2 ;;
        --help | -h) usage; exit ;;
        *) echo "instructions.sh: unknown argument $1" >&2; exit 2 ;;
    esac
done
if ((${#peers[@]} == 0)); then
    peers=(mainstay tokio_local)
fi
if ! command -v valgrind > /dev/null; then
    echo "instructions.sh: valgrind is not installed" >&2
    exit 2
fi

cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cargo bench --bench compare --no-run --message-format=json-render-diagnostics > "$scratch/cargo.json"
compare=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$scratch/cargo.json" | tail -n 1)

filter=()
for row in "${rows[@]}"; do
    filter+=(--row "$row")
done
names=$("$compare" --list "${filter[@]}")
if ((${#rows[@]} == 0)); then
    names=$(grep -vx yield_1m <<< "$names")
    names=$(grep -v '^remote/' <<< "$names") # two threads under callgrind take turns: no figure
fi
names=$(grep -vx memory <<< "$names" || true)

# Prints "operations instructions" of one run.
count() {
    local done total
    done=$(valgrind --tool=callgrind --callgrind-out-file="$scratch/callgrind.out" --log-file="$scratch/log" \
        "$compare" --row "$1" --peer "$2" --once "$3") || { cat "$scratch/log" >&2; return 1; }
    total=$(sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$scratch/log")
    echo "$done $total"
}

echo "Instructions per operation: $(rustc --version), $(valgrind --version), $(ldd --version 2>&1 | head -n 1)."
echo
printf '| row |'
printf ' %s |' "${peers[@]}"
printf '\n|---|'
printf -- '---:|%.0s' "${peers[@]}"
printf '\n'
for name in $names; do
    printf '| %s |' "$name"
    for peer in "${peers[@]}"; do
        once=$(count "$name" "$peer" "$ops")
        twice=$(count "$name" "$peer" "$((2 * ops))")
        awk -v once="$once" -v twice="$twice" 'BEGIN {
            split(once, a); split(twice, b)
            if (b[1] > a[1]) printf " %.1f |", (b[2] - a[2]) / (b[1] - a[1]); else printf " - |"
        }'
    done
    printf '\n'
done
