// adapters: looks into adapter files, checks them against a model, converts, combines, resizes, merges and extracts them.
#include <filesystem>

#include <tenon/models/clip/checkpoint.hpp>
#include <tenon/models/diffusion/save_like.hpp>
#include <tenon/peft/combine.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/skeleton.hpp>

#include "common/program.hpp"
#include "common/table.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;

struct Options {
  std::string file, out, model, base, tuned, to, part, method = "sum";
  std::vector<std::string> files;
  Index rank = 8;
  int threads = 0;
  bool strict = false;
};

/// `FILE` or `FILE:NUMBER`.
std::pair<std::string, double> with_number(const std::string& text) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos || std::filesystem::exists(text)) return {text, 1.0};
  try {
    std::size_t used = 0;
    const double number = std::stod(text.substr(colon + 1), &used);
    if (used == text.size() - colon - 1 && std::isfinite(number)) return {text.substr(0, colon), number};
  } catch (const std::exception&) {
  }
  fail("adapters", text, ": expected FILE or FILE:NUMBER");
}
const CLI::Range ranks(1, 1 << 16);

template <class M>
M open_model(const std::string& path) {
  if constexpr (std::same_as<M, StableDiffusion<float>>) return M::load(path);
  else if constexpr (std::same_as<M, Unet2d<float>>) return load_unet<float>(path);
  else return load_clip<float>(path);
}
/// Calls `f.operator()<M>()`, M the type of the model at a path: Stable Diffusion, the folder of a U-Net, or a CLIP.
template <class F>
void with_type_of(const std::string& path, F&& f) {
  const auto exists = [&](const char* file) { return std::filesystem::exists(path + file); };
  check(!path.empty(), "adapters", "expected --model FOLDER_OR_FILE");
  const bool single = std::filesystem::is_regular_file(path);
  if (exists("/model_index.json") || (single && open_checkpoint(path).contains("model.diffusion_model.input_blocks.0.0.weight")))
    f.template operator()<StableDiffusion<float>>();
  else if (exists("/config.json") && Json::read(path + "/config.json").get<std::string>("_class_name", "").starts_with("UNet"))
    f.template operator()<Unet2d<float>>();
  else
    f.template operator()<Clip<float>>();
}
/// Calls `f(model)` with the model at a path.
template <class F>
void with_model(const std::string& path, F&& f) {
  with_type_of(path, [&]<class M>() {
    M model = open_model<M>(path);
    f(model);
  });
}

std::string percent(double share) { return fixed(100 * share, 2) + " %"; }
std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}
std::string list(const std::vector<std::string>& names, std::size_t most = 8) {
  std::string out;
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i) out += "  " + names[i] + '\n';
  if (names.size() > most) out += "  and " + std::to_string(names.size() - most) + " more\n";
  return out;
}

/// The pipeline's part that layers without one belong to.
template <class M>
std::string part_of_model(M& model, const Options& o) {
  if (!o.part.empty()) return o.part;
  bool text = true;
  for (const auto& site : sites(model))
    if (!site.patches->empty()) text = text && site.path.find("text_model.") != std::string::npos;
  return text ? "text_encoder" : "unet";
}

/// Paths that begin with `drop` begin with `add` instead. transformers 5 leaves text_model out of the names of a CLIPTextModel, and
/// so does a peft folder of one; single files have it.
void rename(Skeleton<float>& model, const std::string& drop, const std::string& add) {
  Skeleton<float> out;
  for (auto& [path, layer] : model.layers) out.layers.emplace(path.starts_with(drop) ? add + path.substr(drop.size()) : path, std::move(layer));
  model = std::move(out);
}

/// What a file says of itself and stays true in another form: not the hashes of its own bytes.
std::map<std::string, std::string> lasting(std::map<std::string, std::string> metadata) {
  std::erase_if(metadata, [](const auto& entry) {
    return entry.first.starts_with("sshs_") || entry.first == "modelspec.hash_sha256" || entry.first == "lora_adapter_metadata" || entry.first == "format";
  });
  return metadata;
}

