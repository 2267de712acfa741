#pragma once
// Weight: what layers multiply with. A checkpoint's tensor in its own shape and storage type, and its packed form.
#include <memory>
#include <mutex>
#include <optional>
#include <variant>

#include <tenon/autograd/var.hpp>
#include <tenon/tensor/cast.hpp>

namespace tenon::inline TENON_ABI {

/// A parameter's elements: owned, or mapped from a file; stored as T, or (frozen only) in the file's type. Packing a mapped
/// weight leaves no second copy of it in memory: the file's pages are given back, and read again by whoever wants the elements.
/// Reading from several threads is safe; writing is not, and moves the version, which drops the packed form.
template <class T>
class Weight {
  static_assert(Real<T>);

 public:
  using Value = std::shared_ptr<const Tensor<T>>;
  /// What a Weight holds at one time: a handle to keep and to put back with `set`, never a copy.
  using Stored = std::variant<Value, RawTensor>;

  /// Absent: a bias that the layer does not have.
  Weight() = default;
  /// Declared: a shape that a checkpoint or an initialisation will fill.
  explicit Weight(const Shape& shape) : shape_(shape), present_(true) {}
  explicit Weight(Tensor<T> value, bool trainable = true) {
    set(std::move(value));
    set_trainable(trainable);
  }
  /// A value of a graph as a weight: gradients flow on into `var`.
  explicit Weight(const Var<T>& var) {
    set(Stored(var.shared()));
    var_ = var;
  }
  Weight(const Weight&) = delete;
  Weight& operator=(const Weight&) = delete;

  bool present() const { return present_; }
  /// Whether there are elements: false for a declared shape that nothing has filled yet.
  bool filled() const { return raw() || std::get<Value>(stored_) != nullptr; }
  const Shape& shape() const { return shape_; }
  Index size() const { return shape_.size(); }
  DType storage() const { return raw() ? raw()->dtype : dtype_of<T>; }
  bool trainable() const { return var_.requires_grad(); }
  /// The type that products read: what `set_panels` chose, else bfloat16 for elements stored so, else T.
  DType panels() const {
    if (panels_) return *panels_;
    return std::same_as<T, float> && storage() == DType::bf16 ? DType::bf16 : dtype_of<T>;
  }
  /// Grows with every write.
  std::uint64_t version() const { return version_; }

  const Stored& stored() const { return stored_; }
  /// The elements. Throws Error when they are stored in another type than T.
  const Tensor<T>& value() const {
    check(!raw(), "Weight", "expected elements stored as ", name_of(dtype_of<T>), ", got ", name_of(storage()));
    check(filled(), "Weight", "expected elements of shape ", shape_, ", got none: load a checkpoint or initialise first");
    return *std::get<Value>(stored_);
  }
  /// The elements as T: shared when stored so, else converted.
  Value values() const {
    if (raw()) return std::make_shared<const Tensor<T>>(cast<T>(*raw()));
    value();
    return std::get<Value>(stored_);
  }
  /// The elements as bytes, for a file.
  RawTensor bytes() const {
    if (raw()) return *raw();
    value();
    const Value& value = std::get<Value>(stored_);
    return {dtype_of<T>, shape_, std::shared_ptr<const std::byte>(value, reinterpret_cast<const std::byte*>(value->data()))};
  }
  /// The parameter in a graph: a leaf when trainable, else a constant.
  const Var<T>& var() const {
    value();
    return var_;
  }

  /// Replaces the elements. The shape may change only from absent. Keeps trainable where the storage allows it.
  void set(Stored stored) {
    const Shape& shape = std::holds_alternative<Value>(stored) ? std::get<Value>(stored)->shape() : std::get<RawTensor>(stored).shape;
    check<ShapeError>(!present_ || shape == shape_, "Weight", "expected shape ", shape_, ", got ", shape);
    const bool was_trainable = trainable();
    check(!was_trainable || std::holds_alternative<Value>(stored), "Weight", "a trainable weight must be stored as ",
          name_of(dtype_of<T>));
    shape_ = shape;
    stored_ = std::move(stored);
    present_ = true;
    owned_ = false;
    ++version_;
    var_ = raw() ? Var<T>() : Var<T>(std::get<Value>(stored_), nullptr);
    set_trainable(was_trainable);
  }
  void set(Tensor<T> value) {
    set(Stored(std::make_shared<const Tensor<T>>(std::move(value))));
    owned_ = true;
  }
  /// Products read panels of T or, of a frozen float weight, of bfloat16 or int8 (a scale for each output feature).
  void set_panels(DType type) {
    check(type == dtype_of<T> || (std::same_as<T, float> && (type == DType::bf16 || type == DType::i8)), "Weight",
          "expected panels of ", name_of(dtype_of<T>), std::same_as<T, float> ? ", bfloat16 or int8, got " : ", got ", name_of(type));
    check(type == dtype_of<T> || !trainable(), "Weight", "a trainable weight cannot have panels of ", name_of(type));
    panels_ = type;
    ++version_;
  }
  /// Whether `backward` leaves a gradient here. A file's elements of another type become T. Throws Error where products read
  /// another type than T, and where there are no elements.
  void set_trainable(bool trainable) {
    check(!trainable || filled(), "Weight", "a weight without elements cannot be trained");
    check(!trainable || panels() == dtype_of<T>, "Weight", "a weight with panels of ", name_of(panels()), " cannot be trained");
    if (trainable && raw()) set(cast<T>(*raw()));
    if (filled() && !raw() && trainable != var_.requires_grad())
      var_ = trainable ? variable<T>(std::get<Value>(stored_)) : var_.detach();
  }
  /// Writes in place: `f(Tensor<T>&)`. Values that a live graph holds change too: only an optimizer, after backward, may.
  template <class F>
  void update(F&& f) {
    if (!owned_) set(Tensor<T>(value()));
    f(const_cast<Tensor<T>&>(value()));
    ++version_;
  }

  /// The packed form of kind P, made by `make()` at first use and again when the version has moved.
  template <class P, class Make>
  std::shared_ptr<const P> packed(Make&& make) const {
    static const char kind = 0;
    const std::lock_guard lock(pack_mutex_);
    if (!pack_ || pack_version_ != version_ || pack_kind_ != &kind) {
      pack_ = std::make_shared<const P>(make());
      pack_version_ = version_;
      pack_kind_ = &kind;
      drop_pages(stored_);
    }
    return std::static_pointer_cast<const P>(pack_);
  }

  /// Frees the packed form, which the next use makes again.
  void drop_packed() const {
    const std::lock_guard lock(pack_mutex_);
    pack_.reset();
  }
  /// Elements that lie in a mapped file have been read and are not needed for now: see tenon::drop_pages.
  static void drop_pages(const Stored& stored) {
    if (const RawTensor* raw = std::get_if<RawTensor>(&stored))
      tenon::drop_pages(raw->bytes, raw->byte_count());
    else if (const Value& value = std::get<Value>(stored))
      tenon::drop_pages(value->memory(), static_cast<std::size_t>(value->size()) * sizeof(T));
  }

 private:
  const RawTensor* raw() const { return std::get_if<RawTensor>(&stored_); }

  Shape shape_{0};
  Stored stored_;
  Var<T> var_;
  bool present_ = false;
  bool owned_ = false;
  std::uint64_t version_ = 0;
  std::optional<DType> panels_;
  mutable std::mutex pack_mutex_;
  mutable std::shared_ptr<const void> pack_;
  mutable const void* pack_kind_ = nullptr;
  mutable std::uint64_t pack_version_ = 0;
};

}  // namespace tenon::inline TENON_ABI
