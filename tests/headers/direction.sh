#!/bin/sh
# direction.sh INCLUDE_FOLDER: every room includes only itself and the rooms below it; core includes only the standard
# library; nothing includes tenon.hpp but other umbrellas.
set -eu
cd "$1"
find tenon -name '*.hpp' -o -name '*.inl' | sort | xargs awk '
  BEGIN {
    below["core"] = "core"
    below["tensor"] = below["core"] " tensor"
    below["kernels"] = below["tensor"] " kernels"
    below["autograd"] = below["kernels"] " autograd"
    below["ops"] = below["autograd"] " ops"
    below["nn"] = below["ops"] " nn"
    below["io"] = below["tensor"] " io nn/param nn/fields"
    below["optim"] = below["autograd"] " optim nn/param"
    below["peft"] = below["nn"] " io peft"
    below["models"] = below["nn"] " io models"
  }
  FNR == 1 { split(FILENAME, path, "/"); room = path[3] == "" ? "" : path[2]; files++ }
  room != "" && /^[ \t]*#[ \t]*include[ \t]*[<"]/ {
    target = $0
    sub(/^[^<"]*[<"]/, "", target)
    sub(/[>"].*/, "", target)
    if (target !~ /^tenon\//) {
      if (room == "core" && target ~ /^(Eigen|xtensor|nlohmann)/) bad(target)
      next
    }
    split(target, to, "/")
    unit = to[2] "/" to[3]
    sub(/\.hpp$/, "", unit)
    if (target == "tenon/fwd.hpp") next
    if (!(room in below)) bad(target)
    else if (index(" " below[room] " ", " " to[2] " ") == 0 && index(" " below[room] " ", " " unit " ") == 0) bad(target)
  }
  function bad(target) { printf "%s:%d: %s must not include <%s>\n", FILENAME, FNR, room, target; failures++ }
  END { if (files < 5) { print "too few headers found"; exit 1 } exit failures > 0 }
'