/// Writes an adapter in the form that --to says, or that the path's ending does: a name that ends with .safetensors is a single file.
template <class M>
void write(M& model, const std::string& name, const Options& o, DType dtype, AdapterFile::Format like, const std::map<std::string, std::string>& metadata = {}) {
  check(!o.out.empty(), "adapters", "expected --out PATH");
  for (const auto& ref : patch_params(model, name))  // a sum of float16 files may be too large for it
    for (const float value : ref.weight->value().span())
      if (dtype == DType::f16 && std::abs(value) > 65504) dtype = DType::f32;
  std::string form = o.to;
  if (form.empty()) form = !o.out.ends_with(".safetensors") ? "peft" : like == AdapterFile::Format::diffusers ? "diffusers" : "kohya";
  if (form == "peft") {
    save_adapter_parts(model, o.out, name, dtype);
    if (!metadata.empty()) std::cout << "left out: " << metadata.size() << " metadata, which a peft folder has no place for\n";
  } else {
    check(o.out.ends_with(".safetensors"), "adapters", o.out, ": expected a name that ends with .safetensors for ", form);
    if constexpr (std::same_as<M, Skeleton<float>>) rename(model, "encoder.layers.", "text_model.encoder.layers.");
    const SaveFileOptions options{.name = name, .dtype = dtype, .part = part_of_model(model, o), .metadata = metadata};
    form == "kohya" ? save_kohya(model, o.out, options) : save_diffusers(model, o.out, options);
  }
  std::cout << "wrote " << o.out << ": " << form << ", " << patch_params(model, name).size() << " tensors, " << count(patch_params(model, name))
            << " numbers as " << name_of(dtype) << '\n';
}

/// The type of a file's numbers: float32 unless all are of one half precision. (Alphas are written as float32 anyway.)
DType dtype_of_file(const AdapterFile& file) {
  std::set<DType> types;
  for (const auto& [name, raw] : file.tensors)
    if (!name.ends_with(".alpha")) types.insert(raw.dtype);
  const bool half = types == std::set{DType::f16} || types == std::set{DType::bf16};
  return half ? *types.begin() : DType::f32;
}

/// Attaches a file and says what became of it.
template <class M>
AdapterReport attach_and_report(M& model, const AdapterFile& file, const Options& o, const std::string& name, double scale = 1) {
  const auto report = attach(model, file, {.name = name, .scale = scale, .strict = o.strict, .part = o.part});
  std::cout << file.path << ": used " << report.used.size() << " of " << file.tensors.size() << " tensors in " << report.sites.size() << " layers\n";
  if (!report.unused.empty()) std::cout << "unused:\n" << list(report.unused);
  return report;
}

/// Runs `f(model)` with the model of --model, or with only the layers that the files tune.
template <class F>
void with_layers(const Options& o, const std::vector<AdapterFile>& files, F&& f) {
  if (!o.model.empty()) return with_model(o.model, f);
  Skeleton<float> skeleton;
  for (const auto& file : files) add_layers(skeleton, file);
  f(skeleton);
}

void info(const Options& o) {
  const auto file = load_adapter(o.file);
  Index numbers = 0;
  std::map<std::string, Index> types;
  for (const auto& [name, raw] : file.tensors) {
    numbers += raw.shape.size();
    ++types[std::string(name_of(raw.dtype))];
  }
  constexpr const char* formats[] = {"peft", "kohya", "diffusers"};
  std::cout << "format   " << formats[static_cast<int>(file.format)] << (file.peft_type.empty() ? "" : ", " + file.peft_type) << '\n';
  std::cout << "tensors  " << file.tensors.size() << ", " << numbers << " numbers:";
  for (const auto& [type, n] : types) std::cout << ' ' << n << ' ' << type;
  std::cout << '\n';
  for (const auto& [key, value] : file.metadata) std::cout << "         " << key << " = " << value.substr(0, 60) << '\n';
  if (file.peft_type == "PREFIX_TUNING" || file.peft_type == "PROMPT_TUNING") return;
  with_layers(o, {file}, [&](auto& model) {
    const auto report = attach(model, file, {.strict = false, .part = o.part});
    struct Row {
      Index layers = 0, numbers = 0;
      std::set<std::string> ranks, alphas;
    };
    std::map<std::pair<std::string, std::string>, Row> rows;
    for (const auto& site : sites(model))
      for_each_patch(site, [&](auto& entry) {
        const auto layer = detail::export_layer(site, *entry.patch, DType::f32);
        Row& row = rows[{layer.kind, detail::last_name(site.path)}];
        ++row.layers;
        if (layer.rank > 0) row.ranks.insert(std::to_string(layer.rank)), row.alphas.insert(number(layer.alpha));
        for (const auto& named : entry.patch->params()) row.numbers += (*named.param)->size();
      });
    const auto joined = [](const std::set<std::string>& values) {
      std::string out;
      for (const auto& v : values) out += (out.empty() ? "" : " ") + v;
      return out;
    };
    Table table({"method and layer", "layers", "rank", "alpha", "numbers"});
    for (const auto& [key, row] : rows)
      table.add({key.first + " " + key.second, std::to_string(row.layers), joined(row.ranks), joined(row.alphas), std::to_string(row.numbers)});
    std::cout << table.text();
    if (!report.unused.empty()) std::cout << "not understood:\n" << list(report.unused);
  });
}

