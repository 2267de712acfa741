#pragma once
// Random numbers: `Generator`, torch's CPU stream, and `Philox`, numbers that depend on a position alone.
//
// Generator gives torch's integers and uniforms to the bit and its normals to about 2 ulp, for float and double tensors
// (aten/src/ATen: CPUGeneratorImpl.cpp, core/DistributionsHelper.h, native/cpu/DistributionTemplates.h).
// Its state is torch's own: the bytes of torch.get_rng_state().
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <numbers>
#include <optional>
#include <utility>
#include <vector>

#include <tenon/core/dtype.hpp>
#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI {

/// The Mersenne Twister MT19937 as torch holds it. Not safe to share between threads.
class Generator {
 public:
  /// torch's default seed.
  static constexpr std::uint64_t default_seed = 67280421310721u;

  explicit Generator(std::uint64_t seed = default_seed) { this->seed(seed); }

  /// Starts the stream again. Only the low 32 bits of the seed matter, as in torch.
  void seed(std::uint64_t seed) {
    seed_ = seed;
    state_[0] = static_cast<std::uint32_t>(seed);
    for (std::uint32_t i = 1; i < words; ++i)
      state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
    left_ = 1;
    next_ = 0;
    spare_normal_.reset();
  }
  std::uint64_t initial_seed() const { return seed_; }

  /// 32 random bits.
  std::uint32_t random() {
    if (--left_ == 0) refill();
    std::uint32_t y = state_[next_++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
  }
  /// 64 random bits, the first draw in the upper half.
  std::uint64_t random64() {
    const std::uint64_t high = random();
    return high << 32 | random();
  }
  /// Uniform in [0, 1): 24 random bits for float, 53 for double.
  template <Real T>
  T uniform() {
    if constexpr (std::same_as<T, float>)
      return static_cast<float>(random() & 0xffffffu) * 0x1p-24f;
    else
      return static_cast<double>(random64() & ((std::uint64_t{1} << 53) - 1)) * 0x1p-53;
  }
  /// Uniform integer in [low, high). Throws Error when the interval is empty.
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    check(low < high, "Generator::integer", "expected low < high, got [", low, ", ", high, ")");
    const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
    const std::uint64_t value = (range >> 32 ? random64() : random()) % range;
    return static_cast<std::int64_t>(value + static_cast<std::uint64_t>(low));
  }
  /// Standard normal by Box-Muller in double. Numbers come in pairs: the second waits for the next call.
  double normal() {
    if (spare_normal_) return *std::exchange(spare_normal_, std::nullopt);
    const double u1 = uniform<double>(), u2 = uniform<double>();
    const double radius = std::sqrt(-2.0 * std::log1p(-u2)), theta = 2.0 * std::numbers::pi * u1;
    spare_normal_ = radius * std::sin(theta);
    return radius * std::cos(theta);
  }

  /// Size of a saved state.
  static constexpr std::size_t state_bytes = 5056;
  /// The state as bytes: those of torch.get_rng_state() after the same calls.
  std::vector<std::byte> state() const;
  /// Continues where `state()` was taken. Throws Error on bytes that are no state.
  void set_state(std::span<const std::byte> bytes);

 private:
  static constexpr std::uint32_t words = 624;

  void refill() {
    const auto twist = [&](std::uint32_t i, std::uint32_t following, std::uint32_t far) {
      const std::uint32_t y = (state_[i] & 0x80000000u) | (state_[following] & 0x7fffffffu);
      state_[i] = state_[far] ^ (y >> 1) ^ ((0u - (state_[following] & 1u)) & 0x9908b0dfu);
    };
    for (std::uint32_t i = 0; i < words - 397; ++i) twist(i, i + 1, i + 397);
    for (std::uint32_t i = words - 397; i < words - 1; ++i) twist(i, i + 1, i + 397 - words);
    twist(words - 1, 0, 396);
    left_ = words;
    next_ = 0;
  }

  std::uint64_t seed_ = 0;
  std::array<std::uint32_t, words> state_{};
  std::uint32_t left_ = 1, next_ = 0;
  std::optional<double> spare_normal_;
};

