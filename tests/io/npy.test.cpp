#include <tenon/io/npy.hpp>

#include "catch.hpp"
#include "io/scratch.hpp"

using namespace tenon;

namespace {

std::string golden(const std::string& name) { return TENON_TEST_DATA "/npy/" + name + ".npy"; }

/// 0, 1, 2, ... as [2, 3, 4].
template <class T>
Tensor<T> counted() {
  auto out = Tensor<T>({2, 3, 4});
  for (Index i = 0; i < out.size(); ++i) out.data()[i] = T(static_cast<float>(i));
  return out;
}

std::string npy(const std::string& header, std::size_t data, char version = 1) {
  std::string out = "\x93NUMPY";
  out += {version, '\0', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  if (version > 1) out += std::string(2, '\0');
  return out + header + std::string(data, '\0');
}

}  // namespace

TEST_CASE("a vector is written as NumPy writes it, byte for byte") {
  const Scratch folder("npy");
  save_npy(folder / "a.npy", Tensor<double>::of({0, 1, 2}));
  REQUIRE(contents(folder / "a.npy") == contents(golden("vector")));
  save_npy(folder / "a.npy", counted<float>());
  REQUIRE(contents(folder / "a.npy") == contents(golden("float32")));
  save_npy(folder / "a.npy", Tensor<float>::scalar(2.5f));
  REQUIRE(contents(folder / "a.npy") == contents(golden("scalar")));
  save_npy(folder / "a.npy", Tensor<float>({0, 5}));
  REQUIRE(contents(folder / "a.npy") == contents(golden("empty")));
}

TEST_CASE("NumPy's files are read: every type, version and order") {
  CHECK(load_npy<float>(golden("float32")) == counted<float>());
  CHECK(load_npy<double>(golden("float64")) == counted<double>());
  CHECK(load_npy<half>(golden("float16")) == counted<half>());
  CHECK(load_npy<std::int8_t>(golden("int8")) == counted<std::int8_t>());
  CHECK(load_npy<std::uint8_t>(golden("uint8")) == counted<std::uint8_t>());
  CHECK(load_npy<std::int32_t>(golden("int32")) == counted<std::int32_t>());
  CHECK(load_npy<std::int64_t>(golden("int64")) == counted<std::int64_t>());
  const auto booleans = load_npy<bool>(golden("bool"));
  for (Index i = 0; i < 24; ++i) CHECK(booleans.data()[i] == (i % 3 == 0));
  CHECK(load_npy<float>(golden("fortran")) == counted<float>());
  CHECK(load_npy<float>(golden("version2")) == counted<float>());
  CHECK(load_npy<float>(golden("version3")) == counted<float>());
  CHECK(load_npy<float>(golden("scalar")).item() == 2.5f);
  CHECK(load_npy<float>(golden("empty")).shape() == Shape{0, 5});
  CHECK(load_npy<float>(golden("float16")) == counted<float>());
  CHECK(load_npy<float>(golden("float64")) == counted<float>());
}

TEST_CASE("what is saved comes back") {
  const Scratch folder("npy");
  const auto path = folder / "a.npy";
  const auto round = [&]<class T>(const Tensor<T>& tensor) {
    save_npy(path, tensor);
    CHECK(load_npy<T>(path) == tensor);
  };
  round(counted<double>());
  round(counted<half>());
  round(counted<std::int64_t>());
  round(Tensor<bool>::of({true, false}));
  round(counted<bfloat16>());  // as float32
}

TEST_CASE("broken .npy files are refused") {
  const Scratch folder("npy");
  const auto path = folder / "bad.npy";
  const auto refused = [&](const std::string& bytes, const std::string& because) {
    put(path, bytes);
    INFO(because);
    CHECK_THROWS_AS(load_npy<float>(path), FileError);
    CHECK_THROWS_WITH(load_npy<float>(path), contains(because) && contains("bad.npy"));
  };
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
  put(path, npy(good, 8));
  REQUIRE(load_npy<float>(path).shape() == Shape{2});
  put(path, npy("{\"shape\":(2,1),\"fortran_order\":True,\"descr\":\"<f4\"}", 8, 2));
  REQUIRE(load_npy<float>(path).shape() == Shape{2, 1});

  refused("", "expected a .npy file");
  refused("not a .npy file at all", "expected a .npy file");
  refused(npy(good, 8, 4), "expected version 1.0, 2.0 or 3.0, found 4.0");
  refused(npy(good, 7), "found 7 bytes");
  refused(npy(good, 9), "found 9 bytes");
  refused(npy(good, 8).substr(0, 40), "expected a header of at most");
  const auto replaced = [&](const std::string& from, const std::string& to) {
    auto header = good;
    return npy(header.replace(header.find(from), from.size(), to), 8);
  };
  refused(replaced("<f4", ">f4"), "not >f4");
  refused(replaced("<f4", "<c8"), "not <c8");
  refused(replaced("<f4", "|O"), "not |O");
  refused(replaced("<f4", "<i4"), "expected float32, found int32");
  refused(replaced("'<f4'", "[('a', '<f4')]"), "expected a string");
  refused(replaced("False", "0"), "True or False");
  refused(replaced("False", "Falsy"), "True or False");
  refused(replaced("(2,)", "(2)"), "expected ','");
  refused(replaced("(2,)", "(-2,)"), "an extent below 2^63");
  refused(replaced("(2,)", "(9223372036854775808,)"), "an extent below 2^63");
  refused(replaced("(2,)", "(4611686018427387904,4611686018427387904)"), "overflows");
  refused(replaced("(2,)", "(4611686018427387905,4)"), "overflows");
  refused(replaced("(2,)", "(1,1,1,1,1,1,1,1,2)"), "at most 8 extents");
  refused(replaced("(2,)", "(2305843009213693954,)"), "found 8 bytes");
  refused(replaced("(2,)", "[2]"), "expected (");
  refused(replaced("'shape'", "'descr'"), "each key once");
  refused(replaced("'shape'", "'shapes'"), "as key");
  refused(replaced(", 'shape': (2,)", ""), "descr, fortran_order and shape");
  refused(replaced("}\n", "} x"), "nothing after the dictionary");
  refused(replaced("}\n", ""), "expected");

  for (std::size_t n = 0; n < npy(good, 8).size(); ++n) {
    put(path, npy(good, 8).substr(0, n));
    CHECK_THROWS_AS(load_npy<float>(path), FileError);
  }
}
