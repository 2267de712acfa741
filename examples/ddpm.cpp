// ddpm: the older model of the story. A U-Net of resnets alone learns the pictures themselves, pixel by pixel (Ho et al. 2020,
// 2006.11239; cosine schedule of Nichol, Dhariwal 2021, 2102.09672), and one step of it is set beside one of a latent model's.
#include <chrono>
#include <filesystem>
#include <iostream>

#include <CLI/CLI.hpp>

#include "common/diffusion_pretrain.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options {
  std::string data = default_data(), out = "ddpm", schedule = "cosine", prediction = "epsilon";
  Index side = 32, steps = 2000, batch = 16, width = 32, sample_steps = 100, count = 16;
  double learning_rate = 1e-3;
  int threads = 0;
  std::uint64_t seed = 0;
  bool resume = false;

  /// All that changes what a run learns.
  std::string text() const {
    return join_text("data ", data, " schedule ", schedule, " prediction ", prediction, " side ", side, " steps ", steps, " batch ", batch, " width ", width, " lr ", learning_rate,
                     " seed ", seed);
  }
};

/// Resnets and samplings, no attention anywhere.
UnetConfig pixel_unet(const Options& o) {
  UnetConfig c;
  c.sample_size = o.side;
  c.in_channels = c.out_channels = 3;
  c.block_out_channels = {o.width, 2 * o.width, 3 * o.width};
  c.down_block_types.assign(3, UnetBlockType::plain);
  c.up_block_types.assign(3, UnetBlockType::plain);
  c.mid_block_type = UnetBlockType::plain;
  c.layers_per_block = {1};
  c.attention_head_dim = {0};
  c.norm_num_groups = 8;
  return c;
}

SchedulerConfig schedule_config(const Options& o) {
  SchedulerConfig c;
  c.beta_schedule = o.schedule == "cosine" ? BetaSchedule::squaredcos_cap_v2 : BetaSchedule::linear;
  c.prediction_type = o.prediction == "epsilon" ? PredictionType::epsilon : o.prediction == "v" ? PredictionType::v_prediction : PredictionType::sample;
  return c;
}

/// Training pictures [N, side, side, 3] in -1..1.
Tensor<float> training_pictures(const EmojiSet& set, Index side) {
  Tensor<float> out = average_pool(Var<float>(pick(set.colour, set.split(false))), EmojiSet::side / side).value();
  for (float& x : out) x = 2 * x - 1;
  return out;
}

/// The seconds of one call, the best of a few.
template <class F>
double seconds(F&& f) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

