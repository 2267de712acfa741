// What including tenon costs: seconds and memory of the compiler that built this program, beside the budget. Seconds are
// the compiler's processor time, so other work on the machine hardly shows.
//   benchmarks/run compile [--json FILE]
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace {

struct Unit {
  std::string name;
  std::string text;
  std::string flags;
  double budget_seconds;
};

struct Cost {
  double seconds = 1e9;
  double peak_gb = 0;
};

double seconds(const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); }

/// The least processor time and the peak memory of `repetitions` compilations; exits when the unit does not compile.
Cost compile(const Unit& unit, int repetitions) {
  const std::string source = "/tmp/tenon_compile_" + std::to_string(getpid()) + ".cpp";
  std::ofstream(source) << unit.text;
  const std::string command = std::string("exec ") + TENON_COMPILE_COMMAND + " " + unit.flags + " -c -o /dev/null " + source;
  Cost cost;
  for (int i = 0; i < repetitions; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      setenv("CCACHE_DISABLE", "1", 1);  // a cached compilation costs nothing
      execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
      _exit(127);
    }
    int status = 1;
    rusage usage{};  // of the compiler driver and what it started
    wait4(child, &status, 0, &usage);
    if (status != 0) {
      std::fprintf(stderr, "compile: %s does not compile\n", unit.name.c_str());
      std::remove(source.c_str());
      std::exit(1);
    }
    cost.seconds = std::min(cost.seconds, seconds(usage.ru_utime) + seconds(usage.ru_stime));
#if defined(__APPLE__)
    const double bytes = static_cast<double>(usage.ru_maxrss);
#else
    const double bytes = 1024.0 * static_cast<double>(usage.ru_maxrss);
#endif
    cost.peak_gb = std::max(cost.peak_gb, bytes / 1e9);
  }
  std::remove(source.c_str());
  return cost;
}

}  // namespace

int main(int argc, char** argv) {
  std::string json_file;
  for (int i = 1; i + 1 < argc; ++i)
    if (std::string(argv[i]) == "--json") json_file = argv[i + 1];

  const std::string runs_clip =
      "#include <tenon/clip.hpp>\n"
      "int main(int, char** argv) {\n"
      "  const auto clip = tenon::load_clip<float>(argv[1]);\n"
      "  const auto tokenizer = tenon::load_tokenizer(argv[1]);\n"
      "  const auto pictures = tenon::Var<float>(tenon::Tensor<float>({1, 224, 224, 3}));\n"
      "  const auto ids = tokenizer({\"a photo of a cat\"}, 77);\n"
      "  return clip(pictures, ids).logits_per_image.value().data()[0] > 0 ? 0 : 1;\n"
      "}\n";
  const std::vector<Unit> units = {
      {"empty", "int main() {}\n", "-O0", 0.5},
      {"tenon/nn/linear.hpp", "#include <tenon/nn/linear.hpp>\nint main() {}\n", "-O0", 1},
      {"tenon/tenon.hpp", "#include <tenon/tenon.hpp>\nint main() {}\n", "-O0", 4},
      {"tenon/clip.hpp", "#include <tenon/clip.hpp>\nint main() {}\n", "-O0", 5},
      {"a program that runs CLIP", runs_clip, "-O2", 20},
      {"a program that runs CLIP, tenon::compiled", runs_clip, "-O2 -DTENON_COMPILED", 10},
  };
  nlohmann::json rows = nlohmann::json::array();
  std::printf("%-42s %-20s %8s %8s %8s\n", "unit", "flags", "seconds", "budget", "GB");
  bool within = true;
  for (const Unit& unit : units) {
    const Cost cost = compile(unit, unit.flags == "-O0" ? 5 : 1);
    within = within && cost.seconds <= unit.budget_seconds;
    std::printf("%-42s %-20s %8.2f %8.1f %8.3f\n", unit.name.c_str(), unit.flags.c_str(), cost.seconds,
                unit.budget_seconds, cost.peak_gb);
    rows.push_back({{"name", "compile"},
                    {"shape", unit.name},
                    {"dtype", "f32"},
                    {"impl", TENON_COMPILER_NAME},
                    {"seconds", cost.seconds},
                    {"budget_seconds", unit.budget_seconds},
                    {"peak_gb", cost.peak_gb}});
  }
  if (!json_file.empty()) std::ofstream(json_file) << rows.dump(1) << '\n';
  if (!within) std::puts("over the budget");
  return within ? 0 : 1;
}
