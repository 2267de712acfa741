#pragma once
// How well pictures and texts find each other.
#include <algorithm>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <tenon/tensor/tensor.hpp>

#include "program.hpp"

namespace tenon::examples {

/// The loss over all pictures and texts, and the shares of either that have one of theirs among the first k of the other.
struct Retrieval {
  double loss = 0, picture_to_text_1 = 0, picture_to_text_5 = 0, text_to_picture_1 = 0, text_to_picture_5 = 0;

  /// Cells of a table, the shares in %.
  std::vector<std::string> row(const std::string& name, bool with_loss = true) const {
    std::vector<std::string> out{name, with_loss ? fixed(loss, 3) : ""};
    for (const double share : {picture_to_text_1, picture_to_text_5, text_to_picture_1, text_to_picture_5}) out.push_back(fixed(100 * share, 1));
    return out;
  }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Retrieval, loss, picture_to_text_1, picture_to_text_5, text_to_picture_1, text_to_picture_5)

/// The shares by [N, N] cosines; `fits` [N, N] says whether text j is true of picture i, which text i is. A wrong one that is as near comes first.
inline Retrieval retrieval(const Tensor<float>& cosines, const Tensor<bool>& fits) {
  const Index n = cosines.extent(0);
  Retrieval out;
  const auto measure = [&](bool of_texts, double& first, double& fifth) {
    for (Index i = 0; i < n; ++i) {
      const auto at = [&](const auto& matrix, Index j) { return of_texts ? matrix(j, i) : matrix(i, j); };
      float best = -2;
      for (Index j = 0; j < n; ++j)
        if (at(fits, j)) best = std::max(best, at(cosines, j));
      Index before = 0;
      for (Index j = 0; j < n; ++j) before += !at(fits, j) && at(cosines, j) >= best;
      first += (before < 1 ? 1.0 : 0.0) / static_cast<double>(n);
      fifth += (before < 5 ? 1.0 : 0.0) / static_cast<double>(n);
    }
  };
  measure(false, out.picture_to_text_1, out.picture_to_text_5);
  measure(true, out.text_to_picture_1, out.text_to_picture_5);
  return out;
}

/// The shares that a random order gives on average.
inline Retrieval retrieval_by_chance(const Tensor<bool>& fits) {
  const Index n = fits.extent(0);
  const auto share = [&](bool of_texts, Index k) {
    double sum = 0;
    for (Index i = 0; i < n; ++i) {
      Index wrong = 0;
      for (Index j = 0; j < n; ++j) wrong += !(of_texts ? fits(j, i) : fits(i, j));
      double none = 1;  // of the first k is right
      for (Index j = 0; j < std::min(k, n); ++j) none *= static_cast<double>(std::max<Index>(0, wrong - j)) / static_cast<double>(n - j);
      sum += 1 - none;
    }
    return sum / static_cast<double>(n);
  };
  return {0, share(false, 1), share(false, 5), share(true, 1), share(true, 5)};
}

}  // namespace tenon::examples
