#!/bin/sh
# compile_fail.sh FOLDER COMPILER...: each FOLDER/*.cpp compiles as it stands and is refused with -DMUST_FAIL, by a
# message that holds the text of its first line, `// expect: TEXT`. A second line `// flags: FLAGS` replaces MUST_FAIL.
set -eu
folder=$1
shift
failures=0
count=0
# shellcheck disable=SC2086
for unit in "$folder"/*.cpp; do
  count=$((count + 1))
  expected=$(sed -n '1s|^// expect: ||p' "$unit")
  flags=$(sed -n '2s|^// flags: ||p' "$unit")
  if ! "$@" -fsyntax-only "$unit"; then
    echo "$unit: does not compile as it stands"
    failures=$((failures + 1))
  elif message=$("$@" -fsyntax-only ${flags:--DMUST_FAIL} "$unit" 2>&1); then
    echo "$unit: compiles although it must not"
    failures=$((failures + 1))
  elif [ -z "$expected" ] || ! printf '%s' "$message" | grep -qF -- "$expected"; then
    echo "$unit: refused, but not with '$expected':"
    printf '%s\n' "$message"
    failures=$((failures + 1))
  fi
done
echo "$count units, $failures failures"
[ "$failures" = 0 ]
