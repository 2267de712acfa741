#pragma once
// Some parameters to be trained with given gradients.
#include <memory>
#include <string>
#include <vector>

#include <tenon/autograd/backward.hpp>
#include <tenon/nn/param.hpp>

template <class T>
struct Group {
  std::vector<std::unique_ptr<tenon::Weight<T>>> weights;
  std::vector<tenon::ParamRef<T>> list;
  void add(const std::string& path, tenon::Tensor<T> value) {
    weights.push_back(std::make_unique<tenon::Weight<T>>(std::move(value)));
    list.push_back({path, weights.back().get()});
  }
  void give(std::size_t i, tenon::Tensor<T> gradient) { backward(weights[i]->var(), std::move(gradient)); }
};
