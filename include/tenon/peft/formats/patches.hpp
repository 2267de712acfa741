#pragma once
// Patches from the tensors of an adapter file, layer by layer, and their attachment.
#include <tenon/peft/bottleneck.hpp>
#include <tenon/peft/decomposed.hpp>
#include <tenon/peft/dora.hpp>
#include <tenon/peft/formats/adapter_file.hpp>
#include <tenon/peft/full_delta.hpp>
#include <tenon/peft/ia3.hpp>
#include <tenon/peft/loha.hpp>
#include <tenon/peft/lokr.hpp>
#include <tenon/peft/prefix.hpp>
#include <tenon/peft/tucker.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// peft's A of a grouped convolution reads every input [R, in, kh, kw]; ours may read its own group's [R, in / groups, kh, kw].
/// Ours as peft's, with zeros where a row does not read.
template <class T>
Tensor<T> reading_every_input(const Tensor<T>& a, Index groups) {
  const Index rank = a.extent(0), each = a.size() / rank;
  Tensor<T> out(a.shape().with(1, a.extent(1) * groups));
  for (Index r = 0; r < rank; ++r) std::copy_n(a.data() + r * each, each, out.data() + (r * groups + r / (rank / groups)) * each);
  return out;
}
/// peft's as ours; nothing when a row does read another group.
template <class T>
std::optional<Tensor<T>> reading_own_group(const Tensor<T>& a, Index groups) {
  const Index rank = a.extent(0), each = a.size() / rank / groups;
  auto out = Tensor<T>::uninitialized(a.shape().with(1, a.extent(1) / groups));
  for (Index r = 0; r < rank; ++r) std::copy_n(a.data() + (r * groups + r / (rank / groups)) * each, each, out.data() + r * each);
  if (!(reading_every_input(out, groups) == a)) return std::nullopt;
  return out;
}
/// Throws FileError where the configuration says another rank than the tensor `name` has.
inline void check_rank(const AdapterFile& file, const LayerTensors& layer, const std::string& name, Index rank) {
  check<FileError>(!layer.rank || *layer.rank == rank, "load_adapter", file.path, ": ", name, ": expected rank ", layer.rank.value_or(0), ", as r and rank_pattern of ",
                   file.config ? file.config->file() : std::string(), " say, found ", rank);
}
/// The rank that a part tells, its extent on `axis`. Throws FileError unless the tensor has at least two axes, and where the
/// configuration says another rank.
inline Index rank_in(const AdapterFile& file, const LayerTensors& layer, std::string_view part, Index axis) {
  const RawTensor& raw = *tensor_of(file, layer, part);
  check<FileError>(raw.shape.rank() >= 2 && raw.shape.size() > 0, "load_adapter", file.path, ": ", layer.names.find(part)->second,
                   ": expected a matrix, found shape ", raw.shape);
  check_rank(file, layer, layer.names.find(part)->second, raw.shape[axis]);
  return raw.shape[axis];
}

template <class T>
NewPatch<T> lora_from_file(const AdapterFile& file, const SiteRef<T>& site, const LayerTensors& layer, std::set<std::string>& used) {
  const bool table = layer.names.contains("lora_embedding_A");
  const std::string_view first = table ? "lora_embedding_A" : "lora_A.weight";
  const auto tuned = tuned_layer_or_table(site);
  LoraConfig config;
  config.rank = rank_in(file, layer, first, 0);
  config.alpha = layer.alpha.value_or(static_cast<double>(config.rank));
  config.rslora = layer.rslora;
  config.dropout = layer.dropout;
  if (layer.names.contains("lora_B.bias")) config.bias = LoraConfig::Bias::own;
  if (layer.names.contains("base_layer.bias")) config.bias = LoraConfig::Bias::layer;
  const auto fits = [&](bool good) {
    check<FileError>(good, "load_adapter", file.path, ": ", layer.names.find(first)->second, " is for a ", kind_of(site), ", which it does not fit");
  };
  Generator unused;
  if (layer.names.contains("lora_mid.weight")) {
    fits(tuned && tuned->is_conv() && tuned->conv.groups == 1 && !layer.names.contains("lora_magnitude_vector"));
    auto patch = std::make_unique<Tucker<T>>(*tuned, config.rank, config.alpha);
    fill(*patch, file, layer, used);
    return {std::move(patch), nullptr};
  }
  fits(table == std::holds_alternative<Embedding<T>*>(site.layer));
  NewPatch<T> made = make_patch(config, site, unused);
  fits(static_cast<bool>(made));
  auto& lora = static_cast<Lora<T>&>(*made.output);
  const Index groups = groups_of(site);
  const Shape& found = tensor_of(file, layer, first)->shape;
  const bool every = groups > 1 && found == lora.a->shape().with(1, lora.a->shape()[1] * groups);
  if (every) lora.a = Param<T>(found);
  const auto narrow = [&](Lora<T>& wide) {
    if (!every) return true;
    auto own = reading_own_group(wide.a->value(), groups);
    if (own) wide.a = Param<T>(std::move(*own), false);
    return own.has_value();
  };
  if (layer.names.contains("lora_magnitude_vector")) {
    auto dora = std::make_unique<Dora<T>>(*tuned, std::move(lora));
    fill(*dora, file, layer, used);
    fits(narrow(dora->lora));
    return {std::move(dora), nullptr};
  }
  fill(lora, file, layer, used);
  narrow(lora);
  return made;
}

