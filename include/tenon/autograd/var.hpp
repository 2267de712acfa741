#pragma once
// Var: a value that remembers how it was made, and the graph of nodes behind it.
//
// A Var is two handles: a shared const value and, when a gradient is wanted, a shared node. A node holds the gradient
// slot, the nodes of its inputs and the pullback, never a value: the pullback keeps exactly the values it needs.
// Copying a Var shares; copying a Tensor does not. A graph belongs to one thread.
#include <atomic>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <tenon/core/parallel.hpp>
#include <tenon/tensor/tensor.hpp>

namespace tenon::inline TENON_ABI {

template <Real T>
struct Node;

namespace detail {
inline thread_local int no_grad_depth = 0;

inline std::uint64_t next_node_id() {
  static std::atomic<std::uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed);
}

template <Real T>
void accumulate(Tensor<T>& into, const Tensor<T>& from) {
  T* to = into.data();
  const T* by = from.data();
  parallel_chunks(into.size(), 32768, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) to[i] += by[i];
  });
}
}  // namespace detail

/// While alive, operations of this thread record nothing.
class NoGrad {
 public:
  NoGrad() { ++detail::no_grad_depth; }
  ~NoGrad() { --detail::no_grad_depth; }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;
};
/// While alive, operations of this thread record again, inside a NoGrad too.
class EnableGrad {
 public:
  EnableGrad() : before_(std::exchange(detail::no_grad_depth, 0)) {}
  ~EnableGrad() { detail::no_grad_depth = before_; }
  EnableGrad(const EnableGrad&) = delete;
  EnableGrad& operator=(const EnableGrad&) = delete;

 private:
  int before_;
};
inline bool grad_enabled() { return detail::no_grad_depth == 0; }

/// Where a pullback puts the gradient of one input. Gradients add up.
template <Real T>
class Grad {
 public:
  explicit Grad(Node<T>* node) : node_(node) {}
  /// Whether this input wants a gradient at all; computing one that nobody wants is the waste to avoid.
  bool wanted() const { return node_ != nullptr; }
  /// Adds `dx` of the input's shape. Nothing happens unless wanted.
  void add(Tensor<T> dx);
  /// The sum so far, for kernels that accumulate into it; zeros at first. Only when wanted.
  Tensor<T>& slot();

 private:
  Node<T>* node_;
};

/// What a node does with the gradient `dy` of its value, which it may consume: add to the gradients of its inputs.
template <Real T>
struct Pullback {
  virtual ~Pullback() = default;
  virtual void operator()(Tensor<T>& dy, std::span<Grad<T>> dx) = 0;
  /// Where `remakes`: the node's value again, the same bits, from what is kept anyway. An operation on it need not keep it then.
  virtual std::shared_ptr<const Tensor<T>> remake() { return nullptr; }
  bool remakes = false;
};

template <Real T>
struct Node {
  std::uint64_t id = detail::next_node_id();
  Shape shape;
  Tensor<T> grad;
  bool has_grad = false;
  bool queued = false;
  bool freed = false;
  std::vector<std::shared_ptr<Node>> inputs;  // null where no gradient is wanted
  std::unique_ptr<Pullback<T>> pullback;      // null for a leaf

  explicit Node(const Shape& value_shape) : shape(value_shape) {}
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  /// Takes the chain of inputs apart one by one: a deep graph must not become deep recursion.
  ~Node() {
    std::vector<std::shared_ptr<Node>> pending = std::move(inputs);
    while (!pending.empty()) {
      const std::shared_ptr<Node> node = std::move(pending.back());
      pending.pop_back();
      if (node && node.use_count() == 1)
        for (auto& input : node->inputs) pending.push_back(std::move(input));
    }
  }
};

template <Real T>
Tensor<T>& Grad<T>::slot() {
  if (!node_->has_grad) {
    node_->grad = Tensor<T>(node_->shape);
    node_->has_grad = true;
  }
  return node_->grad;
}

template <Real T>
void Grad<T>::add(Tensor<T> dx) {
  if (!wanted()) return;
  check<ShapeError>(dx.shape() == node_->shape, "backward", "expected a gradient of shape ", node_->shape, ", got ", dx.shape());
  if (node_->has_grad) {
    detail::accumulate(node_->grad, dx);
  } else {
    node_->grad = std::move(dx);
    node_->has_grad = true;
  }
}

/// A tensor in a computation that may be differentiated. Its value never changes.
template <Real T>
class Var {
 public:
  Var() : Var(Tensor<T>()) {}
  /// A constant: no gradient flows into it.
  Var(Tensor<T> value) : value_(std::make_shared<const Tensor<T>>(std::move(value))) {}  // NOLINT: constants are implicit
  Var(std::shared_ptr<const Tensor<T>> value, std::shared_ptr<Node<T>> node)
      : value_(std::move(value)), node_(std::move(node)) {}

