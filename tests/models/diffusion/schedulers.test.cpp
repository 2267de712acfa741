#include <nlohmann/json.hpp>

#include <tenon/models/diffusion/schedulers/make_scheduler.hpp>

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;

namespace {

/// The model of make_schedulers.py.
template <class T>
Tensor<T> model(const Tensor<T>& x, float t) {
  auto out = Tensor<T>::uninitialized(x.shape());
  for (Index i = 0; i < x.size(); ++i)
    out.data()[i] = T(0.6) * std::sin(x.data()[i]) + T(0.3) * x.data()[i] * static_cast<T>(static_cast<double>(t) / 1000);
  return out;
}

template <class T>
Tensor<T> run(AnyScheduler<T>& scheduler, Index steps, std::optional<Index> begin) {
  const Shape shape{1, 4, 4, 4};
  Generator generator(7);
  scheduler->set_timesteps(steps);
  Tensor<T> x = draw_noise<T>(shape, generator);
  auto timesteps = scheduler->timesteps();
  if (!begin) {
    x = combine<T>({{static_cast<double>(scheduler->init_noise_sigma()), x}});
  } else {
    timesteps = timesteps.subspan(static_cast<std::size_t>(*begin));
    scheduler->set_begin_index(*begin);
    Tensor<T> picture(shape);
    for (Index i = 0; i < picture.size(); ++i) picture.data()[i] = static_cast<T>(-1 + 2 * static_cast<double>(i) / 63);
    x = scheduler->add_noise(picture, x, timesteps.first(1));
  }
  for (const float t : timesteps) x = scheduler->step(model(scheduler->scale_model_input(x, t), t), t, x, generator);
  return x;
}

struct Golden {
  Json cases = Json::read(golden::path("schedulers/cases.json"));
  SafetensorsFile file = SafetensorsFile::open(golden::path("schedulers/finals.safetensors"));
  Tensor<double> finals = file.load<double>("finals");
  Tensor<float> tables = file.load<float>("tables");

  Tensor<double> final(Index i) const {
    return Tensor<double>({1, 4, 4, 4}, finals.span().subspan(static_cast<std::size_t>(64 * i), 64));
  }
};

double worst(std::span<const float> ours, const Tensor<float>& all, Index from, Index count) {
  if (static_cast<Index>(ours.size()) != count) return INFINITY;
  double out = 0;
  for (Index i = 0; i < count; ++i) {
    const double a = ours[static_cast<std::size_t>(i)], b = all.data()[from + i];
    out = std::max(out, std::abs(a - b) / std::max(1e-2, std::abs(b)));
  }
  return out;
}

/// 20 times diffusers' own float32-to-float64 distance, which counts for at least half a unit in the last place.
double tolerance(const Json& c) { return std::min(20 * std::max(c.get<double>("distance"), 5e-8), 1e-4); }

}  // namespace

TEST_CASE("the noise schedule of Stable Diffusion") {
  const NoiseSchedule schedule(1000, BetaSchedule::scaled_linear, 0.00085, 0.012);
  CHECK(schedule.alphas_cumprod[0] == Approx(0.99915));
  CHECK(schedule.alphas_cumprod[999] == Approx(0.0046601).epsilon(1e-5));
  CHECK(schedule.sigmas()[0] == Approx(0.0291672).epsilon(2e-4));
  CHECK(schedule.sigmas()[999] == Approx(14.614641).epsilon(1e-6));
  CHECK(NoiseSchedule(1000, BetaSchedule::scaled_linear, 0.00085, 0.012, true).alphas_cumprod[999] == 0);
  const Tensor<float> x({1, 2}, {1, 2}), noise({1, 2}, {3, 5});
  const std::vector<float> t{999};
  CHECK(schedule.add_noise(x, noise, t)(0, 1) == Approx(std::sqrt(0.0046601) * 2 + std::sqrt(1 - 0.0046601) * 5).epsilon(1e-5));
  CHECK(schedule.get_velocity(x, noise, t)(0, 1) == Approx(std::sqrt(0.0046601) * 5 - std::sqrt(1 - 0.0046601) * 2).epsilon(1e-5));
  REQUIRE_THROWS_AS(schedule.add_noise(x, noise, std::vector<float>{1000}), Error);
  REQUIRE_THROWS_AS(schedule.add_noise(x, noise, std::vector<float>{1, 2}), ShapeError);
}