template <class T>
NewPatch<T> loha_from_file(const AdapterFile& file, const SiteRef<T>& site, const LayerTensors& layer, std::set<std::string>& used) {
  const Index rank = rank_in(file, layer, "hada_w1_b", 0);
  auto patch = std::make_unique<Loha<T>>(*tuned_layer(site), rank, layer.names.contains("hada_t1"), layer.alpha.value_or(static_cast<double>(rank)));
  patch->drops = layer.drops;
  fill(*patch, file, layer, used);
  return {std::move(patch), nullptr};
}

template <class T>
NewPatch<T> lokr_from_file(const AdapterFile& file, const SiteRef<T>& site, const LayerTensors& layer, std::set<std::string>& used) {
  auto patch = std::make_unique<Lokr<T>>(*tuned_layer(site));
  const std::pair<std::string_view, Param<T>*> all[] = {
      {"lokr_w1", &patch->w1}, {"lokr_w1_a", &patch->w1_a}, {"lokr_w1_b", &patch->w1_b}, {"lokr_w2", &patch->w2},
      {"lokr_w2_a", &patch->w2_a}, {"lokr_w2_b", &patch->w2_b}, {"lokr_t2", &patch->t2}};
  for (const auto& [part, param] : all)
    if (const RawTensor* raw = tensor_of(file, layer, part)) *param = Param<T>(raw->shape);
  const Shape& w = site.weight->shape();
  const auto wrong = [&](std::string_view what) {
    fail<FileError>("load_adapter", file.path, ": ", layer.module, ": expected factors whose Kronecker product is ", w, "; ", what);
  };
  const auto extent = [&](const Param<T>& param, Index axis) -> Index { return param && param->shape().rank() > axis ? param->shape()[axis] : 0; };
  if (!patch->w1 && !(patch->w1_a && patch->w1_b)) wrong("lokr_w1, or lokr_w1_a and lokr_w1_b, are missing");
  if (!patch->w2 && !(patch->w2_a && patch->w2_b)) wrong("lokr_w2, or lokr_w2_a and lokr_w2_b, are missing");
  for (const Param<T>* matrix : {&patch->w1, &patch->w1_a, &patch->w1_b, &patch->w2_a, &patch->w2_b})
    if (*matrix && (*matrix)->shape().rank() != 2) wrong(join_text("found a factor of shape ", (*matrix)->shape()));
  if (patch->t2 && patch->t2->shape().rank() != 4) wrong(join_text("found lokr_t2 of shape ", patch->t2->shape()));
  const bool fits_inside = (patch->w1 || extent(patch->w1_a, 1) == extent(patch->w1_b, 0)) &&
                           (patch->w2 || (patch->t2 ? extent(patch->t2, 0) == extent(patch->w2_a, 0) && extent(patch->t2, 1) == extent(patch->w2_b, 0)
                                                    : extent(patch->w2_a, 1) == extent(patch->w2_b, 0)));
  if (!fits_inside) wrong("the ranks disagree");
  const Index l = patch->w1 ? extent(patch->w1, 0) : extent(patch->w1_a, 0), m = patch->w1 ? extent(patch->w1, 1) : extent(patch->w1_b, 1);
  const Index k = patch->w2 ? extent(patch->w2, 0) : extent(patch->w2_a, patch->t2 ? 1 : 0);
  const Index n = (patch->w2 ? patch->w2->size() / std::max<Index>(1, k) : extent(patch->w2_b, 1)) *
                  (patch->t2 ? patch->t2->shape()[2] * patch->t2->shape()[3] : 1);
  const Index columns = site.weight->size() / std::max<Index>(1, w[0]), channels = w[1];
  if (l * k != w[0] || m * n != columns || m == 0 || channels % m != 0) wrong(join_text("found ", l, " x ", m, " and ", k, " x ", n));
  const std::optional<Index> told = patch->w2_b ? std::optional(extent(patch->w2_b, 0)) : patch->w1_b ? std::optional(extent(patch->w1_b, 0)) : layer.rank;
  if (told) check_rank(file, layer, layer.names.contains("lokr_w2_b") ? layer.names.at("lokr_w2_b") : layer.names.begin()->second, *told);
  patch->rank = told.value_or(1);
  patch->alpha = told ? layer.alpha.value_or(static_cast<double>(*told)) : 1;  // LyCORIS: two full factors have scale 1
  patch->factor = layer.factor;
  patch->drops = layer.drops;
  fill(*patch, file, layer, used);
  return {std::move(patch), nullptr};
}