namespace detail {

/// torch's CPUGeneratorImplState on a 64-bit little-endian machine.
struct TorchGeneratorState {
  std::uint64_t seed;
  std::int32_t left, seeded;
  std::uint64_t next;
  std::uint64_t state[624];
  double normal_x, normal_y, normal_rho;  // only y is used: the spare normal
  std::int32_t normal_is_valid, padding;
  float next_float_normal;  // always absent here
  std::uint8_t next_float_normal_is_valid, more_padding[3];
};
static_assert(sizeof(TorchGeneratorState) == Generator::state_bytes && std::endian::native == std::endian::little);

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif
/// Sixteen uniforms to sixteen normals (torch's normal_fill_16): 0..7 hold the radius, 8..15 the angle.
/// Logarithm, sine and cosine are evaluated in double and rounded once, so that the bits depend on neither libm nor
/// contraction; what torch rounds to float between them is rounded here too.
inline void box_muller_16(float* values, float mean, float deviation) {
#if defined(__clang__)
#pragma clang fp contract(off)
#endif
  for (int j = 0; j < 8; ++j) {
    const float u = 1.0f - values[j];                                             // (0, 1]
    const float theta = static_cast<float>(2.0 * std::numbers::pi) * values[j + 8];  // [0, 2 pi)
    // u = m 2^e with m in [1/sqrt 2, sqrt 2); log m = 2 atanh s, s = (m - 1) / (m + 1)
    const auto bits = std::bit_cast<std::uint32_t>(u);
    const std::uint32_t shifted = bits - 0x3f3504f3u;
    const int e = static_cast<int>(shifted) >> 23;
    const double m = std::bit_cast<float>((shifted & 0x7fffffu) + 0x3f3504f3u);
    const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
    const double atanh =
        s * (1.0 + s2 * (1.0 / 3 + s2 * (1.0 / 5 + s2 * (1.0 / 7 + s2 * (1.0 / 9 + s2 * (1.0 / 11 + s2 * (1.0 / 13 + s2 / 15)))))));
    const float log_u = static_cast<float>(e * std::numbers::ln2 + 2.0 * atanh);
    const float radius = std::sqrt(-2.0f * log_u);
    // theta = r + q pi/2 with |r| <= pi/4; pi/2 in two parts, the first short enough that q times it is exact
    const int q = static_cast<int>(theta * (2.0 / std::numbers::pi) + 0.5);
    const double r = (theta - q * 0x1.921fb544p0) - q * 0x1.0b4611a626331p-34, r2 = r * r;
    const double sine =
        r * (1 - r2 * (1.0 / 6 - r2 * (1.0 / 120 - r2 * (1.0 / 5040 - r2 * (1.0 / 362880 - r2 * (1.0 / 39916800 - r2 / 6227020800))))));
    const double cosine =
        1 - r2 * (1.0 / 2 - r2 * (1.0 / 24 - r2 * (1.0 / 720 - r2 * (1.0 / 40320 - r2 * (1.0 / 3628800 - r2 * (1.0 / 479001600 - r2 / 87178291200))))));
    const double swapped_cos = q & 1 ? -sine : cosine, swapped_sin = q & 1 ? cosine : sine;
    const double cos_theta = q & 2 ? -swapped_cos : swapped_cos, sin_theta = q & 2 ? -swapped_sin : swapped_sin;
    values[j] = std::fma(radius * static_cast<float>(cos_theta), deviation, mean);
    values[j + 8] = std::fma(radius * static_cast<float>(sin_theta), deviation, mean);
  }
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif
inline void box_muller_16(double* values, double mean, double deviation) {
  for (int j = 0; j < 8; ++j) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - values[j])), theta = 2.0 * std::numbers::pi * values[j + 8];
    values[j] = std::fma(radius * std::cos(theta), deviation, mean);
    values[j + 8] = std::fma(radius * std::sin(theta), deviation, mean);
  }
}

}  // namespace detail

inline std::vector<std::byte> Generator::state() const {
  detail::TorchGeneratorState s{};
  s.seed = seed_;
  s.left = static_cast<std::int32_t>(left_);
  s.seeded = 1;
  s.next = next_;
  for (std::size_t i = 0; i < words; ++i) s.state[i] = state_[i];
  s.normal_is_valid = spare_normal_.has_value();
  s.normal_y = spare_normal_.value_or(0.0);
  std::vector<std::byte> bytes(sizeof s);
  std::memcpy(bytes.data(), &s, sizeof s);
  return bytes;
}

