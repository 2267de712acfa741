#pragma once
// Param: a layer's member that holds a Weight. The Weight lives on the heap, so lists of pointers to it survive moves.
#include <string>

#include <tenon/ops/weight.hpp>

namespace tenon::inline TENON_ABI {

/// A parameter, or the absence of one. Move-only; `copy_params` copies.
template <class T>
class Param {
 public:
  Param() : weight_(std::make_unique<Weight<T>>()) {}
  explicit Param(const Shape& shape) : weight_(std::make_unique<Weight<T>>(shape)) {}
  explicit Param(Tensor<T> value, bool trainable = true) : weight_(std::make_unique<Weight<T>>(std::move(value), trainable)) {}

  explicit operator bool() const { return weight_->present(); }
  Weight<T>& operator*() { return *weight_; }
  const Weight<T>& operator*() const { return *weight_; }
  Weight<T>* operator->() { return weight_.get(); }
  const Weight<T>* operator->() const { return weight_.get(); }
  Weight<T>* get() { return weight_.get(); }
  /// The Weight, or null when absent.
  const Weight<T>* get_if() const { return weight_->present() ? weight_.get() : nullptr; }

 private:
  std::unique_ptr<Weight<T>> weight_;
};

/// A parameter of a model and its path, as checkpoints spell it.
template <class T>
struct ParamRef {
  std::string path;
  Weight<T>* weight;
};

/// A parameter of a patch and its name.
template <class T>
struct NamedParam {
  std::string_view name;
  Param<T>* param;
};

}  // namespace tenon::inline TENON_ABI
