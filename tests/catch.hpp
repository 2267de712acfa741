#pragma once
// Catch2 2.13 and 3 behind one include. Tests use only what both have: TEST_CASE, SECTION, GENERATE, REQUIRE, CHECK,
// their _THROWS_AS and _THROWS_WITH forms, INFO, CAPTURE, Approx, and `contains(text)` as matcher.
#include <string>
#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_approx.hpp>
#include <catch2/catch_message.hpp>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_adapters.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using Catch::Approx;

/// Matches an exception's text that contains `text`: REQUIRE_THROWS_WITH(f(), contains("[matmul]")).
inline auto contains(const std::string& text) { return Catch::Matchers::ContainsSubstring(text); }
#else
#include <catch2/catch.hpp>

/// Matches an exception's text that contains `text`: REQUIRE_THROWS_WITH(f(), contains("[matmul]")).
inline auto contains(const std::string& text) { return Catch::Matchers::Contains(text); }
#endif
