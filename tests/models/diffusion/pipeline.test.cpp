#include <tenon/models/diffusion/pipeline.hpp>

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;

namespace {

/// Half the batch is conditioned otherwise than the other.
Tensor<float> model(const Tensor<float>& x, float t) {
  auto out = Tensor<float>::uninitialized(x.shape());
  for (Index i = 0; i < x.size(); ++i) {
    const float c = i < x.size() / 2 ? 0.3f : 0.7f;
    out.data()[i] = c * std::sin(x.data()[i]) + 0.3f * x.data()[i] * t / 1000;
  }
  return out;
}

const Shape shape{1, 4, 4, 4};
Tensor<float> noise(std::uint64_t seed) {
  Generator generator(seed);
  return draw_noise<float>(shape, generator);
}

}  // namespace

TEST_CASE("guidance by hand") {
  const Tensor<float> outputs({2, 3}, {1, 2, 3, 2, 4, 9});
  CHECK(guided(outputs, 2.0) == Tensor<float>({1, 3}, {3, 6, 15}));
  // deviations, unbiased: positive sqrt(13), guided sqrt(39)
  const double factor = 0.5 / std::sqrt(3.0) + 0.5;
  CHECK(golden::error(guided(outputs, 2.0, 0.5), Tensor<double>({1, 3}, {3 * factor, 6 * factor, 15 * factor})) < 1e-6);
  REQUIRE_THROWS_AS(guided(Tensor<float>({3, 2}), 2.0), ShapeError);
}

TEST_CASE("text to image is noise, guidance and steps") {
  auto state = text_to_image(make_scheduler("euler_a"), shape, Generator(3), {.steps = 5, .guidance_scale = 4, .guidance_rescale = 0.3});
  denoise(state, model);
  auto scheduler = make_scheduler("euler_a");
  scheduler->set_timesteps(5);
  Generator generator(3);
  Tensor<float> x = draw_noise<float>(shape, generator);
  x = combine<float>({{static_cast<double>(scheduler->init_noise_sigma()), x}});
  for (const float t : scheduler->timesteps()) {
    const auto in = scheduler->scale_model_input(x, t);
    x = scheduler->step(guided(model(doubled(in), t), 4, 0.3), t, x, generator);
  }
  CHECK(state.latents == x);
  auto given = text_to_image(make_scheduler("ddim"), shape, Generator(9), {.steps = 5, .latents = noise(3)});
  auto drawn = text_to_image(make_scheduler("ddim"), shape, Generator(3), {.steps = 5});
  CHECK(given.latents == drawn.latents);
  REQUIRE_THROWS_AS(text_to_image(make_scheduler("ddim"), shape, Generator(9), {.latents = Tensor<float>({1, 4, 2, 2})}), ShapeError);
}

TEST_CASE("a run stops, is copied, and goes on; the callback changes the state") {
  const auto begin = [] { return text_to_image(make_scheduler("dpmpp_2m_sde_karras"), shape, Generator(1), {.steps = 6}); };
  auto whole = begin(), stopped = begin();
  denoise(whole, model);
  CHECK(!denoise(stopped, model, [](const auto& s) { return s.step < 3; }));
  auto copy = stopped;
  denoise(stopped, model);
  denoise(copy, model);
  CHECK(stopped.latents == whole.latents);
  CHECK(copy.latents == whole.latents);
  auto changed = begin();
  Index calls = 0, wide = 0;
  denoise(changed, [&](const Tensor<float>& x, float t) { return wide += x.extent(0), model(x, t); },
          [&](auto& s) { return ++calls, s.guidance_scale = 1, true; });
  CHECK(calls == 6);
  CHECK(wide == 2 + 5);
}

TEST_CASE("image to image begins where strength says") {
  const auto picture = noise(5);
  const std::string name = GENERATE("ddim", "euler", "heun", "unipc");
  INFO(name);
  auto state = image_to_image(make_scheduler(name), picture, Generator(2), {.steps = 10, .strength = 0.35});
  CHECK(state.step == 7 * state.scheduler->order());
  auto scheduler = make_scheduler(name);
  scheduler->set_timesteps(10);
  scheduler->set_begin_index(state.step);
  CHECK(state.latents == scheduler->add_noise(picture, noise(2), scheduler->timesteps().subspan(static_cast<std::size_t>(state.step), 1)));
  denoise(state, model);
  REQUIRE_THROWS_AS(image_to_image(make_scheduler(name), picture, Generator(2), {.steps = 10, .strength = 0.05}), Error);
  REQUIRE_THROWS_AS(image_to_image(make_scheduler(name), picture, Generator(2), {.strength = 1.5}), Error);
}

TEST_CASE("a distilled model runs all steps, from the lower timesteps") {
  const auto state = image_to_image(make_scheduler("lcm"), noise(5), Generator(2), {.steps = 4, .strength = 0.5, .distilled = true});
  CHECK(state.step == 0);
  const auto ts = state.scheduler->timesteps();  // of 19, 39, ..., 499
  CHECK(std::vector<float>(ts.begin(), ts.end()) == std::vector<float>{499, 379, 259, 139});
  REQUIRE_THROWS_WITH(image_to_image(make_scheduler("lcm"), noise(5), Generator(2), {.steps = 4, .strength = 0.06, .distilled = true}),
                      contains("expected at most original_inference_steps * strength = 3 steps, got 4"));
}

TEST_CASE("inpainting keeps what the mask leaves") {
  const auto picture = noise(5);
  Tensor<float> mask(shape), all = Tensor<float>::full(shape, 1);
  for (Index i = 0; i < 32; ++i) mask.data()[i] = 1;
  const std::string name = GENERATE("ddim", "euler_a", "lcm");
  const double strength = GENERATE(0.5, 1.0);
  INFO(name << ' ' << strength);
  auto state = inpaint(make_scheduler(name), picture, mask, Generator(2), {.steps = 6, .strength = strength});
  denoise(state, model);
  CHECK(std::equal(picture.begin() + 32, picture.end(), state.latents.begin() + 32));
  CHECK(!std::equal(picture.begin(), picture.begin() + 32, state.latents.begin()));
  auto open = inpaint(make_scheduler(name), picture, all, Generator(2), {.steps = 6, .strength = strength});
  denoise(open, model);
  if (strength < 1) {
    auto plain = image_to_image(make_scheduler(name), picture, Generator(2), {.steps = 6, .strength = strength});
    denoise(plain, model);
    CHECK(open.latents == plain.latents);
  }
  REQUIRE_THROWS_AS(inpaint(make_scheduler(name), picture, Tensor<float>({1, 1, 4, 4}), Generator(2)), ShapeError);
}
