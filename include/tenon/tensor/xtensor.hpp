#pragma once
// The xtensor door: a Tensor seen as an xtensor adaptor without a copy, and a Tensor from any xtensor expression.
// Needs xtensor 0.24 or later; its headers moved in 0.26.
#if __has_include(<xtensor/containers/xadapt.hpp>)
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/core/xexpression.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xexpression.hpp>
#endif

#include <tenon/tensor/tensor.hpp>

namespace tenon::inline TENON_ABI {

/// The elements as an xtensor adaptor of the same shape, shared, not copied.
template <class T>
auto as_xtensor(Tensor<T>& tensor) {
  const auto extents = tensor.shape().extents();
  return xt::adapt(tensor.data(), static_cast<std::size_t>(tensor.size()), xt::no_ownership(),
                   std::vector<std::size_t>(extents.begin(), extents.end()));
}
template <class T>
auto as_xtensor(const Tensor<T>& tensor) {
  const auto extents = tensor.shape().extents();
  return xt::adapt(tensor.data(), static_cast<std::size_t>(tensor.size()), xt::no_ownership(),
                   std::vector<std::size_t>(extents.begin(), extents.end()));
}
template <class T>
void as_xtensor(const Tensor<T>&& tensor) = delete;

/// `Tensor<float> t = xtensor_expression;` evaluates any expression once, in row-major order.
template <class E>
  requires std::derived_from<E, xt::xexpression<E>>
struct TensorSource<E> {
  static Shape shape(const E& e) {
    Shape out;
    for (auto extent : e.shape()) out.push_back(static_cast<Index>(extent));
    return out;
  }
  template <class T>
  static void write(const E& e, T* out) {
    const auto end = e.template end<xt::layout_type::row_major>();
    for (auto it = e.template begin<xt::layout_type::row_major>(); it != end; ++it) *out++ = static_cast<T>(*it);
  }
};

}  // namespace tenon::inline TENON_ABI
