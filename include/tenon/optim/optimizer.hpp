#pragma once
// What every optimizer shares: its list and what it keeps for each parameter, clipping, and the guard against non-finite steps.
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <tenon/kernels/reduce.hpp>
#include <tenon/nn/param.hpp>

namespace tenon::inline TENON_ABI {

/// What one step did.
struct StepResult {
  double grad_norm = 0;   ///< before clipping; not finite in a skipped step
  bool skipped = false;   ///< a gradient was not finite: nothing was changed
  std::string bad_param;  ///< the first parameter with a non-finite gradient
};

/// L2 norm over all waiting gradients of a list; parameters without one count nothing. Summed in float64, in order.
template <class T>
double grad_norm(const std::vector<ParamRef<T>>& list) {
  double total = 0;
  for (const auto& ref : list)
    if (ref.weight->var().has_grad()) total += kernels::sum_of_squares(ref.weight->size(), ref.weight->var().grad().data());
  return std::sqrt(total);
}

/// Consumes gradients and decides whether a step may happen. A bad step is skipped whole and reported; after
/// `patience` bad ones in a row NumericError is thrown.
template <class T>
class StepGuard {
 public:
  Index patience = 10;
  /// Where reports go; silent by default.
  std::function<void(const std::string&)> report;

  Index skipped_in_row() const { return in_row_; }
  Index skipped() const { return total_; }
  void restore(Index total, Index in_row) { total_ = total, in_row_ = in_row; }

  /// Fills `result` and returns whether the step may go on; otherwise the gradients are cleared.
  bool admit(const std::vector<ParamRef<T>>& list, StepResult& result) {
    result.grad_norm = grad_norm(list);
    for (const auto& ref : list) {
      if (!ref.weight->var().has_grad() || kernels::all_finite(ref.weight->size(), ref.weight->var().grad().data())) continue;
      result.bad_param = ref.path;
      break;
    }
    if (result.bad_param.empty()) {
      in_row_ = 0;
      return true;
    }
    result.skipped = true;
    for (const auto& ref : list) ref.weight->var().clear_grad();
    ++total_;
    ++in_row_;
    const std::string text = join_text("[optimizer] step skipped: the gradient of ", result.bad_param, " is not finite (", in_row_,
                                       " in a row, ", total_, " in all)");
    if (report) report(text);
    check<NumericError>(in_row_ < patience, "optimizer", "stopped after ", in_row_, " non-finite steps in a row; the first bad gradient is that of ",
                        result.bad_param);
    return false;
  }

 private:
  Index total_ = 0, in_row_ = 0;
};

/// The factor that brings a norm down to `limit`; 1 when it is below, or the limit is 0 (torch.nn.utils.clip_grad_norm_).
inline double clip_factor(double norm, double limit) {
  const double factor = limit / (norm + 1e-6);
  return limit > 0 && factor < 1 ? factor : 1;
}

/// Throws Error unless the list holds parameters and each is trainable.
template <class T>
void check_trainable(std::string_view op, const std::vector<ParamRef<T>>& list) {
  check(!list.empty(), op, "expected at least one trainable parameter, got none");
  for (const auto& ref : list) check(ref.weight->trainable(), op, "expected trainable parameters, got the frozen ", ref.path);
}

/// Calls `f(i, gradient, value)` for each parameter that has a gradient, to write its value, and clears the gradient.
template <class T, class F>
void consume_gradients(const std::vector<ParamRef<T>>& list, F&& f) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Var<T> leaf = list[i].weight->var();  // the first write may give the weight a new one
    if (!leaf.has_grad()) continue;
    const T* gradient = leaf.grad().data();
    list[i].weight->update([&](Tensor<T>& value) { f(i, gradient, value); });
    leaf.clear_grad();
  }
}

/// One tensor for each parameter out of a saved state, by `path` + `ending`. Throws NameError on a missing one, ShapeError on another shape.
template <class T>
std::vector<Tensor<T>> saved_moments(std::string_view op, const std::vector<ParamRef<T>>& list, std::string_view ending,
                                     const std::map<std::string, Tensor<T>>& state) {
  std::vector<Tensor<T>> out;
  for (const auto& ref : list) {
    const std::string name = ref.path + std::string(ending);
    const auto at = state.find(name);
    check<NameError>(at != state.end(), op, "expected the moment ", name, " in the saved state");
    check<ShapeError>(at->second.shape() == ref.weight->shape(), op, "expected ", name, " of shape ", ref.weight->shape(), ", got ",
                      at->second.shape());
    out.push_back(at->second);
  }
  return out;
}

}  // namespace tenon::inline TENON_ABI
