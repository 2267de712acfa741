#pragma once
// Checkpoints of torch.save (.pt, .pth, .bin, .ckpt) and of torch.jit.save: a zip archive of one pickle and raw storages.
//
// The pickle is read as data (io/pickle.hpp) and nothing in it is executed. Tensors are found in nested dictionaries and
// objects and named by the path to them: a state dict gives its own names, a TorchScript module those of its state dict.
#include <tenon/io/state_dict.hpp>

namespace tenon::inline TENON_ABI {

/// The tensors of a torch checkpoint; those of a type that tenon does not read are named and cannot be taken.
/// Throws FileError on anything but such an archive, on names outside those that checkpoints are made of, and on tensors
/// that reach outside their storage.
TENON_IN_BODY StateDict read_torch_file(const std::string& path);

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/io/torch_file_body.hpp>
#endif
