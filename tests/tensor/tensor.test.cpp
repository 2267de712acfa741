// Tensor, View, print, cast, and the doors to Eigen and xtensor.
#include <cstring>
#include <sstream>

#include <tenon/io/npy.hpp>
#include <tenon/tensor/cast.hpp>
#include <tenon/tensor/eigen.hpp>
#include <tenon/tensor/print.hpp>
#include <tenon/tensor/xtensor.hpp>

#if __has_include(<xtensor/io/xnpy.hpp>)
#include <xtensor/containers/xarray.hpp>
#include <xtensor/core/xmath.hpp>
#include <xtensor/io/xnpy.hpp>
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xarray.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xnpy.hpp>
#include <xtensor/xview.hpp>
#endif

#include "../io/scratch.hpp"
#include "catch.hpp"

using namespace tenon;

TEST_CASE("Tensor: making, indexing, copying deep, moving free") {
  CHECK(Tensor<float>().shape() == Shape{0});
  Tensor<float> a({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(a(1, 0) == 4);
  CHECK(a.extent(-1) == 3);
  CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % 64 == 0);
  Tensor<float> b = a;
  b(0, 0) = 9;
  CHECK(a(0, 0) == 1);
  const float* at = a.data();
  Tensor<float> c = std::move(a);
  CHECK(c.data() == at);
  CHECK(a.size() == 0);
  CHECK(Tensor<double>::scalar(3).item() == 3);
  CHECK(Tensor<std::int32_t>::of({1, 2}) == Tensor<std::int32_t>({2}, {1, 2}));
  CHECK(Tensor<bool>({2})(1) == false);
  CHECK(Tensor<float>({0, 3}).size() == 0);
  REQUIRE_THROWS_WITH(c(2, 0), contains("index 2 is outside axis 0 of [2, 3]"));
  REQUIRE_THROWS_AS(c(0), ShapeError);
  REQUIRE_THROWS_AS(c(0, -1), ShapeError);
  REQUIRE_THROWS_AS(c.item(), ShapeError);
  REQUIRE_THROWS_AS(Tensor<float>({2}, {1, 2, 3}), ShapeError);
}

TEST_CASE("Tensor: reshape") {
  const Tensor<float> a({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(a.reshape({3, -1}) == Tensor<float>({3, 2}, {1, 2, 3, 4, 5, 6}));
  CHECK(a.reshape({3, 2}).data() != a.data());
  Tensor<float> b = a;
  const float* at = b.data();
  const Tensor<float> c = std::move(b).reshape({6});
  CHECK(c.data() == at);
  CHECK(a.share(Shape{1, 6}).data() == a.data());
  REQUIRE_THROWS_WITH(a.reshape({4, 2}), contains("[reshape]") && contains("[2, 3]"));
  REQUIRE_THROWS_AS(a.reshape({-1, -1}), ShapeError);
  REQUIRE_THROWS_AS(a.reshape({4, -1}), ShapeError);
}

TEST_CASE("View: permuting, slicing, copying") {
  const Tensor<float> a({2, 3}, {1, 2, 3, 4, 5, 6});
  const std::array<Index, 2> swapped{1, 0}, twice{0, 0};
  CHECK(copy(a.view().permuted(swapped)) == Tensor<float>({3, 2}, {1, 4, 2, 5, 3, 6}));
  CHECK(!a.view().permuted(swapped).contiguous());
  CHECK(a.view().contiguous());
  CHECK(copy(a.view().sliced(1, 0, 3, 2)) == Tensor<float>({2, 2}, {1, 3, 4, 6}));
  CHECK(copy(a.view().sliced(-1, 1, 2)) == Tensor<float>({2, 1}, {2, 5}));
  CHECK(copy(a.view().sliced(0, 1, 1)).shape() == Shape{0, 3});
  const Tensor<float> deep({2, 2, 2}, {0, 1, 2, 3, 4, 5, 6, 7});
  const std::array<Index, 3> turned{2, 0, 1};
  CHECK(copy(deep.view().permuted(turned)) == Tensor<float>({2, 2, 2}, {0, 2, 4, 6, 1, 3, 5, 7}));
  CHECK(copy(Tensor<float>::scalar(5).view()).item() == 5);
  REQUIRE_THROWS_AS(a.view().permuted(twice), ShapeError);
  REQUIRE_THROWS_AS(a.view().sliced(1, 2, 4), ShapeError);
  REQUIRE_THROWS_AS(a.view().sliced(2, 0, 1), ShapeError);
}

TEST_CASE("cast") {
  const Tensor<float> a({4}, {1.5f, -2.75f, 0, 1e-8f});
  CHECK(cast<double>(a)(1) == -2.75);
  CHECK(cast<std::int32_t>(a) == Tensor<std::int32_t>({4}, {1, -2, 0, 0}));
  CHECK(cast<bool>(a) == Tensor<bool>({4}, {true, true, false, true}));
  CHECK(cast<float>(cast<bfloat16>(a))(1) == -2.75f);
  CHECK(cast<double>(cast<half>(a))(0) == 1.5);
  const RawTensor raw = raw_copy(cast<bfloat16>(a));
  CHECK(raw.byte_count() == 8);
  CHECK(cast<float>(raw)(0) == 1.5f);
  Tensor<std::uint8_t> shifted({9});  // bytes need no alignment
  std::memcpy(shifted.data() + 1, a.data() + 1, 8);
  const RawTensor unaligned{DType::f32, Shape{2}, std::shared_ptr<const std::byte>(std::shared_ptr<void>(), reinterpret_cast<const std::byte*>(shifted.data() + 1))};
  CHECK(cast<float>(unaligned) == Tensor<float>({2}, {-2.75f, 0}));
}

TEST_CASE("printing") {
  const auto text = [](const auto& tensor) {
    std::ostringstream out;
    out << tensor;
    return out.str();
  };
  CHECK(text(Tensor<float>({2, 2}, {1, -2.5f, 10, 0})) == "[[   1 -2.5]\n [  10    0]]  float32[2, 2]");
  CHECK(text(Tensor<std::int32_t>({3}, {1, 20, 3})) == "[ 1 20  3]  int32[3]");
  CHECK(text(Tensor<bool>({2}, {true, false})) == "[ true false]  bool[2]");
  CHECK(text(Tensor<double>::scalar(0.5)) == "0.5  float64[]");
  CHECK(text(Tensor<float>()) == "[]  float32[0]");
  CHECK(text(Tensor<std::uint8_t>({1}, {65})) == "[65]  uint8[1]");
  const std::string large = text(Tensor<float>({1001}));
  CHECK(large.find("...") != std::string::npos);
  CHECK(large.size() < 150);
}

TEST_CASE("Eigen sees a Tensor without a copy, and gives one") {
  Tensor<float> a({2, 3}, {1, 2, 3, 4, 5, 6});
  auto map = as_eigen(a);
  CHECK(map.data() == a.data());
  map(1, 2) = 60;
  CHECK(a(1, 2) == 60);
  const Tensor<float> product = map * map.transpose();
  CHECK(product == Tensor<float>({2, 2}, {14, 194, 194, 16 + 25 + 3600}));
  const Tensor<double> widened = map.transpose();
  CHECK(widened == Tensor<double>({3, 2}, {1, 4, 2, 5, 3, 60}));
  const Tensor<float> deep({2, 2, 3});
  CHECK(as_eigen(deep).rows() == 4);
  const auto one = Tensor<float>::scalar(1);
  CHECK(as_eigen(one).size() == 1);
}

TEST_CASE("xtensor sees a Tensor without a copy, and gives one") {
  Tensor<float> a({2, 3}, {1, 2, 3, 4, 5, 6});
  auto adaptor = as_xtensor(a);
  CHECK(adaptor.data() == a.data());
  adaptor(1, 2) = 60;
  CHECK(a(1, 2) == 60);
  Tensor<float> t = adaptor * 2 + xt::view(adaptor, 0, xt::all());
  CHECK(t == Tensor<float>({2, 3}, {3, 6, 9, 9, 12, 123}));
  t = xt::sum(adaptor, {1});
  CHECK(t == Tensor<float>({2}, {6, 69}));
  const Tensor<float> turned = xt::transpose(adaptor);
  CHECK(turned == Tensor<float>({3, 2}, {1, 4, 2, 5, 3, 60}));
  const xt::xarray<double, xt::layout_type::column_major> columns{{1, 2, 3}, {4, 5, 6}};
  const Tensor<float> rows = columns;
  CHECK(rows == Tensor<float>({2, 3}, {1, 2, 3, 4, 5, 6}));
  const Tensor<float> constant({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(as_xtensor(constant)(1, 0) == 4);
}

TEST_CASE(".npy files go both ways between tenon and xtensor") {
  Scratch scratch("npy-door");
  const Tensor<float> a({2, 3}, {1, 2, 3, 4, 5, 6});
  save_npy(scratch / "a.npy", a);
  const auto loaded = xt::load_npy<float>(scratch / "a.npy");
  CHECK(Tensor<float>(loaded) == a);
  xt::dump_npy(scratch / "b.npy", xt::xarray<double>{{0.5, 2}, {3, 4}});
  CHECK(load_npy<double>(scratch / "b.npy") == Tensor<double>({2, 2}, {0.5, 2, 3, 4}));
}
