#!/bin/sh
# spills.sh COMPILER...: at -O2 the AVX-512 tiles of the product keep their accumulators in registers: no zmm register is
# stored to the stack in `multiply` or what is inlined into it. (`gather` transposes more rows than there are registers.)
set -eu
case $("$@" -dumpmachine) in x86_64*) ;; *) echo "not x86-64: nothing to look at"; exit ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo '#include <tenon/kernels/product_body.hpp>' >"$work/unit.cpp"
"$@" -O2 -DTENON_COMPILED -S -o "$work/unit.s" "$work/unit.cpp"
awk '
  /^_Z[A-Za-z0-9_]+:/ { name = $1; kept = name ~ /avx512/ && name !~ /gather|finish/; functions += kept }
  kept && /zmm/ { vectors++ }
  kept && /vmov[a-z0-9]+[ \t]+%zmm[0-9]+, .*\(%r(sp|bp)/ { print name " spills: " $0; spills++ }
  END {
    if (!vectors) { print "no AVX-512 tile was found"; exit 1 }
    printf "%d functions, %d uses of zmm, %d spills\n", functions, vectors, spills
    exit spills > 0
  }' "$work/unit.s"
