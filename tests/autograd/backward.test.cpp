// backward.hpp: the laws of the graph.
#include <tenon/autograd/backward.hpp>

#include <thread>

#include "catch.hpp"

using namespace tenon;

namespace {

using Values = Tensor<float>;
using Grads = std::span<Grad<float>>;

Var<float> times(const Var<float>& x, float factor, int* calls = nullptr) {
  Values y = x.value();
  for (float& e : y) e *= factor;
  return record(std::move(y), {x}, [factor, calls](Values& dy, Grads dx) {
    if (calls != nullptr) ++*calls;
    for (float& e : dy) e *= factor;
    dx[0].add(std::move(dy));
  });
}
Var<float> add(const Var<float>& a, const Var<float>& b) {
  Values y = a.value();
  for (Index i = 0; i < y.size(); ++i) y.data()[i] += b.value().data()[i];
  return record(std::move(y), {a, b}, [](Values& dy, Grads dx) {
    if (dx[0].wanted()) dx[0].add(dy);
    if (dx[1].wanted()) dx[1].add(std::move(dy));
  });
}

}  // namespace

TEST_CASE("a diamond runs each node once, with the sum of its gradients") {
  const Var<float> x = variable(Values::of({1, 2}));
  int stem_calls = 0, left_calls = 0;
  const Var<float> stem = times(x, 2, &stem_calls), left = times(stem, 3, &left_calls);
  const Var<float> y = add(add(left, times(stem, 5)), left);
  backward(y, Values::of({1, 10}));
  CHECK(stem_calls == 1);
  CHECK(left_calls == 1);
  CHECK(x.grad() == Values::of({22, 220}));
}

TEST_CASE("an input used twice gets both gradients") {
  const Var<float> x = variable(Values::of({3}));
  backward(add(x, x));
  CHECK(x.grad() == Values::of({2}));
}

TEST_CASE("gradients of leaves add up until they are cleared") {
  const Var<float> x = variable(Values::of({1}));
  backward(times(x, 2));
  backward(times(x, 3));
  CHECK(x.grad() == Values::of({5}));
  x.clear_grad();
  CHECK(!x.has_grad());
  backward(times(x, 7));
  CHECK(x.grad() == Values::of({7}));
  backward(x);
  CHECK(x.grad() == Values::of({8}));
}

TEST_CASE("constants get no gradient and stop none") {
  const Var<float> x = variable(Values::of({1})), constant = Values::of({4});
  backward(add(constant, times(x, 2)));
  CHECK(x.grad() == Values::of({2}));
  CHECK(!constant.has_grad());
}

TEST_CASE("misuse has a name") {
  const Var<float> x = variable(Values::of({1, 2}));
  const Var<float> y = times(x, 2);
  REQUIRE_THROWS_AS(backward(Var<float>(Values::of({1}))), GraphError);
  REQUIRE_THROWS_WITH(backward(y), contains("[backward]") && contains("[2]"));
  REQUIRE_THROWS_AS(backward(y, Values::of({1, 2, 3})), ShapeError);
  const Var<float> z = times(y, 3);
  backward(z, Values::of({1, 1}));
  REQUIRE_THROWS_WITH(backward(z, Values::of({1, 1})), contains("already used"));
  REQUIRE_THROWS_AS(backward(times(y, 1), Values::of({1, 1})), GraphError);  // through a part that was freed
  const Var<float> wrong = record(Values::of({1}), {x}, [](Values&, Grads dx) { dx[0].add(Values::of({1, 2, 3})); });
  REQUIRE_THROWS_WITH(backward(wrong), contains("expected a gradient of shape [2], got [3]"));
}

TEST_CASE("backward frees what the pullbacks kept, as it goes") {
  const Var<float> x = variable(Values::of({1}));
  std::weak_ptr<const Values> kept;
  bool gone_before_the_first = false;
  const auto keeping = [&](const Var<float>& in, auto&& then) {
    auto value = std::make_shared<const Values>(in.value());
    kept = value;
    return record(Values(in.value()), {in}, [value, then](Values& dy, Grads dx) {
      then();
      dx[0].add(std::move(dy));
    });
  };
  const Var<float> first = record(Values(x.value()), {x}, [&](Values& dy, Grads dx) {
    gone_before_the_first = kept.expired();
    dx[0].add(std::move(dy));
  });
  const Var<float> y = keeping(first, [] {});
  CHECK(!kept.expired());
  backward(y);
  CHECK(gone_before_the_first);
  CHECK(y.node()->inputs.empty());
  CHECK(y.node()->grad.size() == 0);
  CHECK(x.grad() == Values::of({1}));
}

TEST_CASE("a graph of a million nodes needs no recursion") {
  const Var<float> x = variable(Values::scalar(1));
  const auto deep = [&] {
    Var<float> y = x;
    for (int i = 0; i < 1000000; ++i)
      y = record(Values::scalar(0), {y}, [](Values& dy, Grads dx) { dx[0].add(std::move(dy)); });
    return y;
  };
  backward(deep());
  CHECK(x.grad().item() == 1);
  deep();  // and is destroyed without backward
}

TEST_CASE("each thread has a graph and a NoGrad of its own") {
  std::vector<float> got(4);
  std::vector<std::thread> threads;
  const NoGrad here;
  for (std::size_t t = 0; t < got.size(); ++t)
    threads.emplace_back([&got, t] {
      const Var<float> x = variable(Values::scalar(1));
      Var<float> y = x;
      for (int i = 0; i < 1000; ++i) y = add(y, times(x, static_cast<float>(t)));
      backward(y);
      got[t] = x.grad().item();
    });
  for (auto& thread : threads) thread.join();
  for (std::size_t t = 0; t < got.size(); ++t) CHECK(got[t] == static_cast<float>(1000 * t + 1));
}
