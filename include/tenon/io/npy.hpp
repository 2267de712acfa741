#pragma once
// NumPy's .npy files, versions 1 to 3 (numpy/lib/format.py): little endian bool, uint8, int8, int32, int64, float16,
// float32 and float64, in C or Fortran order.
#include <charconv>

#include <tenon/io/mapped_file.hpp>
#include <tenon/tensor/cast.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

struct NpyType {
  std::string_view descr;
  DType dtype;
};
inline constexpr NpyType npy_types[] = {{"|b1", DType::boolean}, {"|u1", DType::u8},  {"|i1", DType::i8},  {"<i4", DType::i32},
                                        {"<i8", DType::i64},     {"<f2", DType::f16}, {"<f4", DType::f32}, {"<f8", DType::f64}};

struct NpyHeader {
  DType dtype = DType::f32;
  bool fortran_order = false;
  Shape shape;
};

/// Reads the dictionary `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }` and nothing else.
class NpyParser {
 public:
  NpyParser(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  NpyHeader parse() {
    NpyHeader out;
    bool descr = false, order = false, shape = false;
    const auto once = [&](bool& seen) {
      require(!seen, "each key once");
      seen = true;
    };
    expect('{');
    while (peek() != '}') {
      const auto key = string();
      expect(':');
      if (key == "descr") {
        once(descr);
        const auto text = string();
        const auto* type = std::find_if(std::begin(npy_types), std::end(npy_types), [&](const auto& t) { return t.descr == text; });
        require(type != std::end(npy_types), join_text("one of |b1 |u1 |i1 <i4 <i8 <f2 <f4 <f8, not ", text.substr(0, 20)));
        out.dtype = type->dtype;
      } else if (key == "fortran_order") {
        once(order);
        out.fortran_order = peek() == 'T';
        for (char c : std::string_view(out.fortran_order ? "True" : "False")) {
          require(at_ < text_.size() && text_[at_] == c, "True or False");
          ++at_;
        }
      } else if (key == "shape") {
        once(shape);
        expect('(');
        while (peek() != ')') {
          out.shape.push_back(integer());
          const bool comma = peek() == ',';
          at_ += comma;
          require(comma || (peek() == ')' && out.shape.rank() > 1), "','");
        }
        ++at_;
      } else {
        require(false, "descr, fortran_order or shape as key");
      }
      if (peek() != '}') expect(',');
    }
    ++at_;
    require(peek() == '\0' && at_ == text_.size(), "nothing after the dictionary");
    require(descr && order && shape, "descr, fortran_order and shape");
    return out;
  }

 private:
  void require(bool condition, std::string_view what) const {
    if (!condition) fail<FileError>("npy", file_, ": expected ", what, " at header byte ", at_);
  }
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void expect(char c) {
    require(peek() == c, std::string_view(&c, 1));
    ++at_;
  }
  std::string_view string() {
    const char quote = peek();
    require(quote == '\'' || quote == '"', "a string");
    const auto end = text_.find(quote, at_ + 1);
    require(end != std::string_view::npos, "a closing quote");
    const auto out = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return out;
  }
  Index integer() {
    peek();
    Index value = 0;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    require(error == std::errc{} && value >= 0, "an extent below 2^63");
    at_ = static_cast<std::size_t>(end - text_.data());
    return value;
  }

  std::string_view text_;
  const std::string& file_;
  std::size_t at_ = 0;
};

}  // namespace detail

