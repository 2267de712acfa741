#include <tenon/core/random.hpp>

#include "catch.hpp"

using namespace tenon;

namespace {

namespace torch {
#include "../golden/random.inc"
}

template <class T>
std::vector<T> drawn(std::size_t n, auto&& fill) {
  std::vector<T> out(n);
  fill(std::span<T>(out));
  return out;
}

/// The largest distance in units of the reference's last place.
template <class T, class Bits, std::size_t N>
double worst_ulp(std::span<const T> values, const Bits (&reference)[N]) {
  REQUIRE(values.size() == N);
  double worst = 0;
  for (std::size_t i = 0; i < N; ++i) {
    const T r = std::bit_cast<T>(reference[i]), size = std::abs(r);
    const double ulp = static_cast<double>(std::nextafter(size, std::numeric_limits<T>::infinity()) - size);
    worst = std::max(worst, std::abs(static_cast<double>(values[i]) - static_cast<double>(r)) / ulp);
  }
  return worst;
}
template <class T, class Bits, std::size_t N>
double worst_ulp(const std::vector<T>& values, const Bits (&reference)[N]) {
  return worst_ulp(std::span<const T>(values), reference);
}

std::uint64_t fnv1a(std::span<const std::byte> bytes) {
  std::uint64_t h = 14695981039346656037u;
  for (std::byte b : bytes) h = (h ^ static_cast<std::uint64_t>(b)) * 1099511628211u;
  return h;
}

}  // namespace

TEST_CASE("the twister gives the reference's first and ten-thousandth numbers") {
  Generator generator(5489);
  REQUIRE(generator.random() == 3499211612u);
  for (int i = 2; i < 10000; ++i) generator.random();
  REQUIRE(generator.random() == 4123659995u);  // the value that the C++ standard states for std::mt19937
}

