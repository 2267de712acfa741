#include <tenon/models/clip/interpolate.hpp>
#include <tenon/nn/mlp.hpp>
#include <tenon/peft/lora.hpp>
#include <tenon/peft/merge.hpp>

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;

namespace {
Mlp<float> block(std::uint64_t seed, Index hidden = 5) {
  Generator generator(seed);
  Mlp<float> out(3, hidden, Activation::gelu);
  out.initialize(generator);
  return out;
}
}  // namespace

TEST_CASE("interpolate") {
  Mlp<float> a = block(1), b = block(2), mixed(3, 5, Activation::gelu);
  interpolate(a, b, 0.25, mixed);
  const auto first = params(a), second = params(b), third = params(mixed);
  for (std::size_t i = 0; i < third.size(); ++i)
    for (Index k = 0; k < third[i].weight->size(); ++k)
      CHECK(third[i].weight->value().data()[k] ==
            Approx(0.75 * static_cast<double>(first[i].weight->value().data()[k]) + 0.25 * static_cast<double>(second[i].weight->value().data()[k])));
  CHECK(trainable(mixed).empty());

  interpolate(a, b, 0, mixed);
  for (std::size_t i = 0; i < third.size(); ++i) CHECK(third[i].weight->value() == first[i].weight->value());
  interpolate(a, b, 1, a);  // into one of the two
  for (std::size_t i = 0; i < third.size(); ++i) CHECK(first[i].weight->value() == second[i].weight->value());
  CHECK(trainable(a).size() == 4);
}

TEST_CASE("interpolate takes merged adapters along and refuses others") {
  Generator generator(3);
  Mlp<float> a = block(1), tuned = block(1), mixed(3, 5, Activation::gelu);
  attach(tuned, LoraConfig{.rank = 2, .targets = {"fc1"}}, generator);
  for (const auto& ref : patch_params(tuned)) ref.weight->update([&](Tensor<float>& value) { fill_normal(value.span(), 0.0f, 1.0f, generator); });
  REQUIRE_THROWS_WITH(interpolate(a, tuned, 0.5, mixed), contains("fc1 has an active patch"));
  CHECK(!mixed.fc1.weight->filled());
  merge(tuned);
  interpolate(a, tuned, 1, mixed);
  CHECK(mixed.fc1.weight->value() == tuned.fc1.weight->value());
  CHECK(!(mixed.fc1.weight->value() == a.fc1.weight->value()));

  Mlp<float> wide = block(1, 6), declared(3, 5, Activation::gelu);
  REQUIRE_THROWS_WITH(interpolate(a, wide, 0.5, a), contains("fc1.weight: expected shape [5, 3], got [6, 3]"));
  REQUIRE_THROWS_WITH(interpolate(a, declared, 0.5, a), contains("fc1.weight has no elements"));
}
