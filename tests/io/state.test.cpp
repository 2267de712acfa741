#include <tenon/io/state.hpp>

#include <csignal>
#include <cstring>
#include <sys/wait.h>

#include "catch.hpp"
#include "io/faults.hpp"

using namespace tenon;

namespace {

/// A state that differs in every part with `n`.
State state_of(int n) {
  State out;
  const auto f = static_cast<float>(n);
  out.tensors["model/weight"] = raw_copy(Tensor<float>({2, 3}, {f, -f, f / 3, 1e-40f, -0.0f, INFINITY}));
  out.tensors["optimizer/step"] = raw_copy(Tensor<std::int64_t>::of({n, n + 1}));
  Generator generator(static_cast<std::uint64_t>(n));
  generator.normal();
  out.set("generator", generator);
  out.set("step", n);
  out.set("learning_rate", 1e-3 / (n + 1));
  out.values["note"] = "step \"" + std::to_string(n) + "\"\n";
  return out;
}

bool same(const State& a, const State& b) {
  if (a.values != b.values || a.tensors.size() != b.tensors.size()) return false;
  for (const auto& [name, tensor] : a.tensors) {
    const auto other = b.tensors.find(name);
    if (other == b.tensors.end() || other->second.dtype != tensor.dtype || !(other->second.shape == tensor.shape) ||
        std::memcmp(other->second.bytes.get(), tensor.bytes.get(), tensor.byte_count()) != 0)
      return false;
  }
  return true;
}

/// The number of the state that is loaded, 0 when there is none, -1 when it is neither whole nor known.
int loaded(const std::string& directory) {
  const auto state = load_state(directory);
  if (!state) return 0;
  const int n = state->get<int>("step");
  return same(*state, state_of(n)) ? n : -1;
}

/// Saves with a second file, as training does with an adapter.
void save(const std::string& directory, int n, FileOperations&& files = QuickFiles()) {
  const auto text = "adapter " + std::to_string(n);
  save_state(directory, state_of(n), {{"adapter.txt", [&](FileSink& sink) { sink.write(text); }}}, files);
}

}  // namespace

TEST_CASE("a state comes back with the same bits") {
  const Scratch folder("state");
  const auto directory = folder / "run";
  REQUIRE(!load_state(directory));
  save_state(directory, state_of(3));
  REQUIRE(loaded(directory) == 3);
  for (const int n : {4, 5, 6}) save(directory, n);
  REQUIRE(loaded(directory) == 6);
  const auto set = open_set(directory);
  REQUIRE(set->size() == 2);
  REQUIRE(contents(set->at("adapter.txt")) == "adapter 6");
  REQUIRE(std::filesystem::path(set->at("state.safetensors")).filename() == "state.4.safetensors");
  REQUIRE(std::distance(std::filesystem::directory_iterator(directory), {}) == 3);  // older saves are removed
}

TEST_CASE("numbers and generators keep their bits") {
  State state;
  for (const double x : {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0}) {
    state.set("x", x);
    REQUIRE(std::bit_cast<std::uint64_t>(state.get<double>("x")) == std::bit_cast<std::uint64_t>(x));
  }
  state.set("x", std::numeric_limits<double>::infinity());
  REQUIRE(state.get<double>("x") == std::numeric_limits<double>::infinity());
  state.set("i", std::numeric_limits<std::int64_t>::min());
  REQUIRE(state.get<std::int64_t>("i") == std::numeric_limits<std::int64_t>::min());
  Generator a(5);
  a.normal();
  state.set("generator", a);
  Generator b;
  state.get("generator", b);
  REQUIRE(a.normal() == b.normal());
  REQUIRE(a.random64() == b.random64());
  REQUIRE_THROWS_WITH(state.get<int>("j"), contains("nothing saved as \"j\"; nearest: i, x"));
  REQUIRE_THROWS_WITH(state.get<int>("x"), contains("expected a number"));
}

