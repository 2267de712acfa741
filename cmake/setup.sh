# Shared by tests/run, examples/run and benchmarks/run (POSIX sh, sourced): finds what is missing, installs it after
# asking, configures and builds with as many jobs as cores and memory allow.
#
#   root         the checkout
#   assume_yes   1: install without asking

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
assume_yes=0
core_packages="g++ cmake ninja-build libeigen3-dev libxtensor-dev nlohmann-json3-dev libutf8proc-dev libpng-dev libjpeg-dev"

say() { printf '%s\n' "$*" >&2; }

# Seconds since the epoch.
now() { date +%s; }

# Whether a Debian package is there, or a program of another origin that stands in for it.
is_installed() {
  case $1 in
    g++) command -v "${CXX:-g++}" >/dev/null && return ;;
    cmake) command -v cmake >/dev/null && return ;;
    ninja-build) command -v ninja >/dev/null || command -v make >/dev/null && return ;;
  esac
  dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'
}

all_installed() {
  for package in "$@"; do is_installed "$package" || return 1; done
}

# need PACKAGE...: installs the Debian packages that are missing. On other systems CMake says what it cannot find.
need() {
  command -v apt-get >/dev/null || return 0
  missing=
  for package in "$@"; do is_installed "$package" || missing="$missing $package"; done
  [ -n "$missing" ] || return 0
  sudo=
  [ "$(id -u)" = 0 ] || sudo='sudo '
  say "These packages are missing:$missing"
  say "Install line: ${sudo}apt-get update && ${sudo}apt-get install -y --no-install-recommends$missing"
  if [ "$assume_yes" = 0 ] && [ "${CI:-}" != true ]; then
    if [ -t 0 ] && { [ -z "$sudo" ] || command -v sudo >/dev/null; }; then
      printf 'Run it now? [y/N] ' >&2
      read -r answer
      case $answer in [Yy]*) ;; *) exit 2 ;; esac
    elif [ -n "$sudo" ]; then
      exit 2
    fi
  fi
  say "Installing: a minute or two."
  # shellcheck disable=SC2086
  ${sudo}apt-get update -qq >&2 && ${sudo}env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $missing >/dev/null || {
    say "The packages could not be installed; the lines above say why."
    exit 2
  }
}

# Jobs for a build: at most one a core and one for each 1.5 GB of free memory.
jobs() {
  if [ -n "${CMAKE_BUILD_PARALLEL_LEVEL:-}" ]; then echo "$CMAKE_BUILD_PARALLEL_LEVEL"; return; fi
  cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)
  free_mb=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null || true)
  [ -n "$free_mb" ] || free_mb=$(($(sysctl -n hw.memsize 2>/dev/null || echo 4294967296) / 1048576))
  limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)
  if [ "$limit" != max ] && [ $((limit / 1048576)) -lt "$free_mb" ]; then free_mb=$((limit / 1048576)); fi
  by_memory=$((free_mb / 1500))
  [ "$by_memory" -ge 1 ] || by_memory=1
  if [ "$by_memory" -lt "$cores" ]; then echo "$by_memory"; else echo "$cores"; fi
}

# configure FOLDER [CMAKE_OPTION...]
configure() {
  folder=$1
  shift
  if [ -z "${CMAKE_GENERATOR:-}" ] && [ ! -f "$folder/CMakeCache.txt" ] && command -v ninja >/dev/null; then
    export CMAKE_GENERATOR=Ninja
  fi
  mkdir -p "$folder"
  if ! cmake -S "$root" "$@" -B "$folder" >"$folder/configure.log" 2>&1; then
    cat "$folder/configure.log" >&2
    exit 1
  fi
}

# build_program examples|benchmarks NAME: builds that program alone, optimised, and sets $build.
build_program() {
  build=${TENON_BUILD:-$root/build/release}
  started=$(now)
  configure "$build" --preset release -DTENON_TESTS=OFF
  target=tenon_$(echo "$1" | sed 's/s$//')_$2
  # A build with nothing to do stays silent; otherwise the compiler's progress goes to standard error.
  cmake --build "$build" --parallel "$(jobs)" --target "$target" >"$build/build.log" 2>&1 &
  builder=$!
  shown=0
  while kill -0 $builder 2>/dev/null; do
    sleep 0.2 2>/dev/null || sleep 1
    waited=$(($(now) - started))
    if [ $((waited - shown)) -ge 5 ]; then
      shown=$waited
      say "building $2: $waited s ($(tail -n 1 "$build/build.log" | cut -c 1-100))"
    fi
  done
  if ! wait $builder; then
    cat "$build/build.log" >&2
    say "building $2 failed"
    exit 1
  fi
}
