#pragma once
// Scaled dot-product attention of many heads (Vaswani et al. 2017, 1706.03762).
#include <optional>

#include <tenon/autograd/saved.hpp>
#include <tenon/kernels/attention.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
struct AttentionOptions {
  Index heads = 1;
  /// Query i sees keys 0 .. i only (and the prefix).
  bool causal = false;
  /// Factor of the scores; 1 / sqrt(width of a head) unless given.
  std::optional<double> scale;
  /// Keys of each sample that count, the others being padding; all when empty.
  std::vector<Index> key_lengths;
  /// Further keys and values [P, D] in front of each sample's own, which every query sees.
  std::optional<Var<T>> prefix_k, prefix_v;
  /// bf16 (of float only): multiplies in bfloat16 where the machine does, which rounds q, k, v and the weights of the keys, and in
  /// backward dy and the gradients of the scores; softmax and sums stay float32.
  DType products = DType::f32;
};

/// softmax(scale q k^T) v for each head; q [N, L, D], k and v [N, S, D] give [N, L, D], a head being D / heads columns.
/// A query that sees no key gives zeros. Throws ShapeError when the shapes do not fit.
template <Real T>
Var<T> attention(const Var<T>& q, const Var<T>& k, const Var<T>& v, const AttentionOptions<T>& options = {}) {
  check<ShapeError>(q.rank() == 3 && k.shape() == q.shape().with(1, k.rank() == 3 ? k.extent(1) : 0) && v.shape() == k.shape(), "attention",
                    "expected q [N, L, D], k and v [N, S, D], got ", q.shape(), ", ", k.shape(), " and ", v.shape());
  const Index n = q.extent(0), width = q.extent(2), heads = options.heads;
  check<ShapeError>(heads > 0 && width % heads == 0, "attention", "expected a width that ", heads, " heads divide, got ", q.shape());
  check<ShapeError>(options.key_lengths.empty() || static_cast<Index>(options.key_lengths.size()) == n, "attention", "expected ", n,
                    " key lengths for q ", q.shape(), " and k ", k.shape(), ", got ", options.key_lengths.size());
  for (Index length : options.key_lengths)
    check<ShapeError>(0 <= length && length <= k.extent(1), "attention", "expected key lengths of 0 to ", k.extent(1), ", got ", length);
  check(options.products == DType::f32 || options.products == DType::bf16, "attention", "expected products in float32 or bfloat16, got ",
        name_of(options.products));
  check<ShapeError>(options.prefix_k.has_value() == options.prefix_v.has_value(), "attention", "expected prefix keys and values, got one of them");
  const Var<T> none(Tensor<T>({0, width}));
  const Var<T>& prefix_k = options.prefix_k ? *options.prefix_k : none;
  const Var<T>& prefix_v = options.prefix_v ? *options.prefix_v : none;
  check<ShapeError>(prefix_k.rank() == 2 && prefix_k.extent(1) == width && prefix_v.shape() == prefix_k.shape(), "attention",
                    "expected prefixes [P, ", width, "], got ", prefix_k.shape(), " and ", prefix_v.shape());

  kernels::AttentionShape shape{.n = n, .heads = heads, .lq = q.extent(1), .lk = k.extent(1), .d = width / heads, .prefix = prefix_k.extent(0)};
  shape.scale = options.scale ? *options.scale : 1.0 / std::sqrt(static_cast<double>(shape.d));
  shape.causal = options.causal;
  shape.products = options.products;
  shape.key_lengths = options.key_lengths.empty() ? nullptr : options.key_lengths.data();
  auto out = std::make_shared<Tensor<T>>(Tensor<T>::uninitialized(q.shape()));
  auto lse = Tensor<T>::uninitialized({n, heads, shape.lq});
  const auto data = [](const auto& x) { return x->data(); };
  kernels::attention_forward(shape, kernels::AttentionInputs<T>{data(q.shared()), data(k.shared()), data(v.shared()), data(prefix_k.shared()), data(prefix_v.shared())},
                             out->data(), lse.data());
  const std::array<Var<T>, 5> inputs{q, k, v, prefix_k, prefix_v};
  std::shared_ptr<const Tensor<T>> value = std::move(out);
  // Queries and keys are kept as forward reads them: their scores meet its log-sum-exp in an exponential.
  const bool rounds = kernels::attention_rounds(shape) && std::any_of(inputs.begin(), inputs.end(), [](const Var<T>& x) { return x.requires_grad(); });
  const auto keep = rounds ? detail::Keep::rounded : detail::Keep::exact;
  return record(value, std::span<const Var<T>>(inputs),
                [shape, lengths = options.key_lengths, saved_y = detail::Saved<T>(value), lse = std::move(lse), saved_q = detail::Saved<T>(q.shared(), keep),
                 saved_k = detail::Saved<T>(k.shared(), keep), saved_v = detail::Saved<T>(v.shared(), rounds ? keep : detail::Keep::by_scope),
                 prefix_k = prefix_k.shared(), prefix_v = prefix_v.shared()](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  const auto y = saved_y.get();
                  const std::array x{saved_q.get(), saved_k.get(), saved_v.get(), prefix_k, prefix_v};
                  kernels::AttentionShape s = shape;
                  s.key_lengths = lengths.empty() ? nullptr : lengths.data();
                  std::array<Tensor<T>, 5> d;
                  std::array<T*, 5> to{};
                  for (std::size_t i = 0; i < 5; ++i) {
                    if (!dx[i].wanted()) continue;
                    d[i] = Tensor<T>::uninitialized(x[i]->shape());
                    to[i] = d[i].data();
                  }
                  kernels::attention_backward(s, kernels::AttentionInputs<T>{x[0]->data(), x[1]->data(), x[2]->data(), x[3]->data(), x[4]->data()},
                                              y->data(), lse.data(), dy.data(), kernels::AttentionGradients<T>{to[0], to[1], to[2], to[3], to[4]});
                  for (std::size_t i = 0; i < 5; ++i) dx[i].add(std::move(d[i]));
                });
}

TENON_COMPILED_FUNCTION(attention<float>)

}  // namespace tenon::inline TENON_ABI
