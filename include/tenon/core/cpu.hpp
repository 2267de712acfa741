#pragma once
// Which instruction set the kernels run on: found once at run time, or forced by TENON_ISA or an IsaScope.
#include <array>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <tenon/core/error.hpp>

namespace tenon::inline TENON_ABI {

/// A copy of the kernels. avx2 means AVX2 + FMA + F16C; avx512 means AVX-512 F, BW, DQ and VL.
enum class Isa { generic, avx2, avx512, neon };

inline constexpr std::array<Isa, 4> all_isas{Isa::generic, Isa::avx2, Isa::avx512, Isa::neon};

inline constexpr std::string_view name_of(Isa isa) {
  constexpr std::string_view names[] = {"generic", "avx2", "avx512", "neon"};
  return names[static_cast<std::size_t>(isa)];
}

/// Whether this build holds the kernels of `isa`.
inline constexpr bool is_compiled(Isa isa) {
#if defined(TENON_STATIC_ISA)
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
  return isa == Isa::avx512;
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  return isa == Isa::avx2;
#elif defined(__aarch64__)
  return isa == Isa::neon;
#else
  return isa == Isa::generic;
#endif
#elif defined(__x86_64__)
  return isa != Isa::neon;
#elif defined(__aarch64__)
  return isa == Isa::generic || isa == Isa::neon;
#else
  return isa == Isa::generic;
#endif
}

/// What this processor offers beyond the Isa itself.
struct CpuFeatures {
  bool avx2 = false, avx512 = false, neon = false;
  bool bf16 = false;  ///< dot products of bfloat16 pairs (AVX512_BF16)
  bool vnni = false;  ///< dot products of int8 fours (AVX512_VNNI)
};

inline const CpuFeatures& cpu_features() {
  static const CpuFeatures features = [] {
    CpuFeatures f;
#if defined(__x86_64__)
    __builtin_cpu_init();
    unsigned a = 0, b = 0, c = 0, d = 0;  // clang 14 knows no "f16c"
    const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
    f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
    f.avx512 = f.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    f.bf16 = f.avx512 && __builtin_cpu_supports("avx512bf16");
    f.vnni = f.avx512 && __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
    f.neon = true;
#endif
    return f;
  }();
  return features;
}

/// Whether the kernels of `isa` are in this build and run on this processor.
inline bool is_available(Isa isa) {
  if (!is_compiled(isa)) return false;
  const CpuFeatures& f = cpu_features();
  switch (isa) {
    case Isa::avx2: return f.avx2;
    case Isa::avx512: return f.avx512;
    case Isa::neon: return f.neon;
    case Isa::generic: break;
  }
  return true;
}

/// `generic, avx2, avx512`
inline std::string available_isas() {
  std::string out;
  for (Isa isa : all_isas)
    if (is_available(isa)) out += (out.empty() ? "" : ", ") + std::string(name_of(isa));
  return out;
}

/// The Isa of that name. Throws NameError when the name is unknown, or the Isa is not available here.
inline Isa isa_from_name(std::string_view op, std::string_view name) {
  for (Isa isa : all_isas)
    if (name == name_of(isa)) {
      check<NameError>(is_available(isa), op, "expected one of: ", available_isas(), "; ", name,
                       is_compiled(isa) ? " does not run on this processor" : " is not in this build");
      return isa;
    }
  fail<NameError>(op, "expected one of: ", available_isas(), "; got '", name, "'");
}

/// The best available Isa, or the one that the environment variable TENON_ISA names. Read once.
inline Isa default_isa() {
  static const Isa isa = [] {
    const char* forced = std::getenv("TENON_ISA");
    if (forced != nullptr && *forced != '\0') return isa_from_name("TENON_ISA", forced);
    for (Isa best : {Isa::avx512, Isa::avx2, Isa::neon, Isa::generic})
      if (is_available(best)) return best;
    fail("cpu", "this build holds no kernels that run on this processor: compiled for a newer one by -march");
  }();
  return isa;
}

namespace detail {
inline thread_local std::optional<Isa> scoped_isa;
}

/// The Isa of the calling thread's kernels: the innermost IsaScope's, else default_isa().
inline Isa current_isa() { return detail::scoped_isa ? *detail::scoped_isa : default_isa(); }

/// While alive, kernels called from this thread run on `isa`: for tests and measurements.
class IsaScope {
 public:
  /// Throws NameError when `isa` is not available.
  explicit IsaScope(Isa isa) : before_(detail::scoped_isa) {
    detail::scoped_isa = isa_from_name("IsaScope", name_of(isa));
  }
  ~IsaScope() { detail::scoped_isa = before_; }
  IsaScope(const IsaScope&) = delete;
  IsaScope& operator=(const IsaScope&) = delete;

 private:
  std::optional<Isa> before_;
};

}  // namespace tenon::inline TENON_ABI
