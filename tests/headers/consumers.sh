#!/bin/sh
# consumers.sh BUILD_FOLDER CONSUMERS CMAKE OPTION...: builds and runs a program that adds tenon as a subdirectory and
# one that finds it installed, moved afterwards, under a prefix with a space in its name.
set -eu
build=$1
consumers=$2
cmake=$3
shift 3
work="$build/consumers"
rm -rf "$work"
mkdir -p "$work"
"$cmake" --install "$build" --prefix "$work/installed here" >"$work/install.log"
mv "$work/installed here" "$work/moved there"
for way in add_subdirectory find_package; do
  "$cmake" "$@" -S "$consumers/$way" -B "$work/$way" -DCMAKE_PREFIX_PATH="$work/moved there"
  "$cmake" --build "$work/$way"
  for program in "$work/$way"/consumer*; do "$program"; done
done
