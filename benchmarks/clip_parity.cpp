// benchmarks/run clip_parity --python PYTHON [--model b32|b16|l14|rn50|openclip_b32]: a CLIP of full size with random weights,
// saved by transformers or open_clip, through tenon and torch: how far features and logits are from torch's in float64, beside torch's own
// float32 and bfloat16. The exit status is 1 when float32 is off by more than 1e-5, or bfloat16 by more than torch's.
#include <tenon/models/clip/checkpoint.hpp>

#include "parity.hpp"

namespace {

using namespace tenon;

bool compare(const std::string& model, const std::string& folder) {
  const NoGrad no_grad;
  const auto file = SafetensorsFile::open(folder + "/reference.safetensors");
  const auto pictures = file.load<float>("pictures");
  const auto ids = file.load<std::int32_t>("ids");
  std::vector<Tensor<float>> found[2];
  for (const bool narrow : {false, true}) {
    ClipLoadOptions options;
    if (narrow) options.weights = DType::bf16;
    const Clip<float> clip = load_clip<float>(folder, options);
    found[narrow ? 1 : 0] = {clip.image_features(Var<float>(pictures)).value(), clip.text_features(ids).value(),
                             clip(Var<float>(pictures), ids).logits_per_image.value()};
  }
  return tenon_benchmark::report(model, {"image_features", "text_features", "logits_per_image"}, found, file, 1e-5);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = tenon_benchmark::parse_parity(argc, argv, {"b32", "b16", "l14", "rn50", "openclip_b32"}, "");
  return tenon_benchmark::against_torch(options, "clip/parity.py", [&](const auto& folder) { return compare(options.model, folder); });
}
