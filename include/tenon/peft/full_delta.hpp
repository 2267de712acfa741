#pragma once
// A delta of the layer's own size (LyCORIS "full": diff, diff_b), with one for the bias. Read from files.
#include <tenon/peft/layer.hpp>
#include <tenon/peft/merge.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
struct FullDelta final : WeightDelta<T>, BiasPatch<T> {
  Param<T> diff;    ///< the weight's shape
  Param<T> diff_b;  ///< [out], or absent

  FullDelta(const TunedLayer<T>& tuned, bool with_bias) : WeightDelta<T>(tuned), diff(tuned.shape()) {
    if (with_bias) diff_b = Param<T>(Shape{tuned.out()});
  }
  std::string_view kind() const override { return "full"; }
  void params(const std::function<void(std::string_view, Param<T>&)>& f) override {
    f("diff", diff);
    if (diff_b) f("diff_b", diff_b);
  }
  Var<T> delta() const override { return diff->var(); }
  Var<T> after(const Var<T>& x, const Var<T>& y, T scale) const override {
    const Var<T> out = WeightDelta<T>::after(x, y, scale);
    return diff_b ? out + diff_b->var() * static_cast<double>(scale) : out;
  }
  bool changes_bias() const override { return static_cast<bool>(diff_b); }
  Tensor<T> merged_bias(const Tensor<T>& bias, T scale) const override {
    const NoGrad none;
    return diff_b ? (Var<T>(bias) + diff_b->var() * static_cast<double>(scale)).value() : bias;
  }
};

}  // namespace tenon::inline TENON_ABI
