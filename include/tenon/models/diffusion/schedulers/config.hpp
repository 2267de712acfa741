#pragma once
// The options of every scheduler, under the keys of diffusers' scheduler_config.json.
#include <array>
#include <optional>
#include <string>

#include <tenon/core/nearest.hpp>
#include <tenon/io/json.hpp>
#include <tenon/models/diffusion/noise_schedule.hpp>

namespace tenon::inline TENON_ABI {

/// What the model's output stands for: the noise; v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0 (Salimans and Ho,
/// Progressive Distillation, 2022); or x_0 itself.
enum class PredictionType { epsilon, v_prediction, sample };
/// What the last step goes down to.
enum class FinalSigmas { zero, sigma_min };
/// The variance of DDPM's steps.
enum class VarianceType { fixed_small, fixed_small_log, fixed_large };
/// DPM-Solver++: the ordinary differential equation, or the stochastic one.
enum class DpmSolver { ode, sde };
/// The second-order term of DPM-Solver++ (midpoint, heun) or B(h) of UniPC (bh1, bh2).
enum class SolverType { midpoint, heun, bh1, bh2 };

template <class E>
struct EnumNames;
template <>
struct EnumNames<BetaSchedule> {
  static constexpr std::array<std::string_view, 3> names{"linear", "scaled_linear", "squaredcos_cap_v2"};
};
template <>
struct EnumNames<TimestepSpacing> {
  static constexpr std::array<std::string_view, 3> names{"linspace", "leading", "trailing"};
};
template <>
struct EnumNames<PredictionType> {
  static constexpr std::array<std::string_view, 3> names{"epsilon", "v_prediction", "sample"};
};
template <>
struct EnumNames<FinalSigmas> {
  static constexpr std::array<std::string_view, 2> names{"zero", "sigma_min"};
};
template <>
struct EnumNames<VarianceType> {
  static constexpr std::array<std::string_view, 3> names{"fixed_small", "fixed_small_log", "fixed_large"};
};
template <>
struct EnumNames<DpmSolver> {
  static constexpr std::array<std::string_view, 2> names{"dpmsolver++", "sde-dpmsolver++"};
};
template <>
struct EnumNames<SolverType> {
  static constexpr std::array<std::string_view, 4> names{"midpoint", "heun", "bh1", "bh2"};
};

/// An absent option takes the default of the scheduler that runs, whoever wrote the file.
struct SchedulerConfig {
  std::optional<Index> num_train_timesteps = {};
  std::optional<double> beta_start = {}, beta_end = {};
  std::optional<BetaSchedule> beta_schedule = {};
  std::optional<std::vector<double>> trained_betas = {};
  std::optional<bool> rescale_betas_zero_snr = {};
  std::optional<PredictionType> prediction_type = {};
  std::optional<TimestepSpacing> timestep_spacing = {};
  std::optional<Index> steps_offset = {};
  std::optional<bool> set_alpha_to_one = {};  ///< DDIM, PNDM: what lies below timestep 0 is the clean sample
  std::optional<bool> clip_sample = {};  ///< the predicted x_0 is kept within +- clip_sample_range
  std::optional<double> clip_sample_range = {};
  std::optional<bool> thresholding = {};  ///< Imagen's dynamic thresholding of the predicted x_0
  std::optional<double> dynamic_thresholding_ratio = {}, sample_max_value = {};
  std::optional<double> eta = {};  ///< DDIM, TCD: the share of fresh noise
  std::optional<VarianceType> variance_type = {};  ///< DDPM
  std::optional<bool> skip_prk_steps = {};  ///< PNDM
  std::optional<bool> use_karras_sigmas = {}, use_exponential_sigmas = {};
  std::optional<double> sigma_min = {}, sigma_max = {};  ///< ends of the Karras and exponential sigmas
  std::optional<FinalSigmas> final_sigmas_type = {};
  std::optional<DpmSolver> algorithm_type = {};
  std::optional<SolverType> solver_type = {};
  std::optional<Index> solver_order = {};  ///< 1 to 3
  std::optional<bool> lower_order_final = {}, euler_at_final = {};
  std::optional<double> lambda_min_clipped = {};
  std::optional<std::vector<Index>> disable_corrector = {};  ///< UniPC: steps after which no correction is made
  std::optional<Index> original_inference_steps = {};  ///< LCM, TCD: steps of the distillation
  std::optional<double> timestep_scaling = {};  ///< LCM

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("num_train_timesteps", s.num_train_timesteps), f("beta_start", s.beta_start), f("beta_end", s.beta_end);
    f("beta_schedule", s.beta_schedule), f("trained_betas", s.trained_betas);
    f("rescale_betas_zero_snr", s.rescale_betas_zero_snr), f("prediction_type", s.prediction_type);
    f("timestep_spacing", s.timestep_spacing), f("steps_offset", s.steps_offset), f("set_alpha_to_one", s.set_alpha_to_one);
    f("clip_sample", s.clip_sample), f("clip_sample_range", s.clip_sample_range), f("thresholding", s.thresholding);
    f("dynamic_thresholding_ratio", s.dynamic_thresholding_ratio), f("sample_max_value", s.sample_max_value), f("eta", s.eta);
    f("variance_type", s.variance_type), f("skip_prk_steps", s.skip_prk_steps), f("use_karras_sigmas", s.use_karras_sigmas);
    f("use_exponential_sigmas", s.use_exponential_sigmas), f("sigma_min", s.sigma_min), f("sigma_max", s.sigma_max);
    f("final_sigmas_type", s.final_sigmas_type), f("algorithm_type", s.algorithm_type), f("solver_type", s.solver_type);
    f("solver_order", s.solver_order), f("lower_order_final", s.lower_order_final), f("euler_at_final", s.euler_at_final);
    f("lambda_min_clipped", s.lambda_min_clipped), f("disable_corrector", s.disable_corrector);
    f("original_inference_steps", s.original_inference_steps), f("timestep_scaling", s.timestep_scaling);
  }
};

