#pragma once
// Intrinsic dimension (Li et al. 2018, 1804.08838; Aghajanyan et al. 2020, 2012.13255): all tuned weights and biases move
// along one vector of d numbers, theta_0 + P theta_d, with P random, fixed, and never held in memory (projection.hpp).
//
// Tuned are the Linear and Conv2d layers that the targets name, all when there are none; embeddings and norms stay.
#include <nlohmann/json.hpp>

#include <tenon/io/json.hpp>
#include <tenon/io/safetensors.hpp>
#include <tenon/peft/layer.hpp>
#include <tenon/peft/merge.hpp>
#include <tenon/peft/projection.hpp>

namespace tenon::inline TENON_ABI {

struct IntrinsicConfig {
  Index dimension = 100;
  RandomProjection::Kind projection = RandomProjection::Kind::fastfood;
  /// A learned factor for each layer (structure-aware, SAID). They add to the number of parameters.
  bool layer_scales = false;
  std::uint64_t seed = 0;
  std::vector<std::string> targets{};
};

namespace detail {
inline constexpr std::pair<RandomProjection::Kind, std::string_view> projection_names[] = {
    {RandomProjection::Kind::fastfood, "fastfood"}, {RandomProjection::Kind::dense, "dense"}, {RandomProjection::Kind::sparse, "sparse"}};
}

template <class T>
struct Intrinsic final : WeightDelta<T>, BiasPatch<T> {
  std::shared_ptr<Param<T>> vector;  ///< theta_d [d], one for all layers
  Param<T> layer_scale;              ///< [1], or absent
  bool first = false;                ///< whether this layer's patch is the one that lists `vector` among its parameters
  RandomProjection projection;
  T norm = T(1);                     ///< 1 / sqrt(D) of all layers together: columns of length 1

  explicit Intrinsic(const TunedLayer<T>& tuned) : WeightDelta<T>(tuned) {}
  std::string_view kind() const override { return "intrinsic"; }
  std::vector<NamedParam<T>> params() override {
    std::vector<NamedParam<T>> out;
    if (first) out.push_back({"intrinsic_vector", vector.get()});
    if (layer_scale) out.push_back({"intrinsic_scale", &layer_scale});
    return out;
  }
  Index size() const { return this->layer.weight->size() + (this->layer.bias != nullptr ? this->layer.bias->size() : 0); }
  Var<T> delta() const override { return part(step(), true); }
  Var<T> after(const Var<T>& x, const Var<T>& y, T scale) const override {
    const Var<T> all = scale == T(1) ? step() : step() * static_cast<double>(scale);
    const Var<T> out = y + this->layer.product(x, Weight<T>(part(all, true)));
    return this->layer.bias != nullptr ? out + part(all, false) : out;
  }
  Tensor<T> merged_bias(const Tensor<T>& bias, T scale) const override {
    const NoGrad none;
    return (Var<T>(bias) + part(step(), false) * static_cast<double>(scale)).value();
  }