  const Tensor<T>& value() const { return *value_; }
  /// The value's handle, for a pullback to keep. A pullback keeps values, never Vars.
  const std::shared_ptr<const Tensor<T>>& shared() const { return value_; }
  const Shape& shape() const { return value_->shape(); }
  Index rank() const { return value_->rank(); }
  Index size() const { return value_->size(); }
  Index extent(Index axis) const { return value_->extent(axis); }
  T item() const { return value_->item(); }

  bool requires_grad() const { return node_ != nullptr; }
  const std::shared_ptr<Node<T>>& node() const { return node_; }
  /// Whether a leaf has a gradient waiting.
  bool has_grad() const { return node_ && node_->has_grad; }
  /// The gradient left by `backward` in a leaf. Throws GraphError when there is none.
  const Tensor<T>& grad() const {
    check<GraphError>(has_grad(), "grad", "no gradient here: not a leaf that wants one, or no backward since it was cleared");
    return node_->grad;
  }
  void clear_grad() const {
    if (!node_) return;
    node_->grad = Tensor<T>();
    node_->has_grad = false;
  }
  /// The same value as a constant.
  Var detach() const { return Var(value_, nullptr); }

 private:
  std::shared_ptr<const Tensor<T>> value_;
  std::shared_ptr<Node<T>> node_;
};

/// A leaf that collects a gradient.
template <Real T>
Var<T> variable(Tensor<T> value) {
  auto shared = std::make_shared<const Tensor<T>>(std::move(value));
  return Var<T>(shared, std::make_shared<Node<T>>(shared->shape()));
}
template <Real T>
Var<T> variable(std::shared_ptr<const Tensor<T>> value) {
  auto node = std::make_shared<Node<T>>(value->shape());
  return Var<T>(std::move(value), std::move(node));
}

/// Whether an operation on these would be recorded.
template <Real T, class... Vars>
bool wants_grad(const Var<T>& x, const Vars&... rest) {
  return grad_enabled() && (x.requires_grad() || (rest.requires_grad() || ...));
}

namespace detail {
template <Real T, class F>
struct PullbackOf final : Pullback<T> {
  F f;
  explicit PullbackOf(F&& function) : f(std::move(function)) {}
  void operator()(Tensor<T>& dy, std::span<Grad<T>> dx) override { f(dy, dx); }
};
/// Of a function object that can also remake() the value, where it says so (remakes()).
template <Real T, class F>
struct RemakingPullbackOf final : Pullback<T> {
  F f;
  explicit RemakingPullbackOf(F&& function) : f(std::move(function)) { this->remakes = f.remakes(); }
  void operator()(Tensor<T>& dy, std::span<Grad<T>> dx) override { f(dy, dx); }
  std::shared_ptr<const Tensor<T>> remake() override { return f.remake(); }
};

template <Real T>
bool any_wanted(std::span<const Var<T>> inputs) {
  bool wanted = false;
  for (const auto& input : inputs) wanted = wanted || input.requires_grad();
  return wanted && grad_enabled();
}
template <Real T>
Var<T> record_node(std::shared_ptr<const Tensor<T>> y, std::span<const Var<T>> inputs, std::unique_ptr<Pullback<T>> pullback) {
  auto node = std::make_shared<Node<T>>(y->shape());
  node->inputs.reserve(inputs.size());
  for (const auto& input : inputs) node->inputs.push_back(input.node());
  node->pullback = std::move(pullback);
  return Var<T>(std::move(y), std::move(node));
}
}  // namespace detail

/// The Var of a computed value: `pullback(Tensor<T>& dy, std::span<Grad<T>> dx)` runs in backward with one Grad an
/// input, in order. When no input wants a gradient, nothing is recorded.
template <Real T, class F>
Var<T> record(std::shared_ptr<const Tensor<T>> y, std::span<const Var<T>> inputs, F&& pullback) {
  if (!detail::any_wanted(inputs)) return Var<T>(std::move(y), nullptr);
  using Function = std::remove_cvref_t<F>;
  constexpr bool remaking = requires(Function f) { f.remake(); };
  using Kept = std::conditional_t<remaking, detail::RemakingPullbackOf<T, Function>, detail::PullbackOf<T, Function>>;
  std::unique_ptr<Pullback<T>> kept(new Kept(std::forward<F>(pullback)));
  return detail::record_node(std::move(y), inputs, std::move(kept));
}
template <Real T, class F>
Var<T> record(Tensor<T> y, std::span<const Var<T>> inputs, F&& pullback) {
  return record(std::make_shared<const Tensor<T>>(std::move(y)), inputs, std::forward<F>(pullback));
}
template <Real T, class F>
Var<T> record(Tensor<T> y, std::initializer_list<Var<T>> inputs, F&& pullback) {
  return record(std::make_shared<const Tensor<T>>(std::move(y)), std::span<const Var<T>>(inputs.begin(), inputs.size()),
                std::forward<F>(pullback));
}

}  // namespace tenon::inline TENON_ABI
