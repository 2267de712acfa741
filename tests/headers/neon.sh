#!/bin/sh
# neon.sh INCLUDE TESTS: the kernels on NEON agree with double: tests/neon/*.cpp, built by the cross compiler, run by an
# emulator. Skipped, with a line, where either is missing.
set -eu
include=$1
tests=$2
compiler=$(command -v aarch64-linux-gnu-g++ || true)
emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64 || true)
if [ -z "$compiler" ] || [ -z "$emulator" ]; then
  echo "skipped: needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user)"
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
for source in "$tests"/neon/*.cpp; do
  program=$work/$(basename "$source" .cpp)
  "$compiler" -std=c++20 -O1 -static -I"$include" -I"$tests" "$source" -o "$program"
  "$emulator" "$program" || status=1
done
exit $status
