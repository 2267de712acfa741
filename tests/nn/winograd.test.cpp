#include <tenon/nn/winograd.hpp>

#include <tenon/autograd/backward.hpp>
#include <tenon/ops/arithmetic.hpp>
#include <tenon/ops/random.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/attach.hpp>
#include <tenon/peft/lora.hpp>
#include <tenon/peft/merge.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

double far(const Tensor<float>& a, const Tensor<float>& b) {
  REQUIRE(a.shape() == b.shape());
  double most = 0, scale = 0;
  for (Index i = 0; i < a.size(); ++i) {
    most = std::max(most, static_cast<double>(std::abs(a.data()[i] - b.data()[i])));
    scale = std::max(scale, static_cast<double>(std::abs(b.data()[i])));
  }
  return most / scale;
}

template <class T>
struct Model {
  Conv2d<T> conv;
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv", s.conv);
  }
};

struct Problem {
  Generator generator{3};
  Model<float> model{Conv2d<float>(64, 80, 3, generator, {.padding = 1})};
  Conv2d<float>& conv = model.conv;
  Var<float> x{randn<float>({2, 33, 30, 64}, generator)};
  Var<float> own{randn<float>({2, 80}, generator)};
  Problem() { freeze(conv); }
};

}  // namespace

TEST_CASE("a layer with Winograd: near the direct product, its biases and its low-rank terms, and the direct bits again without") {
  Problem p;
  const Tensor<float> exact = p.conv(p.x, p.own).value();
  for (const Index tile : {2, 4, 2}) {
    CHECK(use_winograd(p.conv, tile) == 1);
    const Tensor<float> y = p.conv(p.x, p.own).value();
    CHECK(far(y, exact) > 0);  // it ran
    CHECK(far(y, exact) < 1e-5);
  }
  use_winograd(p.conv, 0);
  CHECK(far(p.conv(p.x, p.own).value(), exact) == 0);

  attach(p.model, LoraConfig{.rank = 4, .alpha = 6, .targets = {"conv"}}, p.generator);
  for (const auto& ref : patch_params(p.model)) ref.weight->update([&](Tensor<float>& value) { fill_normal(value.span(), 0.0f, 0.1f, p.generator); });
  const NoGrad no_grad;
  const Tensor<float> tuned = p.conv(p.x, p.own).value();
  CHECK(far(tuned, exact) > 1e-2);
  use_winograd(p.conv, 4);
  CHECK(far(p.conv(p.x, p.own).value(), tuned) > 0);
  CHECK(far(p.conv(p.x, p.own).value(), tuned) < 1e-5);
  merge(p.model);
  CHECK(far(p.conv(p.x, p.own).value(), tuned) < 1e-5);  // a merged weight is transformed anew
}

TEST_CASE("bfloat16 weights: Winograd reads the elements themselves, in float32") {
  Problem p;
  const Tensor<float> exact = p.conv(p.x).value();
  p.conv.weight->set_panels(DType::bf16);
  CHECK(far(p.conv(p.x).value(), exact) > 1e-4);
  use_winograd(p.conv, 4);
  CHECK(far(p.conv(p.x).value(), exact) < 1e-5);
}

TEST_CASE("where a gradient is wanted, and for int8 weights and small maps, the direct product stays, not Winograd's") {
  Problem p;
  const auto bits_kept = [&](const Var<float>& x) {
    use_winograd(p.conv, 0);
    const Tensor<float> direct = p.conv(x).value();
    use_winograd(p.conv, 4);
    CHECK(far(p.conv(x).value(), direct) == 0);
  };
  bits_kept(variable<float>(p.x.shared()));
  bits_kept(Var<float>(randn<float>({2, 8, 8, 64}, p.generator)));
  p.conv.weight->set_panels(DType::i8);
  bits_kept(p.x);

  Conv2d<float> strided(64, 64, 3, p.generator, {.stride = 2, .padding = 1});
  freeze(strided);
  const Tensor<float> direct = strided(p.x).value();
  CHECK(use_winograd(strided) == 1);
  CHECK(far(strided(p.x).value(), direct) == 0);
  CHECK_THROWS_AS(use_winograd(strided, 3), Error);
}
