#pragma once
// The registry of differentiable operations: each has rows, and registry.test.cpp puts every row through the same checks.
// A test file of this folder adds the rows of its headers with `const Rows rows{...}`.
#include <functional>
#include <string>
#include <vector>

#include <tenon/autograd/gradcheck.hpp>
#include <tenon/core/random.hpp>
#include <tenon/tensor/cast.hpp>

namespace registry {

using namespace tenon;

/// Shapes of the inputs of one call.
using Shapes = std::vector<Shape>;

/// One way to call an operation, by the operation's name in the headers.
struct Row {
  std::string name;
  std::function<Var<double>(const std::vector<Var<double>>&)> in_double;
  std::function<Var<float>(const std::vector<Var<float>>&)> in_float;
  std::vector<Shapes> samples;  // filled with numbers in [low, high)
  std::vector<Shapes> wrong;    // each throws ShapeError naming the shapes
  double low = -2, high = 2;
  double tolerance = 2e-5;  // of float against double, value and gradients, relative to the largest element
  GradCheckOptions check{};
};

inline std::vector<Row>& rows() {
  static std::vector<Row> all;
  return all;
}

/// `f` takes `(const auto& x)`, x[i] being the i-th input.
template <class F>
Row row(std::string name, F f, std::vector<Shapes> samples, std::vector<Shapes> wrong = {}) {
  return {std::move(name), [f](const std::vector<Var<double>>& x) { return f(x); },
          [f](const std::vector<Var<float>>& x) { return f(x); }, std::move(samples), std::move(wrong)};
}
/// For operations that are defined or smooth on a part of the line only.
inline Row within(double low, double high, Row row) {
  row.low = low;
  row.high = high;
  return row;
}

struct Rows {
  Rows(std::initializer_list<Row> list) { rows().insert(rows().end(), list); }
};

/// Numbers that float holds exactly, the same for the same seed; of all pairs in one tensor, no two are nearer than 1e-4.
inline Tensor<double> numbers(const Shape& shape, double low, double high, std::uint64_t seed) {
  Generator generator(seed);
  Tensor<double> out(shape);
  const std::vector<Index> order = permutation(out.size(), generator);
  for (Index i = 0; i < out.size(); ++i) {
    const double place = (static_cast<double>(order[static_cast<std::size_t>(i)]) + 0.25 + 0.5 * generator.uniform<double>()) / static_cast<double>(out.size());
    out.data()[i] = static_cast<float>(low + (high - low) * place);
  }
  return out;
}
inline std::vector<Tensor<double>> inputs_of(const Row& row, const Shapes& shapes) {
  std::vector<Tensor<double>> inputs;
  for (const Shape& shape : shapes) inputs.push_back(numbers(shape, row.low, row.high, 7 + inputs.size()));
  return inputs;
}

/// The operations that a header's text defines: functions outside `namespace detail` that give a Var or several, and
/// those that call `record` whatever they give.
std::vector<std::string> operations_in(const std::string& text);

}  // namespace registry
