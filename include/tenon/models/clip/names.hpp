#pragma once
// What other programs call CLIP's parameters: checkpoints of OpenAI and open_clip, brought to Hugging Face's names and
// shapes (transformers: convert_clip_original_pytorch_to_hf.py), and the configuration read from shapes where no file says.
#include <tenon/io/state_dict.hpp>
#include <tenon/models/clip/config.hpp>

namespace tenon::inline TENON_ABI {

/// Whether a state dict is of a CLIP with a ResNet, after `to_hugging_face_clip` too.
TENON_IN_BODY bool is_clip_resnet(const StateDict& dict);

/// Brings a CLIP checkpoint of any of the three namings to Hugging Face's names and shapes: fused in_proj split into q, k
/// and v, projections transposed, a ResNet's batch norms folded. Names that are not CLIP's stay, for strict loading to list.
/// Throws FileError or ShapeError when parts do not fit together.
TENON_IN_BODY void to_hugging_face_clip(StateDict& dict);

/// The configuration that the shapes of a checkpoint in Hugging Face's names imply. Heads are 64 wide except in vision
/// towers of width 1280, 1408 and 1664 (open_clip: 80, 88, 104); the activation cannot be seen and is `act`.
/// Throws NameError when a part of CLIP is missing, FileError when shapes make no sense.
TENON_IN_BODY ClipConfig infer_clip_config(const StateDict& dict, Activation act);

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/models/clip/names_body.hpp>
#endif