TEST_CASE("schedulers run as diffusers' do") {
  const Golden golden;
  double furthest = 0, table = 0;
  for (Index i = 0; i < golden.cases.size(); ++i) {
    const Json c = golden.cases.at(std::to_string(i));
    const auto name = c.get<std::string>("name");
    const auto config = read_scheduler_config(c.at("config"));
    const auto begin = c.contains("begin") ? std::optional(c.get<Index>("begin")) : std::nullopt;
    INFO(i << ": " << name << ", " << c.get<Index>("steps") << " steps, " << c.at("config").value().dump());
    auto scheduler = make_scheduler(name, config);
    const double error = golden::error(run(scheduler, c.get<Index>("steps"), begin), golden.final(i));
    CHECK(error <= tolerance(c));
    furthest = std::max(furthest, error / tolerance(c));
    if (c.contains("table")) {
      const auto at = c.get<std::vector<Index>>("table");
      const double ts = worst(scheduler->timesteps(), golden.tables, at[0], at[1]);
      CHECK(ts <= 1e-6);
      table = std::max(table, ts);
      if (at[2] > 0 && !scheduler->sigmas().empty()) CHECK(worst(scheduler->sigmas(), golden.tables, at[0] + at[1], at[2]) <= 1e-6);
    }
    if (!c.contains("traps")) continue;
    const Json traps = c.at("traps");
    for (Index k = 0; k < traps.size(); ++k) {
      const Json trap = traps.at(std::to_string(k));
      auto wrong = config;
      set_scheduler_option(wrong, trap.get<std::string>("option"), trap.get<std::string>("value"));
      auto other = make_scheduler(name, wrong);
      const double moved = golden::error(run(other, c.get<Index>("steps"), begin), golden.final(i));
      INFO("trap: " << trap.get<std::string>("option"));
      CHECK(moved > 10 * tolerance(c));
      CHECK(moved == Approx(trap.get<double>("moved")).epsilon(0.01));
    }
  }
  CHECK(golden.cases.size() > 500);
  CHECK(furthest <= 1);
}

TEST_CASE("a copy of a scheduler goes on where it was taken") {
  for (const auto& name : scheduler_names()) {
    INFO(name);
    SchedulerConfig config;
    config.eta = 0.5;
    auto scheduler = make_scheduler(name, config);
    scheduler->set_timesteps(6);
    Generator generator(1);
    Tensor<float> x = draw_noise<float>({1, 4, 2, 2}, generator);
    const auto go = [](AnyScheduler<float>& s, Tensor<float> y, Generator& g, std::size_t from, std::size_t to) {
      for (const float t : std::vector<float>(s->timesteps().begin() + static_cast<Index>(from), s->timesteps().begin() + static_cast<Index>(to)))
        y = s->step(model(s->scale_model_input(y, t), t), t, y, g);
      return y;
    };
    x = go(scheduler, x, generator, 0, 3);
    auto copy = scheduler;
    auto copied = generator;
    const auto end = scheduler->timesteps().size();
    const auto first = go(scheduler, x, generator, 3, end);
    CHECK(go(copy, x, copied, 3, end) == first);
  }
}

TEST_CASE("scheduler names, files and options") {
  CHECK(scheduler_names().size() == 18);
  REQUIRE_THROWS_WITH(make_scheduler("eulr"), contains("[make_scheduler]") && contains("euler"));
  REQUIRE_THROWS_AS(make_scheduler("ddim_karras"), NameError);
  const Json json = Json::parse(R"({"_class_name":"DPMSolverMultistepScheduler","algorithm_type":"sde-dpmsolver++","beta_end":0.012,
    "trained_betas":null,"timestep_spacing":"leading","unknown":3})", "scheduler_config.json");
  CHECK(scheduler_name(json) == "dpmpp_2m_sde");
  const auto config = read_scheduler_config(json);
  CHECK(*config.beta_end == 0.012);
  CHECK(!config.beta_start);  // taken from the class that runs:
  CHECK(*make_scheduler("heun", config)->config().beta_start == 0.00085);
  CHECK(*make_scheduler("ddpm", config)->config().beta_start == 1e-4);
  CHECK(*make_scheduler("ddpm", config)->config().clip_sample);
  REQUIRE_THROWS_WITH(read_scheduler_config(Json::parse(R"({"prediction_type":"epsilom"})", "s.json")), contains("epsilon"));
  REQUIRE_THROWS_AS(read_scheduler_config(Json::parse(R"({"use_flow_sigmas":true})", "s.json")), FileError);
  REQUIRE_THROWS_AS(scheduler_name(Json::parse(R"({"_class_name":"DEISMultistepScheduler"})", "s.json")), NameError);
  SchedulerConfig options;
  set_scheduler_option(options, "steps_offset", "1");
  set_scheduler_option(options, "prediction_type", "v_prediction");
  CHECK(*options.steps_offset == 1);
  CHECK(*options.prediction_type == PredictionType::v_prediction);
  REQUIRE_THROWS_WITH(set_scheduler_option(options, "step_offset", "1"), contains("steps_offset"));
  auto scheduler = make_scheduler("euler");
  Generator generator(0);
  const Tensor<float> x({1, 2}, {1, 2});
  REQUIRE_THROWS_AS(scheduler->step(x, 1, x, generator), Error);
  REQUIRE_THROWS_AS(scheduler->set_timesteps(0), Error);
  scheduler->set_timesteps(3);
  REQUIRE_THROWS_AS(scheduler->step(x, 1, x, generator), Error);
  REQUIRE_THROWS_AS(scheduler->step(Tensor<float>({1, 3}), 999, x, generator), ShapeError);
  REQUIRE_THROWS_AS(scheduler->set_begin_index(3), Error);
}
