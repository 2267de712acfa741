// Intrinsic dimension: the projections, and the laws for one vector over many layers. BitFit.
#include <tenon/nn/norm.hpp>
#include <tenon/peft/bitfit.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/intrinsic.hpp>

#include "laws.hpp"

using namespace laws;

namespace {

using Kind = RandomProjection::Kind;

std::vector<double> times(const RandomProjection& p, const std::vector<double>& x, Index size) {
  std::vector<double> y(static_cast<std::size_t>(size));
  p.forward(x.data(), size, y.data());
  return y;
}
std::vector<double> unit(Index d, Index i) {
  std::vector<double> out(static_cast<std::size_t>(d), 0.0);
  out[static_cast<std::size_t>(i)] = 1;
  return out;
}
double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double out = 0;
  for (std::size_t i = 0; i < a.size(); ++i) out += a[i] * b[i];
  return out;
}
std::vector<double> random_vector(Index n, Generator& generator) {
  std::vector<double> out(static_cast<std::size_t>(n));
  for (double& v : out) v = generator.normal();
  return out;
}

IntrinsicConfig with(Index d, Kind kind, bool scales, std::vector<std::string> targets) {
  return {.dimension = d, .projection = kind, .layer_scales = scales, .seed = 9, .targets = std::move(targets)};
}

}  // namespace

TEST_CASE("random projections: linear, backward is the transpose, columns of one length and nearly orthogonal") {
  Generator generator(4);
  for (const Kind kind : {Kind::fastfood, Kind::dense, Kind::sparse})
    for (const Index d : {1, 5, 200, 300})
      for (const Index size : {1, 700, 4096}) {
        INFO(static_cast<int>(kind) << ": " << d << " to " << size);
        const RandomProjection p{kind, d, 3, 1};
        const auto x = random_vector(d, generator), z = random_vector(d, generator), g = random_vector(size, generator);
        const auto px = times(p, x, size), pz = times(p, z, size);
        std::vector<double> sum(x);
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += 2 * z[i];
        const auto psum = times(p, sum, size);
        double far = 0;
        for (std::size_t i = 0; i < psum.size(); ++i) far = std::max(far, std::abs(psum[i] - px[i] - 2 * pz[i]));
        CHECK(far < 1e-12 * static_cast<double>(d));
        std::vector<double> dx(static_cast<std::size_t>(d), 0.0);
        p.backward(g.data(), size, dx.data());
        CHECK(dot(px, g) == Approx(dot(x, dx)).margin(1e-10 * static_cast<double>(size)));
        if (size < 4096) continue;
        for (Index i = 0; i < std::min<Index>(d, 4); ++i) {
          const auto column = times(p, unit(d, i), size);
          const double square = dot(column, column) / static_cast<double>(size);
          if (kind == Kind::dense) CHECK(square == 1);
          CHECK(square == Approx(1).epsilon(kind == Kind::sparse ? 0.4 : 0.2));
          if (i > 0) CHECK(std::abs(dot(column, times(p, unit(d, 0), size))) / static_cast<double>(size) < 0.1);
        }
      }
  const RandomProjection one{Kind::fastfood, 5, 3, 1}, other_seed{Kind::fastfood, 5, 4, 1}, other_part{Kind::fastfood, 5, 3, 2};
  const auto x = random_vector(5, generator);
  CHECK(times(one, x, 50) == times(one, x, 50));
  CHECK(times(one, x, 50) != times(other_seed, x, 50));
  CHECK(times(one, x, 50) != times(other_part, x, 50));
}

