#include <tenon/kernels/attention.hpp>

#include <cstring>
#include <random>
#include <vector>

#include <tenon/core/cpu.hpp>

#include "catch.hpp"
#include "guarded.hpp"

using namespace tenon;
using namespace tenon::kernels;

namespace {

template <class T>
using Values = std::vector<T>;

struct Case {
  Index n, heads, lq, lk, d, prefix;
  bool causal, lengths, fused;  // fused: q, k and v lie side by side in one buffer
};
constexpr Case cases[] = {
    {1, 1, 1, 1, 1, 0, false, false, false},     {2, 3, 5, 7, 3, 0, false, false, false},   {1, 2, 33, 33, 17, 0, true, false, true},
    {2, 2, 50, 77, 64, 0, false, true, false},   {3, 2, 31, 9, 40, 3, false, true, false},  {2, 1, 70, 70, 20, 5, true, true, true},
    {1, 1, 65, 321, 32, 0, false, false, false}, {1, 2, 300, 300, 8, 2, true, false, true}, {1, 1, 17, 590, 80, 0, false, false, false},
    {2, 2, 16, 0, 5, 4, false, false, false},    {1, 2, 24, 320, 33, 0, false, false, false},  {1, 1, 8, 5, 16, 0, true, false, false},
    {1, 2, 41, 41, 24, 0, true, false, true},    {1, 1, 40, 257, 48, 0, true, false, false}};

/// One problem, inputs random, everything in T.
template <class T>
struct Problem {
  AttentionShape s;
  std::vector<Index> lengths;
  Values<T> q, k, v, pk, pv, out, lse, dout, dq, dk, dv, dpk, dpv;
  Index width = 0;
  bool fused;

  explicit Problem(const Case& c) : fused(c.fused) {
    s.n = c.n, s.heads = c.heads, s.lq = c.lq, s.lk = c.lk, s.d = c.d, s.prefix = c.prefix, s.causal = c.causal;
    s.scale = 1.0 / std::sqrt(static_cast<double>(c.d));
    width = c.heads * c.d;
    if (c.lengths) {
      for (Index b = 0; b < c.n; ++b) lengths.push_back(b == 0 ? c.lk : c.lk * b / (c.n + 1));
      s.key_lengths = lengths.data();
    }
    if (fused) s.stride_q = s.stride_k = s.stride_v = 3 * width;
    std::mt19937 generator(7);
    std::normal_distribution<float> normal;
    const auto random = [&](Index count) {
      Values<T> x(static_cast<std::size_t>(count));
      for (T& e : x) e = static_cast<T>(normal(generator));
      return x;
    };
    const Index nq = c.n * c.lq * width, nk = c.n * c.lk * width, np = c.prefix * width;
    q = random(fused ? 3 * nq : nq), k = random(nk), v = random(nk), pk = random(np), pv = random(np), dout = random(nq);
    out.resize(dout.size()), lse.resize(static_cast<std::size_t>(c.n * c.heads * c.lq));
    dq.resize(q.size()), dk.resize(k.size()), dv.resize(v.size()), dpk.resize(pk.size()), dpv.resize(pv.size());
  }
  /// Runs on copies that end at guard pages, so that a read or write past an end faults.
  void run() {
    Guarded<T> gq(q), gk(k), gv(v), gpk(pk), gpv(pv), gout(out), glse(lse), gdout(dout), gdq(dq), gdk(dk), gdv(dv), gdpk(dpk), gdpv(dpv);
    AttentionInputs<T> x{gq.data(), gk.data(), gv.data(), gpk.data(), gpv.data()};
    AttentionGradients<T> g{gdq.data(), gdk.data(), gdv.data(), gdpk.data(), gdpv.data()};
    if (fused) x.k = x.q + width, x.v = x.q + 2 * width, g.dk = g.dq + width, g.dv = g.dq + 2 * width;
    attention_forward(s, x, gout.data(), glse.data());
    attention_backward(s, x, gout.data(), glse.data(), gdout.data(), g);
    out = gout.values(), lse = glse.values(), dq = gdq.values(), dk = gdk.values(), dv = gdv.values(), dpk = gdpk.values(), dpv = gdpv.values();
  }
  std::vector<const Values<T>*> results() const { return {&out, &lse, &dq, &dk, &dv, &dpk, &dpv}; }
};

/// Largest |a - b| over the larger of 1 and |b|; infinities must agree.
template <class A, class B>
double distance(const Values<A>& a, const Values<B>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    if (std::isinf(y) && x == y) continue;
    const double e = std::abs(x - y) / std::max(1.0, std::abs(y));
    if (!(e <= worst)) worst = e;  // NaN counts
  }
  return worst;
}

