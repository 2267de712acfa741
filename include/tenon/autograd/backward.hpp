#pragma once
// Reverse mode: nodes in descending order of creation, each once, freed as soon as they are done.
#include <algorithm>
#include <queue>

#include <tenon/autograd/var.hpp>

namespace tenon::inline TENON_ABI {

/// Adds the gradient of `y` (weighted by `dy`, of y's shape) to every leaf that `y` depends on, and frees the graph.
/// Throws GraphError when y depends on no leaf or its graph was used before, ShapeError when dy does not fit.
template <Real T>
void backward(const Var<T>& y, Tensor<T> dy) {
  check<GraphError>(y.requires_grad(), "backward", "the value depends on nothing that wants a gradient");
  using Handle = std::shared_ptr<Node<T>>;
  const auto older = [](const Handle& a, const Handle& b) { return a->id < b->id; };
  std::priority_queue<Handle, std::vector<Handle>, decltype(older)> queue(older);
  Grad<T>(y.node().get()).add(std::move(dy));
  if (y.node()->pullback || y.node()->freed) queue.push(y.node());
  std::vector<Grad<T>> grads;
  while (!queue.empty()) {
    const Handle node = queue.top();
    queue.pop();
    node->queued = false;
    check<GraphError>(!node->freed, "backward", "this graph was already used; compute the value again before a second backward");
    grads.clear();
    for (const auto& input : node->inputs) grads.emplace_back(input.get());
    if (node->has_grad) (*node->pullback)(node->grad, grads);
    node->pullback.reset();
    node->grad = Tensor<T>();
    node->has_grad = false;
    node->freed = true;
    for (auto& input : node->inputs) {
      if (!input || input->queued || !(input->pullback || input->freed)) continue;
      input->queued = true;
      queue.push(input);
    }
    node->inputs.clear();
  }
}

/// `backward` of one number, such as a loss. Throws ShapeError when y has several elements.
template <Real T>
void backward(const Var<T>& y) {
  check<ShapeError>(y.size() == 1, "backward", "expected a single number, got shape ", y.shape(), "; give dy for more");
  backward(y, Tensor<T>::full(y.shape(), T(1)));
}

TENON_COMPILED_TEMPLATE(void backward(const Var<float>&, Tensor<float>))
TENON_COMPILED_TEMPLATE(void backward(const Var<float>&))

}  // namespace tenon::inline TENON_ABI
