#pragma once
// Random linear maps from few numbers to many whose matrices are never held: each element is made again from the seed
// (Philox) whenever it is needed, so that the memory is that of the two vectors.
#include <tenon/core/parallel.hpp>
#include <tenon/core/random.hpp>
#include <tenon/tensor/tensor.hpp>

namespace tenon::inline TENON_ABI {

/// P [D, d] with elements of variance 1, a part of a larger one: `stream` tells the parts apart.
struct RandomProjection {
  /// fastfood: H G Pi H B in blocks of a power of two (Le, Sarlos, Smola 2013), D log d steps.
  /// dense: signs (Achlioptas 2003), D d steps, columns of exactly equal length.
  /// sparse: about sqrt(d) signs in each row (Li, Hastie, Church 2006), D sqrt(d) steps.
  enum class Kind { fastfood, dense, sparse } kind = Kind::fastfood;
  Index d = 1;
  std::uint64_t seed = 0, stream = 0;

  /// y [D] = P x [d].
  template <class T>
  void forward(const T* x, Index size, T* y) const {
    if (kind != Kind::fastfood) {
      const T size_of_one = element<T>();
      parallel_chunks(size, 256, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) {
          T sum = 0;
          signs(i, [&](Index j, bool negative) { sum += negative ? -x[j] : x[j]; });
          y[i] = sum * size_of_one;
        }
      });
      return;
    }
    const Index n = width();
    parallel_for((size + n - 1) / n, [&](Index block) {
      Block<T> b = make<T>(block);
      std::vector<T> v(static_cast<std::size_t>(n), T(0)), w(v);
      for (Index i = 0; i < d; ++i) v[at(i)] = b.flip[at(i)] ? -x[i] : x[i];
      hadamard(v);
      for (Index i = 0; i < n; ++i) w[at(i)] = v[at(b.order[at(i)])] * b.gauss[at(i)];
      hadamard(w);
      std::copy_n(w.data(), std::min(n, size - block * n), y + block * n);
    });
  }
  /// dx [d] += P^T dy [D], in sixteen fixed parts that are added in order.
  template <class T>
  void backward(const T* dy, Index size, T* dx) const {
    constexpr Index parts = 16;
    const Index n = kind == Kind::fastfood ? width() : 1, blocks = (size + n - 1) / n;
    std::vector<T> sums(at(parts * d), T(0));
    parallel_for(parts, [&](Index part) {
      T* const sum = sums.data() + part * d;
      for (Index block = blocks * part / parts; block < blocks * (part + 1) / parts; ++block) {
        if (kind != Kind::fastfood) {
          const T d_row = dy[block] * element<T>();
          signs(block, [&](Index j, bool negative) { sum[j] += negative ? -d_row : d_row; });
          continue;
        }
        Block<T> b = make<T>(block);
        std::vector<T> v(at(n), T(0)), w(v);
        std::copy_n(dy + block * n, std::min(n, size - block * n), w.data());
        hadamard(w);
        for (Index i = 0; i < n; ++i) v[at(b.order[at(i)])] = w[at(i)] * b.gauss[at(i)];
        hadamard(v);
        for (Index i = 0; i < d; ++i) sum[i] += b.flip[at(i)] ? -v[at(i)] : v[at(i)];
      }
    });
    for (Index part = 0; part < parts; ++part)
      for (Index i = 0; i < d; ++i) dx[i] += sums[at(part * d + i)];
  }

 private:
  template <class T>
  struct Block {
    std::vector<bool> flip;    // B
    std::vector<Index> order;  // Pi
    std::vector<T> gauss;      // G, scaled to squares that sum to 1
  };
  static std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  /// The width of a block: at least 256, so that few numbers cost no more than many.
  Index width() const {
    Index n = 256;
    while (n < d) n *= 2;
    return n;
  }
  template <class T>
  Block<T> make(Index block) const {
    const Index n = width();
    const Philox random(seed, stream << 32 | static_cast<std::uint64_t>(block));
    Block<T> out{std::vector<bool>(at(n)), std::vector<Index>(at(n)), std::vector<T>(at(n))};
    std::vector<float> normal(at(n));
    for (Index i = 0; i < n; ++i) {
      const auto draw = random.block(static_cast<std::uint64_t>(i));
      out.flip[at(i)] = (draw[0] & 1u) != 0;
      normal[at(i)] = static_cast<float>(draw[1] >> 8) * 0x1p-24f;
      const Index other = static_cast<Index>((static_cast<std::uint64_t>(draw[2]) * static_cast<std::uint64_t>(i + 1)) >> 32);
      out.order[at(i)] = i;  // Fisher and Yates
      std::swap(out.order[at(i)], out.order[at(other)]);
    }
    double squares = 0;
    for (Index i = 0; i < n; i += 16) detail::box_muller_16(normal.data() + i, 0.0f, 1.0f);
    for (const float g : normal) squares = std::fma(static_cast<double>(g), static_cast<double>(g), squares);
    const double scale = 1 / std::sqrt(squares);
    for (Index i = 0; i < n; ++i) out.gauss[at(i)] = static_cast<T>(static_cast<double>(normal[at(i)]) * scale);
    return out;
  }
  /// v <- H v, the Walsh-Hadamard transform of elements +1 and -1.
  template <class T>
  static void hadamard(std::vector<T>& v) {
    for (std::size_t half = 1; half < v.size(); half *= 2)
      for (std::size_t i = 0; i < v.size(); i += 2 * half)
        for (std::size_t j = i; j < i + half; ++j) {
          const T a = v[j], b = v[j + half];
          v[j] = a + b;
          v[j + half] = a - b;
        }
  }
  /// Elements that are not zero in a row of a sparse projection; two may fall on one place.
  Index row_elements() const { return static_cast<Index>(std::ceil(std::sqrt(static_cast<double>(d)))); }
  /// The size of an element: variance 1 with the zeros counted.
  template <class T>
  T element() const {
    return kind == Kind::dense ? T(1) : static_cast<T>(std::sqrt(static_cast<double>(d) / static_cast<double>(row_elements())));
  }
  /// Calls `f(j, negative)` for the elements of row i, the d signs of a dense one.
  template <class F>
  void signs(Index i, F&& f) const {
    const Philox random(seed, stream);
    if (kind == Kind::sparse) {
      const Index count = row_elements(), draws = (count + 3) / 4;
      for (Index k = 0; k < count; ++k) {
        const std::uint32_t bits = random.block(static_cast<std::uint64_t>(i * draws + k / 4))[at(k % 4)];
        f(static_cast<Index>((static_cast<std::uint64_t>(bits >> 1) * static_cast<std::uint64_t>(d)) >> 31), (bits & 1u) != 0);
      }
      return;
    }
    const Index draws = (d + 127) / 128;
    for (Index k = 0; k < draws; ++k) {
      const auto bits = random.block(static_cast<std::uint64_t>(i * draws + k));
      for (Index j = 128 * k; j < std::min(d, 128 * (k + 1)); ++j) f(j, (bits[at(j % 128 / 32)] >> (j % 32) & 1u) != 0);
    }
  }
};

}  // namespace tenon::inline TENON_ABI
