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
//   autograd  Var, record, backward, checkpoint, NarrowSaved, Training (dropout), check_grad
//   ops       one differentiable function (or family) a header: check, call the kernel, record the pullback
//   nn        Param, the one traversal `fields`, the two seams (patch.hpp), layers
//   optim     AdamW, Sgd, schedules, the guard against non-finite steps
//   peft      LoRA, bottleneck adapters, prefixes; attach, merge; file formats
//   io        safetensors, npy, JSON, pictures, atomic saves, training state
//   models    composed of the same layers; models and peft meet only in the user's program
//
// Include direction: models, peft -> nn, ops, io; optim, io -> nn/param; nn -> ops; ops -> autograd, kernels;
// autograd -> tensor, kernels; kernels -> tensor; tensor -> core. A test holds it.
//
// Decisions worth knowing before a change:
// - A Tensor copies deep; a Var shares a const value. A pullback captures values (`x.shared()`), never Vars: a Var in a
//   pullback would tie the graph into itself and make its destruction recursive. Of an input that a norm made, a product keeps
//   the node instead (Saved, Pullback::remake): the norm keeps its own input anyway, and its turn in backward comes later.
// - A layer's parameters begin as declared shapes without elements, so that building a large model costs nothing before its
//   checkpoint is loaded. Loaded parameters are frozen, initialised ones trainable.
// - Activations are channels-last. Weights keep the checkpoint's shape; only packs reorder, at first use.
// - What a patch needs beside a layer's input comes as rows at the end of an Attention's context (KeyValuePatch::context_rows): a picture's
//   tokens for an IP-Adapter. They are values of the call, so checkpointing, threads and rows of a batch need no further state.
// - Winograd's convolution is an object that a layer may carry (Conv2d::algorithm), not a branch of conv2d: it is less exact, so it is
//   asked for by name, and who does not include nn/winograd.hpp does not compile it. Its points are 0, +-sqrt(1/2), +-sqrt(2): the usual
//   0, +-1, +-2 make four times the largest error (320 channels: 1.3e-5 in the place of 3.2e-6).
// - merge keeps a handle to the elements of before, and unmerge puts them back: bits, not a subtraction.
// - Float results are the same bits for any number of threads, and for AVX2 and AVX-512: see core/parallel.hpp.
// - Functions that few units call (files, JSON, tokenizers) and the kernels' entry points are templates without parameters in the
//   header-only form (TENON_IN_BODY, TENON_ON_CALL): a compiler instantiates what an ordinary inline function uses even where
//   nobody calls it, which was a third of the cost of including tenon.
// - Left out because it was measured (CLIP B/32's shapes, one Zen 4 thread, M = 50 and 1600 rows): q, k and v as one product
//   (0.0 and -0.6 %) and their A's as one (1.2 and 0.8 % of the three products, 0.3 % of a layer); the residual sum in fc2's
//   epilogue (as dear as the sum it saves: +0.1 and -0.6 %).
//
// PITFALLS
// - A View borrows: it dangles when its Tensor dies, moves or is assigned. `f().view()` dangles at once.
// - Copying a Var shares value and node, and `auto y = x` makes no second leaf; copying a Tensor copies its elements.
// - `x + y` broadcasts as in NumPy: [N, 1] + [N] is [N, N], no error. Give losses inputs of equal shape.
// - Write a Weight through `set` and `update` only: they move the version, which drops the packed form and tells checkpoint
//   and unmerge. `update` writes in place, so a graph that still holds the value sees it change: call it after backward.
// - The optimizer and lists of params hold pointers. They survive a move of the model, not its end; a patch attached or
//   detached later is not in them.
// - A merged weight must not be trained: unmerge throws, since it would lose the training. Merged means the weight, not the
//   patch: enable, disable and set_scale throw until unmerge.
// - `backward` frees the graph. Gradients stay in leaves and add up until a step or `clear_grad` takes them.
// - Evaluation needs a NoGrad only where something is trainable. Dropout drops only inside a Training, whatever NoGrad says.
// - A graph, NoGrad, Training, ThreadScope and IsaScope belong to one thread. Several threads may run one model forward, but
//   not while another writes it. Inside a parallel loop tenon runs serial.
// - Never -ffast-math (refused at compile time): it breaks the promise of equal bits, and with it the guard against NaN.
// - Everything lives in an inline namespace named after version, OpenMP and -march. Units built with different flags do not
//   link to each other's tenon types, on purpose: give all units that exchange them the same flags.
// - A mapped checkpoint must not be overwritten in place or cut short while it is open (SIGBUS); save_safetensors, which
//   renames, is safe. Open files that others write with `.mapped = false`.
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
#include <tenon/optim/sgd.hpp>
#include <tenon/peft/bottleneck.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/lora.hpp>
#include <tenon/peft/merge.hpp>
#include <tenon/peft/prefix.hpp>
#include <tenon/peft/row_adapters.hpp>
#include <tenon/tensor/cast.hpp>
#include <tenon/tensor/print.hpp>