inline void Generator::set_state(std::span<const std::byte> bytes) {
  detail::TorchGeneratorState s;
  check(bytes.size() == sizeof s, "Generator::set_state", "expected ", sizeof s, " bytes, got ", bytes.size());
  std::memcpy(&s, bytes.data(), sizeof s);
  const bool fresh = s.left == 1 && s.next <= words;
  check(s.seeded == 1 && (fresh || (s.left >= 1 && s.left <= 624 && s.next == 625u - static_cast<std::uint32_t>(s.left))),
        "Generator::set_state", "these bytes are not the state of a seeded generator");
  seed_ = s.seed;
  left_ = static_cast<std::uint32_t>(s.left);
  next_ = static_cast<std::uint32_t>(s.next);
  for (std::size_t i = 0; i < words; ++i) state_[i] = static_cast<std::uint32_t>(s.state[i]);
  spare_normal_.reset();
  if (s.normal_is_valid) spare_normal_ = s.normal_y;
}

/// Uniform numbers in [low, high): torch.Tensor.uniform_.
template <Real T>
void fill_uniform(std::span<T> out, double low, double high, Generator& generator) {
  const auto offset = static_cast<T>(low), range = static_cast<T>(high) - offset;
  for (T& x : out) x = std::fma(generator.uniform<T>(), range, offset);  // as torch's build contracts it
}

/// Normal numbers: torch.Tensor.normal_. Sixteen and more are made in blocks of sixteen, and what is left over
/// redraws the last sixteen; fewer come from Generator::normal one by one.
template <Real T>
void fill_normal(std::span<T> out, double mean, double deviation, Generator& generator) {
  if (out.size() < 16) {
    for (T& x : out) x = static_cast<T>(std::fma(generator.normal(), deviation, mean));
    return;
  }
  const auto block = [&](T* values) { detail::box_muller_16(values, static_cast<T>(mean), static_cast<T>(deviation)); };
  for (T& x : out) x = generator.uniform<T>();
  for (std::size_t i = 0; i + 16 <= out.size(); i += 16) block(&out[i]);
  if (out.size() % 16 != 0) {
    const auto last = out.last(16);
    for (T& x : last) x = generator.uniform<T>();
    block(last.data());
  }
}

/// Uniform integers in [low, high): torch.randint. Throws Error when the interval is empty.
template <std::integral T>
void fill_integers(std::span<T> out, std::int64_t low, std::int64_t high, Generator& generator) {
  for (T& x : out) x = static_cast<T>(generator.integer(low, high));
}

/// One with the given probability, else zero: torch.Tensor.bernoulli_(p), as it runs without MKL.
template <Element T>
void fill_bernoulli(std::span<T> out, double probability, Generator& generator) {
  check(probability >= 0 && probability <= 1, "fill_bernoulli", "expected a probability in [0, 1], got ", probability);
  for (T& x : out) x = static_cast<T>(generator.uniform<double>() < probability);
}

/// The integers 0 .. n-1 in random order: torch.randperm.
TENON_ON_CALL std::vector<Index> permutation(Index n, Generator& generator) {
  check(n >= 0, "permutation", "expected a count of at least 0, got ", n);
  std::vector<Index> out(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) out[static_cast<std::size_t>(i)] = i;
  for (Index i = 0; i + 1 < n; ++i) {
    const Index j = i + static_cast<Index>(generator.random()) % (n - i);
    std::swap(out[static_cast<std::size_t>(i)], out[static_cast<std::size_t>(j)]);
  }
  return out;
}

/// Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011): the number at (seed, step,
/// element) needs no other, so that dropout and augmentation are the same for any number of threads and on a rerun.
class Philox {
 public:
  Philox(std::uint64_t seed, std::uint64_t step) : seed_(seed), step_(step) {}

  /// The 128 random bits of elements 4 b .. 4 b + 3.
  std::array<std::uint32_t, 4> block(std::uint64_t b) const {
    std::array<std::uint32_t, 4> x = {low(b), high(b), low(step_), high(step_)};
    std::uint32_t key0 = low(seed_), key1 = high(seed_);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xd2511f53u} * x[0], p1 = std::uint64_t{0xcd9e8d57u} * x[2];
      x = {high(p1) ^ x[1] ^ key0, low(p1), high(p0) ^ x[3] ^ key1, low(p0)};
      key0 += 0x9e3779b9u;
      key1 += 0xbb67ae85u;
    }
    return x;
  }
  /// 32 random bits for one element.
  std::uint32_t bits(std::uint64_t element) const { return block(element / 4)[element % 4]; }
  /// Uniform in [0, 1) for one element: 24 random bits.
  float uniform(std::uint64_t element) const { return static_cast<float>(bits(element) >> 8) * 0x1p-24f; }

 private:
  static std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  static std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }
  std::uint64_t seed_, step_;
};

}  // namespace tenon::inline TENON_ABI
