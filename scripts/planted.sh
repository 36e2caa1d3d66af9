#!/bin/sh
# Plays the simulation against planted bugs: each patch in sim-tests/planted breaks one promise of the product, and the
# sweep must notice: that of clusters if the patch is called cluster-*, else that of runs. The product carries no switch
# for them; they are applied to a copy of the tree.
#
#   scripts/planted.sh                 all of them
#   scripts/planted.sh close pace      those whose names contain one of the words
#   scripts/planted.sh cluster         those of the cluster
#
# PLANTED_SEEDS (800) bounds the seeds played against each. PLANTED_DIR (planted) is where it works below target/, so
# that two can play at once.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
dir=$root/target/${PLANTED_DIR:-planted}
copy=$dir/tree
seeds=${PLANTED_SEEDS:-800}
cargo=${CARGO:-cargo}

# Only what git knows: a stray file must not decide the outcome.
rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z | xargs -0 cp --parents --preserve=timestamps -t "$copy"
# The copy lies below the tree and takes its settings; with both, cargo would rebuild everything.
rm -rf "$copy/.cargo"

# One target directory for all patches and for the next call, so that only the crates that changed are built again.
export CARGO_TARGET_DIR="$dir/build"
# What the tree itself has built of others' crates serves the copy, too.
if [ ! -d "$dir/build/debug" ] && [ -d target/debug ]; then
    mkdir -p "$dir/build"
    cp -a target/debug "$dir/build/debug"
fi
# Each seed once (CI would play some twice), on two threads by default.
unset MADSIM_TEST_SEED MADSIM_TEST_CHECK_DETERMINISM RUSTFLAGS CI
export MADSIM_TEST_JOBS=${MADSIM_TEST_JOBS:-2}

missed=0
played=0
report=$dir/report.txt
log=$dir/log.txt
printf '%-46s %-12s %8s  %s\n' "planted bug" "caught at" "seconds" "by the promise" | tee "$report"
for patch in sim-tests/planted/*.patch; do
    name=$(basename "$patch" .patch)
    if [ $# -gt 0 ]; then
        wanted=no
        for word in "$@"; do
            case $name in *"$word"*) wanted=yes ;; esac
        done
        [ $wanted = yes ] || continue
    fi
    played=$((played + 1))
    case $name in cluster-*) test=cluster ;; *) test=run ;; esac
    (cd "$copy" && patch -p1 --quiet --no-backup-if-mismatch <"$root/$patch")
    if ! (cd "$copy" && $cargo test --quiet --locked -p sim-tests --test $test --no-run) >"$log" 2>&1; then
        cat "$log"
        missed=$((missed + 1))
        printf '%-46s %-12s\n' "$name" "DOES NOT BUILD" | tee -a "$report"
        (cd "$copy" && patch -p1 --quiet --reverse --no-backup-if-mismatch <"$root/$patch")
        continue
    fi
    began=$(date +%s)
    (cd "$copy" && MADSIM_TEST_SEED=0 MADSIM_TEST_NUM=$seeds RUST_BACKTRACE=0 \
        timeout 240 $cargo test --quiet --locked -p sim-tests --test $test promises_hold) >"$log" 2>&1 || true
    seconds=$(($(date +%s) - began))
    seed=$(sed -n 's/^seed \([0-9]*\) broke a promise$/\1/p' "$log" | head -n 1)
    if [ -n "$seed" ]; then
        promise=$(sed -n '/^broken:$/{n;s/^  //;s/: .*//;p;}' "$log" | head -n 1)
        printf '%-46s %-12s %8s  %s\n' "$name" "seed $seed" "$seconds" "$promise" | tee -a "$report"
    else
        missed=$((missed + 1))
        printf '%-46s %-12s %8s  %s\n' "$name" "NOT CAUGHT" "$seconds" "" | tee -a "$report"
        cp "$log" "$dir/missed-$name.txt"
    fi
    (cd "$copy" && patch -p1 --quiet --reverse --no-backup-if-mismatch <"$root/$patch")
done
if [ $played -eq 0 ]; then
    echo "planted: no patch is called $*" >&2
    exit 2
fi
if [ $missed -gt 0 ]; then
    echo "planted: $missed of $played were not caught in $seeds seeds" >&2
    exit 1
fi
echo "all $played caught"
