#pragma once
// embedding: rows of a table by id, with low-rank terms beside the table.
#include <tenon/kernels/elementwise.hpp>
#include <tenon/kernels/embedding.hpp>
#include <tenon/ops/linear.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {
/// The rows of the table, converted after the lookup where it is stored as a file has it.
template <class T>
Tensor<T> looked_up(const Tensor<std::int32_t>& ids, const Weight<T>& table, const Shape& shape) {
  const Index rows = table.shape()[0], width = table.shape()[1];
  const RawTensor bytes = table.bytes();
  if (std::holds_alternative<RawTensor>(table.stored())) {
    const std::size_t size = static_cast<std::size_t>(width) * bytes_of(bytes.dtype);
    const auto picked = allocate<std::byte>(ids.size() * static_cast<Index>(size));
    for (Index i = 0; i < ids.size(); ++i)
      std::memcpy(picked.get() + static_cast<std::size_t>(i) * size, bytes.bytes.get() + static_cast<std::size_t>(ids.data()[i]) * size, size);
    return cast<T>(RawTensor{bytes.dtype, shape, {picked, picked.get()}});
  }
  auto y = Tensor<T>::uninitialized(shape);
  kernels::embedding_forward(ids.size(), width, rows, ids.data(), table.value().data(), y.data());
  return y;
}
}  // namespace detail

/// ids [...] -> [..., D] from table [vocabulary, D]; low rank: A [R, vocabulary], B [D, R].
/// Throws Error for an id outside the table, ShapeError when extents do not fit.
template <class T>
Var<T> embedding(const Tensor<std::int32_t>& ids, const Weight<T>& table, std::type_identity_t<std::span<const LowRank<T>>> low_rank = {}) {
  check<ShapeError>(table.shape().rank() == 2, "embedding", "expected a table [vocabulary, width], got ", table.shape());
  const Index rows = table.shape()[0], width = table.shape()[1], n = ids.size();
  const Index bad = kernels::first_out_of_range(n, ids.data(), rows);
  check(bad < 0, "embedding", "expected ids in [0, ", rows, "), got ", bad < 0 ? 0 : ids.data()[bad], " at position ", bad);
  Shape shape = ids.shape();
  shape.push_back(width);
  auto y = detail::looked_up(ids, table, shape);

  std::vector<Var<T>> inputs{table.trainable() ? table.var() : Var<T>()};
  struct State {
    std::shared_ptr<const kernels::PackedMatrix<T>> b;
    T scale;
    Index rank;
    Tensor<T> t;  // s A^T rows [n, R]
  };
  std::vector<State> states;
  for (const auto& term : low_rank) {
    const Index rank = term.a->shape()[0];
    check<ShapeError>(term.a->shape() == Shape{rank, rows} && term.b->shape() == Shape{width, rank}, "embedding", "expected for table ", table.shape(),
                      " A [", rank, ", ", rows, "] and B [", width, ", ", rank, "], got ", term.a->shape(), " and ", term.b->shape());
    State state{packed_linear(*term.b), term.scale, rank, {}};
    auto columns = Tensor<T>::uninitialized({rank, n});
    kernels::index_select_forward(rank, rows, Index{1}, n, ids.data(), term.a->value().data(), columns.data());
    state.t = copy(std::as_const(columns).view().permuted(std::array<Index, 2>{1, 0}));
    kernels::scale(state.t.size(), static_cast<double>(term.scale), state.t.data(), state.t.data());
    kernels::Epilogue<T> add;
    add.residual = y.data();
    add.ldr = width;
    kernels::gemm(state.t.data(), rank, n, *state.b, y.data(), width, add);
    inputs.push_back(term.a->var());
    inputs.push_back(term.b->var());
    states.push_back(std::move(state));
  }
  return record(std::make_shared<const Tensor<T>>(std::move(y)), std::span<const Var<T>>(inputs),
                [n, width, rows, ids, states = std::move(states)](Tensor<T>& dy, std::span<Grad<T>> dx) {
                  if (dx[0].wanted()) kernels::embedding_backward(n, width, rows, ids.data(), dy.data(), dx[0].slot().data());
                  for (std::size_t i = 0; i < states.size(); ++i) {
                    const State& state = states[i];
                    Grad<T>&da = dx[1 + 2 * i], &db = dx[2 + 2 * i];
                    if (db.wanted())
                      kernels::gemm_dw(dy.data(), width, state.t.data(), state.rank, n, width, state.rank, db.slot().data(), state.rank, true);
                    if (!da.wanted()) continue;
                    auto u = Tensor<T>::uninitialized({n, state.rank});  // s dy B
                    kernels::gemm_dx(dy.data(), width, n, *state.b, u.data(), state.rank, false);
                    kernels::scale(u.size(), static_cast<double>(state.scale), u.data(), u.data());
                    const Tensor<T> columns = copy(std::as_const(u).view().permuted(std::array<Index, 2>{1, 0}));
                    kernels::index_select_backward(state.rank, rows, Index{1}, n, ids.data(), columns.data(), da.slot().data());
                  }
                });
}

TENON_COMPILED_FUNCTION(embedding<float>)

}  // namespace tenon::inline TENON_ABI
