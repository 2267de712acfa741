#pragma once
// One run of the float or double kernels, forward and backward, on arrays that end at a page without access. Tests
// compare the float results of each instruction set with the double ones; a kernel that strays crashes.
#include <cmath>
#include <cstdint>
#include <list>
#include <vector>

#include <tenon/kernels/activation.hpp>
#include <tenon/kernels/attention.hpp>
#include <tenon/kernels/down.hpp>
#include <tenon/kernels/elementwise.hpp>
#include <tenon/kernels/embedding.hpp>
#include <tenon/kernels/loss.hpp>
#include <tenon/kernels/norm.hpp>
#include <tenon/kernels/reduce.hpp>
#include <tenon/kernels/resample.hpp>
#include <tenon/kernels/softmax.hpp>
#include <tenon/kernels/update.hpp>

#include "guarded.hpp"

/// The arrays of a run: what `in` gives is input, what `out` gives is a result.
template <class T>
class Arrays {
 public:
  /// n floats in [low, high), the same for every T.
  const T* in(tenon::Index n, double low = -2, double high = 2) {
    T* x = arrays_.emplace_back(static_cast<std::size_t>(n)).data();
    for (tenon::Index i = 0; i < n; ++i) {
      state_ = state_ * 1664525u + 1013904223u;
      x[i] = static_cast<T>(static_cast<float>(low + (high - low) * static_cast<double>(state_ >> 8) / 16777216.0));
    }
    return x;
  }
  /// An input that the kernel changes.
  T* in_out(tenon::Index n, double low = -2, double high = 2) {
    T* x = const_cast<T*>(in(n, low, high));
    results_.push_back(&arrays_.back());
    return x;
  }
  T* out(tenon::Index n) {
    results_.push_back(&arrays_.emplace_back(static_cast<std::size_t>(n), T(-77)));
    return results_.back()->data();
  }
  std::vector<T> results() const {
    std::vector<T> all;
    for (const Guarded<T>* array : results_) all.insert(all.end(), array->data(), array->data() + array->size());
    return all;
  }

 private:
  std::uint32_t state_ = 1;
  std::list<Guarded<T>> arrays_;
  std::vector<Guarded<T>*> results_;
};

