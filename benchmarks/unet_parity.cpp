// benchmarks/run unet_parity --python PYTHON [--model sd15|sd21|sdxl] [--side 64]: a U-Net of full size with random weights,
// saved by diffusers, through tenon and torch: how far the output is from torch's in float64, beside torch's own float32 and
// bfloat16. The exit status is 1 when float32 is off by more than 1e-4, or bfloat16 by more than torch's. Takes 12 GB and as
// much disk as the weights for SD 1.5 and 2.1, three times that for SDXL.
#include <tenon/models/diffusion/unet.hpp>

#include "parity.hpp"

namespace {

using namespace tenon;

bool compare(const std::string& model, const std::string& folder) {
  const NoGrad no_grad;
  const auto file = SafetensorsFile::open(folder + "/reference.safetensors");
  UnetConditions<float> given;
  given.states = file.load<float>("states");
  if (file.contains("time_ids")) {
    given.text_embeds = file.load<float>("text_embeds");
    given.time_ids = file.load<float>("time_ids");
  }
  std::vector<Tensor<float>> found[2];
  for (const bool narrow : {false, true}) {
    UnetLoadOptions options;
    if (narrow) options.weights = DType::bf16;
    const Unet2d<float> unet = load_unet<float>(folder, options);
    found[narrow ? 1 : 0] = {unet(file.load<float>("latents"), file.load<float>("times"), given).value()};
  }
  return tenon_benchmark::report(model, {"sample"}, found, file, 1e-4);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = tenon_benchmark::parse_parity(argc, argv, {"sd15", "sd21", "sdxl"}, "64");
  return tenon_benchmark::against_torch(options, "diffusion/unet_parity.py", [&](const auto& folder) { return compare(options.model, folder); });
}
