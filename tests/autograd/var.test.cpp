// var.hpp: what a Var shares, and what is recorded.
#include <tenon/autograd/var.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

using Values = Tensor<float>;

/// x unchanged, with a node of its own.
Var<float> same(const Var<float>& x) {
  return record(Values(x.value()), {x}, [](Values& dy, std::span<Grad<float>> dx) { dx[0].add(std::move(dy)); });
}

}  // namespace

TEST_CASE("copying a Var shares the value and the node") {
  const Var<float> x = variable(Values::of({1, 2}));
  const Var<float> y = x;
  CHECK(y.value().data() == x.value().data());
  CHECK(y.node() == x.node());
  CHECK(x.detach().value().data() == x.value().data());
  CHECK(!x.detach().requires_grad());
}

TEST_CASE("operations on constants record nothing") {
  const Var<float> constant = Values::of({1, 2}), leaf = variable(Values::of({1, 2}));
  CHECK(!constant.requires_grad());
  CHECK(!same(constant).requires_grad());
  CHECK(!same(leaf.detach()).requires_grad());
  CHECK(same(leaf).requires_grad());
}

TEST_CASE("NoGrad records nothing, and EnableGrad inside it does again") {
  const Var<float> leaf = variable(Values::of({1}));
  {
    const NoGrad outer;
    CHECK(!wants_grad(leaf));
    CHECK(!same(leaf).requires_grad());
    {
      const NoGrad inner;
      const EnableGrad enable;
      CHECK(same(leaf).requires_grad());
    }
    CHECK(!same(leaf).requires_grad());
  }
  CHECK(wants_grad(leaf));
  CHECK(same(leaf).requires_grad());
}

TEST_CASE("an input that is constant has no edge") {
  const Var<float> constant = Values::of({1}), leaf = variable(Values::of({1}));
  const Var<float> y = record(Values::of({1}), {constant, leaf}, [](Values&, std::span<Grad<float>>) {});
  REQUIRE(y.node()->inputs.size() == 2);
  CHECK(y.node()->inputs[0] == nullptr);
  CHECK(y.node()->inputs[1] == leaf.node());
}

TEST_CASE("a gradient that is not there is an error") {
  const Var<float> leaf = variable(Values::of({1}));
  CHECK(!leaf.has_grad());
  REQUIRE_THROWS_AS(leaf.grad(), GraphError);
  REQUIRE_THROWS_AS(leaf.detach().grad(), GraphError);
}
