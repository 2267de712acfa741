#pragma once
// Element-wise kernels: functions of one array, of two under NumPy broadcasting, and the linear updates.
// Templates are the plain form (double, and the oracle of tests); the float overloads choose a body by ISA.
// Arrays are contiguous; an output may be one of the inputs unless said otherwise. Scalars are rounded to T.
#include <tenon/kernels/scalar.hpp>
#include <tenon/kernels/strided.hpp>

namespace tenon::inline TENON_ABI::kernels {

/// y[i] = f(x[i]).
template <Real T>
void unary_forward(Unary op, Index n, const T* x, T* y) {
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] = detail::unary(op, x[i]);
  });
}
/// dx[i] = dy[i] f'(x[i]), from x and y = f(x).
template <Real T>
void unary_backward(Unary op, Index n, const T* x, const T* y, const T* dy, T* dx) {
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) dx[i] = dy[i] * detail::unary_slope(op, x[i], y[i]);
  });
}

namespace detail {
template <class T>
void binary_rows(Binary op, const Rows<3>& r, const T* a, const T* b, T* y) {
  for (Index i = 0; i < r.rows; ++i)
    for (Index j = 0; j < r.columns; ++j)
      y[r.offset[2] + i * r.row_stride[2] + j] = binary(op, a[r.offset[0] + i * r.row_stride[0] + j * r.step[0]],
                                                        b[r.offset[1] + i * r.row_stride[1] + j * r.step[1]]);
}
template <class T>
void binary_slope_rows(Binary op, const Rows<3>& r, const T* a, const T* b, const T* dy, T* da, T* db) {
  for (Index i = 0; i < r.rows; ++i)
    for (Index j = 0; j < r.columns; ++j) {
      const Index at = r.offset[2] + i * r.row_stride[2] + j;
      const auto [slope_a, slope_b] = binary_slopes(op, a[r.offset[0] + i * r.row_stride[0] + j * r.step[0]],
                                                    b[r.offset[1] + i * r.row_stride[1] + j * r.step[1]]);
      const T d = dy[at];
      if (da != nullptr) da[at] = d * slope_a;
      if (db != nullptr) db[at] = d * slope_b;
    }
}
/// `body(Rows<3>)` over a, b and the contiguous result of their broadcast.
template <class Body>
void walk_binary(const Shape& a_shape, const Shape& b_shape, Body body) {
  const Shape shape = broadcast_shape("binary", a_shape, b_shape);
  walk<3>(shape, {broadcast_strides(a_shape, shape), broadcast_strides(b_shape, shape), contiguous_strides(shape)}, body);
}
}  // namespace detail

/// y = f(a, b) over the broadcast of the two shapes (throws ShapeError when they do not fit).
template <Real T>
void binary_forward(Binary op, const Shape& a_shape, const T* a, const Shape& b_shape, const T* b, T* y) {
  detail::walk_binary(a_shape, b_shape, [=](const Rows<3>& r) { detail::binary_rows(op, r, a, b, y); });
}
/// da = dy df/da and db = dy df/db, either may be null; dy, da and db have the broadcast shape: `sum_to` brings
/// them back to a's and b's.
template <Real T>
void binary_backward(Binary op, const Shape& a_shape, const T* a, const Shape& b_shape, const T* b, const T* dy, Nullable<T> da, Nullable<T> db) {
  detail::walk_binary(a_shape, b_shape, [=](const Rows<3>& r) { detail::binary_slope_rows<T>(op, r, a, b, dy, da, db); });
}