 private:
  /// This layer's rows of P theta_d: weight, then bias.
  Var<T> step() const {
    const Var<T>& theta = (*vector)->var();
    auto y = Tensor<T>::uninitialized({size()});
    projection.forward(theta.value().data(), y.size(), y.data());
    kernels::scale(y.size(), static_cast<double>(norm), y.data(), y.data());
    const Var<T> out = record(std::move(y), {theta}, [projection = projection, norm = norm](Tensor<T>& dy, std::span<Grad<T>> dx) {
      kernels::scale(dy.size(), static_cast<double>(norm), dy.data(), dy.data());
      projection.backward(dy.data(), dy.size(), dx[0].slot().data());
    });
    return layer_scale ? out * layer_scale->var() : out;
  }
  Var<T> part(const Var<T>& all, bool weight) const {
    const Index cut = this->layer.weight->size();
    return weight ? reshape(slice(all, 0, 0, cut), this->layer.shape()) : slice(all, 0, cut, size());
  }
};

/// Attaches one vector to all layers. Its patches belong together: they are attached and detached as one adapter.
/// Throws as `attach` does for other methods.
template <class M>
AttachReport attach(M& model, const IntrinsicConfig& config, Generator&, const AttachOptions& options = {}) {
  using T = scalar_of<M>;
  check(config.dimension >= 1, "IntrinsicConfig", "expected a dimension of at least 1, got ", config.dimension);
  auto vector = std::make_shared<Param<T>>(Shape{config.dimension});
  init::constant(*vector, T(0));
  std::vector<Intrinsic<T>*> patches;
  Index total = 0;
  const auto make = [&](const SiteRef<T>& site) -> NewPatch<T> {
    const auto layer = tuned_layer(site);
    if (!layer) return {};
    auto patch = std::make_unique<Intrinsic<T>>(*layer);
    patch->vector = vector;
    patch->first = patches.empty();
    patch->projection = {config.projection, config.dimension, config.seed, patches.size()};
    if (config.layer_scales) {
      patch->layer_scale = Param<T>(Shape{1});
      init::constant(patch->layer_scale, T(1));
    }
    total += patch->size();
    patches.push_back(patch.get());
    return {std::move(patch), nullptr};
  };
  auto placements = detail::patches_for(model, config.targets, [](const auto& site) { return tuned_layer(site).has_value(); }, make);
  for (auto* patch : patches) patch->norm = static_cast<T>(1 / std::sqrt(static_cast<double>(total)));
  return detail::place(std::move(placements), options);
}

/// Writes an attached adapter: the vector, the layers' factors, and in the metadata what makes the same projection again.
/// Throws NameError when no adapter has that name, Error when it is of another method, FileError when it cannot be written.
template <class M>
void save_intrinsic(M& model, const std::string& path, const std::string& name = "default") {
  using T = scalar_of<M>;
  std::vector<NamedTensor> tensors;
  nlohmann::json config;
  detail::for_each_named(model, "save_intrinsic", name, [&](const auto& site, auto& entry) {
    Patch<T>* const patch = entry.patch.get();
    const auto* intrinsic = dynamic_cast<const Intrinsic<T>*>(patch);
    check(intrinsic != nullptr, "save_intrinsic", "adapter '", name, "' is a ", patch->kind());
    config["targets"].push_back(site.path);
    config["seed"] = intrinsic->projection.seed;
    for (const auto& [kind, text] : detail::projection_names)
      if (kind == intrinsic->projection.kind) config["projection"] = text;
    for (const auto& [part, param] : patch->params())
      tensors.push_back({part == "intrinsic_vector" ? std::string(part) : site.path + "." + std::string(part), raw_copy((*param)->value())});
  });
  save_safetensors(path, tensors, {{"format", "tenon"}, {"intrinsic", config.dump()}});
}

/// Attaches what save_intrinsic wrote to a model of the same layers, frozen. Throws FileError when file and model do not fit;
/// then nothing is attached.
template <class M>
AttachReport load_intrinsic(M& model, const std::string& path, const AttachOptions& options = {}) {
  using T = scalar_of<M>;
  const auto file = SafetensorsFile::open(path);
  const auto text = file.metadata().find("intrinsic");
  check<FileError>(text != file.metadata().end() && file.contains("intrinsic_vector"), "load_intrinsic", path, ": expected a file of save_intrinsic");
  const Json json = Json::parse(text->second, path);
  const std::string kind = json.get<std::string>("projection");
  const auto known = std::find_if(std::begin(detail::projection_names), std::end(detail::projection_names), [&](const auto& entry) { return entry.second == kind; });
  check<FileError>(known != std::end(detail::projection_names), "load_intrinsic", path, ": expected projection fastfood, dense or sparse, found ", kind);
  const auto vector = file.load<T>("intrinsic_vector");
  check<FileError>(vector.rank() == 1 && vector.size() > 0, "load_intrinsic", path, ": expected a vector, found shape ", vector.shape());
  IntrinsicConfig config{.dimension = vector.size(), .projection = known->first};
  config.layer_scales = file.tensors().size() > 1;
  config.seed = json.get<std::uint64_t>("seed");
  config.targets = json.get<std::vector<std::string>>("targets");
  std::set<std::string> paths;
  for (const auto& site : sites(model)) paths.insert(site.path);
  for (const auto& target : config.targets) {
    check<FileError>(paths.contains(target), "load_intrinsic", path, ": the model has no layer ", target, "; nearest: ", nearest_names(target, paths));
    if (config.layer_scales)
      check<FileError>(file.contains(target + ".intrinsic_scale") && file.info(target + ".intrinsic_scale").shape == Shape{1}, "load_intrinsic", path,
                       ": expected one number ", target, ".intrinsic_scale");
  }
  Generator unused;
  const auto report = attach(model, config, unused, options);
  detail::for_each_named(model, "load_intrinsic", options.name, [&](const auto& site, auto& entry) {
    for (const auto& [part, param] : entry.patch->params()) {
      (*param)->set(part == "intrinsic_vector" ? Tensor<T>(vector) : file.load<T>(site.path + ".intrinsic_scale"));
      (*param)->set_trainable(false);
    }
  });
  return report;
}

}  // namespace tenon::inline TENON_ABI
