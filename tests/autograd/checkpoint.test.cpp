// checkpoint.hpp: the same bits for less memory.
#include <tenon/autograd/checkpoint.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

using Values = Tensor<float>;
using Inputs = std::span<const Var<float>>;

/// a b element by element; `saved` counts the values that pullbacks hold.
Var<float> product(const Var<float>& a, const Var<float>& b) {
  Values y = a.value();
  for (Index i = 0; i < y.size(); ++i) y.data()[i] *= b.value().data()[i];
  return record(std::move(y), {a, b}, [a = a.shared(), b = b.shared()](Values& dy, std::span<Grad<float>> dx) {
    const auto part = [&](const Values& other) {
      Values d = dy;
      for (Index i = 0; i < d.size(); ++i) d.data()[i] *= other.data()[i];
      return d;
    };
    if (dx[0].wanted()) dx[0].add(part(*b));
    if (dx[1].wanted()) dx[1].add(part(*a));
  });
}

const Values x_value = Values::of({0.3f, -1.7f, 2.9f}), w_value = Values::of({1.1f, 0.7f, -0.2f}), dy_value = Values::of({1, -0.5f, 3});

struct Run {
  Values y, dx, dw;
};
/// x x w w, plain or checkpointed; either of x and w may be constant.
Run run(bool checkpointed, bool x_wanted, bool w_wanted) {
  const Var<float> x = x_wanted ? variable(x_value) : Var<float>(x_value), w = w_wanted ? variable(w_value) : Var<float>(w_value);
  const std::vector<Var<float>> parameters{w};
  const std::function<Var<float>(Inputs)> f = [w](Inputs in) { return product(product(in[0], w), product(in[0], w)); };
  const Var<float> y = checkpointed ? checkpoint<float>(f, {x}, parameters, [] {}) : f(std::vector<Var<float>>{x});
  backward(y, dy_value);
  return {y.value(), x_wanted ? x.grad() : Values(), w_wanted ? w.grad() : Values()};
}

}  // namespace

TEST_CASE("a checkpoint gives the same bits, whichever of inputs and parameters want gradients") {
  for (const auto& [x_wanted, w_wanted] : {std::pair{true, true}, {true, false}, {false, true}}) {
    const Run plain = run(false, x_wanted, w_wanted), again = run(true, x_wanted, w_wanted);
    CHECK(plain.y == again.y);
    CHECK(plain.dx == again.dx);
    CHECK(plain.dw == again.dw);
  }
}

TEST_CASE("a checkpoint runs the function once forward, recording nothing, and once backward") {
  for (const bool x_wanted : {true, false}) {
    std::vector<bool> recorded;
    std::weak_ptr<const Values> inner;
    const Var<float> w = variable(w_value);
    const std::vector<Var<float>> parameters{w};
    const Var<float> y = checkpoint<float>(
        [&](Inputs in) {
          const Var<float> xw = product(in[0], w);
          recorded.push_back(xw.requires_grad());
          inner = xw.shared();
          return product(xw, w);
        },
        {x_wanted ? variable(x_value) : Var<float>(x_value)}, parameters, [] {});
    CHECK(recorded == std::vector<bool>{false});
    CHECK(inner.expired());
    backward(y, dy_value);
    CHECK(recorded == std::vector<bool>{false, true});
    CHECK(w.grad()(1) == Approx(-0.5 * -1.7 * 2 * 0.7));
  }
}

TEST_CASE("where nothing wants a gradient a checkpoint is a call") {
  const Var<float> x = x_value;
  const auto f = [](Inputs in) { return product(in[0], in[0]); };
  CHECK(!checkpoint<float>(f, {x}, {}, [] {}).requires_grad());
  const NoGrad no_grad;
  CHECK(!checkpoint<float>(f, {variable(x_value)}, {}, [] {}).requires_grad());
}

TEST_CASE("what moved since the first computation is an error") {
  int version = 1;
  const Var<float> x = variable(x_value);
  const Var<float> y = checkpoint<float>([](Inputs in) { return product(in[0], in[0]); }, {x}, {},
                                         [&version, then = version] { check<GraphError>(version == then, "checkpoint", "a parameter moved"); });
  ++version;
  REQUIRE_THROWS_WITH(backward(y, dy_value), contains("[checkpoint] a parameter moved"));
}
