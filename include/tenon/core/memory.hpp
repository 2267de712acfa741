#pragma once
// Memory for elements: 64-byte aligned blocks from a size-bucketed cache of freed ones.
//
// A training step frees and asks for the same sizes again and again; handing such blocks back to the system costs
// a page fault for every 4 KiB at the next touch, which is more than many kernels take.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>
#if defined(__linux__)
#include <malloc.h>
#include <sys/mman.h>
#endif

#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool cache_blocks = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool cache_blocks = false;
#else
inline constexpr bool cache_blocks = true;
#endif
#else
inline constexpr bool cache_blocks = true;
#endif

/// Freed blocks by size class: four classes to each power of two, from 256 bytes. Where no block of its class is free, a large one
/// is made of the pages of others that are: maps of many sizes, as a decoder has, need no more memory than they hold at one
/// time, and no page comes from the system twice, which would clear it again (on a virtual machine, often ask its host for it).
class BlockCache {
 public:
  /// Never destroyed: tensors with static storage may outlive any other static object.
  static BlockCache& instance() {
    static BlockCache* const cache = new BlockCache;
    return *cache;
  }
  /// The smallest class that holds `bytes`, as its index and its size.
  static std::pair<std::size_t, std::size_t> size_class(std::size_t bytes) {
    std::size_t power = 256, index = 0;
    while (power * 2 < bytes) power *= 2, index += 4;
    for (std::size_t quarter = 0; quarter < 4; ++quarter) {
      const std::size_t size = power / 4 * (4 + quarter);
      if (bytes <= size) return {index + quarter, size};
    }
    return {index + 4, power * 2};
  }
  void* take(std::size_t bytes) {
    const auto [index, size] = size_class(bytes);
    if (cache_blocks) {
      const std::lock_guard lock(mutex_);
      if (Free* const block = free_[index]) {
        free_[index] = block->next;
        cached_ -= size;
        return block;
      }
      if (size >= large)
        if (void* const block = assemble(bytes, size)) return block;
    }
    return reserve(bytes, size);
  }
  void give(void* block, std::size_t bytes) noexcept {
    const auto [index, size] = size_class(bytes);
    if (!cache_blocks) return release(block, size);
    const std::lock_guard lock(mutex_);
    free_[index] = new (block) Free{free_[index], bytes / huge_page};
    cached_ += size;
  }
  void trim() {
    const std::lock_guard lock(mutex_);
    for (std::size_t index = 0; index < std::size(free_); ++index)
      while (Free* const block = free_[index]) {
        free_[index] = block->next;
        release(block, size_of(index));
      }
#if defined(__linux__)
    if (loose_ != nullptr) munmap(loose_, loose_->pages * huge_page);
    loose_ = nullptr;
#endif
    cached_ = 0;
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
  }
  std::size_t cached() {
    const std::lock_guard lock(mutex_);
    return cached_;
  }

 private:
  static constexpr std::size_t huge_page = std::size_t{2} << 20, large = std::size_t{32} << 20;

  /// How a free block begins.
  struct Free {
    Free* next;         // of its class
    std::size_t pages;  // huge pages that its last elements filled
  };
  static constexpr std::size_t size_of(std::size_t index) { return (std::size_t{256} << index / 4) / 4 * (4 + index % 4); }