/// A delta from the file under the magnitudes that stand beside it, where there are any.
template <class T>
NewPatch<T> with_magnitudes(NewPatch<T> made, const AdapterFile& file, const SiteRef<T>& site, const LayerTensors& layer, std::set<std::string>& used) {
  const RawTensor* raw = tensor_of(file, layer, "dora_scale");
  if (raw == nullptr) return made;
  const auto tuned = tuned_layer(site);
  check<FileError>(tuned && tuned->conv.groups == 1, "load_adapter", file.path, ": ", layer.module, ".dora_scale is for a ", kind_of(site),
                   ", which it does not fit");
  const bool by_output = raw->shape.rank() > 0 && raw->shape[0] == tuned->out() && raw->shape.size() == tuned->out();
  auto patch = std::make_unique<Decomposed<T>>(*tuned, std::move(made.output), by_output);
  fill(*patch, file, layer, used);
  return {std::move(patch), nullptr};
}

/// The patch that a layer's tensors are, or none when they are of no method that is known. Throws FileError when they do not fit.
template <class T>
NewPatch<T> patch_from_file(const AdapterFile& file, const SiteRef<T>& site, const LayerTensors& layer, std::set<std::string>& used) {
  const auto has = [&](std::string_view part) { return layer.names.contains(part); };
  if (has("lora_A.weight") || has("lora_embedding_A")) return with_magnitudes(lora_from_file(file, site, layer, used), file, site, layer, used);
  const auto tuned = tuned_layer(site);
  const auto fits = [&](bool good) {
    check<FileError>(good, "load_adapter", file.path, ": ", layer.names.begin()->second, " is for a ", kind_of(site), ", which it does not fit");
  };
  if (has("hada_w1_b")) return fits(tuned.has_value()), with_magnitudes(loha_from_file(file, site, layer, used), file, site, layer, used);
  if (has("lokr_w1") || has("lokr_w1_a")) return fits(tuned.has_value()), with_magnitudes(lokr_from_file(file, site, layer, used), file, site, layer, used);
  NewPatch<T> made;
  if (has("ia3_l")) {
    fits(tuned.has_value());
    if (layer.feedforward)
      made.output = std::make_unique<Ia3Input<T>>(*tuned);
    else
      made.output = std::make_unique<Ia3Output<T>>(*tuned);
  } else if (has("diff")) {
    fits(tuned && (tuned->bias != nullptr || !has("diff_b")));
    made.output = std::make_unique<FullDelta<T>>(*tuned, has("diff_b"));
  } else if (has("w_norm")) {
    made.output = norm_delta(site);
    fits(made.output != nullptr);
  } else if (has("bias")) {
    made.output = bias_delta(site);
    fits(made.output != nullptr);
  } else if (has("prefix_keys")) {
    fits(site.key_values != nullptr && has("prefix_gate"));
    made.key_value = std::make_unique<Prefix<T>>(rank_in(file, layer, "prefix_keys", 0), std::get<Attention<T>*>(site.layer)->k_proj.out(), true);
  } else if (has("adapter_down.0.weight")) {
    BottleneckConfig config;
    config.bottleneck = rank_in(file, layer, "adapter_down.0.weight", 0);
    config.activation = layer.activation;
    Generator unused;
    made = make_patch(config, site, unused);
  } else {
    return {};
  }
  fill(made.patch(), file, layer, used);
  return made;
}

