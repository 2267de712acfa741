#pragma once
// Magnitudes over any weight delta, as LyCORIS' weight_decompose has them (dora_scale): W' = m / ||W + D|| (W + D), by output
// or, in older files, by input. Read from files; W' is built in each forward. A LoRA by output is a Dora, which does without.
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/lora.hpp>

namespace tenon::inline TENON_ABI {

template <class T>
struct Decomposed final : WeightDelta<T> {
  std::unique_ptr<OutputPatch<T>> inner;  ///< a Lora or a WeightDelta
  Param<T> magnitude;                     ///< [out, 1(, 1, 1)] or [1, in(, 1, 1)]

  Decomposed(const TunedLayer<T>& tuned, std::unique_ptr<OutputPatch<T>> delta, bool by_output)
      : WeightDelta<T>(tuned), inner(std::move(delta)), by_output_(by_output), base_(tuned.base()) {
    Shape shape = tuned.shape();
    for (Index axis = 0; axis < shape.rank(); ++axis)
      if (axis != (by_output ? 0 : 1)) shape = shape.with(axis, 1);
    magnitude = Param<T>(shape);
  }
  std::string_view kind() const override { return "decomposed"; }
  std::vector<NamedParam<T>> params() override {
    auto out = inner->params();
    out.push_back({"dora_scale", &magnitude});
    return out;
  }
  /// As in DoRA the norm is a constant in training (LyCORIS lets its gradient flow).
  Var<T> delta() const override {
    const Shape& shape = this->layer.shape();
    const Var<T> w(detail::elements_of<T>(base_));
    const Var<T> v = w + change(shape);
    Axes axes = by_output_ ? Axes{1} : Axes{0};
    if (shape.rank() == 4) axes = by_output_ ? Axes{1, 2, 3} : Axes{0, 2, 3};
    return v * (magnitude->var() / norm(v, axes, true).detach()) - w;
  }

 private:
  Var<T> change(const Shape& shape) const {
    if (const auto* whole = dynamic_cast<const WeightDelta<T>*>(inner.get())) return whole->delta();
    const auto& lora = static_cast<const Lora<T>&>(*inner);
    const Index r = lora.rank();
    const Var<T> low = matmul(reshape(lora.b->var(), Shape{shape[0], r}), reshape(lora.a->var(), Shape{r, this->layer.fan_in()}));
    return reshape(low, shape) * static_cast<double>(lora.scale());
  }

  bool by_output_;
  typename Weight<T>::Stored base_;
};

}  // namespace tenon::inline TENON_ABI
