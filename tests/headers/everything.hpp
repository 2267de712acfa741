#pragma once
#include <tenon/core/parallel.hpp>
#include <tenon/core/shape.hpp>
#if __has_include(<tenon/tenon.hpp>)
#include <tenon/tenon.hpp>
#endif
#if __has_include(<tenon/clip.hpp>)
#include <tenon/clip.hpp>
#endif
