#pragma once
// Matrix products with NumPy's rules for leading axes and for vectors.
#include <tenon/kernels/gemm.hpp>
#include <tenon/ops/shape.hpp>

namespace tenon::inline TENON_ABI {

/// Reads an operand as if its last two axes were exchanged, without a copy. Vectors know no transpose.
struct MatmulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
};

namespace detail {

/// `batch` products op(a) op(b): [m, k] [k, n]. A single a or b takes part in each of them.
struct MatmulPlan {
  bool transpose_a, transpose_b;
  Index batch, m, n, k;
  bool single_a, single_b;

  Index columns_a() const { return transpose_a ? m : k; }
  Index columns_b() const { return transpose_b ? k : n; }
  Index step_a() const { return single_a ? 0 : m * k; }
  Index step_b() const { return single_b ? 0 : k * n; }
};

/// The gradient of a: dy op(b)^T, or its transpose; summed over the batch when a is single.
template <Real T>
void matmul_da(const MatmulPlan& p, const T* b, const T* dy, T* da) {
  const auto product = [&](Index batch, const T* b_at, const T* dy_at, bool accumulate) {
    if (p.transpose_a)
      kernels::batched_matmul(batch, p.transpose_b, true, p.k, p.m, p.n, b_at, p.columns_b(), p.step_b(), dy_at, p.n, p.m * p.n, da,
                              p.m, p.step_a(), accumulate);
    else
      kernels::batched_matmul(batch, false, !p.transpose_b, p.m, p.k, p.n, dy_at, p.n, p.m * p.n, b_at, p.columns_b(), p.step_b(), da,
                              p.k, p.step_a(), accumulate);
  };
  if (!p.single_a) return product(p.batch, b, dy, false);
  for (Index i = 0; i < p.batch; ++i) product(1, b + i * p.step_b(), dy + i * p.m * p.n, i > 0);
}

/// The gradient of b: op(a)^T dy, or its transpose; summed over the batch when b is single.
template <Real T>
void matmul_db(const MatmulPlan& p, const T* a, const T* dy, T* db) {
  const auto product = [&](Index batch, const T* a_at, const T* dy_at, bool accumulate) {
    if (p.transpose_b)
      kernels::batched_matmul(batch, true, p.transpose_a, p.n, p.k, p.m, dy_at, p.n, p.m * p.n, a_at, p.columns_a(), p.step_a(), db,
                              p.k, p.step_b(), accumulate);
    else
      kernels::batched_matmul(batch, !p.transpose_a, false, p.k, p.n, p.m, a_at, p.columns_a(), p.step_a(), dy_at, p.n, p.m * p.n, db,
                              p.n, p.step_b(), accumulate);
  };
  if (!p.single_b) return product(p.batch, a, dy, false);
  for (Index i = 0; i < p.batch; ++i) product(1, a + i * p.step_a(), dy + i * p.m * p.n, i > 0);
}

inline Shape leading(const Shape& shape) { return shape.without(-1).without(-1); }
inline Shape with_matrix(Shape lead, Index rows, Index columns) {
  lead.push_back(rows);
  lead.push_back(columns);
  return lead;
}

}  // namespace detail

/// a [..., m, k] times b [..., k, n] gives [..., m, n]; leading axes broadcast. A vector a is a row, a vector b a column,
/// and that axis vanishes from the result. Throws ShapeError when the shapes do not fit.
template <Real T>
Var<T> matmul(const Var<T>& a, const Var<T>& b, const MatmulOptions& options = {}) {
  check<ShapeError>(a.rank() >= 1 && b.rank() >= 1, "matmul", "expected at least one axis each, got ", a.shape(), " and ", b.shape());
  const Index inner_a = a.rank() == 1 ? a.extent(0) : a.extent(options.transpose_a ? -2 : -1);
  const Index inner_b = b.rank() == 1 ? b.extent(0) : b.extent(options.transpose_b ? -1 : -2);
  check<ShapeError>(inner_a == inner_b, "matmul", "the inner extents of ", a.shape(), " and ", b.shape(), " differ",
                    options.transpose_a || options.transpose_b ? " (after the transposes asked for)" : "");
  if (a.rank() == 1) return squeeze(matmul(unsqueeze(a, 0), b, {false, options.transpose_b}), b.rank() == 1 ? -1 : -2);
  if (b.rank() == 1) return squeeze(matmul(a, unsqueeze(b, 1), {options.transpose_a, false}), -1);

  const Index m = a.extent(options.transpose_a ? -1 : -2), k = a.extent(options.transpose_a ? -2 : -1);
  const Index n = b.extent(options.transpose_b ? -2 : -1);
  const Shape lead_a = detail::leading(a.shape()), lead_b = detail::leading(b.shape());
  const Shape lead = [&] {
    try {
      return broadcast_shape("matmul", lead_a, lead_b);
    } catch (const ShapeError&) {
      fail<ShapeError>("matmul", "the leading extents of ", a.shape(), " and ", b.shape(), " do not broadcast");
    }
  }();
  detail::MatmulPlan p{options.transpose_a, options.transpose_b, lead.size(), m, n, k, lead_a.size() == 1, lead_b.size() == 1};
  if (!p.single_a && lead_a.size() != lead.size()) return matmul(broadcast_to(a, detail::with_matrix(lead, a.extent(-2), a.extent(-1))), b, options);
  if (!p.single_b && lead_b.size() != lead.size()) return matmul(a, broadcast_to(b, detail::with_matrix(lead, b.extent(-2), b.extent(-1))), options);
  if (p.single_b && !p.transpose_a && !p.single_a) {  // one tall product
    p.m *= p.batch;
    p.batch = 1;
  }
  auto y = Tensor<T>::uninitialized(detail::with_matrix(lead, m, n));
  kernels::batched_matmul(p.batch, p.transpose_a, p.transpose_b, p.m, p.n, p.k, a.value().data(), p.columns_a(), p.step_a(),
                          b.value().data(), p.columns_b(), p.step_b(), y.data(), p.n, p.m * p.n);
  using Value = std::shared_ptr<const Tensor<T>>;
  return record(std::move(y), {a, b},
                [p, a_shape = a.shape(), b_shape = b.shape(), a = b.requires_grad() ? a.shared() : Value(),
                 b = a.requires_grad() ? b.shared() : Value()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  if (dx[0].wanted()) {
                    auto da = Tensor<T>::uninitialized(a_shape);
                    if (p.batch == 0) da.fill(T(0));
                    detail::matmul_da(p, b->data(), static_cast<const T*>(dy.data()), da.data());
                    dx[0].add(std::move(da));
                  }
                  if (dx[1].wanted()) {
                    auto db = Tensor<T>::uninitialized(b_shape);
                    if (p.batch == 0) db.fill(T(0));
                    detail::matmul_db(p, a->data(), static_cast<const T*>(dy.data()), db.data());
                    dx[1].add(std::move(db));
                  }
                });
}

TENON_COMPILED_FUNCTION(matmul<float>)

}  // namespace tenon::inline TENON_ABI
