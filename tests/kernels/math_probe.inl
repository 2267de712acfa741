// One copy for each instruction set: the vector math over n floats, n a multiple of 16.
inline void probe_math(Function f, Index n, const float* x, float* y) {
  for (Index i = 0; i < n; i += 16) {
    const F16 a = load(x + i);
    F16 r = a;
    switch (f) {
      case Function::exp: r = exp(a); break;
      case Function::exp_nonpositive: r = exp_nonpositive(a); break;
      case Function::exp2_nonpositive: r = exp2_nonpositive(a); break;
      case Function::log: r = log(a); break;
      case Function::tanh: r = tanh(a); break;
      case Function::sigmoid: r = sigmoid(a); break;
      case Function::erf: r = erf(a); break;
      case Function::sin: r = sin(a); break;
      case Function::cos: r = cos(a); break;
      case Function::rsqrt: r = rsqrt(a); break;
      case Function::silu: r = silu(a); break;
      case Function::silu_derivative: r = silu_derivative(a); break;
      case Function::quick_gelu: r = quick_gelu(a); break;
      case Function::quick_gelu_derivative: r = quick_gelu_derivative(a); break;
      case Function::gelu: r = gelu(a); break;
      case Function::gelu_derivative: r = gelu_derivative(a); break;
    }
    store(y + i, r);
  }
}
