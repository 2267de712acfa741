#pragma once
// Schedulers by name.
#include <tenon/core/nearest.hpp>
#include <tenon/io/mapped_file.hpp>
#include <tenon/models/diffusion/schedulers/ddim.hpp>
#include <tenon/models/diffusion/schedulers/ddpm.hpp>
#include <tenon/models/diffusion/schedulers/dpm_solver.hpp>
#include <tenon/models/diffusion/schedulers/euler.hpp>
#include <tenon/models/diffusion/schedulers/heun.hpp>
#include <tenon/models/diffusion/schedulers/lcm.hpp>
#include <tenon/models/diffusion/schedulers/lms.hpp>
#include <tenon/models/diffusion/schedulers/pndm.hpp>
#include <tenon/models/diffusion/schedulers/unipc.hpp>

namespace tenon::inline TENON_ABI {

/// A scheduler of any kind as a value: a copy holds the state of the run, and goes on from it.
template <class T>
class AnyScheduler {
 public:
  explicit AnyScheduler(std::unique_ptr<Scheduler<T>> scheduler) : scheduler_(std::move(scheduler)) {}
  AnyScheduler(const AnyScheduler& other) : scheduler_(other.scheduler_->clone()) {}
  AnyScheduler(AnyScheduler&&) noexcept = default;
  AnyScheduler& operator=(AnyScheduler other) noexcept {
    scheduler_ = std::move(other.scheduler_);
    return *this;
  }
  ~AnyScheduler() = default;

  Scheduler<T>* operator->() { return scheduler_.get(); }
  const Scheduler<T>* operator->() const { return scheduler_.get(); }
  Scheduler<T>& operator*() { return *scheduler_; }
  const Scheduler<T>& operator*() const { return *scheduler_; }

 private:
  std::unique_ptr<Scheduler<T>> scheduler_;
};

namespace detail {

template <class T>
struct SchedulerKind {
  std::string_view name, class_name;  ///< ours, and diffusers'
  bool karras;                        ///< whether there is a form `name`_karras
  std::unique_ptr<Scheduler<T>> (*make)(const SchedulerConfig&);
};

template <class S, class T>
std::unique_ptr<Scheduler<T>> make(const SchedulerConfig& config) {
  return std::make_unique<S>(config);
}
template <class T, DpmSolver algorithm>
std::unique_ptr<Scheduler<T>> make_dpm_solver(const SchedulerConfig& config) {
  SchedulerConfig chosen = config;
  chosen.algorithm_type = algorithm;
  return std::make_unique<DpmSolverScheduler<T>>(chosen);
}

template <class T>
inline constexpr std::array<SchedulerKind<T>, 12> scheduler_kinds{{
    {"ddpm", "DDPMScheduler", false, make<DdpmScheduler<T>, T>},
    {"ddim", "DDIMScheduler", false, make<DdimScheduler<T>, T>},
    {"pndm", "PNDMScheduler", false, make<PndmScheduler<T>, T>},
    {"euler", "EulerDiscreteScheduler", true, make<EulerScheduler<T>, T>},
    {"euler_a", "EulerAncestralDiscreteScheduler", false, make<EulerAncestralScheduler<T>, T>},
    {"heun", "HeunDiscreteScheduler", true, make<HeunScheduler<T>, T>},
    {"lms", "LMSDiscreteScheduler", true, make<LmsScheduler<T>, T>},
    {"dpmpp_2m", "DPMSolverMultistepScheduler", true, make_dpm_solver<T, DpmSolver::ode>},
    {"dpmpp_2m_sde", "DPMSolverMultistepScheduler", true, make_dpm_solver<T, DpmSolver::sde>},
    {"unipc", "UniPCMultistepScheduler", true, make<UniPcScheduler<T>, T>},
    {"lcm", "LCMScheduler", false, make<LcmScheduler<T>, T>},
    {"tcd", "TCDScheduler", false, make<TcdScheduler<T>, T>},
}};

}  // namespace detail

/// The names that `make_scheduler` takes.
inline std::vector<std::string> scheduler_names() {
  std::vector<std::string> out;
  for (const auto& kind : detail::scheduler_kinds<float>) {
    out.emplace_back(kind.name);
    if (kind.karras) out.push_back(std::string(kind.name) + "_karras");
  }
  return out;
}

/// A scheduler by its name. `name`_karras turns use_karras_sigmas on; a name without it leaves the option as it is. What is
/// absent from `config` takes the default of the scheduler named. Throws NameError on a name that does not exist, Error on
/// options that the scheduler cannot follow.
template <class T = float>
AnyScheduler<T> make_scheduler(std::string_view name, SchedulerConfig config = {}) {
  constexpr std::string_view suffix = "_karras";
  const bool karras = name.ends_with(suffix);
  const std::string_view stem = karras ? name.substr(0, name.size() - suffix.size()) : name;
  for (const auto& kind : detail::scheduler_kinds<T>)
    if (kind.name == stem && (kind.karras || !karras)) {
      if (karras) config.use_karras_sigmas = true;
      return AnyScheduler<T>(kind.make(config));
    }
  const auto names = scheduler_names();
  fail<NameError>("make_scheduler", "unknown scheduler ", name, "; nearest: ", nearest_names(name, names, names.size()));
}

/// The name of the scheduler whose scheduler_config.json this is. Throws NameError when tenon does not have its class.
inline std::string scheduler_name(const Json& json) {
  const auto class_name = json.get<std::string>("_class_name");
  const bool sde = json.get("algorithm_type", std::string()) == "sde-dpmsolver++";
  std::vector<std::string_view> classes;
  for (const auto& kind : detail::scheduler_kinds<float>) {
    if (kind.class_name == class_name) return std::string(sde && kind.name == "dpmpp_2m" ? "dpmpp_2m_sde" : kind.name);
    classes.push_back(kind.class_name);
  }
  fail<NameError>("scheduler", json.file(), ": unknown class ", class_name, "; nearest: ", nearest_names(class_name, classes));
}

/// Reads scheduler_config.json, where Python's writer leaves a bare Infinity (lambda_min_clipped), which is no JSON.
/// Throws as `Json::read`.
inline Json read_scheduler_json(const std::string& path) {
  std::string text = read_file(path, Json::max_bytes);
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && quoted) ++i;
    else if (text[i] == '"') quoted = !quoted;
    else if (!quoted && text.compare(i, 8, "Infinity") == 0) text.replace(i, 8, "1e308");
  }
  return Json::parse(text, path);
}

}  // namespace tenon::inline TENON_ABI