/// y = a ? b over the broadcast of the two shapes.
template <Element T>
void compare(Compare op, const Shape& a_shape, const T* a, const Shape& b_shape, const T* b, bool* y) {
  const auto each = [&](auto test) {
    detail::walk_binary(a_shape, b_shape, [=](const Rows<3>& r) {
      for (Index i = 0; i < r.rows; ++i)
        for (Index j = 0; j < r.columns; ++j)
          y[r.offset[2] + i * r.row_stride[2] + j] = test(a[r.offset[0] + i * r.row_stride[0] + j * r.step[0]],
                                                          b[r.offset[1] + i * r.row_stride[1] + j * r.step[1]]);
    });
  };
  switch (op) {
    case Compare::equal: return each([](T p, T q) { return p == q; });
    case Compare::not_equal: return each([](T p, T q) { return p != q; });
    case Compare::less: return each([](T p, T q) { return p < q; });
    case Compare::less_equal: return each([](T p, T q) { return p <= q; });
    case Compare::greater: return each([](T p, T q) { return p > q; });
    case Compare::greater_equal: return each([](T p, T q) { return p >= q; });
  }
}

/// y = mask ? a : b over the broadcast of the three shapes.
template <Element T>
void where(const Shape& mask_shape, const bool* mask, const Shape& a_shape, const T* a, const Shape& b_shape, const T* b, T* y) {
  const Shape shape = broadcast_shape("where", mask_shape, broadcast_shape("where", a_shape, b_shape));
  walk<4>(shape,
          {broadcast_strides(mask_shape, shape), broadcast_strides(a_shape, shape), broadcast_strides(b_shape, shape),
           contiguous_strides(shape)},
          [=](const Rows<4>& r) {
            for (Index i = 0; i < r.rows; ++i)
              for (Index j = 0; j < r.columns; ++j) {
                const T p = a[r.offset[1] + i * r.row_stride[1] + j * r.step[1]];
                const T q = b[r.offset[2] + i * r.row_stride[2] + j * r.step[2]];
                y[r.offset[3] + i * r.row_stride[3] + j] = mask[r.offset[0] + i * r.row_stride[0] + j * r.step[0]] ? p : q;
              }
          });
}

/// y[i] = min(max(x[i], low), high); NaN stays.
template <Real T>
void clamp_forward(Index n, double low, double high, const T* x, T* y) {
  const T l = static_cast<T>(low), h = static_cast<T>(high);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] = x[i] < l ? l : x[i] > h ? h : x[i];
  });
}
/// dx[i] = dy[i] where low <= x[i] <= high, else 0.
template <Real T>
void clamp_backward(Index n, double low, double high, const T* x, const T* dy, T* dx) {
  const T l = static_cast<T>(low), h = static_cast<T>(high);
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) dx[i] = x[i] >= l && x[i] <= h ? dy[i] : T(0);
  });
}

/// y[i] = a x[i].
template <Real T>
void scale(Index n, double a, const T* x, T* y) {
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] = static_cast<T>(a) * x[i];
  });
}
/// y[i] += a x[i].
template <Real T>
void axpy(Index n, double a, const T* x, T* y) {
  parallel_chunks(n, serial_grain, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) y[i] += static_cast<T>(a) * x[i];
  });
}

TENON_KERNEL void unary_forward(Unary op, Index n, const float* x, float* y);
TENON_KERNEL void unary_backward(Unary op, Index n, const float* x, const float* y, const float* dy, float* dx);
TENON_KERNEL void binary_forward(Binary op, const Shape& a_shape, const float* a, const Shape& b_shape, const float* b, float* y);
TENON_KERNEL void binary_backward(Binary op, const Shape& a_shape, const float* a, const Shape& b_shape, const float* b, const float* dy, float* da, float* db);
TENON_KERNEL void clamp_forward(Index n, double low, double high, const float* x, float* y);
TENON_KERNEL void clamp_backward(Index n, double low, double high, const float* x, const float* dy, float* dx);
TENON_KERNEL void scale(Index n, double a, const float* x, float* y);
TENON_KERNEL void axpy(Index n, double a, const float* x, float* y);

}  // namespace tenon::inline TENON_ABI::kernels

#if !defined(TENON_COMPILED)
#include <tenon/kernels/isa/elementwise_float.inl>
#endif
