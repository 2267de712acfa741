#pragma once
// The activations that a product applies to its output.
#include <cstdint>

#include <tenon/core/error.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// gelu is the erf form, quick_gelu x sigmoid(1.702 x), silu x sigmoid(x).
enum class Activation : std::uint8_t { none, relu, gelu, quick_gelu, silu, tanh };

inline std::string_view name_of(Activation activation) {
  constexpr std::string_view names[] = {"none", "relu", "gelu", "quick_gelu", "silu", "tanh"};
  return names[static_cast<std::size_t>(activation)];
}
/// The activation that a configuration file names; `swish` is silu. Throws NameError for one that tenon does not have.
inline Activation activation_from_name(std::string_view name) {
  if (name == "swish") return Activation::silu;
  for (const Activation a : {Activation::relu, Activation::gelu, Activation::quick_gelu, Activation::silu, Activation::tanh})
    if (name == name_of(a)) return a;
  fail<NameError>("activation", "expected relu, gelu, quick_gelu, silu or tanh, got '", name, "'");
}

}  // namespace tenon::inline TENON_ABI::kernels
