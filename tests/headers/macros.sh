#!/bin/sh
# macros.sh INCLUDE_FOLDER COMPILER...: after including every header, only the macros of core/config.hpp are left
# behind by tenon's own files. The compiler's own may be redefined there: closing a target region restores them.
set -eu
include=$1
shift
documented="TENON_VERSION_MAJOR TENON_VERSION_MINOR TENON_VERSION_PATCH TENON_ABI_THREADS TENON_ABI_DISPATCH TENON_ABI_BASE
TENON_ABI_JOIN_ TENON_ABI_JOIN TENON_ABI TENON_ON_CALL TENON_IN_BODY TENON_MEMBER_IN_BODY TENON_KERNEL TENON_COMPILED_TEMPLATE TENON_COMPILED_FUNCTION
TENON_UNROLL TENON_NOINLINE TENON_COLD"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$include" && find tenon -name '*.hpp' | sort | sed 's/.*/#include <&>/') >"$work/unit.cpp"
"$@" -E -dD "$work/unit.cpp" >"$work/expanded"
"$@" -E -dM -x c++ /dev/null >"$work/builtin"
awk -v documented="$documented" -v include="$include/tenon/" '
  FILENAME ~ /builtin$/ { sub(/\(.*/, "", $2); builtin[$2]; next }
  /^# [0-9]+ "/ { split($0, part, "\""); file = part[2]; own = index(file, include) == 1; if (own) seen++ }
  own && $1 == "#define" { name = $2; sub(/\(.*/, "", name); left[name] = file }
  $1 == "#undef" { delete left[$2] }
  END {
    n = split(documented, names)
    for (i = 1; i <= n; i++) delete left[names[i]]
    for (name in left) if (!(name in builtin)) { print "macro " name " leaks from " left[name]; failures++ }
    if (!seen) { print "no header of tenon was seen"; failures++ }
    exit failures > 0
  }' "$work/builtin" "$work/expanded"
