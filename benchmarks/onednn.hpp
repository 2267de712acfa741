#pragma once
// oneDNN's side of the kernel benchmark: weights reordered once into the form that it prefers, activations in the type
// that it computes in (tenon takes and returns float32 and pays for the conversion in every row).
#include <memory>
#include <vector>

#include <dnnl.hpp>

namespace tenon_benchmark {

class Onednn {
 public:
  /// y [m, n] = x [m, k] w^T, w [n, k], in f32 or bf16.
  static Onednn gemm(long m, long n, long k, const float* x, const float* w, bool bf16) {
    using dnnl::memory;
    const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    Onednn out(type);
    const memory::desc source({m, k}, type, memory::format_tag::ab), any({k, n}, type, memory::format_tag::any);
    const memory::desc result({m, n}, type, memory::format_tag::ab);
#if DNNL_VERSION_MAJOR >= 3
    const dnnl::matmul::primitive_desc pd(out.engine_, source, any, result);
#else
    const dnnl::matmul::primitive_desc pd(dnnl::matmul::desc(source, any, result), out.engine_);
#endif
    out.prepare(dnnl::matmul(pd), memory::desc({m, k}, memory::data_type::f32, memory::format_tag::ab), x, source,
                memory::desc({k, n}, memory::data_type::f32, memory::format_tag::ba), w, pd.weights_desc(), result);
    return out;
  }
  /// Channels-last y [n, h, w, out] of x [n, h, w, c] and w [out, c, k, k], stride 1, padding `pad`.
  static Onednn conv(long n, long h, long w, long c, long out_c, long k, long pad, const float* x, const float* weight, bool bf16) {
    using dnnl::memory;
    const auto type = bf16 ? memory::data_type::bf16 : memory::data_type::f32;
    Onednn out(type);
    const long oh = h + 2 * pad - k + 1, ow = w + 2 * pad - k + 1;
    const memory::desc source({n, c, h, w}, type, memory::format_tag::nhwc), any({out_c, c, k, k}, type, memory::format_tag::any);
    const memory::desc result({n, out_c, oh, ow}, type, memory::format_tag::nhwc);
    const memory::dims strides{1, 1}, padding{pad, pad};
    constexpr auto kind = dnnl::prop_kind::forward_inference;
    constexpr auto algorithm = dnnl::algorithm::convolution_direct;
    using Conv = dnnl::convolution_forward;
#if DNNL_VERSION_MAJOR >= 3
    const Conv::primitive_desc pd(out.engine_, kind, algorithm, source, any, result, strides, padding, padding);
#else
    const Conv::primitive_desc pd(Conv::desc(kind, algorithm, source, any, result, strides, padding, padding), out.engine_);
#endif
    out.prepare(Conv(pd), memory::desc({n, c, h, w}, memory::data_type::f32, memory::format_tag::nhwc), x, source,
                memory::desc({out_c, c, k, k}, memory::data_type::f32, memory::format_tag::oihw), weight, pd.weights_desc(), result);
    return out;
  }
  void run() {
    primitive_.execute(stream_, {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, w_}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }
  /// The last result as floats.
  void copy_result(float* to, long count) {
    dnnl::memory floats({{count}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::a}, engine_, to);
    dnnl::memory flat({{count}, type_, dnnl::memory::format_tag::a}, engine_, y_.get_data_handle());
    dnnl::reorder(flat, floats).execute(stream_, flat, floats);
    stream_.wait();
  }

 private:
  explicit Onednn(dnnl::memory::data_type type) : type_(type), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {}
  void prepare(dnnl::primitive primitive, const dnnl::memory::desc& x_floats, const float* x, const dnnl::memory::desc& x_desc,
               const dnnl::memory::desc& w_floats, const float* w, const dnnl::memory::desc& w_desc, const dnnl::memory::desc& y_desc) {
    primitive_ = std::move(primitive);
    x_ = reordered(x_floats, x, x_desc);
    w_ = reordered(w_floats, w, w_desc);
    y_ = dnnl::memory(y_desc, engine_);
  }
  dnnl::memory reordered(const dnnl::memory::desc& from, const float* data, const dnnl::memory::desc& to) {
    dnnl::memory floats(from, engine_, const_cast<float*>(data)), out(to, engine_);
    dnnl::reorder(floats, out).execute(stream_, floats, out);
    stream_.wait();
    return out;
  }

  dnnl::memory::data_type type_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::primitive primitive_;
  dnnl::memory x_, w_, y_;
};

}  // namespace tenon_benchmark
