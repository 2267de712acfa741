#pragma once
// CLIP with everything around it: models, tokenizer, pictures, zero-shot, fine-tuning, files. Needs utf8proc, libpng and
// libjpeg (tenon::tokenizer and tenon::image).
#include <tenon/tenon.hpp>

#include <tenon/models/clip/bpe_trainer.hpp>
#include <tenon/models/clip/gradient_cache.hpp>
#include <tenon/models/clip/interpolate.hpp>
#include <tenon/models/clip/pipeline.hpp>
