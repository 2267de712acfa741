#pragma once
// Pictures [N, H, W, C] in another size.
#include <tenon/autograd/var.hpp>
#include <tenon/kernels/resample.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {
template <Real T>
Var<T> resample(const Var<T>& x, kernels::Taps rows, kernels::Taps columns) {
  const Index n = x.extent(0), c = x.extent(3);
  auto y = Tensor<T>::uninitialized({n, rows.out, columns.out, c});
  kernels::resample_forward(n, c, rows, columns, x.value().data(), y.data());
  return record(std::move(y), {x}, [n, c, rows = std::move(rows), columns = std::move(columns)](Tensor<T>& dy, std::span<Grad<T>> dx) {
    auto d = Tensor<T>::uninitialized({n, rows.in, columns.in, c});
    kernels::resample_backward(n, c, rows, columns, static_cast<const T*>(dy.data()), d.data());
    dx[0].add(std::move(d));
  });
}
template <Real T>
void check_picture(std::string_view op, const Var<T>& x, Index h, Index w) {
  check<ShapeError>(x.rank() == 4 && x.extent(1) > 0 && x.extent(2) > 0 && h > 0 && w > 0, op,
                    "expected x [N, H, W, C] and a size of at least 1x1, got ", x.shape(), " and ", h, "x", w);
}
}  // namespace detail

/// To h x w by the nearest pixel, as torch's `nearest`. Throws ShapeError unless x is [N, H, W, C].
template <Real T>
Var<T> upsample_nearest(const Var<T>& x, Index h, Index w) {
  detail::check_picture("upsample_nearest", x, h, w);
  return detail::resample(x, kernels::nearest_taps(x.extent(1), h), kernels::nearest_taps(x.extent(2), w));
}
/// To h x w, as torch's `bicubic` without antialias (a = -0.75). Throws ShapeError unless x is [N, H, W, C].
template <Real T>
Var<T> resize_bicubic(const Var<T>& x, Index h, Index w) {
  detail::check_picture("resize_bicubic", x, h, w);
  return detail::resample(x, kernels::bicubic_taps(x.extent(1), h), kernels::bicubic_taps(x.extent(2), w));
}
/// Means of kernel x kernel windows that do not overlap; what fills no window is dropped.
template <Real T>
Var<T> average_pool(const Var<T>& x, Index kernel) {
  check<ShapeError>(x.rank() == 4 && kernel > 0 && x.extent(1) >= kernel && x.extent(2) >= kernel, "average_pool",
                    "expected x [N, H, W, C] of at least one window, got ", x.shape(), " and kernel ", kernel);
  return detail::resample(x, kernels::average_taps(x.extent(1), kernel), kernels::average_taps(x.extent(2), kernel));
}

TENON_COMPILED_FUNCTION(upsample_nearest<float>)
TENON_COMPILED_FUNCTION(average_pool<float>)

}  // namespace tenon::inline TENON_ABI
