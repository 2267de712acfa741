#!/bin/sh
# symbols.sh LIST_OF_OBJECTS: fails if a header's own unit defines a strong symbol, which two units would both define.
set -eu
found=$(while read -r object; do
  nm -A -C --defined-only --extern-only "$object" | awk '$2 ~ /^[A-TX-Z]$/'
done <"$1")
[ -z "$found" ] && exit
echo "Not inline, or not a template, in a header:"
echo "$found"
exit 1
