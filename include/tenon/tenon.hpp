#pragma once
// tenon: tensors, layers, gradients and parameter-efficient fine-tuning for C++20, from headers alone.
//
// DESIGN
// Plain tensors, paired kernels, a node graph with the pullback under the forward, layers that are records with named
// fields, and exactly two seams through which fine-tuning enters.
//
//   core      config (the macros), errors, shapes, element types, memory, parallel loops, random numbers, ISA detection
//   tensor    Tensor (owning), View (borrowed), casts, printing; the Eigen and xtensor doors
//   kernels   raw loops, forward and backward, one body for each instruction set, chosen at run time
//   autograd  Var, record, backward, checkpoint, check_grad
//   ops       one differentiable function (or family) a header: check, call the kernel, record the pullback
//   nn        Param, the one traversal `fields`, the two seams (patch.hpp), layers
//   optim     AdamW, schedules, the guard against non-finite steps
//   peft      LoRA, bottleneck adapters, prefixes; attach, merge; file formats
//   io        safetensors, npy, JSON, pictures, atomic saves, training state
//   models    composed of the same layers; models and peft meet only in the user's program
//
// Include direction: models, peft -> nn, ops, io; optim, io -> nn/param; nn -> ops; ops -> autograd, kernels;
// autograd -> tensor, kernels; kernels -> tensor; tensor -> core. A test holds it.
//
// Decisions worth knowing before a change:
// - A Tensor copies deep; a Var shares a const value. A pullback captures values (`x.shared()`), never Vars: a Var in a
//   pullback would tie the graph into itself and make its destruction recursive.
// - A layer's parameters begin as declared shapes without elements, so that building a large model costs nothing before its
//   checkpoint is loaded. Loaded parameters are frozen, initialised ones trainable.
// - Activations are channels-last. Weights keep the checkpoint's shape; only packs reorder, at first use.
// - merge keeps a handle to the elements of before, and unmerge puts them back: bits, not a subtraction.
// - Float results are the same bits for any number of threads, and for AVX2 and AVX-512: see core/parallel.hpp.
#include <tenon/version.hpp>

#include <tenon/autograd/backward.hpp>
#include <tenon/autograd/checkpoint.hpp>
#include <tenon/io/checkpoint.hpp>
#include <tenon/nn/attention.hpp>
#include <tenon/nn/checkpoint.hpp>
#include <tenon/nn/conv2d.hpp>
#include <tenon/nn/embedding.hpp>
#include <tenon/nn/linear.hpp>
#include <tenon/nn/mlp.hpp>
#include <tenon/nn/norm.hpp>
#include <tenon/ops.hpp>
#include <tenon/optim/adamw.hpp>
#include <tenon/optim/ema.hpp>
#include <tenon/optim/schedule.hpp>
#include <tenon/peft/bottleneck.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/lora.hpp>
#include <tenon/peft/merge.hpp>
#include <tenon/peft/prefix.hpp>
#include <tenon/tensor/cast.hpp>
#include <tenon/tensor/print.hpp>
