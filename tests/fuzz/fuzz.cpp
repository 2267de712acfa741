// libFuzzer's entry for the target that TENON_FUZZ_TARGET names.
#include "targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Target& target = []() -> const fuzz::Target& {
    for (const auto& each : fuzz::targets())
      if (each.name == TENON_FUZZ_TARGET) return each;
    std::abort();
  }();
  fuzz::accepts(target, {data, size});
  return 0;
}