/// The path's last name, and the kind of its site, as `to_q`.
inline std::string last_name(const std::string& path) {
  auto dot = path.rfind('.');
  if (dot != std::string::npos && path.find_first_not_of("0123456789", dot + 1) == std::string::npos && dot > 0) dot = path.rfind('.', dot - 1);
  return dot == std::string::npos ? path : path.substr(dot + 1);
}

/// The method of LyCORIS that a tensor belongs to and that has no patch, or nothing.
inline std::string_view foreign_method(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> methods[] = {
      {".oft_blocks", "OFT"}, {".oft_diag", "OFT"}, {".a1.weight", "GLoRA"}, {".b1.weight", "GLoRA"}, {".on_input", "LyCORIS' IA3"}};
  for (const auto& [ending, method] : methods)
    if (name.ends_with(ending)) return method;
  return {};
}

/// The site whose path is nearest to the layer that a name in the file is of. Dots count as underscores.
template <class T>
std::string nearest_layer(const AdapterFile& file, std::string name, const std::vector<SiteRef<T>>& all) {
  const auto flat = [](std::string text) { return std::replace(text.begin(), text.end(), '.', '_'), text.substr(0, 200); };
  const auto end = file.format == AdapterFile::Format::kohya ? name.find('.') : name.rfind(".lora");
  name = flat(name.substr(0, end));
  std::pair<std::size_t, std::string> best{std::string::npos, ""};
  for (const auto& site : all) best = std::min(best, {edit_distance(name, flat(site.path)), site.path});
  return best.second;
}

/// Puts what a file's layers are into the model: all, or nothing when something does not fit.
template <class T>
AdapterReport attach_layers(const AdapterFile& file, const std::vector<SiteRef<T>>& all, const LayerMap& layers,
                            std::vector<Placement<T>> placements, std::set<std::string> used, const AttachFileOptions& options) {
  AdapterReport report;
  for (const auto& site : all) {
    const auto layer = layers.find(site.path);
    if (layer == layers.end()) continue;
    if (NewPatch<T> made = patch_from_file(file, site, layer->second, used)) {
      placements.push_back({site, std::move(made)});
      if (const auto alpha = layer->second.names.find("alpha"); alpha != layer->second.names.end()) used.insert(alpha->second);
    }
  }
  for (const auto& [name, tensor] : file.tensors) (used.contains(name) ? report.used : report.unused).push_back(name);
  if (placements.empty() || options.strict)
    for (const auto& name : report.unused)
      check<FileError>(foreign_method(name).empty(), "load_adapter", file.path, ": ", name, " is of ", foreign_method(name), ", which is not supported yet");
  if (placements.empty())
    fail<FileError>("attach", file.path, ": no layer of this model takes anything from it, for example ", file.tensors.begin()->first,
                    "; nearest layer: ", nearest_layer(file, file.tensors.begin()->first, all));
  if (options.strict && !report.unused.empty())
    fail<FileError>("attach", file.path, ": used ", used.size(), " of ", file.tensors.size(), " names; no layer takes ", report.unused.front(),
                    "; nearest layer: ", nearest_layer(file, report.unused.front(), all));
  std::set<std::string> taken;
  std::set<std::pair<std::size_t, std::string>> tuned;
  for (const auto& placement : placements) {
    taken.insert(placement.site.path);
    tuned.emplace(placement.site.layer.index(), last_name(placement.site.path));
  }
  for (const auto& site : all)
    if (!taken.contains(site.path) && tuned.contains({site.layer.index(), last_name(site.path)})) report.missing.push_back(site.path);
  static_cast<AttachReport&>(report) = place(std::move(placements), AttachOptions{options.name, options.scale});
  return report;
}

}  // namespace detail

}  // namespace tenon::inline TENON_ABI
