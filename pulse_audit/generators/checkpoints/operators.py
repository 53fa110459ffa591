"""The operators of ``torch.export`` programs that may run: those of image networks.

From PyTorch's core operators and from what its export writes for the layers of ``torch.nn``.
Operators that trust their arguments (sparse and quantised tensors, FFT plans, raw memory, other
devices, files) are not among them: with a wrong size they read or write outside their tensors.
"""

from __future__ import annotations

import re

# In place too, with an underscore behind the name.
ELEMENTWISE = """
abs acos acosh add addcdiv addcmul asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or
bitwise_xor ceil celu clamp clamp_max clamp_min clip copy cos cosh cumsum detach div divide dropout
elu eq erf erfc exp exp2 expm1 fill floor floor_divide fmax fmin fmod ge gelu glu greater
greater_equal gt hardsigmoid hardswish hardtanh index_put isfinite isinf isnan le leaky_relu lerp
less less_equal log log10 log1p log2 log_sigmoid logical_and logical_not logical_or logical_xor
logit lt masked_fill maximum minimum mish mul multiply ne neg negative not_equal pow prelu
reciprocal relu relu6 remainder round rsqrt rsub selu sigmoid sign silu sin sinc sinh softplus
softshrink sqrt square squeeze sub subtract tan tanh threshold true_divide trunc unsqueeze where
zero xlogy feature_dropout alpha_dropout
"""
LAYERS = """
_native_batch_norm_legit _native_batch_norm_legit_no_training _softmax _log_softmax _weight_norm
adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d addbmm addmm addmv
avg_pool1d avg_pool2d baddbmm batch_norm bilinear bmm chain_matmul conv1d conv2d conv3d
conv_transpose1d conv_transpose2d conv_transpose3d convolution cosine_similarity dot einsum
embedding group_norm inner instance_norm layer_norm linear log_softmax matmul max_pool2d
max_pool2d_with_indices mm mv native_batch_norm native_dropout native_group_norm native_layer_norm
normalize outer rms_norm _fused_rms_norm scaled_dot_product_attention softmax vdot
"""
SHAPES = """
affine_grid_generator alias atleast_1d atleast_2d atleast_3d broadcast_tensors broadcast_to cat
channel_shuffle chunk clone col2im concat concatenate constant_pad_nd contiguous diagonal expand
expand_as flatten flip fliplr flipud gather grid_sampler grid_sampler_2d hstack im2col index
index_select lift_fresh_copy meshgrid movedim narrow numpy_T permute pad pixel_shuffle
pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave
replication_pad1d replication_pad2d replication_pad3d reshape reshape_as roll rot90 select
select_scatter slice slice_scatter split split_with_sizes stack swapaxes swapdims t tile
transpose tril triu unbind unflatten unsafe_chunk unsafe_split _unsafe_view upsample_bicubic2d
upsample_bilinear2d _upsample_bicubic2d_aa _upsample_bilinear2d_aa upsample_linear1d
upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d view view_as vstack
"""
REDUCTIONS = """
all amax amin any argmax argmin argsort frobenius_norm linalg_norm linalg_vector_norm logsumexp max
mean median min norm prod sort std std_mean sum topk var var_mean
"""
# Numbers that a program makes, casts, and what export writes about sizes.
CONSTANTS = """
_assert_async _assert_scalar _assert_tensor_metadata _to_copy arange bernoulli eye full full_like
item _local_scalar_dense linspace logspace new_full new_ones new_zeros normal_functional ones
ones_like rand rand_like randn randn_like scalar_tensor sym_constrain_range
sym_constrain_range_for_size sym_numel sym_size sym_stride to type_as zeros zeros_like
"""
IN_PLACE = frozenset(f"{name}_" for name in ELEMENTWISE.split())
NAMES = IN_PLACE.union(
    *(group.split() for group in (ELEMENTWISE, LAYERS, SHAPES, REDUCTIONS, CONSTANTS))
)
# An overload that writes into a given tensor (out) resizes it.
_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(?!(?:\w*_)?out\b)\w+")
# Operators of Python's numbers and of symbolic sizes; no powers and no shifts.
_NUMBERS = re.compile(
    r"_operator\.(?:add|sub|mul|floordiv|truediv|mod|neg|getitem|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|torch\.sym_(?:max|min|not|float|int|sum)|math\.(?:ceil|floor|trunc)"
)


def allowed(operator: str) -> bool:
    """Tell whether an operator, as a graph writes it (torch.ops.aten.add.Tensor), may run."""
    aten = _ATEN.fullmatch(operator)
    return aten[1] in NAMES if aten else _NUMBERS.fullmatch(operator) is not None
