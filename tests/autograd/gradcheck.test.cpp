// gradcheck.hpp: right gradients pass, and every kind of wrong one is named.
#include <tenon/autograd/gradcheck.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

using Values = Tensor<double>;
using Inputs = std::vector<Var<double>>;

/// a b^2, its gradients put through `spoil(input, element, gradient)`.
template <class Spoil>
std::string checked(Spoil spoil) {
  const auto f = [spoil](const Inputs& x) {
    Values y = x[0].value();
    for (Index i = 0; i < y.size(); ++i) y.data()[i] *= x[1].value().data()[i] * x[1].value().data()[i];
    return record(std::move(y), {x[0], x[1]}, [spoil, a = x[0].shared(), b = x[1].shared()](Values& dy, std::span<Grad<double>> dx) {
      Values da = dy, db = dy;
      for (Index i = 0; i < dy.size(); ++i) {
        const double p = a->data()[i], q = b->data()[i];
        da.data()[i] = spoil(0, i, dy.data()[i] * q * q);
        db.data()[i] = spoil(1, i, dy.data()[i] * 2 * p * q);
      }
      dx[0].add(std::move(da));
      dx[1].add(std::move(db));
    });
  };
  return check_grad(f, {Values::of({1, -2, 0.5}), Values::of({3, 0.25, -1})});
}

}  // namespace

TEST_CASE("a right gradient passes") {
  CHECK(checked([](int, Index, double d) { return d; }) == "");
}

TEST_CASE("wrong gradients are found and named") {
  CHECK_THAT(checked([](int, Index, double d) { return -d; }), contains("input 0, element 0 of [3]"));
  CHECK_THAT(checked([](int input, Index, double d) { return input == 1 ? 0.999 * d : d; }), contains("input 1, element 0 of [3]"));
  CHECK_THAT(checked([](int input, Index i, double d) { return input == 1 && i == 2 ? 0.0 : d; }), contains("input 1, element 2 of [3]"));
  CHECK_THAT(checked([](int, Index i, double d) { return i == 1 ? std::nan("") : d; }), contains("input 0, element 1 of [3]"));
}

TEST_CASE("a gradient that never arrives is found") {
  const auto f = [](const Inputs& x) {
    return record(Values(x[0].value()), {x[0]}, [](Values&, std::span<Grad<double>>) {});
  };
  CHECK_THAT(check_grad(f, {Values::of({1, 2})}), contains("got 0"));
}
