// All kernels but the products on each instruction set of this build against those in double: a program for the cross
// compiler and an emulator, where no test framework is at hand. Returns 1 and a line for each wrong result.
#include <cstdio>
#include <string>

#include <tenon/core/cpu.hpp>

#include "kernels/every_kernel.hpp"

using namespace tenon;

int main() {
  int failures = 0;
  for (Index n : {1, 7, 16, 17, 33, 49}) {
    const std::vector<double> exact = every_kernel<double>(n);
    for (Isa isa : all_isas) {
      if (!is_available(isa)) continue;
      const IsaScope scope(isa);
      const std::vector<float> got = every_kernel<float>(n);
      for (std::size_t i = 0; i < exact.size(); ++i)
        if (!(std::abs(static_cast<double>(got[i]) - exact[i]) <= 2e-5 * (1 + std::abs(exact[i])))) {
          std::printf("%s, n %d, number %zu: %.9g for %.9g\n", std::string(name_of(isa)).c_str(), static_cast<int>(n), i, static_cast<double>(got[i]), exact[i]);
          ++failures;
        }
    }
  }
  std::printf("kernels: %d wrong on %s\n", failures, available_isas().c_str());
  return failures > 0;
}