/// The results of all kernels on rows of n elements.
template <class T>
std::vector<T> every_kernel(tenon::Index n) {
  using namespace tenon;
  using namespace tenon::kernels;
  Arrays<T> a;
  const Index rows = 3, all = rows * n;
  {  // element-wise
    const T *x = a.in(all, 0.5, 2), *z = a.in(all, 0.5, 2), *d = a.in(all);
    for (Unary op : {Unary::negate, Unary::absolute, Unary::exp, Unary::log, Unary::sqrt, Unary::rsqrt, Unary::reciprocal, Unary::square, Unary::sin,
                     Unary::cos, Unary::tanh, Unary::sigmoid, Unary::erf, Unary::relu, Unary::gelu, Unary::gelu_tanh, Unary::quick_gelu, Unary::silu}) {
      T* y = a.out(all);
      unary_forward(op, all, x, y);
      unary_backward(op, all, x, y, d, a.out(all));
    }
    const Shape whole{rows, n}, row{n}, column{rows, 1};
    for (Binary op : {Binary::add, Binary::subtract, Binary::multiply, Binary::divide, Binary::maximum, Binary::minimum, Binary::pow}) {
      binary_forward(op, whole, x, whole, z, a.out(all));
      binary_backward(op, whole, x, whole, z, d, a.out(all), a.out(all));
      binary_forward(op, whole, x, row, a.in(n, 0.5, 2), a.out(all));
      binary_backward(op, column, a.in(rows, 0.5, 2), whole, z, d, a.out(all), a.out(all));
    }
    clamp_forward(all, 0.75, 1.5, x, a.out(all));
    clamp_backward(all, 0.75, 1.5, x, d, a.out(all));
    scale(all, 0.25, x, a.out(all));
    axpy(all, 0.25, x, a.in_out(all));
    geglu_forward(rows, n, a.in(2 * all), a.out(all));
    geglu_backward(rows, n, a.in(2 * all), d, a.out(2 * all));
  }
  {  // norms, over three rows and over one sample of three pixels
    const T *x = a.in(all, -1, 3), *gamma = a.in(n), *beta = a.in(n), *d = a.in(all);
    T *m = a.out(rows), *s = a.out(rows), *y = a.out(all);
    if (n > 1) {  // a single element has no scale to compare on
      layer_norm_forward(rows, n, 1e-5, x, gamma, beta, a.out(all), m, s);
      layer_norm_backward(rows, n, x, gamma, m, s, d, a.out(all), a.out(n), a.out(n));
    }
    for (bool silu : {false, true}) {
      T *group_m = a.out(1), *group_s = a.out(1);
      group_norm_forward(1, rows, n, 1, 1e-5, silu, x, gamma, beta, a.out(all), group_m, group_s);
      group_norm_backward(1, rows, n, 1, silu, x, gamma, beta, group_m, group_s, d, a.out(all), a.out(n), a.out(n));
    }
    T* norm = a.out(rows);
    normalize_rows_forward(rows, n, 1e-12, x, y, norm);
    normalize_rows_backward(rows, n, 1e-12, y, norm, d, a.out(all));
  }
  {  // softmax
    const T *x = a.in(all), *d = a.in(all);
    T *y = a.out(all), *log_y = a.out(all);
    softmax_forward(rows, n, x, y);
    softmax_backward(rows, n, y, d, a.out(all));
    log_softmax_forward(rows, n, x, log_y);
    log_softmax_backward(rows, n, log_y, d, a.out(all));
  }
  {  // reductions along the contiguous axis and across it
    const T* x = a.in(all);
    for (const auto& [outer, axis, inner] : {std::array{rows, n, Index{1}}, std::array{Index{1}, rows, n}}) {
      T *m = a.out(outer * inner), *v = a.out(outer * inner);
      sum(outer, axis, inner, x, a.out(outer * inner));
      mean(outer, axis, inner, x, a.out(outer * inner));
      variance_forward(outer, axis, inner, 0, x, m, v);
      variance_backward(outer, axis, inner, 0, x, m, a.in(outer * inner), a.out(all));
    }
    *a.out(1) = static_cast<T>(sum_of_squares(all, x));
    *a.out(1) = all_finite(all, x) ? T(1) : T(0);
  }
  {  // losses
    const T *x = a.in(all), *z = a.in(all);
    const Guarded<std::int32_t> ids(std::vector<std::int32_t>{0, static_cast<std::int32_t>(n - 1), 0});
    const CrossEntropy options{.label_smoothing = 0.1};
    T* lse = a.out(rows);
    *a.out(1) = cross_entropy_forward(rows, n, options, x, ids.data(), lse);
    cross_entropy_backward(rows, n, options, x, ids.data(), lse, 1.0, a.out(all));
    *a.out(1) = mse_forward(all, x, z);
    mse_backward(all, x, z, 1.0, a.out(all), a.out(all));
    embedding_backward(rows, n, n, ids.data(), a.in(all), a.out(n * n));
    resample_backward(1, n, average_taps(3, 3), nearest_taps(1, 1), a.in(n), a.out(all));
  }
  {  // updates
    const T* g = a.in(n);
    adamw_update(n, {}, g, a.in_out(n), a.in_out(n), a.in_out(n, 0, 1));
    sgd_update(n, {.momentum = 0.9, .weight_decay = 0.1, .nesterov = true}, g, a.in_out(n), a.in_out(n));
    ema_update(n, 0.9, g, a.in_out(n));
  }
  {  // attention of n queries and n + 2 keys with two in front; the head is n wide
    AttentionShape s;
    s.n = 1, s.heads = 1, s.lq = n, s.lk = n + 2, s.d = n, s.prefix = 2, s.scale = 1 / std::sqrt(static_cast<double>(n));
    for (bool causal : {false, true}) {
      s.causal = causal;
      const AttentionInputs<T> x{a.in(s.lq * n), a.in(s.lk * n), a.in(s.lk * n), a.in(2 * n), a.in(2 * n)};
      T *y = a.out(s.lq * n), *lse = a.out(s.lq);
      attention_forward(s, x, y, lse);
      attention_backward(s, x, y, lse, a.in(s.lq * n), {a.out(s.lq * n), a.out(s.lk * n), a.out(s.lk * n), a.out(2 * n), a.out(2 * n)});
    }
  }
  {  // down-projections of three rows
    const T* x = a.in(all);
    for (const Index rank : {Index{1}, Index{3}, n}) down_project(rows, n, rank, x, n, a.in(rank * n), T(0.5), a.out(rows * rank));
  }
  return a.results();
}
