#pragma once
// An exponential moving average of parameters, which often predicts better than the parameters themselves.
#include <algorithm>

#include <tenon/kernels/update.hpp>
#include <tenon/nn/param.hpp>

namespace tenon::inline TENON_ABI {

/// average += (1 - decay_t) (parameter - average), with decay_t = min(decay, (1 + t) / (10 + t)) after t updates.
template <class T>
class Ema {
 public:
  explicit Ema(std::vector<ParamRef<T>> list, double decay) : list_(std::move(list)), decay_(decay) {
    for (const auto& ref : list_) averages_.push_back(ref.weight->value());
  }
  void update() {
    const double t = static_cast<double>(updates_++);
    const double decay = std::min(decay_, (1 + t) / (10 + t));
    for (std::size_t i = 0; i < list_.size(); ++i)
      kernels::ema_update(averages_[i].size(), decay, list_[i].weight->value().data(), averages_[i].data());
  }
  /// Exchanges the averages and the parameters: once to evaluate or save, again to go on.
  void swap() {
    for (std::size_t i = 0; i < list_.size(); ++i) list_[i].weight->update([&](Tensor<T>& value) { std::swap_ranges(value.begin(), value.end(), averages_[i].begin()); });
  }

  const std::vector<ParamRef<T>>& params() const { return list_; }
  std::vector<Tensor<T>>& averages() { return averages_; }
  Index updates() const { return updates_; }
  void restore(std::vector<Tensor<T>> averages, Index updates) {
    check(averages.size() == averages_.size(), "Ema", "expected ", averages_.size(), " averages, got ", averages.size());
    averages_ = std::move(averages);
    updates_ = updates;
  }

 private:
  std::vector<ParamRef<T>> list_;
  std::vector<Tensor<T>> averages_;
  double decay_;
  Index updates_ = 0;
};

}  // namespace tenon::inline TENON_ABI
