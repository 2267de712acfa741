// benchmarks/run clip_parity --python PYTHON [--model b32|b16|l14|rn50|openclip_b32]: a CLIP of full size with random weights,
// saved by transformers or open_clip, through tenon and torch: how far features and logits are from torch's in float64, beside torch's own
// float32 and bfloat16. The exit status is 1 when float32 is off by more than 1e-5, or bfloat16 by more than torch's.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <unistd.h>

#include <tenon/models/clip/checkpoint.hpp>

namespace {

using namespace tenon;
namespace fs = std::filesystem;

double error(const Tensor<float>& a, const Tensor<double>& b) {
  check<ShapeError>(a.shape() == b.shape(), "clip_parity", "expected ", b.shape(), ", got ", a.shape());
  double most = 0, scale = 0;
  for (Index i = 0; i < b.size(); ++i) {
    const double far = std::abs(static_cast<double>(a.data()[i]) - b.data()[i]);
    most = far <= most ? most : far;
    scale = std::max(scale, std::abs(b.data()[i]));
  }
  return most / scale;
}

int compare(const std::string& model, const std::string& folder) {
  const NoGrad no_grad;
  const auto file = SafetensorsFile::open(folder + "/reference.safetensors");
  const auto pictures = file.load<float>("pictures");
  const auto ids = file.load<std::int32_t>("ids");
  int failures = 0;
  std::printf("%-12s %-18s %12s %12s %12s %12s\n", "model", "tensor", "tenon f32", "torch f32", "tenon bf16", "torch bf16");
  const char* const names[] = {"image_features", "text_features", "logits_per_image"};
  double errors[2][3];
  for (const bool narrow : {false, true}) {
    ClipLoadOptions options;
    if (narrow) options.weights = DType::bf16;
    const Clip<float> clip = load_clip<float>(folder, options);
    const Tensor<float> found[] = {clip.image_features(Var<float>(pictures)).value(), clip.text_features(ids).value(),
                                   clip(Var<float>(pictures), ids).logits_per_image.value()};
    for (std::size_t i = 0; i < 3; ++i) errors[narrow ? 1 : 0][i] = error(found[i], file.load<double>(std::string("f64.") + names[i]));
  }
  for (std::size_t i = 0; i < 3; ++i) {
    const auto exact = file.load<double>(std::string("f64.") + names[i]);
    const auto torch_error = [&](const std::string& type) { return error(cast<float>(file.load<double>(type + names[i])), exact); };
    const double single = torch_error("f32."), half = torch_error("bf16.");
    std::printf("%-12s %-18s %12.1e %12.1e %12.1e %12.1e\n", model.c_str(), names[i], errors[0][i], single, errors[1][i], half);
    failures += !(errors[0][i] <= 1e-5) + !(errors[1][i] <= half);
  }
  return failures > 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string python, model = "b32";
  for (int i = 1; i + 1 < argc; i += 2) {
    if (argv[i] == std::string("--python")) python = argv[i + 1];
    if (argv[i] == std::string("--model")) model = argv[i + 1];
  }
  const auto known = {"b32", "b16", "l14", "rn50", "openclip_b32"};
  if (python.empty() || argc % 2 == 0 || std::find(known.begin(), known.end(), model) == known.end()) {
    std::cerr << "usage: " << argv[0] << " --python PYTHON_WITH_TRANSFORMERS_OR_OPEN_CLIP [--model b32|b16|l14|rn50|openclip_b32]\n";
    return 1;
  }
  const std::string folder = (fs::temp_directory_path() / ("tenon-parity-" + std::to_string(::getpid()))).string();
  fs::create_directories(folder);
  const std::string script = (fs::path(__FILE__).parent_path() / "clip" / "parity.py").string();
  int status = std::system(("'" + python + "' '" + script + "' " + model + " '" + folder + "' > '" + folder + "/log' 2>&1").c_str());
  if (status == 0)
    status = compare(model, folder);
  else if (std::system(("cat '" + folder + "/log' >&2").c_str()) != 0)
    std::cerr << "clip_parity: " << script << " failed\n";
  fs::remove_all(folder);
  return status != 0;
}
