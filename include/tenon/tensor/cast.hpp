#pragma once
// Conversions between element types, and untyped elements as files hold them.
#include <tenon/core/parallel.hpp>
#include <tenon/tensor/tensor.hpp>

namespace tenon::inline TENON_ABI {

/// Elements whose type is known at run time only: a checkpoint's bytes, owned or mapped.
struct RawTensor {
  DType dtype = DType::f32;
  Shape shape{0};
  std::shared_ptr<const std::byte> bytes;

  std::size_t byte_count() const { return static_cast<std::size_t>(shape.size()) * bytes_of(dtype); }
};

/// One element converted; integers truncate, bool is "not zero".
template <class To, class From>
To cast_element(From value) {
  if constexpr (std::same_as<To, From>)
    return value;
  else if constexpr (std::same_as<To, bool>)
    return static_cast<float>(value) != 0.0f;
  else if constexpr (std::same_as<To, bfloat16> || std::same_as<To, half>)
    return To(static_cast<float>(value));
  else if constexpr (std::same_as<From, bfloat16> || std::same_as<From, half>)
    return static_cast<To>(static_cast<float>(value));
  else
    return static_cast<To>(value);
}

/// The tensor with each element converted.
template <class To, class From>
Tensor<To> cast(const Tensor<From>& tensor) {
  auto out = Tensor<To>::uninitialized(tensor.shape());
  const From* from = tensor.data();
  To* to = out.data();
  parallel_chunks(tensor.size(), 65536, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) to[i] = cast_element<To>(from[i]);
  });
  return out;
}

/// Calls `f.template operator()<T>()` for the C++ type of `dtype`.
template <class F>
decltype(auto) visit_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::boolean: return f.template operator()<bool>();
    case DType::u8: return f.template operator()<std::uint8_t>();
    case DType::i8: return f.template operator()<std::int8_t>();
    case DType::i32: return f.template operator()<std::int32_t>();
    case DType::i64: return f.template operator()<std::int64_t>();
    case DType::f16: return f.template operator()<half>();
    case DType::bf16: return f.template operator()<bfloat16>();
    case DType::f32: return f.template operator()<float>();
    default: return f.template operator()<double>();
  }
}

/// Untyped elements as `To`. Bytes need no alignment.
template <class To>
Tensor<To> cast(const RawTensor& raw) {
  auto out = Tensor<To>::uninitialized(raw.shape);
  To* to = out.data();
  const std::byte* bytes = raw.bytes.get();
  visit_dtype(raw.dtype, [&]<class From>() {
    parallel_chunks(raw.shape.size(), 65536, [=](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        From element;
        std::memcpy(&element, bytes + static_cast<std::size_t>(i) * sizeof(From), sizeof(From));
        to[i] = cast_element<To>(element);
      }
    });
  });
  return out;
}

/// A tensor's elements as untyped bytes: copied, or taken over from a tensor that is moved in.
template <class T>
RawTensor raw_copy(Tensor<T> tensor) {
  const auto owner = std::make_shared<const Tensor<T>>(std::move(tensor));
  return {dtype_of<T>, owner->shape(), std::shared_ptr<const std::byte>(owner, reinterpret_cast<const std::byte*>(owner->data()))};
}

}  // namespace tenon::inline TENON_ABI
