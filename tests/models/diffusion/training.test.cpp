#include <tenon/autograd/backward.hpp>
#include <tenon/autograd/gradcheck.hpp>
#include <tenon/models/diffusion/training.hpp>

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;

namespace {

Tensor<float> expected(const std::string& name) {
  static const auto file = SafetensorsFile::open(golden::path("diffusion_training.safetensors"));
  return cast<float>(file.raw(name));
}
NoiseSchedule schedule(const std::string& name) {
  if (name == "cosine") return NoiseSchedule(1000, BetaSchedule::squaredcos_cap_v2, 0.0001, 0.02);
  return NoiseSchedule(1000, BetaSchedule::scaled_linear, 0.00085, 0.012, name == "zero");
}

}  // namespace

TEST_CASE("min-SNR weights by hand") {
  const NoiseSchedule two(std::vector<float>{0.1f, 0.5f});  // alpha_bar 0.9 and 0.45: SNR 9 and 0.818
  const std::vector<float> both{0, 1};
  CHECK(signal_to_noise(two, both)[0] == Approx(9).epsilon(1e-5));
  const auto weights = [&](PredictionType p) { return min_snr_weights(two, both, {.prediction = p, .snr_gamma = 3}); };
  const double low = 0.45 / 0.55;
  CHECK(weights(PredictionType::epsilon)[0] == Approx(3.0 / 9).epsilon(1e-5));
  CHECK(weights(PredictionType::epsilon)[1] == Approx(1));
  CHECK(weights(PredictionType::v_prediction)[0] == Approx(3.0 / 10).epsilon(1e-5));
  CHECK(weights(PredictionType::v_prediction)[1] == Approx(low / (low + 1)).epsilon(1e-5));
  CHECK(weights(PredictionType::sample)[0] == Approx(3));
  CHECK(min_snr_weights(two, both, {})[0] == 1);
  const NoiseSchedule zero(1000, BetaSchedule::scaled_linear, 0.00085, 0.012, true);
  const std::vector<float> end{999};
  REQUIRE_THROWS_AS(min_snr_weights(zero, end, {.snr_gamma = 5}), Error);
  CHECK(min_snr_weights(zero, end, {.prediction = PredictionType::v_prediction, .snr_gamma = 5})[0] == 0);
}

TEST_CASE("batches, losses and gradients are diffusers' script's") {
  const std::string name = GENERATE("sd", "cosine", "zero");
  const auto samples = expected("samples"), answer = expected("answer");
  for (const auto& [prediction, kind] : {std::pair("epsilon", PredictionType::epsilon), {"v_prediction", PredictionType::v_prediction}, {"sample", PredictionType::sample}})
    for (const bool gamma : {false, true}) {
      const std::string key = name + "." + prediction + (gamma ? ".gamma." : ".plain.");
      INFO(key);
      DiffusionObjective objective{.prediction = kind, .noise_offset = 0.1, .input_perturbation = 0.2};
      if (gamma) objective.snr_gamma = 5;
      Generator generator(7);
      const auto batch = noisy_batch<float>(schedule(name), samples, generator, objective);
      CHECK(batch.timesteps == expected(key + "timesteps"));
      CHECK(golden::error(batch.noisy, expected(key + "noisy")) < 2e-6);
      CHECK(golden::error(batch.target, expected(key + "target")) < 2e-6);
      const Var<float> output = variable(answer);
      const Var<float> loss = diffusion_loss(output, batch);
      CHECK(golden::error(loss.value(), expected(key + "loss")) < 5e-6);
      backward(loss);
      CHECK(golden::error(output.grad(), expected(key + "grad")) < 5e-6);
    }
  Generator generator(7);
  const auto batch = noisy_batch<float>(schedule(name), samples, generator);
  REQUIRE_THROWS_AS(diffusion_loss(Var<float>(Tensor<float>({3, 4, 5, 2})), batch), ShapeError);
  REQUIRE_THROWS_AS(noisy_batch<float>(schedule(name), samples, samples, std::vector<float>{1, 2}), ShapeError);
}

TEST_CASE("an autoencoder's loss is torch's") {
  const AutoencoderObjective objective{.kl_weight = 0.01, .squared_weight = 0.5, .sharpness_weight = 0.7};
  const Var<float> made = variable(expected("vae.made")), moments = variable(expected("vae.moments"));
  const Var<float> loss = autoencoder_loss(made, expected("vae.pictures"), DiagonalGaussian<float>(moments), objective);
  CHECK(golden::error(loss.value(), expected("vae.loss")) < 2e-6);
  backward(loss);
  CHECK(golden::error(made.grad(), expected("vae.grad_made")) < 5e-6);
  CHECK(golden::error(moments.grad(), expected("vae.grad_moments")) < 5e-6);
  REQUIRE_THROWS_AS(autoencoder_loss(made, Tensor<float>({2, 4, 6, 1}), DiagonalGaussian<float>(moments)), ShapeError);
}

TEST_CASE("losses have their gradients") {
  Generator generator(4);
  const auto made = golden::numbers({2, 3, 4, 3}, generator), pictures = golden::numbers({2, 3, 4, 3}, generator);
  const auto moments = golden::numbers({2, 2, 2, 4}, generator);
  CHECK(check_grad([&](const auto& v) { return autoencoder_loss(v[0], pictures, DiagonalGaussian<double>(v[1]), {.kl_weight = 0.3, .squared_weight = 0.2}); },
                   {made, moments}) == "");
  const auto batch = noisy_batch<double>(NoiseSchedule(1000, BetaSchedule::linear, 1e-4, 0.02), pictures, generator, {.snr_gamma = 1});
  CHECK(check_grad([&](const auto& v) { return diffusion_loss(v[0], batch); }, {made}) == "");
}