TEST_CASE("intrinsic dimension obeys the laws") {
  for (const auto& [kind, scales] : {std::pair(Kind::fastfood, true), std::pair(Kind::dense, false), std::pair(Kind::sparse, true)}) {
    int fitted = 0;
    for (const auto& run : runs<double>()) {
      INFO(run.name);
      auto zoo = frozen_zoo<double>();
      const auto x = inputs_of(run);
      const auto before = run.call(zoo, x).value();
      Generator generator(3);
      try {
        attach(zoo, with(7, kind, scales, run.targets), generator);
      } catch (const NameError&) {
        continue;
      }
      ++fitted;
      CHECK(error(run.call(zoo, x).value(), before) < 1e-15);  // an activation that was fused is not any more
      shake(zoo, "default");
      const auto tuned = run.call(zoo, x).value();
      CHECK(error(tuned, before) > 1e-3);
      Index vectors = 0;
      for (const auto& ref : patch_params(zoo)) vectors += ref.path.ends_with("intrinsic_vector");
      CHECK(vectors == 1);  // one for all layers, and once in an optimizer's list
      disable(zoo, "default");
      CHECK(run.call(zoo, x).value() == before);
      enable(zoo, "default");
      set_scale(zoo, "default", 0);
      CHECK(error(run.call(zoo, x).value(), before) < 1e-14);
      set_scale(zoo, "default", 1);
      CHECK(check_patch_grad(zoo, run, x) == "");

      Scratch scratch("intrinsic");
      const auto again = run.call(zoo, x).value();
      save_intrinsic(zoo, scratch / "a.safetensors");
      auto other = frozen_zoo<double>();
      load_intrinsic(other, scratch / "a.safetensors", {.name = "from file"});
      CHECK(run.call(other, x).value() == again);
      CHECK(trainable(other).empty());

      std::vector<Tensor<double>> elements;
      for (const auto& ref : params(zoo)) elements.push_back(ref.weight->value());
      merge(zoo);
      CHECK(error(run.call(zoo, x).value(), again) < 1e-13);
      unmerge(zoo);
      const auto after = params(zoo);
      for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i].weight->value() == elements[i]);
      detach(zoo);
      CHECK(run.call(zoo, x).value() == before);
    }
    CHECK(fitted == 15);
  }
}

TEST_CASE("the same vector moves every layer, and the step has the vector's length") {
  auto zoo = frozen_zoo<double>();
  Generator generator(3);
  const auto report = attach(zoo, with(40, Kind::dense, false, {}), generator);
  CHECK(report.sites.size() == 19);
  CHECK(report.parameters == 40);
  const auto before = params(zoo);
  std::vector<Tensor<double>> elements;
  for (const auto& ref : before) elements.push_back(ref.weight->value());
  Tensor<double> e({40});
  e.data()[3] = 2;
  patch_params(zoo).at(0).weight->set(std::move(e));
  merge(zoo);
  double square = 0;
  for (std::size_t i = 0; i < before.size(); ++i)
    for (Index k = 0; k < elements[i].size(); ++k) square += std::pow(before[i].weight->value().data()[k] - elements[i].data()[k], 2);
  CHECK(std::sqrt(square) == Approx(2));
  REQUIRE_THROWS_WITH(attach(zoo, with(3, Kind::dense, false, {"liner"}), generator, {.name = "b"}), contains("'liner' matches no layer"));
  REQUIRE_THROWS_WITH(attach(zoo, with(0, Kind::dense, false, {}), generator, {.name = "b"}), contains("a dimension of at least 1"));
}

TEST_CASE("a projection whose matrix would have 150 GB") {
  Generator generator(3);
  Linear<float> layer(768, 768, generator);
  freeze(layer);
  attach(layer, IntrinsicConfig{.dimension = 65000}, generator);
  const Var<float> x(numbers<float>({2, 768}, generator));
  backward(sum(layer(x)));
  const auto grad = patch_params(layer).at(0).weight->var().grad();
  CHECK(grad.shape() == Shape{65000});
  CHECK(std::all_of(grad.begin(), grad.end(), [](float g) { return std::isfinite(g) && g != 0; }));
  Tensor<float> one_thread;
  {
    const ThreadScope serial(1);
    patch_params(layer).at(0).weight->var().clear_grad();
    backward(sum(layer(x)));
    one_thread = patch_params(layer).at(0).weight->var().grad();
  }
  CHECK(one_thread == grad);
}

TEST_CASE("BitFit trains the biases, of norms too, and nothing else") {
  auto zoo = frozen_zoo<float>();
  const auto biases = train_biases(zoo);
  CHECK(trainable(zoo).size() == biases.size());
  for (const auto& ref : biases) CHECK(ref.path.ends_with("bias"));
  CHECK(biases.size() == 18);
  const auto run = runs<float>().at(0);
  backward(sum(run.call(zoo, inputs_of(run))));
  CHECK(zoo.linear.bias->var().has_grad());
  CHECK(!zoo.linear.weight->var().has_grad());
  LayerNorm<float> norm(4);
  norm.initialize();
  CHECK(train_biases(norm).size() == 1);
  Embedding<float> table(3, 2);
  REQUIRE_THROWS_WITH(train_biases(table), contains("no biases"));
}