TEST_CASE("a directory without COMMIT holds no state, and a damaged set is an error") {
  const Scratch folder("damage");
  const auto directory = folder / "run";
  save(directory, 7);
  const auto state = open_set(directory)->at("state.safetensors");
  const auto good = contents(state), commit = contents(directory + "/COMMIT");

  SECTION("no COMMIT") {
    std::filesystem::remove(directory + "/COMMIT");
    REQUIRE(!load_state(directory));
    save(directory, 8);
    REQUIRE(loaded(directory) == 8);
  }
  SECTION("a bit that rotted in the data") {
    for (std::size_t i = 0; i < good.size(); i += 97) {
      auto bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 4);
      put(state, bad);
      REQUIRE_THROWS_WITH(load_state(directory), contains("expected checksum"));
    }
  }
  SECTION("a file cut short, or missing") {
    put(state, good.substr(0, good.size() - 1));
    REQUIRE_THROWS_WITH(load_state(directory), contains("state.1.safetensors: expected") && contains("bytes, found"));
    std::filesystem::remove(state);
    REQUIRE_THROWS_AS(load_state(directory), FileError);
  }
  SECTION("a bit that rotted in COMMIT") {
    for (std::size_t bit = 0; bit < commit.size() * 8; ++bit) {
      auto bad = commit;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ 1 << bit % 8);
      put(directory + "/COMMIT", bad);
      int now = 7;  // where a hexadecimal digit changed its case
      try {
        now = loaded(directory);
      } catch (const FileError&) {
      }
      REQUIRE(now == 7);
    }
    put(directory + "/COMMIT", "nonsense");
    save(directory, 8);
    REQUIRE(loaded(directory) == 8);
  }
  SECTION("a COMMIT that names a file elsewhere") {
    put(directory + "/COMMIT", "tenon-set 1\n1\n3 0 ../secret\n");
    REQUIRE_THROWS_WITH(load_state(directory), contains("found something else"));
  }
}

TEST_CASE("a fault at any operation leaves the previous set or the new one") {
  const Scratch folder("state-faults");
  const auto directory = folder / "run";
  const int previous = GENERATE(0, 1);
  std::size_t cases = 0;
  for (const Fault fault : all_faults) {
    for (long at = 0;; ++at) {
      std::filesystem::remove_all(directory);
      if (previous > 0) save(directory, previous);
      FaultyFiles files(at, fault);
      bool finished = false;
      try {
        save(directory, 2, std::move(files));
        finished = true;
      } catch (const Killed&) {
      } catch (const FileError&) {
      }
      const int now = loaded(directory);
      INFO("fault " << static_cast<int>(fault) << " at " << at << ": " << now);
      REQUIRE((now == 2 || (now == previous && !finished)));
      save(directory, 3);
      REQUIRE(loaded(directory) == 3);
      REQUIRE(contents(open_set(directory)->at("adapter.txt")) == "adapter 3");
      ++cases;
      if (at >= files.operations()) break;
    }
  }
  CHECK(cases > 100);
}

TEST_CASE("a power failure that loses up to two operations leaves the previous set or the new one") {
  const Scratch folder("state-power");
  const auto directory = folder / "run";
  save(directory, 1);
  LoggedFiles files(directory);
  save(directory, 2, std::move(files));
  std::size_t seen[3] = {};
  const auto states = files.for_each_crash([&](const std::map<std::string, std::string>& after) {
    std::filesystem::remove_all(directory);
    std::filesystem::create_directories(directory);
    for (const auto& [path, text] : after) put(path, text);
    const int now = loaded(directory);
    REQUIRE((now == 1 || now == 2));
    ++seen[now];
  });
  CHECK(states >= 1000);
  CHECK(seen[1] > 0);
  CHECK(seen[2] > 0);
}

TEST_CASE("a process killed at random times leaves a whole state") {
  const Scratch folder("state-kill");
  const auto directory = folder / "run";
  save(directory, 1);
  int last = 1, advanced = 0;
  for (int round = 0; round < 50; ++round) {
    const auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (int n = last + 1;; ++n) save(directory, n);
    }
    ::usleep(static_cast<unsigned>(500 + round * 137 % 4000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const int now = loaded(directory);
    REQUIRE(now >= last);
    advanced += now > last;
    last = now;
  }
  CHECK(advanced > 5);
}
