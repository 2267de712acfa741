#pragma once
// linear: y = act(x W^T + sum s (x' A^T) B^T + bias), one pass over y however many low-rank terms there are; geglu_linear.
#include <tenon/autograd/saved.hpp>
#include <tenon/kernels/activation.hpp>
#include <tenon/kernels/down.hpp>
#include <tenon/kernels/elementwise.hpp>
#include <tenon/kernels/gemm.hpp>
#include <tenon/ops/low_rank.hpp>
#include <tenon/ops/unary.hpp>

namespace tenon::inline TENON_ABI {

/// A weight [n, k] packed for `gemm`; a weight of more axes counts as [extent 0, the rest].
template <class T>
std::shared_ptr<const kernels::PackedMatrix<T>> packed_linear(const Weight<T>& weight) {
  using Packed = kernels::PackedMatrix<T>;
  return weight.template packed<Packed>([&] {
    const Index n = weight.shape()[0], k = n == 0 ? 0 : weight.size() / n;
    const RawTensor bytes = weight.bytes();
    return Packed({.data = bytes.bytes.get(), .dtype = bytes.dtype, .n = n, .c = k, .stride_n = k}, weight.panels());
  });
}

namespace detail {

/// One low-rank term inside a recorded product: its matrices and what backward needs.
template <class T>
struct LowRankState {
  typename Weight<T>::Value a;
  std::shared_ptr<const kernels::PackedMatrix<T>> b;
  T scale;
  Index rank;
  Tensor<T> t;                          // s x' A^T [M, R]; kept when B wants a gradient
  Saved<T> x;                           // x', kept when A wants a gradient
  std::size_t input;                    // index among the inputs of the record: A, then B, then x' where given
  bool own_input;
};

/// linear, or where `gated` geglu_linear.
template <class T>
Var<T> linear_product(std::string_view op, const Var<T>& x, const Weight<T>& weight, const Weight<T>* bias, Activation activation, bool gated,
                      std::span<const LowRank<T>> low_rank) {
  check<ShapeError>(weight.shape().rank() == 2, op, "expected a weight [out, in] for input ", x.shape(), ", got ", weight.shape());
  const Index n = weight.shape()[0], k = weight.shape()[1];
  check<ShapeError>(!gated || n % 2 == 0, op, "expected a weight of values and gates [2 F, ", k, "], got ", weight.shape());
  check<ShapeError>(x.rank() >= 1 && x.shape()[-1] == k, op, "expected input [..., ", k, "] for weight ", weight.shape(),
                    ", got ", x.shape());
  check<ShapeError>(bias == nullptr || bias->shape() == Shape{n}, op, "expected a bias of shape [", n, "]");
  const Index m = k == 0 ? 0 : x.size() / k;

  std::vector<Var<T>> inputs{x};
  const Var<T> w = weight.trainable() ? weight.var() : Var<T>();
  const Var<T> b = bias != nullptr ? bias->var() : Var<T>();
  inputs.push_back(w);
  inputs.push_back(b);
  std::vector<LowRankState<T>> states;
  std::vector<kernels::LowRankTerm<T>> terms;
  for (const auto& term : low_rank) {
    const Index rank = term.a->shape()[0];
    check<ShapeError>(term.a->shape() == Shape{rank, k} && term.b->shape() == Shape{n, rank}, op, "expected A [", rank, ", ", k,
                      "] and B [", n, ", ", rank, "], got ", term.a->shape(), " and ", term.b->shape());
    const Var<T>& own = term.x ? *term.x : x;
    check<ShapeError>(own.shape() == x.shape(), op, "expected a low-rank input of shape ", x.shape(), ", got ", own.shape());
    LowRankState<T> state{term.a->values(), packed_linear(*term.b), term.scale, rank, Tensor<T>::uninitialized({m, rank}),
                                  {}, inputs.size(), term.x.has_value()};
    kernels::down_project(m, k, rank, own.value().data(), k, state.a->data(), term.scale, state.t.data());
    inputs.push_back(term.a->var());
    inputs.push_back(term.b->var());
    if (term.x) inputs.push_back(*term.x);
    states.push_back(std::move(state));
  }
  for (const auto& state : states) terms.push_back({state.t.data(), state.rank, state.rank, state.b.get()});

  bool wanted = false;
  for (const auto& input : inputs) wanted = wanted || input.requires_grad();
  wanted = wanted && grad_enabled();
  const auto packed = packed_linear(weight);
  const Index columns = gated ? n / 2 : n;
  const bool keeps_y = !gated && activation != Activation::none && slope_needs_y(unary_of(activation));  // else what comes before the activation
  const bool apart = gated && (columns == 0 || columns % kernels::panel_columns != 0);  // gates that begin inside a panel: a second pass
  auto y = Tensor<T>::uninitialized(x.shape().with(-1, columns));
  Tensor<T> pre;
  if (apart || (wanted && activation != Activation::none && !keeps_y)) pre = Tensor<T>::uninitialized({m, n});
  kernels::Epilogue<T> epilogue;
  epilogue.bias = bias != nullptr ? bias->value().data() : nullptr;
  if (!apart) {
    epilogue.activation = activation;
    epilogue.gated = gated;
    epilogue.pre_activation = pre.size() > 0 ? pre.data() : nullptr;
    epilogue.ldp = n;
  }
  kernels::gemm(x.value().data(), k, m, *packed, apart ? pre.data() : y.data(), apart ? n : columns, epilogue, terms);
  if (apart) kernels::geglu_forward(m, columns, pre.data(), y.data());
  if (!wanted) return Var<T>(std::move(y));

  for (auto& state : states) {
    if (inputs[state.input].requires_grad()) state.x = Saved<T>(state.own_input ? inputs[state.input + 2] : x);
    if (!inputs[state.input + 1].requires_grad()) state.t = Tensor<T>();
  }
  auto shared_y = std::make_shared<const Tensor<T>>(std::move(y));
  Tensor<bfloat16> narrow_pre;
  if constexpr (std::is_same_v<T, float>)
    if (pre.size() > 0 && saves_narrow<T>(pre.size())) narrow_pre = narrowed(std::exchange(pre, Tensor<T>()));
  return record(shared_y, std::span<const Var<T>>(inputs),
                [m, n, k, packed, activation, gated, pre = std::move(pre), narrow_pre = std::move(narrow_pre), states = std::move(states),
                 out = keeps_y ? Saved<T>(shared_y) : Saved<T>(), x = w.requires_grad() ? Saved<T>(x) : Saved<T>(),
                 x_shape = x.shape()](Tensor<T>& dy, std::span<Grad<T>> dx) mutable {
                  if constexpr (std::is_same_v<T, float>)
                    if (narrow_pre.size() > 0) pre = widened(narrow_pre);
                  if (gated) {  // in place: backward runs once
                    kernels::geglu_backward(m, n / 2, static_cast<const T*>(pre.data()), static_cast<const T*>(dy.data()), pre.data());
                    dy = std::move(pre);
                  } else if (activation != Activation::none) {
                    const auto kept_y = out.get();
                    const T* kept = kept_y ? kept_y->data() : static_cast<const T*>(pre.data());
                    kernels::unary_backward(unary_of(activation), dy.size(), kept, kept, static_cast<const T*>(dy.data()), dy.data());
                  }
                  if (dx[2].wanted()) kernels::column_sum(dy.data(), n, m, n, dx[2].slot().data(), true);
                  if (dx[1].wanted()) kernels::gemm_dw(dy.data(), n, x.get()->data(), k, m, n, k, dx[1].slot().data(), k, true);
                  Tensor<T> d;
                  if (dx[0].wanted()) {
                    d = Tensor<T>::uninitialized(x_shape);
                    kernels::gemm_dx(dy.data(), n, m, *packed, d.data(), k, false);
                  }
                  for (const auto& state : states) {
                    Grad<T>&da = dx[state.input], &db = dx[state.input + 1], &own = state.own_input ? dx[state.input + 2] : dx[0];
                    if (db.wanted())
                      kernels::gemm_dw(dy.data(), n, state.t.data(), state.rank, m, n, state.rank, db.slot().data(), state.rank, true);
                    if (!da.wanted() && !own.wanted()) continue;
                    auto u = Tensor<T>::uninitialized({m, state.rank});  // s dy B
                    kernels::gemm_dx(dy.data(), n, m, *state.b, u.data(), state.rank, false);
                    kernels::scale(u.size(), static_cast<double>(state.scale), u.data(), u.data());
                    if (da.wanted())
                      kernels::gemm_dw(u.data(), state.rank, state.x.get()->data(), k, m, state.rank, k, da.slot().data(), k, true);
                    if (own.wanted())
                      kernels::matmul(false, false, m, k, state.rank, u.data(), state.rank, state.a->data(), k, state.own_input ? own.slot().data() : d.data(), k, true);
                  }
                  if (dx[0].wanted()) dx[0].add(std::move(d));
                });
}

}  // namespace detail

/// x [..., in] -> [..., out] for weight [out, in], bias [out] or null, and low-rank terms A [R, in], B [out, R].
/// Gradients of weight, bias, A and B flow where they are trainable. Throws ShapeError when extents do not fit.
template <class T>
Var<T> linear(const Var<T>& x, const Weight<T>& weight, const std::type_identity_t<Weight<T>>* bias = nullptr,
              Activation activation = Activation::none, std::type_identity_t<std::span<const LowRank<T>>> low_rank = {}) {
  return detail::linear_product("linear", x, weight, bias, activation, false, low_rank);
}

/// geglu(linear(x, ...)) in one pass: x [..., in] -> value gelu(gate) [..., F], value and gate being the halves of the columns
/// of weight [2 F, in], bias [2 F] or null, and low-rank terms A [R, in], B [2 F, R] (Shazeer, 2002.05202, erf form).
/// Gradients and errors as for linear.
template <class T>
Var<T> geglu_linear(const Var<T>& x, const Weight<T>& weight, const std::type_identity_t<Weight<T>>* bias = nullptr,
                    std::type_identity_t<std::span<const LowRank<T>>> low_rank = {}) {
  return detail::linear_product("geglu_linear", x, weight, bias, Activation::gelu, true, low_rank);
}

TENON_COMPILED_FUNCTION(packed_linear<float>)
TENON_COMPILED_FUNCTION(detail::linear_product<float>)

}  // namespace tenon::inline TENON_ABI