TEST_CASE("Philox gives the known answers of Random123") {
  using Block = std::array<std::uint32_t, 4>;
  REQUIRE(Philox(0, 0).block(0) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr auto ones = ~std::uint64_t{0};
  REQUIRE(Philox(ones, ones).block(ones) == Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  REQUIRE(Philox(0x299f31d0a4093822, 0x0370734413198a2e).block(0x85a308d3243f6a88) == Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  REQUIRE(Philox(1, 2).bits(7) == Philox(1, 2).block(1)[3]);
  REQUIRE(Philox(0, 0).uniform(0) == static_cast<float>(0x6627e8) * 0x1p-24f);
}

TEST_CASE("uniforms equal torch's to the bit") {
  Generator g(0);
  const auto check = [&]<class T>(T, std::size_t n, double low, double high, const auto& reference) {
    REQUIRE(worst_ulp(drawn<T>(n, [&](std::span<T> s) { fill_uniform(s, low, high, g); }), reference) == 0);
  };
  check(0.0f, 8, 0, 1, torch::uniform_floats);
  check(0.0f, 64, -0.3, 0.4, torch::uniform_range);
  check(0.0, 8, 0, 1, torch::uniform_doubles);
  check(0.0, 64, -0.3, 0.4, torch::uniform_double_range);
}

TEST_CASE("normals are within three units in the last place of torch's") {
  const auto normals = [](std::size_t n, std::uint64_t seed) {
    Generator g(seed);
    return drawn<float>(n, [&](std::span<float> s) { fill_normal(s, 0, 1, g); });
  };
  CHECK(worst_ulp(normals(5, 5), torch::normal_5) == 0);
  CHECK(worst_ulp(normals(16, 16), torch::normal_16) <= 3);
  CHECK(worst_ulp(normals(17, 17), torch::normal_17) <= 3);
  CHECK(worst_ulp(normals(100, 100), torch::normal_100) <= 3);

  const auto latents = normals(4 * 64 * 64, 42);
  std::vector<float> some;
  for (std::size_t i = 0; i < latents.size(); i += 1021) some.push_back(latents[i]);
  CHECK(worst_ulp(some, torch::latents_42) <= 3);

  Generator g(7);
  CHECK(worst_ulp(drawn<float>(40, [&](auto s) { fill_normal(s, 1.5, 0.02, g); }), torch::normal_scaled) <= 3);
  CHECK(worst_ulp(drawn<double>(5, [&](auto s) { fill_normal(s, 0, 1, g); }), torch::normal_doubles_5) <= 2);
  CHECK(worst_ulp(drawn<double>(20, [&](auto s) { fill_normal(s, 0, 1, g); }), torch::normal_doubles_20) <= 8);
}

TEST_CASE("the state's bytes are torch's") {
  Generator g(7);
  std::vector<float> forty(40);
  std::vector<double> few(5), more(20);
  fill_normal<float>(forty, 1.5, 0.02, g);
  fill_normal<double>(few, 0, 1, g);  // leaves a spare normal, whose last bit is libm's
  fill_normal<double>(more, 0, 1, g);
  CHECK(fnv1a(g.state()) == torch::state_after[0]);
}

TEST_CASE("integers and permutations equal torch's") {
  const auto equal = [](const auto& values, const auto& reference) {
    REQUIRE(std::equal(values.begin(), values.end(), std::begin(reference), std::end(reference)));
  };
  Generator g1(1), g2(2), g3(3);
  equal(drawn<std::int64_t>(10, [&](auto s) { fill_integers(s, -5, 1000, g1); }), torch::small_integers);
  equal(drawn<std::int64_t>(10, [&](auto s) { fill_integers(s, -(std::int64_t{1} << 40), std::int64_t{1} << 50, g2); }),
        torch::large_integers);
  equal(permutation(10, g3), torch::permutation_10);
  REQUIRE(permutation(0, g3).empty());
  REQUIRE(Generator(1).integer(std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()) != 0);
}

TEST_CASE("a saved state continues with the same numbers") {
  const int draws = GENERATE(0, 1, 5, 623, 624, 625, 1248);
  Generator a(99);
  for (int i = 0; i < draws; ++i) a.random();
  if (draws % 2 == 1) a.normal();
  Generator b(1);
  b.normal();
  b.set_state(a.state());
  REQUIRE(b.initial_seed() == 99);
  REQUIRE(b.state() == a.state());
  for (int i = 0; i < 3; ++i) REQUIRE(a.normal() == b.normal());
  for (int i = 0; i < 1300; ++i) REQUIRE(a.random() == b.random());
}

TEST_CASE("broken states and empty intervals are refused") {
  Generator g;
  auto state = g.state();
  REQUIRE_THROWS_AS(g.set_state(std::span(state).first(100)), Error);
  state[8] = std::byte{7};  // how many numbers are left disagrees with how many were taken
  REQUIRE_THROWS_WITH(g.set_state(state), contains("not the state"));
  REQUIRE_THROWS_AS(g.set_state(std::vector<std::byte>(Generator::state_bytes)), Error);
  REQUIRE_THROWS_AS(g.integer(3, 3), Error);
  REQUIRE_THROWS_AS(permutation(-1, g), Error);
  std::vector<float> some(3);
  REQUIRE_THROWS_AS(fill_bernoulli<float>(some, 1.5, g), Error);
}

TEST_CASE("moments are those of the distributions") {
  Generator g(1);
  std::vector<float> x(100000);
  const auto moment = [&](int power) {
    double sum = 0;
    for (float v : x) sum += std::pow(static_cast<double>(v), power);
    return sum / static_cast<double>(x.size());
  };
  fill_normal<float>(x, 0, 1, g);
  CHECK(std::abs(moment(1)) < 0.01);
  CHECK(std::abs(moment(2) - 1) < 0.02);
  CHECK(std::abs(moment(4) - 3) < 0.15);
  fill_bernoulli<float>(x, 0.3, g);
  CHECK(std::abs(moment(1) - 0.3) < 0.01);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = Philox(1, 0).uniform(i);
  CHECK(std::abs(moment(1) - 0.5) < 0.005);
  CHECK(std::abs(moment(2) - 1.0 / 3) < 0.005);
}