void check_file(const Options& o) {
  with_model(o.model, [&](auto& model) {
    const auto report = attach_and_report(model, load_adapter(o.file), o, "default");
    if (!report.missing.empty()) std::cout << "layers like the tuned ones that it leaves alone: " << report.missing.size() << '\n' << list(report.missing);
  });
}

void convert(const Options& o) {
  const auto file = load_adapter(o.file);
  const DType dtype = dtype_of_file(file);
  with_layers(o, {file}, [&](auto& model) {
    attach_and_report(model, file, o, "default");
    write(model, "default", o, dtype, file.format, lasting(file.metadata));
  });
}

void print_errors(const LowRankReport& report) {
  double sum = 0, worst = 0;
  std::string where;
  for (std::size_t i = 0; i < report.errors.size(); ++i) {
    sum += report.errors[i];
    if (report.errors[i] >= worst) worst = report.errors[i], where = report.sites[i];
  }
  std::cout << report.sites.size() << " layers; what the rank leaves out, relative: mean " << percent(sum / static_cast<double>(std::max<std::size_t>(1, report.errors.size())))
            << ", most " << percent(worst) << " at " << where << '\n';
}

void combine_files(const Options& o, CombineOptions::Method method) {
  std::vector<AdapterFile> files;
  std::vector<std::pair<std::string, double>> weights;
  for (const auto& text : o.files) {
    const auto [path, weight] = with_number(text);
    files.push_back(load_adapter(path));
    weights.emplace_back("file " + std::to_string(files.size()), weight);
  }
  check(!files.empty(), "adapters", "expected FILE or FILE:WEIGHT");
  DType dtype = dtype_of_file(files.front());
  for (const auto& file : files)
    if (dtype_of_file(file) != dtype) dtype = DType::f32;
  with_layers(o, files, [&](auto& model) {
    for (std::size_t i = 0; i < files.size(); ++i) attach_and_report(model, files[i], o, weights[i].first);
    print_errors(combine(model, weights, {.method = method, .rank = o.rank}));
    write(model, "combined", o, dtype, files.front().format);
  });
}

void merge_files(const Options& o) {
  check(!o.files.empty(), "adapters", "expected --lora FILE or --lora FILE:SCALE");
  check(!o.out.empty(), "adapters", "expected --out FOLDER");
  with_model(o.model, [&]<class M>(M& model) {
    for (std::size_t i = 0; i < o.files.size(); ++i) {
      const auto [path, scale] = with_number(o.files[i]);
      attach_and_report(model, load_adapter(path), o, "file " + std::to_string(i + 1), scale);
    }
    const auto weights = params(model);
    std::vector<DType> types;
    for (const auto& ref : weights) types.push_back(ref.weight->bytes().dtype);
    merge_and_unload(model);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const auto values = weights[i].weight->values();
      for (const float value : values->span())
        check(std::isfinite(value) && (types[i] != DType::f16 || std::abs(value) <= 65504), "adapters", weights[i].path, " becomes ", value, ", too large for ",
              name_of(types[i]), ": a smaller scale is needed");
    }
    if constexpr (std::same_as<M, Clip<float>>) {
      save_clip(model, o.out);
      for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "preprocessor_config.json"})
        if (std::filesystem::exists(o.model + "/" + name))
          std::filesystem::copy_file(o.model + "/" + name, o.out + "/" + name, std::filesystem::copy_options::overwrite_existing);
    } else {
      save_like(model, o.model, o.out);
    }
  });
  std::cout << "wrote " << o.out << '\n';
}

