// expect: Element
// A Tensor holds numbers, not objects.
#include <tenon/tensor/tensor.hpp>

#include <string>

#if defined(MUST_FAIL)
tenon::Tensor<std::string> words;
#else
tenon::Tensor<float> numbers;
#endif