std::vector<Isa> isas() {
  std::vector<Isa> out;
  for (Isa isa : all_isas)
    if (is_available(isa)) out.push_back(isa);
  return out;
}

/// Scores as a matrix, softmax by the book.
double naive_output(const Problem<double>& p, Index b, Index h, Index i, Index c) {
  const AttentionShape& s = p.s;
  const Index stride = p.fused ? 3 * p.width : p.width, length = s.key_lengths ? s.key_lengths[b] : s.lk;
  const double *k = p.fused ? p.q.data() + p.width : p.k.data(), *v = p.fused ? p.q.data() + 2 * p.width : p.v.data();
  double above = 0, below = 0;
  for (Index j = -s.prefix; j < length && !(s.causal && j > i); ++j) {
    const double* key = j < 0 ? p.pk.data() + (j + s.prefix) * p.width : k + (b * s.lk + j) * stride;
    const double* value = j < 0 ? p.pv.data() + (j + s.prefix) * p.width : v + (b * s.lk + j) * stride;
    double score = 0;
    for (Index e = 0; e < s.d; ++e) score += p.q[static_cast<std::size_t>((b * s.lq + i) * stride + h * s.d + e)] * key[h * s.d + e];
    above += std::exp(s.scale * score) * value[h * s.d + c];
    below += std::exp(s.scale * score);
  }
  return below > 0 ? above / below : 0;
}

}  // namespace

TEST_CASE("attention by hand") {
  const Isa isa = GENERATE(from_range(isas()));
  const IsaScope scope(isa);
  // Scores 0 and ln 3: weights 1/4 and 3/4.
  const float q = 1, k[] = {0, std::log(3.0f)}, v[] = {4, 8}, dout = 1;
  AttentionShape s;
  s.n = 1, s.lq = 1, s.lk = 2, s.d = 1, s.scale = 1;
  float out, lse, dq, dk[2], dv[2];
  attention_forward(s, {&q, k, v}, &out, &lse);
  CHECK(out == Approx(7));
  CHECK(lse == Approx(std::log(4.0)));
  attention_backward(s, {&q, k, v}, &out, &lse, &dout, {&dq, dk, dv});
  CHECK(dv[0] == Approx(0.25));
  CHECK(dv[1] == Approx(0.75));
  CHECK(dk[0] == Approx(-0.75));  // 1/4 (4 - 7)
  CHECK(dk[1] == Approx(0.75));   // 3/4 (8 - 7)
  CHECK(dq == Approx(0.75 * std::log(3.0)));
}

TEST_CASE("attention in double equals softmax of a matrix of scores") {
  for (const Case& c : cases) {
    Problem<double> p(c);
    p.run();
    double worst = 0;
    for (Index i = 0; i < static_cast<Index>(p.out.size()); ++i) {
      const Index row = i / p.width;
      worst = std::max(worst, std::abs(p.out[static_cast<std::size_t>(i)] -
                                       naive_output(p, row / c.lq, i % p.width / c.d, row % c.lq, i % c.d)));
    }
    CAPTURE(c.lq, c.lk, c.d, c.causal);
    CHECK(worst < 1e-12);
  }
}

