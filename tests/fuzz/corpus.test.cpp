// Every fuzz target over its seeds and over mutations of them, the same in every run: TENON_FUZZ_RUNS of them, 1,000 unless set.
#include <algorithm>
#include <cstdlib>

#include "catch.hpp"
#include "io/scratch.hpp"
#include "targets.hpp"

namespace {

using Input = std::vector<std::uint8_t>;

std::vector<Input> seeds_of(const fuzz::Target& target) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (const auto& name : target.seeds) {
    const fs::path path = fs::path(TENON_SOURCE_DIR) / "tests" / name;
    if (fs::is_directory(path))
      for (const auto& entry : fs::directory_iterator(path)) files.push_back(entry.path());
    else
      files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  std::vector<Input> out;
  for (const auto& file : files) {
    const std::string text = contents(file);
    out.emplace_back(text.begin(), text.end());
  }
  return out;
}

struct Mutator {
  std::uint64_t state = 1;
  std::size_t below(std::size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::size_t>((state >> 33) % n);
  }
  Input operator()(const std::vector<Input>& seeds) {
    static const std::vector<std::string> tokens{"\"", "{", "}", "[", "]", ",", ":", "\\u0061", "-", "1e999", "18446744073709551615", "null",
                                                 std::string(4, '\0'), "\xff\xff\xff\xff", "\x7f\xff\xff\xff", "\x80", " ", "\n", "(0,)", "F64"};
    Input out = seeds[below(seeds.size())];
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
      if (out.empty()) out.push_back(0);
      const auto at = [&] { return out.begin() + static_cast<std::ptrdiff_t>(below(out.size())); };
      const auto& token = tokens[below(tokens.size())];
      switch (below(8)) {
        case 0: *at() ^= static_cast<std::uint8_t>(1u << below(8)); break;
        case 1: *at() = static_cast<std::uint8_t>(below(256)); break;
        case 2: out.insert(at(), token.begin(), token.end()); break;
        case 3: out.erase(at(), out.end()); break;
        case 4: {
          const auto begin = at();
          out.erase(begin, begin + static_cast<std::ptrdiff_t>(std::min<std::size_t>(1 + below(16), static_cast<std::size_t>(out.end() - begin))));
          break;
        }
        case 5: {  // a piece of another seed
          const Input& other = seeds[below(seeds.size())];
          if (other.empty()) break;
          const std::size_t from = below(other.size()), length = std::min(other.size() - from, 1 + below(64));
          out.insert(at(), other.begin() + static_cast<std::ptrdiff_t>(from), other.begin() + static_cast<std::ptrdiff_t>(from + length));
          break;
        }
        case 6: {
          const auto place = at();
          std::copy_n(token.begin(), std::min<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(token.size()), out.end() - place), place);
          break;
        }
        default: std::swap(*at(), *at()); break;
      }
    }
    return out;
  }
};

}  // namespace

TEST_CASE("every parser answers mutated input with a value or an Error") {
  const char* set = std::getenv("TENON_FUZZ_RUNS");
  const long runs = set != nullptr ? std::atol(set) : 1000;
  for (const auto& target : fuzz::targets()) {
    const std::string name(target.name);
    INFO(name);
    const auto seeds = seeds_of(target);
    REQUIRE(!seeds.empty());
    std::size_t whole = 0;
    for (const auto& seed : seeds) whole += fuzz::accepts(target, seed);
    CHECK(3 * whole >= seeds.size());  // the seeds reach what lies behind the first check
    Mutator mutate;
    long refused = 0;
    for (long i = 0; i < runs; ++i) {
      INFO("mutation " << i);
      refused += !fuzz::accepts(target, mutate(seeds));
    }
    CHECK(refused >= runs / 10);
  }
  std::filesystem::remove_all(fuzz::folder());
}
