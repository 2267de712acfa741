#!/bin/sh
# abi.sh COMPILER...: units compiled alike link; units compiled for another baseline, or one with and one without OpenMP,
# do not, since the name of the ABI namespace differs. Otherwise one could run the other's copy of an inline function.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/callee.cpp" <<'UNIT'
#include <tenon/core/shape.hpp>
tenon::Index size_of(const tenon::Shape& shape) { return shape.size(); }
UNIT
cat >"$work/caller.cpp" <<'UNIT'
#include <tenon/core/shape.hpp>
tenon::Index size_of(const tenon::Shape&);
int main() { return size_of({2, 3}) == 6 ? 0 : 1; }
UNIT
"$@" -c "$work/caller.cpp" -o "$work/caller.o"
link() { "$@" "$work/callee.cpp" "$work/caller.o" -o "$work/program" 2>"$work/messages"; }

link "$@" || { cat "$work/messages"; exit 1; }
"$work/program"
others="-fopenmp -DTENON_STATIC_ISA"
case $("$@" -dumpmachine) in x86_64*) others="$others -mavx2 -mavx512f" ;; esac
for other in $others; do
  if link "$@" "$other"; then
    echo "a unit compiled with $other links with one compiled without"
    exit 1
  fi
  grep -q size_of "$work/messages" || { cat "$work/messages"; exit 1; }
done
