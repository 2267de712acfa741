#!/bin/sh
# readme.sh README COMPILER...: every C++ program in the README compiles as it stands.
set -eu
readme=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
awk -v folder="$folder" '
  /^```cpp$/ { inside = 1; count++; next }
  /^```$/ { inside = 0 }
  inside { print > (folder "/" count ".cpp") }
' "$readme"
count=0
for unit in "$folder"/*.cpp; do
  [ -f "$unit" ] || { echo "$readme holds no C++ program"; exit 1; }
  count=$((count + 1))
  "$@" -Wall -Wextra -Werror -fsyntax-only "$unit"
done
echo "$count programs compile"
