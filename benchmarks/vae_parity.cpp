// benchmarks/run vae_parity --python PYTHON [--model sd|sdxl] [--side 256]: Stable Diffusion's autoencoder with random weights, saved
// by diffusers, through tenon and torch: how far the latents' means and log variances and the decoded picture are from torch's in
// float64, beside torch's own float32 and bfloat16. The exit status is 1 when float32 is off by more than 1e-4, or bfloat16 by
// more than torch's.
#include <tenon/models/diffusion/autoencoder_kl.hpp>

#include "parity.hpp"

namespace {

using namespace tenon;

bool compare(const std::string& model, const std::string& folder) {
  const NoGrad no_grad;
  const auto file = SafetensorsFile::open(folder + "/reference.safetensors");
  std::vector<Tensor<float>> found[2];
  for (const bool narrow : {false, true}) {
    AutoencoderLoadOptions options;
    if (narrow) options.weights = DType::bf16;
    const AutoencoderKl<float> vae = load_autoencoder_kl<float>(folder, options);
    const auto encoded = vae.encode(Var<float>(file.load<float>("pictures")));
    const auto decoded = vae.decode(vae.unscale_latents(Var<float>(file.load<float>("latents"))));
    found[narrow ? 1 : 0] = {encoded.mean.value(), encoded.logvar.value(), decoded.value()};
  }
  return tenon_benchmark::report(model, {"mean", "logvar", "picture"}, found, file, 1e-4);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = tenon_benchmark::parse_parity(argc, argv, {"sd", "sdxl"}, "256");
  return tenon_benchmark::against_torch(options, "diffusion/vae_parity.py", [&](const auto& folder) { return compare(options.model, folder); });
}
