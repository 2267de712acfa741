// What a user's first program does: include, build a tensor, read it.
#include <tenon/tensor/tensor.hpp>
#include <tenon/version.hpp>

#include <cstdio>

int main() {
  const tenon::Tensor<float> t({2, 3});
  std::printf("tenon %s: %d elements\n", tenon::version.data(), static_cast<int>(t.size()));
  return t.size() == 6 ? 0 : 1;
}