/// The array in a .npy file, converted to `T` between floating-point types. Throws FileError on a file that breaks the
/// format, is cut short or goes on after the array, and on element types that differ otherwise.
template <class T>
Tensor<T> load_npy(const std::string& path) {
  const FileReader file(path);
  std::array<unsigned char, 12> start{};
  const bool magic = file.size() >= start.size() && (file.read(0, std::as_writable_bytes(std::span(start))), true) &&
                     std::memcmp(start.data(), "\x93NUMPY", 6) == 0;
  check<FileError>(magic, "npy", path, ": expected a .npy file, which begins with \\x93NUMPY");
  check<FileError>(start[6] >= 1 && start[6] <= 3 && start[7] == 0, "npy", path, ": expected version 1.0, 2.0 or 3.0, found ",
                   int{start[6]}, '.', int{start[7]});
  const std::uint64_t prefix = start[6] == 1 ? 10 : 12;
  std::uint64_t length = 0;
  std::memcpy(&length, &start[8], start[6] == 1 ? 2 : 4);
  check<FileError>(length <= 65535 && prefix + length <= file.size(), "npy", path, ": expected a header of at most ",
                   std::min<std::uint64_t>(65535, file.size() - prefix), " bytes, found ", length);
  std::string text(static_cast<std::size_t>(length), '\0');
  file.read(prefix, std::as_writable_bytes(std::span(text)));
  detail::NpyHeader header;
  try {
    header = detail::NpyParser(text, path).parse();
  } catch (const ShapeError& e) {
    fail<FileError>("npy", path, ": ", std::string_view(e.what()));
  }
  const auto floating = [](DType d) { return d == DType::f16 || d == DType::bf16 || d == DType::f32 || d == DType::f64; };
  check<FileError>(header.dtype == dtype_of<T> || (floating(header.dtype) && floating(dtype_of<T>)), "npy", path, ": expected ",
                   name_of(dtype_of<T>), ", found ", name_of(header.dtype));
  const std::uint64_t data = prefix + length, available = file.size() - data;
  const auto elements = static_cast<std::uint64_t>(header.shape.size());
  check<FileError>(elements <= available && elements * bytes_of(header.dtype) == available, "npy", path, ": expected ", elements,
                   " elements of ", bytes_of(header.dtype), " bytes for shape ", header.shape, ", found ", available, " bytes");

  const auto bytes = allocate<std::byte>(static_cast<Index>(available));
  const std::span content(bytes.get(), static_cast<std::size_t>(available));
  file.read(data, content);
  check<FileError>(header.dtype != DType::boolean || std::all_of(content.begin(), content.end(), [](std::byte b) { return b <= std::byte{1}; }),
                   "npy", path, ": expected booleans of 0 and 1, found others");
  Shape stored = header.shape;
  if (header.fortran_order) {
    stored = {};
    for (Index i = header.shape.rank(); i-- > 0;) stored.push_back(header.shape[i]);
  }
  auto out = cast<T>(RawTensor{header.dtype, stored, std::shared_ptr<const std::byte>(bytes, bytes.get())});
  if (!header.fortran_order) return out;
  auto view = std::as_const(out).view();  // the reversed axes of the same elements
  std::reverse(view.strides.begin(), view.strides.begin() + header.shape.rank());
  view.shape = header.shape;
  return copy(view);
}

/// Writes a tensor as version 1.0 in C order, through atomic_write. bfloat16 is written as float32, which holds it.
template <class T>
void save_npy(const std::string& path, const Tensor<T>& tensor, FileOperations& files = system_files()) {
  if constexpr (std::same_as<T, bfloat16>) {
    save_npy(path, cast<float>(tensor), files);
  } else {
    const auto* type = std::find_if(std::begin(detail::npy_types), std::end(detail::npy_types),
                                    [](const auto& t) { return t.dtype == dtype_of<T>; });
    std::string shape;
    for (Index i = 0; i < tensor.rank(); ++i) shape += join_text(tensor.extent(i), tensor.rank() == 1 ? "," : i + 1 < tensor.rank() ? ", " : "");
    std::string header = join_text("{'descr': '", type->descr, "', 'fortran_order': False, 'shape': (", shape, "), }");
    header.append(63 - (10 + header.size()) % 64, ' ') += '\n';
    std::string start = "\x93NUMPY";
    start += {'\1', '\0', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
    atomic_write(
        path,
        [&](FileSink& sink) {
          sink.write(start);
          sink.write(header);
          sink.write(std::as_bytes(tensor.span()));
        },
        files);
  }
}

}  // namespace tenon::inline TENON_ABI