namespace detail {

/// One option from JSON; null counts as absent.
template <class T>
void read_option(const Json& json, std::string_view key, std::optional<T>& option) {
  if (json.is_null(key)) return;
  if constexpr (std::is_enum_v<T>) {
    const auto name = json.get<std::string>(key);
    const auto& names = EnumNames<T>::names;
    const auto found = std::find(names.begin(), names.end(), name);
    check<NameError>(found != names.end(), "scheduler", json.file(), ": ", key, ": unknown value ", name, "; nearest: ",
                     nearest_names(name, names, names.size()));
    option = static_cast<T>(found - names.begin());
  } else {
    option = json.get<T>(key);
  }
}

}  // namespace detail

/// Reads scheduler_config.json. Keys of other schedulers and unknown keys are no error; a key that asks for what tenon does
/// not do is. Throws FileError on a wrong type, NameError on an unknown value.
inline SchedulerConfig read_scheduler_config(const Json& json) {
  for (const char* key : {"use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"})
    check<FileError>(!json.get(key, false), "scheduler", json.file(), ": ", key, " is not supported");
  for (const auto& [key, only] : {std::pair("interpolation_type", "linear"), {"timestep_type", "discrete"}})
    check<FileError>(json.get(key, std::string(only)) == only, "scheduler", json.file(), ": ", key, ": expected ", only);
  check<FileError>(json.get("predict_x0", true), "scheduler", json.file(), ": predict_x0: expected true");
  SchedulerConfig out;
  SchedulerConfig::fields(out, [&](const char* key, auto& option) { detail::read_option(json, key, option); });
  return out;
}

/// Sets one option from text, as `steps_offset=1` on a command line has it. Throws NameError on a key that no scheduler
/// has, with the nearest ones, and as `read_scheduler_config`.
inline void set_scheduler_option(SchedulerConfig& config, const std::string& key, const std::string& value) {
  std::vector<std::string> keys;
  bool found = false;
  SchedulerConfig::fields(config, [&](const char* name, auto& option) {
    keys.emplace_back(name);
    if (key != name) return;
    using T = typename std::remove_reference_t<decltype(option)>::value_type;
    const std::string quote = std::is_enum_v<T> ? "\"" : "";
    detail::read_option(Json::parse("{\"" + key + "\":" + quote + value + quote + "}", "scheduler option"), key, option);
    found = true;
  });
  check<NameError>(found, "scheduler", "no option is called ", key, "; nearest: ", nearest_names(key, keys));
}

/// The defaults that most schedulers share.
inline SchedulerConfig common_defaults() {
  SchedulerConfig c;
  c.num_train_timesteps = 1000, c.beta_start = 1e-4, c.beta_end = 0.02, c.beta_schedule = BetaSchedule::linear;
  c.rescale_betas_zero_snr = false, c.prediction_type = PredictionType::epsilon;
  c.timestep_spacing = TimestepSpacing::linspace, c.steps_offset = 0, c.set_alpha_to_one = true;
  c.clip_sample = false, c.clip_sample_range = 1.0;
  c.thresholding = false, c.dynamic_thresholding_ratio = 0.995, c.sample_max_value = 1.0;
  c.eta = 0.0, c.variance_type = VarianceType::fixed_small, c.skip_prk_steps = false;
  c.use_karras_sigmas = false, c.use_exponential_sigmas = false, c.final_sigmas_type = FinalSigmas::zero;
  c.algorithm_type = DpmSolver::ode, c.solver_type = SolverType::midpoint, c.solver_order = 2;
  c.lower_order_final = true, c.euler_at_final = false;
  c.original_inference_steps = 50, c.timestep_scaling = 10.0;
  return c;
}

/// `config` with its absent options taken from `defaults`.
inline SchedulerConfig with_defaults(SchedulerConfig config, SchedulerConfig defaults) {
  SchedulerConfig::fields(config, [&](std::string_view key, auto& option) {
    SchedulerConfig::fields(defaults, [&](std::string_view name, auto& fallback) {
      if constexpr (std::is_same_v<decltype(option), decltype(fallback)>)
        if (key == name && !option) option = fallback;
    });
  });
  return config;
}

}  // namespace tenon::inline TENON_ABI
