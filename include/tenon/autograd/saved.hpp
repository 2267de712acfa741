#pragma once
// What operations keep for backward, and the scope in which they keep it rounded to bfloat16.
#include <array>
#include <memory>
#include <type_traits>
#include <utility>

#include <tenon/autograd/var.hpp>
#include <tenon/kernels/cast.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

inline thread_local bool narrow_saved = false;

/// Elements below which rounding saves too little.
inline constexpr Index narrow_saved_least = 1024;

/// The same elements in bfloat16, and back.
TENON_ON_CALL Tensor<bfloat16> narrowed(const Tensor<float>& x) {
  auto out = Tensor<bfloat16>::uninitialized(x.shape());
  kernels::cast(x.size(), x.data(), out.data());
  return out;
}
TENON_ON_CALL Tensor<float> widened(const Tensor<bfloat16>& x) {
  auto out = Tensor<float>::uninitialized(x.shape());
  kernels::cast(x.size(), x.data(), out.data());
  return out;
}

/// The rounded form of a value that several operations keep in a row, as those of q, k and v do: made once.
class NarrowCopies {
 public:
  template <class T>
  std::shared_ptr<const Tensor<bfloat16>> of(const std::shared_ptr<const Tensor<T>>& value) {
    for (const Entry& entry : entries_)
      if (entry.value.lock() == value)
        if (auto narrow = entry.narrow.lock()) return narrow;
    auto narrow = std::make_shared<const Tensor<bfloat16>>(narrowed(*value));
    entries_[next_] = {value, narrow};
    next_ = (next_ + 1) % entries_.size();
    return narrow;
  }

 private:
  struct Entry {
    std::weak_ptr<const Tensor<float>> value;
    std::weak_ptr<const Tensor<bfloat16>> narrow;
  };
  std::array<Entry, 8> entries_;
  std::size_t next_ = 0;
};
inline thread_local NarrowCopies narrow_copies;

}  // namespace detail

/// While alive, operations that this thread records keep the large float32 values that they need for backward rounded to
/// bfloat16: inputs of normalisations, of trained products and of activations, values and outputs of attention.
/// Forward gives the same bits; gradients are off by the rounding (about 1e-2 relative). A training step's activations take
/// about half the memory, and the step a little longer.
///
///   {
///     const NarrowSaved narrow;
///     loss = criterion(model(x));
///   }
///   backward(loss);
class NarrowSaved {
 public:
  explicit NarrowSaved(bool on = true) : before_(std::exchange(detail::narrow_saved, on)) {}
  ~NarrowSaved() { detail::narrow_saved = before_; }
  NarrowSaved(const NarrowSaved&) = delete;
  NarrowSaved& operator=(const NarrowSaved&) = delete;

 private:
  bool before_;
};

namespace detail {

template <Real T>
bool saves_narrow(Index size) {
  return std::is_same_v<T, float> && narrow_saved && grad_enabled() && size >= narrow_saved_least;
}

/// How a value is kept: as NarrowSaved says, as it is, or rounded: because the pullback reads it so anyway.
enum class Keep { by_scope, exact, rounded };

/// A value as a pullback keeps it.
template <Real T>
class Saved {
 public:
  Saved() = default;
  explicit Saved(std::shared_ptr<const Tensor<T>> value, Keep keep = Keep::by_scope) {
    if constexpr (std::is_same_v<T, float>)
      if (value && (keep == Keep::by_scope ? saves_narrow<T>(value->size()) : keep == Keep::rounded && grad_enabled() && value->size() >= narrow_saved_least)) {
        narrow_ = narrow_copies.of(value);
        return;
      }
    value_ = std::move(value);
  }
  /// An input: only its node, where that can make the value again, and NarrowSaved does not round it.
  explicit Saved(const Var<T>& x) {
    if (!saves_narrow<T>(x.size()) && x.node() && x.node()->pullback && x.node()->pullback->remakes)
      node_ = x.node();
    else
      *this = Saved(x.shared());
  }

  explicit operator bool() const { return value_ != nullptr || narrow_ != nullptr || node_ != nullptr; }
  bool narrow() const { return narrow_ != nullptr; }
  /// The value; a copy in float32 where it was rounded. Throws GraphError where the node that should make it is used up.
  std::shared_ptr<const Tensor<T>> get() const {
    if (node_) {
      check<GraphError>(node_->pullback != nullptr, "backward", "this graph was already used; compute the value again before a second backward");
      return node_->pullback->remake();
    }
    if constexpr (std::is_same_v<T, float>)
      if (narrow_) return std::make_shared<const Tensor<T>>(widened(*narrow_));
    return value_;
  }

 private:
  std::shared_ptr<const Tensor<T>> value_;
  std::shared_ptr<const Tensor<bfloat16>> narrow_;
  std::shared_ptr<Node<T>> node_;
};

}  // namespace detail
}  // namespace tenon::inline TENON_ABI
