// Every row of the registry: gradients against differences, float against double, errors by name; and no operation
// without a row.
#include "ops/registry.hpp"

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>

#include "catch.hpp"

namespace registry {

std::vector<std::string> operations_in(const std::string& text) {
  static const std::regex definition(R"(^(?:template <[^>]*> )?(?:inline )?([A-Za-z_][\w:<>, ]*?)[ &*]+(operator\S{1,2}|\w+)\()");
  std::vector<std::string> found;
  std::istringstream lines(text);
  std::string line, current;
  bool in_detail = false;
  const auto add = [&](const std::string& name) {
    if (!name.empty() && (found.empty() || found.back() != name)) found.push_back(name);
  };
  while (std::getline(lines, line)) {
    if (line.rfind("namespace detail {", 0) == 0) in_detail = true;
    if (line.rfind("}  // namespace detail", 0) == 0) in_detail = false;
    std::smatch match;
    if (std::regex_search(line, match, definition)) {
      current = match[2];
      const std::string type = match[1];
      if (!in_detail && (type == "Var<T>" || type == "std::vector<Var<T>>")) add(current);
    }
    if (!in_detail && line.find("record(") != std::string::npos && line.find("///") == std::string::npos) add(current);
  }
  return found;
}

}  // namespace registry

using namespace registry;

namespace {

/// Runs the row in T with a fixed dy: the value, then the gradient of each input.
template <class T, class F>
std::vector<Tensor<double>> value_and_gradients(const F& f, const std::vector<Tensor<double>>& inputs) {
  std::vector<Var<T>> leaves;
  for (const auto& input : inputs) leaves.push_back(variable(cast<T>(input)));
  const Var<T> y = f(leaves);
  std::vector<Tensor<double>> out{cast<double>(y.value())};
  backward(y, cast<T>(numbers(y.shape(), -1, 1, 5)));
  for (const auto& leaf : leaves) out.push_back(leaf.has_grad() ? cast<double>(leaf.grad()) : Tensor<double>(leaf.shape()));
  return out;
}

std::string difference(const std::vector<Tensor<double>>& got, const std::vector<Tensor<double>>& expected, double tolerance) {
  for (std::size_t k = 0; k < expected.size(); ++k) {
    double largest = 1;
    for (double e : expected[k]) largest = std::max(largest, std::abs(e));
    for (Index i = 0; i < expected[k].size(); ++i)
      if (!(std::abs(got[k].data()[i] - expected[k].data()[i]) <= tolerance * largest))
        return join_text(k == 0 ? "value" : "gradient", ' ', k, ", element ", i, " of ", expected[k].shape(), ": float ", got[k].data()[i],
                         ", double ", expected[k].data()[i]);
  }
  return {};
}

std::string text_of(const Shapes& shapes) {
  std::string out;
  for (const auto& shape : shapes) out += shape.text();
  return out;
}

}  // namespace

TEST_CASE("every operation's gradient agrees with central differences, and float with double") {
  for (const Row& row : rows())
    for (const Shapes& shapes : row.samples) {
      INFO(row.name << " of " << text_of(shapes));
      const auto inputs = inputs_of(row, shapes);
      CHECK(check_grad(row.in_double, inputs, row.check) == "");
      CHECK(difference(value_and_gradients<float>(row.in_float, inputs), value_and_gradients<double>(row.in_double, inputs), row.tolerance) == "");
    }
}

TEST_CASE("every operation is tried with at least six sets of inputs") {
  std::map<std::string, std::size_t> samples;
  for (const Row& row : rows()) samples[row.name] += row.samples.size();
  for (const auto& [name, count] : samples) {
    INFO(name);
    CHECK(count >= 6);
  }
}

TEST_CASE("wrong shapes are errors that name them") {
  for (const Row& row : rows())
    for (const Shapes& shapes : row.wrong) {
      INFO(row.name << " of " << text_of(shapes));
      const auto inputs = inputs_of(row, shapes);
      std::string message = "nothing was thrown";
      try {
        row.in_double({inputs.begin(), inputs.end()});
      } catch (const ShapeError& error) {
        message = error.what();
      }
      CHECK_THAT(message, contains("["));
      for (std::size_t i = 0; i < shapes.size() && i < 2; ++i) CHECK_THAT(message, contains(shapes[i].text()));
    }
}

TEST_CASE("a wrong pullback is found") {
  const auto wrong = [](double slope, double bend) {
    return [=](const std::vector<Var<double>>& x) {
      Tensor<double> y(x[0].shape());
      for (Index i = 0; i < y.size(); ++i) y.data()[i] = x[0].value().data()[i] * x[0].value().data()[i];
      return record(std::move(y), {x[0]}, [=, v = x[0].shared()](Tensor<double>& dy, std::span<Grad<double>> dx) {
        for (Index i = 0; i < dy.size(); ++i) dy.data()[i] *= slope * v->data()[i] + (i == dy.size() - 1 ? bend : 0.0);
        dx[0].add(std::move(dy));
      });
    };
  };
  const std::vector<Tensor<double>> inputs{numbers({3, 2}, -1, 1, 1)};
  CHECK(check_grad(wrong(2, 0), inputs) == "");
  CHECK_THAT(check_grad(wrong(1, 0), inputs), contains("element 0"));
  CHECK_THAT(check_grad(wrong(2, 0.001), inputs), contains("element 5"));
}

TEST_CASE("operations are found in a header's text") {
  const std::string text =
      "/// calls record(y)\n"
      "namespace detail {\ntemplate <Real T>\nVar<T> helper(const Var<T>& x) {\n  return record(x);\n}\n}  // namespace detail\n"
      "template <Real T>\nVar<T> first(const Var<T>& x) {\n  return record(x);\n}\n"
      "template <Real T> Var<T> second(const Var<T>& x) { return helper(x); }\n"
      "template <Real T>\nVar<T> operator*(const Var<T>& a, const Var<T>& b) {\n"
      "template <Real T>\nstd::vector<Var<T>> third(const Var<T>& x) {\n"
      "template <Real T>\nPair<T> fourth(const Var<T>& x) {\n  auto y = record(x);\n"
      "template <Real T>\nTensor<T> plain(const Var<T>& x) {\n";
  CHECK(operations_in(text) == std::vector<std::string>{"first", "second", "operator*", "third", "fourth"});
}

TEST_CASE("no operation is without a row") {
  std::set<std::string> names, found;
  for (const Row& row : rows()) names.insert(row.name);
  for (const auto& file : std::filesystem::directory_iterator(TENON_SOURCE_DIR "/include/tenon/ops")) {
    std::ifstream in(file.path());
    for (const std::string& name : operations_in({std::istreambuf_iterator<char>(in), {}})) {
      found.insert(name);
      INFO(name << " in " << file.path().filename().string() << " has no row");
      CHECK(names.count(name) == 1);
    }
  }
  CHECK(found.size() > 50);
  for (const auto& name : names) {
    INFO("a row names " << name << ", which no header defines");
    CHECK(found.count(name) == 1);
  }
}
