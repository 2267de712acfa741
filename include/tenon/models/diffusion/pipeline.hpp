#pragma once
// The sampling loop over any model: text to image, image to image, and inpainting with a model of 4 channels.
//
//   auto state = text_to_image<float>(make_scheduler("euler_a", config), {1, 4, 64, 64}, Generator(42), {.steps = 20});
//   denoise(state, model, [&](auto& s) { show(s.step); return !stop; });   // false stops; another call goes on
//
// Latents are [N, C, H, W], as diffusers holds them. `model(latents, t)` returns its output of the same shape; with guidance
// its batch is doubled, [negative prompts, prompts].
#include <tenon/models/diffusion/guidance.hpp>
#include <tenon/models/diffusion/schedulers/make_scheduler.hpp>

namespace tenon::inline TENON_ABI {

/// What is kept of a picture while the rest is made anew.
template <class T>
struct Inpainting {
  Tensor<T> latents, noise;  ///< of the picture [N, C, H, W], and the noise that it is given at each timestep
  Tensor<T> mask;            ///< the latents' shape: 1 where the picture is made anew, 0 where it stays
};

/// A run as a value. A copy taken between two steps can be resumed; a callback may change any of it.
template <class T>
struct Denoising {
  AnyScheduler<T> scheduler;
  Tensor<T> latents;
  Generator generator;
  Index step = 0;  ///< the place in scheduler->timesteps() that comes next
  double guidance_scale = 7.5;
  double guidance_rescale = 0;
  std::optional<Inpainting<T>> inpainting = {};

  bool done() const { return step == static_cast<Index>(scheduler->timesteps().size()); }
};

template <class T>
struct DenoisingOptions {
  Index steps = 50;
  double guidance_scale = 7.5;                  ///< at most 1: no guidance, one pass of the model without doubling
  double guidance_rescale = 0;
  double eta = 0;                               ///< DDIM, TCD; diffusers' pipelines give 0 to both
  double strength = 0.8;                        ///< image to image: the share of the steps that is run
  bool distilled = false;                       ///< image to image: all steps are run, from the share `strength` of LCM's or TCD's timesteps
  std::optional<Tensor<T>> latents = {};        ///< unit noise in the place of the generator's
};

namespace detail {

template <class T>
Denoising<T> begin_denoising(AnyScheduler<T> scheduler, Generator generator, const DenoisingOptions<T>& options) {
  scheduler->set_timesteps(options.steps);
  scheduler->set_eta(options.eta);
  return {std::move(scheduler), {}, generator, 0, options.guidance_scale, options.guidance_rescale};
}
template <class T>
Tensor<T> first_noise(const Shape& shape, Generator& generator, const DenoisingOptions<T>& options) {
  if (!options.latents) return draw_noise<T>(shape, generator);
  check<ShapeError>(options.latents->shape() == shape, "denoise", "expected latents of shape ", shape, ", got ", options.latents->shape());
  return *options.latents;
}
/// Sets the place where a run of this strength begins, `least` steps or more before the end. PNDM has one more than `steps`.
template <class T>
void begin_at(Denoising<T>& state, const DenoisingOptions<T>& options, Index least) {
  check(options.strength >= 0 && options.strength <= 1, "denoise", "expected a strength in [0, 1], got ", options.strength);
  const auto run = std::min(static_cast<Index>(static_cast<double>(options.steps) * options.strength), options.steps);
  state.step = (options.steps - run) * state.scheduler->order();
  check(run >= least && !state.done(), "denoise", "a strength of ", options.strength, " leaves none of ", options.steps, " steps");
  state.scheduler->set_begin_index(state.step);
}

}  // namespace detail

/// A run from pure noise. Throws ShapeError when `latents` is given in another shape.
template <class T>
Denoising<T> text_to_image(AnyScheduler<T> scheduler, const Shape& shape, Generator generator, const DenoisingOptions<T>& options = {}) {
  auto state = detail::begin_denoising(std::move(scheduler), generator, options);
  const Tensor<T> noise = detail::first_noise(shape, state.generator, options);
  state.latents = combine<T>({{static_cast<double>(state.scheduler->init_noise_sigma()), noise}});
  return state;
}

/// A run from a picture's latents, noised to where the last strength * steps steps begin. Throws Error when no step is left.
template <class T>
Denoising<T> image_to_image(AnyScheduler<T> scheduler, const Tensor<T>& picture, Generator generator, const DenoisingOptions<T>& options = {}) {
  auto state = detail::begin_denoising(std::move(scheduler), generator, options);
  if (options.distilled) state.scheduler->set_timesteps(options.steps, options.strength);
  else detail::begin_at(state, options, 0);
  const Tensor<T> noise = detail::first_noise(picture.shape(), state.generator, options);
  state.latents = state.scheduler->add_noise(picture, noise, state.scheduler->timesteps().subspan(static_cast<std::size_t>(state.step), 1));
  return state;
}

/// As image_to_image, where only what the mask covers is made anew; with strength 1 it begins from pure noise.
template <class T>
Denoising<T> inpaint(AnyScheduler<T> scheduler, const Tensor<T>& picture, const Tensor<T>& mask, Generator generator,
                     const DenoisingOptions<T>& options = {}) {
  check<ShapeError>(mask.shape() == picture.shape(), "inpaint", "expected a mask of shape ", picture.shape(), ", got ", mask.shape());
  auto state = detail::begin_denoising(std::move(scheduler), generator, options);
  detail::begin_at(state, options, 1);
  const Tensor<T> noise = detail::first_noise(picture.shape(), state.generator, options);
  const auto first = state.scheduler->timesteps().subspan(static_cast<std::size_t>(state.step), 1);
  state.latents = options.strength == 1 || options.latents
                      ? combine<T>({{static_cast<double>(state.scheduler->init_noise_sigma()), noise}})
                      : state.scheduler->add_noise(picture, noise, first);
  state.inpainting = Inpainting<T>{picture, noise, mask};
  return state;
}

/// Runs to the end, or until `after_step(state)` returns false: then `false` is returned, and another call goes on. Throws
/// what the model and the scheduler throw; the state is then that of the last complete step but for the scheduler.
template <class T, class Model, class AfterStep>
bool denoise(Denoising<T>& state, Model&& model, AfterStep&& after_step) {
  while (!state.done()) {
    auto& scheduler = state.scheduler;
    const float t = scheduler->timesteps()[static_cast<std::size_t>(state.step)];
    const Tensor<T> input = scheduler->scale_model_input(state.latents, t);
    const bool guide = state.guidance_scale > 1;
    Tensor<T> output = guide ? guided<T>(model(doubled(input), t), state.guidance_scale, state.guidance_rescale) : model(input, t);
    state.latents = scheduler->step(output, t, state.latents, state.generator);
    ++state.step;
    if (const auto& kept = state.inpainting) {
      const Tensor<T> known = state.done() ? kept->latents
                                           : scheduler->add_noise(kept->latents, kept->noise,
                                                                  scheduler->timesteps().subspan(static_cast<std::size_t>(state.step), 1));
      for (Index i = 0; i < known.size(); ++i) {
        const T m = kept->mask.data()[i];
        state.latents.data()[i] = std::fma(m, state.latents.data()[i], (1 - m) * known.data()[i]);
      }
    }
    if (!after_step(state)) return false;
  }
  return true;
}
template <class T, class Model>
void denoise(Denoising<T>& state, Model&& model) {
  denoise(state, model, [](const Denoising<T>&) { return true; });
}

}  // namespace tenon::inline TENON_ABI