  /// Large blocks come in huge pages from the system itself: within malloc's heap, such pages would stay when they are free.
#if defined(__linux__)
  static constexpr bool maps(std::size_t size) { return cache_blocks && size >= 2 * huge_page; }
  static constexpr std::size_t whole_pages(std::size_t size) { return (size + huge_page - 1) / huge_page * huge_page; }
#endif
  static void* reserve([[maybe_unused]] std::size_t bytes, std::size_t size) {
#if defined(__linux__)
    if (maps(size)) {
      const std::size_t whole = whole_pages(size);
      void* const mapped = mmap(nullptr, whole + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (mapped == MAP_FAILED) throw std::bad_alloc();
      char* const begin = static_cast<char*>(mapped);
      const std::size_t before = (huge_page - reinterpret_cast<std::uintptr_t>(begin) % huge_page) % huge_page;
      if (before > 0) munmap(begin, before);
      munmap(begin + before + whole, huge_page - before);
      madvise(begin + before, bytes / huge_page * huge_page, MADV_HUGEPAGE);  // not the rest, which would take memory that nobody asked for
      return begin + before;
    }
#endif
    void* const block = std::aligned_alloc(64, size);
    if (block == nullptr) throw std::bad_alloc();
    return block;
  }
  static void release(void* block, [[maybe_unused]] std::size_t size) noexcept {
#if defined(__linux__)
    if (maps(size)) {
      munmap(block, whole_pages(size));
      return;
    }
#endif
    std::free(block);
  }

  /// A block for `bytes` with as many pages of free ones as there are; null where there are none. Pages move one by one:
  /// a block made this way is as many mappings, and no call moves two.
  void* assemble([[maybe_unused]] std::size_t bytes, [[maybe_unused]] std::size_t size) {
#if defined(__linux__)
    if (!loosen()) return nullptr;
    char* const block = static_cast<char*>(reserve(bytes, size));
    for (std::size_t at = 0; at < bytes / huge_page && loosen(); ++at) {
      Free* const from = loose_;
      const std::size_t last = from->pages - 1;
      if (last > 0)
        from->pages = last;
      else
        loose_ = nullptr;
      cached_ -= huge_page;
      char *const page = reinterpret_cast<char*>(from) + last * huge_page, *const to = block + at * huge_page;
      if (mremap(page, huge_page, huge_page, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED) continue;
      munmap(page, huge_page);  // too many mappings: what is at `to` now is unknown, and is left alone
      munmap(block, at * huge_page);
      munmap(to + huge_page, whole_pages(size) - (at + 1) * huge_page);
      return nullptr;
    }
    return block;
#else
    return nullptr;
#endif
  }
#if defined(__linux__)
  /// Whether a huge page of a free block is at hand, the largest being taken apart first.
  bool loosen() {
    for (std::size_t index = std::size(free_); loose_ == nullptr && index-- > 0 && maps(size_of(index));) {
      Free* const block = free_[index];
      if (block == nullptr) continue;
      const std::size_t whole = whole_pages(size_of(index)), kept = block->pages * huge_page;
      free_[index] = block->next;
      if (kept < whole) munmap(reinterpret_cast<char*>(block) + kept, whole - kept);
      cached_ -= size_of(index) - kept;
      loose_ = block;
    }
    return loose_ != nullptr;
  }
#endif

  std::mutex mutex_;
  Free* free_[224] = {};  // more classes than 64-bit sizes have
#if defined(__linux__)
  Free* loose_ = nullptr;  // the pages that are left of a block taken apart
#endif
  std::size_t cached_ = 0;
};

}  // namespace detail

/// Returns the cached blocks to the system where they are more than `above` bytes.
inline void trim_memory(std::size_t above = 0) {
  if (detail::BlockCache::instance().cached() > above) detail::BlockCache::instance().trim();
}
/// Bytes that the cache holds for reuse.
inline std::size_t cached_memory() { return detail::BlockCache::instance().cached(); }

/// The deleter of a pointer into a mapped file, by which `drop_pages` knows one. Holds the mapping.
struct MappedPages {
  std::shared_ptr<const void> mapping;
  const std::byte* begin = nullptr;
  std::size_t size = 0;
  void operator()(const void*) const {}
};
/// Where `memory` is (a part of) a mapped file, gives the pages that hold `bytes` bytes from it on back to the system: they
/// count no more as this process's memory, and come from the file again when touched. Else does nothing.
template <class P>
void drop_pages(const std::shared_ptr<P>& memory, std::size_t bytes) {
#if defined(__linux__)
  const auto* pages = std::get_deleter<MappedPages>(memory);
  if (pages == nullptr || bytes == 0) return;
  constexpr std::size_t around = 65536;  // what the touch of one page brings in
  const auto first = static_cast<std::size_t>(reinterpret_cast<const std::byte*>(memory.get()) - pages->begin);
  const std::size_t begin = first / around * around, end = (first + bytes + around - 1) / around * around;
  madvise(const_cast<std::byte*>(pages->begin + begin), (end < pages->size ? end : pages->size) - begin, MADV_DONTNEED);
#else
  static_cast<void>(memory), static_cast<void>(bytes);
#endif
}

namespace detail {
/// The deleter of what `allocate` returns.
struct GivesBlock {
  std::size_t bytes;
  void operator()(void* block) const { BlockCache::instance().give(block, bytes); }
};
/// Whether these elements are of `allocate`, so that nobody else has a pointer to them that counts.
template <class P>
bool is_block(const std::shared_ptr<P>& memory) {
  return std::get_deleter<GivesBlock>(memory) != nullptr;
}
}  // namespace detail

/// `count` uninitialised elements, 64-byte aligned, shared by copies of the pointer. Throws std::bad_alloc.
template <class T>
std::shared_ptr<T[]> allocate(Index count) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::size_t n = static_cast<std::size_t>(count > 0 ? count : 1);
  if (n > static_cast<std::size_t>(-1) / 4 / sizeof(T)) throw std::bad_alloc();
  const std::size_t bytes = n * sizeof(T);
  T* block = static_cast<T*>(detail::BlockCache::instance().take(bytes));
  return std::shared_ptr<T[]>(block, detail::GivesBlock{bytes});
}

/// Scratch for kernels: `count` uninitialised elements, 64-byte aligned, owned by this object.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index count) : bytes_(static_cast<std::size_t>(count > 0 ? count : 0) * sizeof(T)) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (bytes_ > 0) data_ = static_cast<T*>(detail::BlockCache::instance().take(bytes_));
  }
  ~Buffer() {
    if (data_ != nullptr) detail::BlockCache::instance().give(data_, bytes_);
  }
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return static_cast<Index>(bytes_ / sizeof(T)); }
  T& operator[](Index i) { return data_[i]; }
  const T& operator[](Index i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace tenon::inline TENON_ABI
