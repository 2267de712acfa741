#pragma once
// Losses: one number from predictions and targets.
#include <tenon/autograd/var.hpp>
#include <tenon/kernels/loss.hpp>

namespace tenon::inline TENON_ABI {

using CrossEntropyOptions = kernels::CrossEntropy;

/// The mean over rows of -log softmax(logits)[target]; logits [M, C], targets [M] in [0, C) or equal to ignore_index.
/// NaN when every row is ignored. Throws ShapeError on wrong shapes, Error on a wrong target.
template <Real T>
Var<T> cross_entropy(const Var<T>& logits, Tensor<std::int32_t> targets, const CrossEntropyOptions& options = {}) {
  check<ShapeError>(logits.rank() == 2 && targets.shape() == Shape{logits.extent(0)}, "cross_entropy",
                    "expected logits [M, C] and targets [M], got ", logits.shape(), " and ", targets.shape());
  const Index rows = logits.extent(0), classes = logits.extent(1);
  const auto wrong = std::find_if(targets.begin(), targets.end(), [&](Index t) { return t != options.ignore_index && (t < 0 || t >= classes); });
  check(wrong == targets.end(), "cross_entropy", "expected targets in [0, ", classes, "), got ", wrong == targets.end() ? 0 : *wrong);
  check(0 <= options.label_smoothing && options.label_smoothing < 1, "cross_entropy", "expected label_smoothing in [0, 1), got ", options.label_smoothing);
  auto log_sum_exp = Tensor<T>::uninitialized({rows});
  auto y = Tensor<T>::scalar(kernels::cross_entropy_forward(rows, classes, options, logits.value().data(),
                                                            static_cast<const std::int32_t*>(targets.data()), log_sum_exp.data()));
  return record(std::move(y), {logits},
                [=, z = logits.shared(), targets = std::move(targets), log_sum_exp = std::move(log_sum_exp)](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  auto d = Tensor<T>::uninitialized(z->shape());
                  kernels::cross_entropy_backward(rows, classes, options, z->data(), targets.data(), log_sum_exp.data(),
                                                  static_cast<double>(dy.item()), d.data());
                  dx[0].add(std::move(d));
                });
}

/// The mean of (a - b)^2; a and b of one shape.
template <Real T>
Var<T> mse_loss(const Var<T>& a, const Var<T>& b) {
  check<ShapeError>(a.shape() == b.shape(), "mse_loss", "expected equal shapes, got ", a.shape(), " and ", b.shape());
  auto y = Tensor<T>::scalar(kernels::mse_forward(a.size(), a.value().data(), b.value().data()));
  return record(std::move(y), {a, b}, [a = a.shared(), b = b.shared()](Tensor<T>& dy, std::span<Grad<T>> dx) {
    Tensor<T> da, db;
    if (dx[0].wanted()) da = Tensor<T>::uninitialized(a->shape());
    if (dx[1].wanted()) db = Tensor<T>::uninitialized(b->shape());
    kernels::mse_backward(a->size(), a->data(), b->data(), static_cast<double>(dy.item()), dx[0].wanted() ? da.data() : nullptr,
                          dx[1].wanted() ? db.data() : nullptr);
    dx[0].add(std::move(da));
    dx[1].add(std::move(db));
  });
}

TENON_COMPILED_FUNCTION(cross_entropy<float>)
TENON_COMPILED_FUNCTION(mse_loss<float>)

}  // namespace tenon::inline TENON_ABI
