#pragma once
// Dropout by position: element i is kept or not by the Philox number i alone, so forward and backward are one function.
#include <tenon/core/random.hpp>
#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// y[i] = x[i] / (1 - p), or 0 with probability p. y may be x.
template <Real T>
void dropout(Index n, double p, const Philox& random, const T* x, T* y) {
  const T scale = static_cast<T>(1.0 / (1.0 - p));
  const auto threshold = static_cast<std::uint64_t>(p * 0x1p32);
  parallel_chunks(n, serial_grain / 4, [=](Index begin, Index end) {
    for (Index i = begin; i < end; i += 4) {
      const auto bits = random.block(static_cast<std::uint64_t>(i) / 4);
      for (Index j = 0; j < 4 && i + j < end; ++j) y[i + j] = bits[static_cast<std::size_t>(j)] < threshold ? T(0) : scale * x[i + j];
    }
  });
}

}  // namespace tenon::inline TENON_ABI::kernels
