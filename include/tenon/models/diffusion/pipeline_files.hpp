#pragma once
// What a folder or a single file says of a pipeline besides its weights: family, components, scheduler.
#include <sys/stat.h>

#include <tenon/models/diffusion/schedulers/make_scheduler.hpp>
#include <tenon/models/diffusion/single_file_names.hpp>

namespace tenon::inline TENON_ABI {

/// model_index.json.
struct PipelineIndex {
  std::string class_name;
  bool xl = false;
  bool force_zeros_for_empty_prompt = true;
  bool requires_aesthetics_score = false;
};

namespace detail {

inline bool is_folder(const std::string& path) {
  struct ::stat status {};
  if (::stat(path.c_str(), &status) != 0) fail<FileError>("stable_diffusion", path, ": ", std::strerror(errno));
  return S_ISDIR(status.st_mode);
}

}  // namespace detail

/// Reads a folder's model_index.json. Throws FileError when it is of another family, or names a component that is not there.
inline PipelineIndex read_pipeline_index(const std::string& folder) {
  const std::string path = folder + "/model_index.json";
  check<FileError>(::access(path.c_str(), F_OK) == 0, "stable_diffusion", folder,
                   ": expected a folder of diffusers with model_index.json, or a single file of Stable Diffusion");
  const Json json = Json::read(path);
  PipelineIndex out;
  out.class_name = json.get<std::string>("_class_name");
  constexpr std::string_view known[] = {"StableDiffusionPipeline",      "StableDiffusionImg2ImgPipeline",   "StableDiffusionInpaintPipeline",
                                        "StableDiffusionXLPipeline",    "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline",
                                        "LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"};
  check<FileError>(std::find(std::begin(known), std::end(known), out.class_name) != std::end(known), "stable_diffusion", path,
                   ": expected a pipeline of Stable Diffusion 1, 2 or XL, found ", out.class_name);
  out.xl = out.class_name.find("XL") != std::string::npos;
  const auto required = [&](const std::string& part) {
    const bool named = json.contains(part + ".0") && json.at(part + ".0").is_string();
    if (!named && part == "text_encoder" && out.xl) fail<FileError>("stable_diffusion", path, ": expected both text encoders: the refiner of Stable Diffusion XL has one");
    check<FileError>(named && ::access((folder + "/" + part).c_str(), F_OK) == 0, "stable_diffusion", folder, ": the component ", part,
                     named ? " is missing: there is no such folder" : " is not in model_index.json");
  };
  for (const char* part : {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}) required(part);
  if (out.xl)
    for (const char* part : {"text_encoder_2", "tokenizer_2"}) required(part);
  out.force_zeros_for_empty_prompt = json.get("force_zeros_for_empty_prompt", true);
  out.requires_aesthetics_score = json.get("requires_aesthetics_score", false);
  return out;
}

/// A scheduler's name and options, to be made anew for each run.
struct SchedulerChoice {
  std::string name;
  SchedulerConfig config;
  std::optional<SchedulerConfig> outdated = {};  ///< of Stable Diffusion 1 and 2: `config` as its file has it, for a run to mend

  /// The options for a run with the scheduler `which`. Outdated ones are mended as diffusers' pipelines do it when they are made:
  /// steps_offset is 1, and clip_sample false or, for inpainting, skip_prk_steps true; its ControlNet pipelines mend none. What was
  /// changed in `config` since it was read stays.
  SchedulerConfig for_run(std::string_view which, bool inpainting = false, bool controls = false) const {
    SchedulerConfig out = config;
    if (!outdated || controls) return out;
    const auto mend = [&](auto SchedulerConfig::* option, auto value) {  // another scheduler keeps its own defaults for what is open
      if ((out.*option || which == name) && out.*option == (*outdated).*option) out.*option = value;
    };
    mend(&SchedulerConfig::steps_offset, Index{1});
    if (inpainting) mend(&SchedulerConfig::skip_prk_steps, true);
    else mend(&SchedulerConfig::clip_sample, false);
    return out;
  }
};

/// A folder's scheduler/scheduler_config.json. A class that tenon does not have leaves the name empty: then one must be named.
/// Throws FileError.
inline SchedulerChoice read_scheduler_choice(const std::string& folder) {
  const Json json = read_scheduler_json(folder + "/scheduler/scheduler_config.json");
  SchedulerChoice out{"", read_scheduler_config(json)};
  try {
    out.name = scheduler_name(json);
  } catch (const NameError&) {
  }
  return out;
}

/// The scheduler of the family's own checkpoint, for a single file that brings none: PNDM, DDIM, or Euler.
inline SchedulerChoice usual_scheduler(DiffusionFamily family, bool v_prediction, bool zero_terminal_snr) {
  SchedulerChoice out;
  out.name = family == DiffusionFamily::sd1 ? "pndm" : family == DiffusionFamily::sd2 ? "ddim" : "euler";
  SchedulerConfig& c = out.config;
  c.num_train_timesteps = 1000;
  c.beta_start = 0.00085;
  c.beta_end = 0.012;
  c.beta_schedule = BetaSchedule::scaled_linear;
  c.set_alpha_to_one = false;
  c.skip_prk_steps = true;
  c.steps_offset = 1;
  c.clip_sample = false;
  if (family == DiffusionFamily::sdxl) c.timestep_spacing = TimestepSpacing::leading;
  if (v_prediction) c.prediction_type = PredictionType::v_prediction;
  if (zero_terminal_snr) {  // the last timestep holds no signal, and leading would never visit it
    c.rescale_betas_zero_snr = true;
    c.timestep_spacing = TimestepSpacing::trailing;
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI
