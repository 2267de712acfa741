// benchmarks/run unet_parity --python PYTHON [--model sd15|sd21|sdxl] [--side 64]: a U-Net of full size with random weights,
// saved by diffusers, through tenon and torch: how far the output is from torch's in float64, beside torch's own float32 and
// bfloat16. The exit status is 1 when float32 is off by more than 1e-4, or bfloat16 by more than torch's. Takes 12 GB and as
// much disk as the weights for SD 1.5 and 2.1, three times that for SDXL.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include <unistd.h>

#include <tenon/models/diffusion/unet.hpp>

namespace {

using namespace tenon;
namespace fs = std::filesystem;

double error(const Tensor<float>& a, const Tensor<double>& b) {
  check<ShapeError>(a.shape() == b.shape(), "unet_parity", "expected ", b.shape(), ", got ", a.shape());
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
  UnetConditions<float> given;
  given.states = file.load<float>("states");
  if (file.contains("time_ids")) {
    given.text_embeds = file.load<float>("text_embeds");
    given.time_ids = file.load<float>("time_ids");
  }
  const auto exact = file.load<double>("f64");
  double errors[2];
  for (const bool narrow : {false, true}) {
    UnetLoadOptions options;
    if (narrow) options.weights = DType::bf16;
    const Unet2d<float> unet = load_unet<float>(folder, options);
    errors[narrow ? 1 : 0] = error(unet(file.load<float>("latents"), file.load<float>("times"), given).value(), exact);
  }
  const double single = error(cast<float>(file.load<double>("f32")), exact), half = error(cast<float>(file.load<double>("bf16")), exact);
  std::printf("%-6s %12s %12s %12s %12s\n", "model", "tenon f32", "torch f32", "tenon bf16", "torch bf16");
  std::printf("%-6s %12.1e %12.1e %12.1e %12.1e\n", model.c_str(), errors[0], single, errors[1], half);
  return !(errors[0] <= 1e-4) || !(errors[1] <= half);
}

}  // namespace

int main(int argc, char** argv) {
  std::string python, model = "sd15", side = "64";
  for (int i = 1; i + 1 < argc; i += 2) {
    if (argv[i] == std::string("--python")) python = argv[i + 1];
    if (argv[i] == std::string("--model")) model = argv[i + 1];
    if (argv[i] == std::string("--side")) side = argv[i + 1];
  }
  const bool number = !side.empty() && side.size() < 4 && side.find_first_not_of("0123456789") == std::string::npos;
  if (python.empty() || argc % 2 == 0 || !number || (model != "sd15" && model != "sd21" && model != "sdxl")) {
    std::cerr << "usage: " << argv[0] << " --python PYTHON_WITH_DIFFUSERS [--model sd15|sd21|sdxl] [--side 64]\n";
    return 1;
  }
  const std::string folder = (fs::temp_directory_path() / ("tenon-parity-" + std::to_string(::getpid()))).string();
  fs::create_directories(folder);
  const std::string script = (fs::path(__FILE__).parent_path() / "diffusion" / "unet_parity.py").string();
  int status = std::system(("'" + python + "' '" + script + "' " + model + " " + side + " '" + folder + "' > '" + folder + "/log' 2>&1").c_str());
  if (status == 0)
    status = compare(model, folder);
  else if (std::system(("cat '" + folder + "/log' >&2").c_str()) != 0)
    std::cerr << "unet_parity: " << script << " failed\n";
  fs::remove_all(folder);
  return status != 0;
}
