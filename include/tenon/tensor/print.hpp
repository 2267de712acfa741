#pragma once
// Printing that a person can read: NumPy's layout, the middle of long axes left out.
#include <iomanip>
#include <ostream>
#include <sstream>
#include <string>

#include <tenon/tensor/cast.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// Prints one sub-array; `edge` elements at both ends of an axis longer than `limit`.
template <class T>
void print_axis(std::ostream& out, const Tensor<T>& tensor, Index axis, Index offset, Index stride, int width, bool shorten) {
  constexpr Index edge = 3;
  const Index extent = tensor.shape()[axis];
  const bool last = axis == tensor.rank() - 1;
  stride /= extent > 0 ? extent : 1;
  out << '[';
  for (Index i = 0; i < extent; ++i) {
    if (shorten && extent > 2 * edge && i == edge) {
      out << (last ? " ..." : "\n" + std::string(static_cast<std::size_t>(axis) + 1, ' ') + "...");
      i = extent - edge;
    }
    if (i > 0) out << (last ? " " : "\n" + std::string(static_cast<std::size_t>(axis) + 1, ' '));
    if (last) {
      const T value = tensor.data()[offset + i * stride];
      if constexpr (std::same_as<T, bool>)
        out << std::setw(width) << (value ? "true" : "false");
      else if constexpr (std::integral<T>)
        out << std::setw(width) << +value;
      else
        out << std::setw(width) << static_cast<double>(value);
    } else {
      print_axis(out, tensor, axis + 1, offset + i * stride, stride, width, shorten);
    }
  }
  out << ']';
}

}  // namespace detail

/// Prints shape, type and elements (at most six to an axis when there are more than a thousand).
template <class T>
std::ostream& operator<<(std::ostream& out, const Tensor<T>& tensor) {
  std::ostringstream text;
  text << std::setprecision(5);
  int width = 0;
  if (tensor.size() <= 1000) {
    for (T value : tensor) {
      std::ostringstream one;
      one << std::setprecision(5);
      if constexpr (std::same_as<T, bool>)
        one << (value ? "true" : "false");
      else if constexpr (std::integral<T>)
        one << +value;
      else
        one << static_cast<double>(value);
      width = std::max(width, static_cast<int>(one.str().size()));
    }
  } else {
    width = 11;
  }
  if (tensor.rank() == 0)
    text << cast_element<double>(tensor.data()[0]);
  else
    detail::print_axis(text, tensor, 0, 0, tensor.size(), width, tensor.size() > 1000);
  return out << text.str() << "  " << name_of(dtype_of<T>) << tensor.shape().text();
}

}  // namespace tenon::inline TENON_ABI
