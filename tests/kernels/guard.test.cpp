// The float kernels on arrays that end at a page without access, over sizes around the vector's width.
#include "kernels/every_kernel.hpp"

#include "check.hpp"

TEST_CASE("kernels: float follows double and touches nothing past the end") {
  for (Index n : {1, 2, 7, 15, 16, 17, 31, 33, 49, 65}) {
    INFO("n " << n);
    check_float([n]<class T>(T) { return every_kernel<T>(n); }, 2e-5);
  }
}
