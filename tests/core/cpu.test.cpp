#include <tenon/core/cpu.hpp>

#include <thread>

#include "catch.hpp"

using namespace tenon;

TEST_CASE("an unknown or unavailable instruction set is a named error that lists the available ones") {
  REQUIRE_THROWS_AS(isa_from_name("TENON_ISA", "sse9"), NameError);
  REQUIRE_THROWS_WITH(isa_from_name("TENON_ISA", "sse9"), contains("[TENON_ISA]") && contains(available_isas()) && contains("'sse9'"));
  for (Isa isa : all_isas)
    if (is_available(isa))
      CHECK(isa_from_name("TENON_ISA", name_of(isa)) == isa);
    else
      CHECK_THROWS_AS(IsaScope(isa), NameError);
}

TEST_CASE("what is available is compiled and the default is among it") {
  for (Isa isa : all_isas)
    if (is_available(isa)) CHECK(is_compiled(isa));
  CHECK(is_available(default_isa()));
  CHECK((!cpu_features().avx512 || cpu_features().avx2));
}

TEST_CASE("an IsaScope nests, ends with its block, and binds only its thread") {
  const Isa before = current_isa();
  for (Isa isa : all_isas) {
    if (!is_available(isa)) continue;
    const IsaScope outer(isa);
    CHECK(current_isa() == isa);
    {
      const IsaScope inner(before);
      CHECK(current_isa() == before);
    }
    CHECK(current_isa() == isa);
    Isa elsewhere{};
    std::thread([&] { elsewhere = current_isa(); }).join();
    CHECK(elsewhere == default_isa());
  }
  CHECK(current_isa() == before);
}
