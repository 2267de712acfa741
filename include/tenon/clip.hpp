#pragma once
// CLIP with everything around it: models, tokenizer, preprocessing, zero-shot, fine-tuning, files.
#include <tenon/tenon.hpp>

#include <tenon/models/clip/bpe_trainer.hpp>
#include <tenon/models/clip/checkpoint.hpp>
#include <tenon/models/clip/preprocess.hpp>
#include <tenon/models/clip/tokenizer_files.hpp>
#include <tenon/models/clip/zero_shot.hpp>
