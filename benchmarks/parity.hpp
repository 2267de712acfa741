#pragma once
// What the parity programs share: a Python program makes a model and torch's outputs, and tenon's are set beside them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include <tenon/io/checkpoint.hpp>

#include "temporary_folder.hpp"

namespace tenon_benchmark {

struct ParityOptions {
  std::string python, model, side;
};

/// Reads --python, --model (one of `models`, the first when not given) and --side (where `side`, the one when not given, is not
/// empty); ends the program with a line on a wrong command line.
inline ParityOptions parse_parity(int count, char** arguments, const std::vector<std::string>& models, const std::string& side) {
  ParityOptions out{"", models.front(), side};
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = arguments[i];
    if (name == "--python") out.python = arguments[i + 1];
    if (name == "--model") out.model = arguments[i + 1];
    if (name == "--side") out.side = arguments[i + 1];
  }
  const bool number = side.empty() || (!out.side.empty() && out.side.size() < 4 && out.side.find_first_not_of("0123456789") == std::string::npos);
  if (out.python.empty() || count % 2 == 0 || !number || std::find(models.begin(), models.end(), out.model) == models.end()) {
    std::cerr << "usage: " << arguments[0] << " --python PYTHON_WITH_TORCH [--model ";
    for (const auto& model : models) std::cerr << (model == models.front() ? "" : "|") << model;
    std::cerr << "]" << (side.empty() ? "" : " [--side " + side + "]") << "\n";
    std::exit(1);
  }
  return out;
}

/// Runs `script` (a path from here) MODEL [SIDE] FOLDER, then compare(FOLDER): the program's exit status.
template <class F>
int against_torch(const ParityOptions& options, const std::string& script, F&& compare) {
  const TemporaryFolder folder;
  const std::string path = (std::filesystem::path(__FILE__).parent_path() / script).string(), log = "'" + folder.path + "/log'";
  const std::string command = "'" + options.python + "' '" + path + "' " + options.model + " " + options.side + " '" + folder.path + "' > " + log + " 2>&1";
  if (std::system(command.c_str()) == 0) return compare(folder.path) ? 0 : 1;
  if (std::system(("cat " + log + " >&2").c_str()) != 0) std::cerr << path << " failed\n";
  return 1;
}

/// The largest difference, relative to the largest value.
inline double error(const tenon::Tensor<float>& a, const tenon::Tensor<double>& b) {
  tenon::check<tenon::ShapeError>(a.shape() == b.shape(), "parity", "expected ", b.shape(), ", got ", a.shape());
  double most = 0, scale = 0;
  for (tenon::Index i = 0; i < b.size(); ++i) {
    const double far = std::abs(static_cast<double>(a.data()[i]) - b.data()[i]);
    if (far > most || std::isnan(far)) most = far;
    scale = std::max(scale, std::abs(b.data()[i]));
  }
  return most / scale;
}

/// Prints how far found[0] (float32) and found[1] (bfloat16) are from `file`'s "f64.NAME", beside its "f32.NAME" and "bf16.NAME".
/// Whether float32 is off by at most `bound`, and bfloat16 by at most torch's.
inline bool report(const std::string& model, const std::vector<std::string>& names, const std::vector<tenon::Tensor<float>> (&found)[2],
                   const tenon::SafetensorsFile& file, double bound) {
  bool good = true;
  std::printf("%-12s %-18s %12s %12s %12s %12s\n", "model", "tensor", "tenon f32", "torch f32", "tenon bf16", "torch bf16");
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto exact = file.load<double>("f64." + names[i]);
    const auto torch = [&](const std::string& type) { return error(tenon::cast<float>(file.load<double>(type + names[i])), exact); };
    const double single = error(found[0][i], exact), half = error(found[1][i], exact), torch_half = torch("bf16.");
    std::printf("%-12s %-18s %12.1e %12.1e %12.1e %12.1e\n", model.c_str(), names[i].c_str(), single, torch("f32."), half, torch_half);
    good = good && single <= bound && half <= torch_half;
  }
  return good;
}

}  // namespace tenon_benchmark
