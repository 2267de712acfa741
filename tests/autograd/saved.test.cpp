// saved.hpp: what is kept for backward in bfloat16.
#include <tenon/autograd/backward.hpp>
#include <tenon/autograd/saved.hpp>
#include <tenon/core/random.hpp>
#include <tenon/ops/attention.hpp>
#include <tenon/ops/conv2d.hpp>
#include <tenon/ops/linear.hpp>
#include <tenon/ops/norm.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/ops/shape.hpp>

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::numbers;

namespace {

/// Everything that keeps something large: norms, trained and gated products, low-rank terms, activations, attention, a convolution.
struct Step {
  Generator generator{5};
  Var<float> x = variable(numbers<float>({2, 64, 32}, generator)), gamma = variable(numbers<float>({32}, generator)), beta = variable(numbers<float>({32}, generator));
  Weight<float> w{numbers<float>({64, 32}, generator, 0.2), true}, gated{numbers<float>({64, 64}, generator, 0.1), false}, a{numbers<float>({4, 32}, generator, 0.2), true},
      b{numbers<float>({64, 4}, generator, 0.5), true}, kernel{numbers<float>({32, 32, 3, 3}, generator, 0.06), true};
  Tensor<float> value;
  std::weak_ptr<const Tensor<float>> normalised;  // only the products' backward needs it once they ran

  std::vector<Tensor<float>> run(bool narrow) {
    Var<float> loss;
    {
      const NarrowSaved scope(narrow);
      auto n = layer_norm(x, gamma, beta) * 1.0;  // a value that cannot be made again
      normalised = n.shared();
      const LowRank<float> term{&a, &b, 0.5f, std::nullopt};
      const auto h = linear(n, w, nullptr, Activation::gelu, std::span(&term, 1));
      n = Var<float>();
      const auto g = silu(geglu_linear(h, gated)) + x;
      AttentionOptions<float> options;
      options.heads = 4;
      const auto t = attention(g, g * 0.5, g + 1.0, options);
      const auto c = group_norm(conv2d(reshape(t, {2, 8, 8, 32}), kernel, nullptr, {.padding = 1}), 4, gamma, beta, 1e-5, true);
      loss = mean(c * c);
      value = loss.value();
    }
    kept_ = !normalised.expired();
    backward(loss);
    std::vector<Tensor<float>> out;
    for (const auto& leaf : {x, gamma, beta, w.var(), a.var(), b.var(), kernel.var()}) {
      out.push_back(leaf.grad());
      leaf.clear_grad();
    }
    return out;
  }
  bool kept() const { return kept_; }

 private:
  bool kept_ = false;
};

}  // namespace

TEST_CASE("NarrowSaved keeps half the bytes for backward: forward gives the same bits, gradients those of rounded values") {
  Step step;
  const auto whole = step.run(false);
  const auto value = step.value;
  CHECK(step.kept());
  const auto narrow = step.run(true);
  CHECK(step.value == value);
  CHECK_FALSE(step.kept());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    INFO(i);
    CHECK_FALSE(narrow[i] == whole[i]);
    CHECK(golden::error(narrow[i], whole[i]) < 2e-2);
  }
  CHECK(step.run(false) == whole);  // the scope ended
}

TEST_CASE("NarrowSaved leaves doubles and small tensors as they are") {
  Generator generator(6);
  const auto gradient = [&](auto x, bool narrow) {
    using T = typename std::remove_cvref_t<decltype(x.value())>::value_type;
    const NarrowSaved scope(narrow);
    backward(sum(gelu(x)), Tensor<T>::scalar(T(1)));
    const auto out = x.grad();
    x.clear_grad();
    return out;
  };
  const auto large = variable(numbers<double>({64, 64}, generator));
  CHECK(gradient(large, true) == gradient(large, false));
  const auto small = variable(numbers<float>({8, 8}, generator));
  CHECK(gradient(small, true) == gradient(small, false));
}

TEST_CASE("products keep no value that a norm can make again: the same gradients, and a used graph is an error") {
  Generator generator(8);
  const auto x = variable(numbers<float>({2, 16, 32}, generator)), gamma = variable(numbers<float>({32}, generator)), beta = variable(numbers<float>({32}, generator));
  const Weight<float> w{numbers<float>({32, 32}, generator, 0.2), true}, a{numbers<float>({4, 32}, generator, 0.2), true}, b{numbers<float>({32, 4}, generator, 0.5), true},
      kernel{numbers<float>({32, 32, 3, 3}, generator, 0.06), true};
  const LowRank<float> term{&a, &b, 0.5f, std::nullopt};
  const auto run = [&](bool made_again) {
    const auto keep = [&](const Var<float>& v) { return made_again ? v : v * 1.0; };
    auto n = keep(layer_norm(x, gamma, beta));
    std::weak_ptr<const Tensor<float>> values[2] = {n.shared()};
    const auto h = linear(n, w, nullptr, Activation::none, std::span(&term, 1)) + linear(n, w);
    auto g = keep(group_norm(reshape(h, {2, 4, 4, 32}), 4, gamma, beta, 1e-5, true));
    values[1] = g.shared();
    const auto c = conv2d(g, kernel, nullptr, {.padding = 1});
    n = g = Var<float>();
    for (const auto& value : values) CHECK(value.expired() == made_again);
    backward(mean(c * c));
    CHECK_THROWS_AS(backward(sum(c)), GraphError);
    std::vector<Tensor<float>> out;
    for (const auto& leaf : {x, gamma, beta, w.var(), a.var(), b.var(), kernel.var()}) {
      out.push_back(leaf.grad());
      leaf.clear_grad();
    }
    return out;
  };
  CHECK(run(true) == run(false));

  const auto n = layer_norm(x, gamma, beta);
  const auto first = sum(n), second = sum(linear(n, w));
  backward(first);
  CHECK_THROWS_WITH(backward(second), contains("already used"));
}

TEST_CASE("attention that multiplies bfloat16 keeps q, k and v rounded: the same gradients as from the whole values") {
  Generator generator(7);
  auto q = variable(numbers<float>({2, 40, 64}, generator)), k = variable(numbers<float>({2, 50, 64}, generator)), v = variable(numbers<float>({2, 50, 64}, generator));
  const auto dy = numbers<float>({2, 40, 64}, generator);
  const kernels::AttentionShape shape{.n = 2, .heads = 4, .lq = 40, .lk = 50, .d = 16, .scale = 0.25, .products = DType::bf16};
  const kernels::AttentionInputs<float> inputs{q.value().data(), k.value().data(), v.value().data()};
  Tensor<float> y({2, 40, 64}), lse({2, 4, 40}), dq({2, 40, 64}), dk({2, 50, 64}), dv({2, 50, 64});
  kernels::attention_forward(shape, inputs, y.data(), lse.data());
  kernels::attention_backward(shape, inputs, y.data(), lse.data(), dy.data(), {dq.data(), dk.data(), dv.data()});

  AttentionOptions<float> options;
  options.heads = 4;
  options.products = DType::bf16;
  auto out = attention(q, k, v, options);
  CHECK(out.value() == y);
  backward(out, dy);
  CHECK(q.grad() == dq);
  CHECK(k.grad() == dk);
  CHECK(v.grad() == dv);

  auto temporary = q * 1.0;
  const std::weak_ptr<const Tensor<float>> whole = temporary.shared();
  out = attention(temporary, k, v, options);
  temporary = Var<float>();
  CHECK(whole.expired() == kernels::attention_rounds(shape));
}
