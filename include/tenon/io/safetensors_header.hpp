#pragma once
// The header of a safetensors file: the one place where such a file is judged, before any tensor is touched.
//
// Layout (github.com/huggingface/safetensors): 8 bytes N, little endian; N bytes of JSON, at most 100,000,000; the data.
// The JSON maps a name to {"dtype", "shape", "data_offsets": [begin, end)} within the data, and "__metadata__" to text
// keys and values. Every rule has an id, which its error names. Stricter than the reference reader on purpose: names
// and keys must differ and names hold no NUL, a tensor has no unknown keys, at most eight extents and each below 2^63,
// "__metadata__" is no null, and nothing precedes the first `{`.
#include <map>
#include <optional>
#include <vector>

#include <tenon/core/dtype.hpp>
#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI {

/// One tensor of a safetensors file.
struct TensorInfo {
  std::string name;
  std::string_view dtype_name;  // as in the file: "BF16"
  std::optional<DType> dtype;   // absent: a type that files may hold and tenon does not read
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes within the data
};

/// What a valid header says. Tensors are sorted by name.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

namespace detail {

struct SafetensorsType {
  std::string_view name;
  unsigned bits;
  std::optional<DType> dtype;
};
inline constexpr SafetensorsType safetensors_types[] = {
    {"BOOL", 8, DType::boolean}, {"U8", 8, DType::u8},     {"I8", 8, DType::i8},
    {"I32", 32, DType::i32},     {"I64", 64, DType::i64},  {"F16", 16, DType::f16},
    {"BF16", 16, DType::bf16},   {"F32", 32, DType::f32},  {"F64", 64, DType::f64},
    {"U16", 16, {}},             {"I16", 16, {}},          {"U32", 32, {}},
    {"U64", 64, {}},             {"C64", 64, {}},          {"F8_E5M2", 8, {}},
    {"F8_E4M3", 8, {}},          {"F8_E8M0", 8, {}},       {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},      {"F6_E2M3", 6, {}},       {"F6_E3M2", 6, {}},
    {"F4", 4, {}},
};

/// A name as an error shows it: quoted, at most 100 bytes, control characters as `?`.
TENON_IN_BODY std::string quoted(std::string_view name);

}  // namespace detail

/// The largest header that the format allows.
inline constexpr std::uint64_t safetensors_max_header = 100'000'000;

/// The length of the header, from the file's first 8 bytes. Throws FileError when header and file cannot fit.
TENON_IN_BODY std::uint64_t validate_safetensors_prefix(std::uint64_t prefix, std::uint64_t file_size, const std::string& file);

/// Judges a header against `data_size` bytes of data that follow it: every rule is checked here, and nowhere else.
/// Throws FileError with file, tensor, rule, what was expected and what was found.
TENON_IN_BODY SafetensorsHeader validate_safetensors(std::string_view header, std::uint64_t data_size, const std::string& file);

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/io/safetensors_header_body.hpp>
#endif