void run(const Options& o) {
  const ThreadScope threads(o.threads);
  print_first_line("ddpm", "float32");
  const EmojiSet set(o.data);
  const Tensor<float> pictures = training_pictures(set, o.side);
  std::vector<Index> rows(static_cast<std::size_t>(pictures.extent(0)));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<Index>(i);
  Generator generator(o.seed);
  Unet2d<float> unet(pixel_unet(o), generator);
  Trainer trainer(trainable(unet), {.learning_rate = o.learning_rate, .clip_norm = 1.0}, 0.995, rows);
  const auto scheduler = make_scheduler("ddpm", schedule_config(o));
  const DiffusionObjective objective{.prediction = *scheduler->config().prediction_type};

  std::vector<double> losses;
  const std::string kept = o.out + "/state";
  if (const auto state = o.resume ? resumed(kept, o.text()) : std::nullopt) {
    trainer.restore(*state, generator);
    const auto before = Trainer::saved<double>(*state, "losses");
    losses.assign(before.begin(), before.end());
    std::cerr << "resumed at step " << trainer.steps() << " of " << o.steps << '\n';
  }
  std::cerr << rows.size() << " pictures of " << o.side << "x" << o.side << " pixels, " << count(params(unet)) << " parameters\n";
  Progress progress("training", o.steps, trainer.steps());
  const Index every = std::max<Index>(1, o.steps / 10);
  std::filesystem::create_directories(o.out);
  while (trainer.steps() < o.steps) {
    std::vector<Index> ids;
    for (Index i = 0; i < o.batch; ++i) ids.push_back(trainer.rounds.next(generator));
    const auto batch = noisy_batch<float>(scheduler->schedule(), pick(pictures, ids), generator, objective);
    const Var<float> loss = diffusion_loss(unet(Var<float>(batch.noisy), batch.timesteps), batch);
    const Schedule schedule{Schedule::Kind::cosine, std::min<Index>(100, o.steps / 10), o.steps, 0.0};
    losses.push_back(trainer.step(loss, schedule(trainer.steps()), [] {}));
    progress.update(trainer.steps(), join_text("loss ", fixed(losses.back(), 4)));
    if (trainer.steps() % every != 0 && trainer.steps() != o.steps) continue;
    State out;
    trainer.save(out, generator);
    out.tensors["losses"] = raw_copy(Tensor<double>(Shape{static_cast<Index>(losses.size())}, losses));
    out.values["run"] = o.text();
    save_state(kept, out);
  }
  progress.finish();

  const NoGrad no_grad;
  trainer.average.swap();
  auto state = text_to_image<float>(scheduler, {o.count, 3, o.side, o.side}, generator, {.steps = o.sample_steps, .guidance_scale = 1});
  Progress sampling("sampling", o.sample_steps);
  denoise(state, [&](const Tensor<float>& x, float t) { return channels_first(unet(Var<float>(channels_last(x)), Tensor<float>::of({t})).value()); },
          [&](const auto& s) { return sampling.update(s.step), true; });
  sampling.finish();
  const Var<float> made(channels_last(state.latents));
  std::vector<Tile> tiles;
  for (Index i = 0; i < o.count; ++i) tiles.push_back({picture_of(slice(made, 0, i, i + 1).value())});
  save_png(contact_sheet(tiles, {.columns = 8, .zoom = 128 / o.side, .letters = 1}), o.out + "/samples.png");
  save_png(plot({.title = "ddpm", .x = "step", .y = "loss"}, {{"loss, mean of 50 steps", smooth(losses, 50)}}), o.out + "/loss.png");
  save_unet(unet, o.out + "/unet");
  std::cout << "wrote " << o.out << " (samples.png, loss.png, unet)\n";

  // what a step of sampling costs: these pixels, all 64x64 of them, and the latents of 64x64 pixels
  const auto step = [&](const Unet2d<float>& model, Index side, const UnetConditions<float>& conditions = {}) {
    const Var<float> x(Tensor<float>({o.count, side, side, model.config.in_channels}));
    return 1e3 * seconds([&] { model(x, Tensor<float>::of({500}), conditions); }) / static_cast<double>(o.count);
  };
  const auto text = [&](const UnetConfig& c) { return Var<float>(Tensor<float>({o.count, 24, c.cross_attention_dim.front()})); };
  const Unet2d<float> latent(small_unet(DiffusionPretrainOptions().width, 128), generator);
  const Index latent_side = latent.config.sample_size;
  std::cout << "milliseconds of a step for each picture:\n"
            << "  " << fixed(step(unet, o.side), 2) << "  pixels, " << o.side << "x" << o.side << '\n'
            << "  " << fixed(step(unet, EmojiSet::side), 2) << "  pixels, 64x64\n"
            << "  " << fixed(step(latent, latent_side, {.states = text(latent.config)}), 2) << "  latents of 64x64 pixels, " << latent_side << "x" << latent_side
            << ", with attention to a text\n";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains a diffusion model on pixels (DDPM) with the emoji in examples/data, samples from it, and times a step.");
  Options options;
  app.add_option("--data", options.data, "Folder of the emoji set")->capture_default_str();
  app.add_option("--out", options.out, "Folder for pictures and model")->capture_default_str();
  app.add_option("--side", options.side, "Pixels of a side")->capture_default_str()->check(CLI::IsMember({16, 32, 64}));
  app.add_option("--schedule", options.schedule, "linear or cosine")->capture_default_str()->check(CLI::IsMember({"linear", "cosine"}));
  app.add_option("--prediction", options.prediction, "What the model predicts: epsilon, sample (x0) or v")->capture_default_str()->check(CLI::IsMember({"epsilon", "sample", "v"}));
  app.add_option("--steps", options.steps, "Training steps")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--batch", options.batch, "Pictures a step")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--width", options.width, "Channels at full size, a multiple of 8")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--lr", options.learning_rate, "Highest learning rate")->capture_default_str();
  app.add_option("--sample-steps", options.sample_steps, "Steps of sampling")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--count", options.count, "Pictures to sample")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--seed", options.seed, "Seed")->capture_default_str();
  app.add_option("--threads", options.threads, "Threads (0: all available)")->capture_default_str();
  app.add_flag("--resume", options.resume, "Go on with an interrupted run");
  return run_program(app, argc, argv, [&] { run(options); });
}
