#pragma once
// conv2d: two-dimensional convolution on channels-last activations, with low-rank terms beside the weight
// and a bias for each sample.
#include <tenon/autograd/saved.hpp>
#include <tenon/kernels/conv.hpp>
#include <tenon/kernels/elementwise.hpp>
#include <tenon/ops/low_rank.hpp>

namespace tenon::inline TENON_ABI {

struct Conv2dOptions {
  Index stride = 1;
  Index padding = 0;
  Index dilation = 1;
  Index groups = 1;
  Index upsample = 1;  ///< x counts as enlarged so many times by the nearest pixel, which no copy is made for; only with stride 1
};

/// Another way to a convolution's product than that of kernels/conv.hpp (nn/winograd.hpp has one).
template <class T>
struct ConvAlgorithm {
  virtual ~ConvAlgorithm() = default;
  /// y = conv(x, weight) + the epilogue's biases; or false, with y as it was, where it does not fit or is not quicker.
  virtual bool forward(const kernels::ConvShape& s, const Weight<T>& weight, const T* x, T* y, const kernels::Epilogue<T>& epilogue) const = 0;
};

namespace detail {

/// The kernels' view of a convolution of x [N, H, W, C] by a weight [out, C / groups, kh, kw].
inline kernels::ConvShape conv_shape(const Shape& x, const Shape& weight, const Conv2dOptions& o) {
  check<ShapeError>(weight.rank() == 4, "conv2d", "expected a weight [out, in / groups, kh, kw], got ", weight);
  check<ShapeError>(x.rank() == 4 && o.groups > 0 && x[3] == weight[1] * o.groups, "conv2d", "expected input [N, H, W, ",
                    weight[1] * o.groups, "] for weight ", weight, " in ", o.groups, " groups, got ", x);
  kernels::ConvShape s{.n = x[0], .h = x[1], .w = x[2], .c = x[3], .out = weight[0], .kh = weight[2], .kw = weight[3]};
  s.stride_h = s.stride_w = o.stride;
  s.pad_h = s.pad_w = o.padding;
  s.dilation_h = s.dilation_w = o.dilation;
  s.groups = o.groups;
  s.upsample = o.upsample;
  kernels::check_conv("conv2d", s);
  return s;
}

template <class T>
std::shared_ptr<const kernels::PackedMatrix<T>> packed_conv(const kernels::ConvShape& s, const Weight<T>& weight) {
  return weight.template packed<kernels::PackedMatrix<T>>([&] {
    const RawTensor bytes = weight.bytes();
    return kernels::pack_conv<T>(s, bytes.bytes.get(), bytes.dtype, weight.panels());
  });
}

/// One low-rank term of a recorded convolution: `down` makes t from x, `up` (1x1) makes its part of y from t.
template <class T>
struct ConvLowRank {
  kernels::ConvShape down, up;
  std::shared_ptr<const kernels::PackedMatrix<T>> a, b;
  T scale;
  Tensor<T> t;                         // s A x [pixels, R]; kept when B wants a gradient
  Saved<T> x;                           // x', kept when A wants a gradient
  std::size_t input;                    // index among the inputs of the record: A, then B, then x' where given
  bool own_input;
};

}  // namespace detail

/// x [N, H, W, C] -> [N, H', W', out] for weight [out, C / groups, kh, kw], bias [out] or null, and low-rank terms
/// A [R, C / groups, kh, kw] (or [R, C, kh, kw], reading every input), B [out, R / groups, 1, 1].
/// A sample bias [N, out], as a time embedding, is added to all pixels of its sample.
/// Gradients of weight, bias, A and B flow where they are trainable; where nothing wants one, `algorithm` may compute the product
/// with the weight. An x that is moved here, has no other handle and is rounded to a narrower type is freed before the result is
/// made. Throws ShapeError when extents do not fit.
template <class T>
Var<T> conv2d(Var<T> x, const Weight<T>& weight, const std::type_identity_t<Weight<T>>* bias = nullptr, const Conv2dOptions& options = {},
              std::type_identity_t<std::span<const LowRank<T>>> low_rank = {},
              const std::type_identity_t<std::optional<Var<T>>>& sample_bias = {}, const std::type_identity_t<ConvAlgorithm<T>>* algorithm = nullptr) {
  const kernels::ConvShape s = detail::conv_shape(x.shape(), weight.shape(), options);
  check<ShapeError>(bias == nullptr || bias->shape() == Shape{s.out}, "conv2d", "expected a bias of shape [", s.out, "]");
  check<ShapeError>(!sample_bias || sample_bias->shape() == Shape{s.n, s.out}, "conv2d", "expected a sample bias of shape [", s.n, ", ", s.out,
                    "] for input ", x.shape(), " and weight ", weight.shape(), ", got ", sample_bias ? sample_bias->shape() : Shape{});
  std::vector<Var<T>> inputs{x, weight.trainable() ? weight.var() : Var<T>(), bias != nullptr ? bias->var() : Var<T>(),
                             sample_bias ? *sample_bias : Var<T>()};
  std::vector<detail::ConvLowRank<T>> states;
  std::vector<kernels::LowRankTerm<T>> terms;
  for (const auto& term : low_rank) {
    const Shape &a = term.a->shape(), &b = term.b->shape();
    check<ShapeError>(a.rank() == 4 && a[1] > 0 && s.c % a[1] == 0 && (a[1] == s.group_c() || a[1] == s.c) && a[2] == s.kh && a[3] == s.kw &&
                          a[0] % s.groups == 0 && b == Shape{s.out, a[0] / s.groups, 1, 1},
                      "conv2d", "expected A [R, ", s.group_c(), ", ", s.kh, ", ", s.kw, "] and B [", s.out, ", R / ", s.groups,
                      ", 1, 1], got ", a, " and ", b);
    const Var<T>& own = term.x ? *term.x : x;
    check<ShapeError>(own.shape() == x.shape(), "conv2d", "expected a low-rank input of shape ", x.shape(), ", got ", own.shape());
    Conv2dOptions down = options;
    down.groups = s.c / a[1];
    detail::ConvLowRank<T> state{detail::conv_shape(x.shape(), a, down),
                                 {.n = s.n, .h = s.out_h(), .w = s.out_w(), .c = a[0], .out = s.out, .groups = s.groups},
                                 nullptr, nullptr, term.scale, Tensor<T>::uninitialized({s.pixels(), a[0]}), {}, inputs.size(), term.x.has_value()};
    state.a = detail::packed_conv(state.down, *term.a);
    state.b = detail::packed_conv(state.up, *term.b);
    kernels::conv2d_forward<T>(state.down, own.value().data(), *state.a, state.t.data());
    kernels::scale(state.t.size(), static_cast<double>(term.scale), state.t.data(), state.t.data());
    inputs.push_back(term.a->var());
    inputs.push_back(term.b->var());
    if (term.x) inputs.push_back(*term.x);
    states.push_back(std::move(state));
  }
  for (const auto& state : states)
    terms.push_back({state.t.data(), state.t.extent(1), state.up.group_c(), state.b.get()});

  kernels::Epilogue<T> epilogue;
  epilogue.bias = bias != nullptr ? bias->value().data() : nullptr;
  epilogue.sample_bias = sample_bias ? sample_bias->value().data() : nullptr;
  epilogue.sample_rows = s.out_h() * s.out_w();
  epilogue.lds = s.out;
  const Shape x_shape = x.shape();
  const bool recorded = detail::any_wanted(std::span<const Var<T>>(inputs));
  const auto uninitialized = [&] { return Tensor<T>::uninitialized({s.n, s.out_h(), s.out_w(), s.out}); };
  std::shared_ptr<const kernels::PackedMatrix<T>> packed;
  Tensor<T> y;
  bool done = false;
  if (algorithm != nullptr && !recorded) {
    y = uninitialized();
    done = algorithm->forward(s, weight, x.value().data(), y.data(), epilogue);
  }
  if (done) {
    for (const auto& state : states) kernels::conv2d_forward<T>(state.up, state.t.data(), *state.b, y.data(), {.residual = y.data(), .ldr = s.out});
  } else {
    y = Tensor<T>();
    packed = detail::packed_conv(s, weight);
    const kernels::ConvInput<T> input(s, x.value().data(), *packed);
    if (input.copied() && !recorded) inputs[0] = x = Var<T>();
    y = uninitialized();
    kernels::conv2d_forward<T>(s, input, *packed, y.data(), epilogue, terms);
  }

  for (auto& state : states) {
    if (inputs[state.input].requires_grad()) state.x = detail::Saved<T>(state.own_input ? inputs[state.input + 2] : x);
    if (!inputs[state.input + 1].requires_grad()) state.t = Tensor<T>();
  }
  return record(std::make_shared<const Tensor<T>>(std::move(y)), std::span<const Var<T>>(inputs),
                [s, packed, states = std::move(states), x_shape, x = inputs[1].requires_grad() ? detail::Saved<T>(x) : detail::Saved<T>()](
                    Tensor<T>& dy, std::span<Grad<T>> dx) {
                  if (dx[2].wanted()) kernels::column_sum(dy.data(), s.out, s.pixels(), s.out, dx[2].slot().data(), true);
                  for (Index n = 0, rows = s.out_h() * s.out_w(); dx[3].wanted() && n < s.n; ++n)
                    kernels::column_sum(dy.data() + n * rows * s.out, s.out, rows, s.out, dx[3].slot().data() + n * s.out, true);
                  if (dx[1].wanted()) kernels::conv2d_dw<T>(s, x.get()->data(), dy.data(), dx[1].slot().data(), true);
                  Tensor<T> d;
                  if (dx[0].wanted()) {
                    d = Tensor<T>::uninitialized(x_shape);
                    kernels::conv2d_dx<T>(s, dy.data(), *packed, d.data(), false);
                  }
                  for (const auto& state : states) {
                    Grad<T>&da = dx[state.input], &db = dx[state.input + 1], &own = state.own_input ? dx[state.input + 2] : dx[0];
                    if (db.wanted()) kernels::conv2d_dw<T>(state.up, state.t.data(), dy.data(), db.slot().data(), true);
                    if (!da.wanted() && !own.wanted()) continue;
                    auto u = Tensor<T>::uninitialized({s.pixels(), state.down.out});  // s B^T dy
                    kernels::conv2d_dx<T>(state.up, dy.data(), *state.b, u.data(), false);
                    kernels::scale(u.size(), static_cast<double>(state.scale), u.data(), u.data());
                    if (da.wanted()) kernels::conv2d_dw<T>(state.down, state.x.get()->data(), u.data(), da.slot().data(), true);
                    if (own.wanted())
                      kernels::conv2d_dx<T>(state.down, u.data(), *state.a, state.own_input ? own.slot().data() : d.data(), true);
                  }
                  if (dx[0].wanted()) dx[0].add(std::move(d));
                });
}

TENON_COMPILED_FUNCTION(conv2d<float>)

}  // namespace tenon::inline TENON_ABI