void extract_adapter(const Options& o) {
  with_type_of(o.base, [&]<class M>() {
    auto base = open_model<M>(o.base), tuned = open_model<M>(o.tuned);
    const auto report = extract(base, tuned, {.rank = o.rank});
    print_errors(report);
    const std::set<std::string> taken(report.sites.begin(), report.sites.end());
    std::vector<std::string> left;
    const auto from = params(base), to = params(tuned);
    for (std::size_t i = 0; i < from.size(); ++i) {
      const auto layer = from[i].path.substr(0, from[i].path.rfind('.'));
      if (!(taken.contains(layer) && from[i].path.ends_with(".weight")) && !(*from[i].weight->values() == *to[i].weight->values())) left.push_back(from[i].path);
    }
    if (!left.empty()) std::cout << "left out, as a LoRA has no place for biases and norms: " << left.size() << '\n' << list(left);
    write(base, "default", o, DType::f32, AdapterFile::Format::kohya);
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Adapter files of peft, kohya, LyCORIS and diffusers: info, check, convert, merge, combine, resize, extract.");
  Options o;
  app.require_subcommand(1);
  app.add_option("--threads", o.threads, "Threads (0: all available)")->check(CLI::NonNegativeNumber);
  const auto model = [&](CLI::App* c, bool required = false) {
    auto* option = c->add_option("--model", o.model, required ? "The model: a Stable Diffusion, a folder or a file, the folder of a U-Net, or a CLIP" : "The model, where names alone do not tell the layers");
    if (required) option->required();
    c->add_option("--part", o.part, "Which part of a file of several models is meant, or is written: unet, text_encoder or text_encoder_2")
        ->check(CLI::IsMember({"unet", "text_encoder", "text_encoder_2"}));
    c->add_flag("--strict", o.strict, "Tensors that no layer takes are an error");
  };
  const auto output = [&](CLI::App* c) {
    c->add_option("--out", o.out, "Where to write: a name that ends with .safetensors, or a folder for peft")->required();
    c->add_option("--to", o.to, "The form to write (by the name of --out unless said)")->check(CLI::IsMember({"peft", "kohya", "diffusers"}));
  };
  auto* info_command = app.add_subcommand("info", "What a file holds: method, layers, ranks, alphas");
  info_command->add_option("FILE", o.file, "Adapter file or peft folder")->required();
  model(info_command);
  auto* check_command = app.add_subcommand("check", "Which tensors of a file a model uses, and which layers it leaves alone");
  check_command->add_option("FILE", o.file, "Adapter file or peft folder")->required();
  model(check_command, true);
  auto* convert_command = app.add_subcommand("convert", "Writes a file in another form, its numbers and alphas as they are");
  convert_command->add_option("IN", o.file, "Adapter file or peft folder")->required();
  convert_command->add_option("OUT", o.out, "Where to write")->required();
  convert_command->add_option("--to", o.to, "The form to write")->required()->check(CLI::IsMember({"peft", "kohya", "diffusers"}));
  model(convert_command);
  auto* merge_command = app.add_subcommand("merge", "Writes a model with adapters folded into its weights");
  model(merge_command, true);
  merge_command->add_option("--lora", o.files, "FILE or FILE:SCALE (repeatable)")->required();
  merge_command->add_option("--out", o.out, "What to write: a folder, or of a Stable Diffusion in a single file another such file")->required();
  auto* combine_command = app.add_subcommand("combine", "One LoRA from the weighted sum of several");
  combine_command->add_option("FILES", o.files, "FILE or FILE:WEIGHT, one or more")->required();
  combine_command->add_option("--method", o.method, "sum (exact, ranks add), svd (the best of --rank), linear (factors summed apart, as peft's linear)")
      ->capture_default_str()->check(CLI::IsMember({"sum", "svd", "linear"}));
  combine_command->add_option("--rank", o.rank, "Rank for svd")->capture_default_str()->check(ranks);
  output(combine_command), model(combine_command);
  auto* resize_command = app.add_subcommand("resize", "The nearest LoRA of another rank");
  resize_command->add_option("FILE", o.files, "Adapter file or peft folder")->required()->expected(1);
  resize_command->add_option("--rank", o.rank, "The rank")->required()->check(ranks);
  output(resize_command), model(resize_command);
  auto* extract_command = app.add_subcommand("extract", "The nearest LoRA to what a tuned model has beyond its base");
  extract_command->add_option("--base", o.base, "The base model")->required();
  extract_command->add_option("--tuned", o.tuned, "The tuned model")->required();
  extract_command->add_option("--rank", o.rank, "The rank")->capture_default_str()->check(ranks);
  extract_command->add_option("--part", o.part, "What the model is in a single file: text_encoder or text_encoder_2");
  output(extract_command);
  return run_program(app, argc, argv, [&] {
    const ThreadScope threads(o.threads);
    if (info_command->parsed()) info(o);
    if (check_command->parsed()) check_file(o);
    if (convert_command->parsed()) convert(o);
    if (merge_command->parsed()) merge_files(o);
    if (combine_command->parsed())
      combine_files(o, o.method == "svd" ? CombineOptions::Method::svd : o.method == "linear" ? CombineOptions::Method::linear : CombineOptions::Method::sum);
    if (resize_command->parsed()) combine_files(o, CombineOptions::Method::svd);
    if (extract_command->parsed()) extract_adapter(o);
  });
}