TEST_CASE("attention in float equals double on every instruction set, forward and backward") {
  const Isa isa = GENERATE(from_range(isas()));
  for (const Case& c : cases) {
    Problem<double> want(c);
    want.run();
    Problem<float> got(c);
    for (int threads : {1, 3}) {  // one task for a head, and the split by queries and keys
      const IsaScope scope(isa);
      const ThreadScope thread_scope(threads);
      got.run();
      CAPTURE(name_of(isa), threads, c.n, c.heads, c.lq, c.lk, c.d, c.prefix, c.causal);
      for (std::size_t i = 0; i < want.results().size(); ++i) {
        CAPTURE(i);
        CHECK(distance(*got.results()[i], *want.results()[i]) < 4e-6);
      }
    }
  }
}

TEST_CASE("attention gives the same bits for any number of threads, on AVX2 and AVX-512") {
  for (const Case& c : cases) {
    Problem<float> first(c);
    {
      const ThreadScope threads(1);
      first.run();
    }
    for (Isa isa : isas()) {
      if (isa != Isa::avx2 && isa != default_isa()) continue;
      for (int count : {1, 2, 3, 7}) {
        const IsaScope scope(isa);
        const ThreadScope threads(count);
        Problem<float> again(c);
        again.run();
        CAPTURE(name_of(isa), count, c.lq, c.lk, c.d);
        for (std::size_t i = 0; i < first.results().size(); ++i) {
          CAPTURE(i);
          const auto &a = *again.results()[i], &b = *first.results()[i];
          CHECK((a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0));
        }
      }
    }
  }
}

TEST_CASE("attention with products in bfloat16 lies within their rounding, the same for any number of threads; elsewhere it is float32") {
  const Isa isa = GENERATE(from_range(isas()));
  const IsaScope scope(isa);
  for (const Case& c : cases) {
    CAPTURE(name_of(isa), c.lq, c.lk, c.d, c.prefix, c.causal);
    Problem<double> want(c);
    want.run();
    Problem<float> plain(c), narrow(c), again(c);
    plain.run();
    narrow.s.products = again.s.products = DType::bf16;
    {
      const ThreadScope threads(1);
      narrow.run();
    }
    again.run();
    for (std::size_t i = 0; i < want.results().size(); ++i) {
      CAPTURE(i);
      CHECK(*narrow.results()[i] == *again.results()[i]);
      CHECK(distance(*narrow.results()[i], *want.results()[i]) < 0.02);  // a few roundings of 2^-9
    }
    CHECK((isa == Isa::avx512 && cpu_features().bf16) == (narrow.out != plain.out));
  }
}

TEST_CASE("attention's gradients are those of finite differences") {
  Problem<double> p({2, 2, 4, 5, 3, 2, true, true, false});
  p.run();
  const auto loss = [&] {
    Values<double> out(p.out.size()), lse(p.lse.size());
    attention_forward(p.s, {p.q.data(), p.k.data(), p.v.data(), p.pk.data(), p.pv.data()}, out.data(), lse.data());
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * p.dout[i];
    return sum;
  };
  const auto compare = [&](Values<double>& x, const Values<double>& dx) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double before = x[i], step = 1e-5;
      x[i] = before + step;
      const double up = loss();
      x[i] = before - step;
      const double down = loss();
      x[i] = before;
      CHECK(dx[i] == Approx((up - down) / (2 * step)).margin(1e-8));
    }
  };
  compare(p.q, p.dq);
  compare(p.k, p.dk);
  compare(p.v, p.dv);
  compare(p.pk, p.dpk);
  compare(p.pv, p.dpv);
}

TEST_CASE("attention leaves out the gradients that are not asked for") {
  Problem<float> all(cases[4]), some(cases[4]);
  all.run();
  const AttentionInputs<float> x{all.q.data(), all.k.data(), all.v.data(), all.pk.data(), all.pv.data()};
  attention_backward(all.s, x, all.out.data(), all.lse.data(), all.dout.data(), {some.dq.data(), nullptr, nullptr, nullptr, some.dpv.data()});
  CHECK(some.dq == all.dq);
  CHECK(some.dpv == all.dpv);
  attention_backward(all.s, x, all.out.data(), all.lse.data(), all.dout.data(), {nullptr, nullptr, some.dv.data(), some.dpk.data(), nullptr});
  CHECK(some.dv == all.dv);
  CHECK(some.dpk == all.dpk);
}
