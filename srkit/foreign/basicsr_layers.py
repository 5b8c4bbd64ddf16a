"""What arch files of the BasicSR family take from `basicsr.archs.arch_util`, under the same names and state-dict keys.

Source: Wang et al., BasicSR 1.4.2 (github.com/XPixelGroup/BasicSR), whose behaviour these functions repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.errors import RefusedError

trunc_normal_ = nn.init.trunc_normal_
pixel_unshuffle = F.pixel_unshuffle


@torch.no_grad()
def default_init_weights(
    module_list: nn.Module | Iterable[nn.Module], scale: float = 1, bias_fill: float = 0, **kwargs: Any
) -> None:
    """He-normal weights times `scale` in every 2D convolution and linear layer; batch norms start as the identity.

    Args:
        bias_fill: What all biases start with, those of batch norms included.
        kwargs: Passed on to `nn.init.kaiming_normal_`.
    """
    roots = [module_list] if isinstance(module_list, nn.Module) else module_list
    for layer in (m for root in roots for m in root.modules()):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, **kwargs).mul_(scale)
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.ones_(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.constant_(layer.bias, bias_fill)


def make_layer(basic_block: Callable[..., nn.Module], num_basic_block: int, **kwarg: Any) -> nn.Sequential:
    """`num_basic_block` blocks in a row, each built with the same keyword arguments."""
    return nn.Sequential(*(basic_block(**kwarg) for _ in range(num_basic_block)))


class ResidualBlockNoBN(nn.Module):
    """`x + res_scale * conv2(relu(conv1(x)))`.

    Args:
        pytorch_init: Keep torch's initial weights; otherwise He-normal ones times 0.1, with zero biases.
    """

    def __init__(self, num_feat: int = 64, res_scale: float = 1, pytorch_init: bool = False) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = nn.Conv2d(num_feat, num_feat, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, kernel_size=3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        if not pytorch_init:
            default_init_weights([self.conv1, self.conv2], 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.relu(self.conv1(x))) * self.res_scale


class Upsample(nn.Sequential):
    """Enlarges features by convolutions and pixel shuffles: one step of 3, or steps of 2.

    Raises: ValueError for a scale that is neither 3 nor a power of two.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        if scale != 3 and (scale < 1 or scale & (scale - 1)):
            raise ValueError(f"Upsample: scale is {scale}; it enlarges by 3 or a power of two (2, 4, 8, ...)")
        layers: list[nn.Module] = []
        for step in [3] if scale == 3 else [2] * (scale.bit_length() - 1):
            layers += [nn.Conv2d(num_feat, step * step * num_feat, kernel_size=3, padding=1), nn.PixelShuffle(step)]
        super().__init__(*layers)


def flow_warp(
    x: Tensor,
    flow: Tensor,
    interp_mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = True,
) -> Tensor:
    """Looks up `x` at every pixel's own place plus its flow.

    Args:
        flow: Displacements in pixels, x before y.

    Shape: `x` (B, C, H, W), `flow` (B, H, W, 2) -> (B, C, H, W).
    Raises: ValueError when the sizes differ.
    """
    height, width = x.shape[-2:]
    if flow.shape[1:3] != x.shape[-2:]:
        raise ValueError(f"flow_warp: flow of {tuple(flow.shape[1:3])} for features of {(height, width)}")
    rows = torch.arange(height, device=x.device, dtype=flow.dtype).view(1, height, 1)
    columns = torch.arange(width, device=x.device, dtype=flow.dtype).view(1, 1, width)
    # -1 and 1 are the outermost pixels' centres, as align_corners has it.
    across = (columns + flow[..., 0]) * (2 / max(width - 1, 1)) - 1
    down = (rows + flow[..., 1]) * (2 / max(height - 1, 1)) - 1
    places = torch.stack([across, down], dim=-1).to(x.dtype)
    return F.grid_sample(x, places, mode=interp_mode, padding_mode=padding_mode, align_corners=align_corners)


def resize_flow(
    flow: Tensor,
    size_type: Literal["ratio", "shape"],
    sizes: Sequence[float],
    interp_mode: str = "bilinear",
    align_corners: bool = False,
) -> Tensor:
    """A flow field at another size, its displacements in pixels of that size.

    Args:
        size_type: Whether `sizes` are factors or the new height and width.

    Shape: (B, 2, H, W) -> (B, 2, H', W'), x before y in the second axis.
    Raises: ValueError for another `size_type`.
    """
    old = flow.shape[-2:]
    if size_type == "ratio":
        new = [int(side * factor) for side, factor in zip(old, sizes, strict=True)]
    elif size_type == "shape":
        new = [int(side) for side in sizes]
    else:
        raise ValueError(f"resize_flow: size_type is {size_type!r}, expected 'ratio' or 'shape'")
    growth = flow.new_tensor([new[1] / old[1], new[0] / old[0]]).view(1, 2, 1, 1)
    return F.interpolate(flow * growth, size=new, mode=interp_mode, align_corners=align_corners)


class DCNv2Pack(nn.Module):
    """Stands where BasicSR has a deformable convolution, so that a file with other networks beside it can be imported.

    Raises: RefusedError when a network tries to build one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RefusedError(
            "this network needs DCNv2Pack, a deformable convolution of BasicSR's compiled extensions, which srkit does not "
            "have; choose a network without it"
        )


def to_ntuple(count: int) -> Callable[[Any], Any]:
    """A function that repeats a single value `count` times and leaves what can be iterated over as it is."""
    return lambda value: value if isinstance(value, Iterable) else (value,) * count


to_1tuple, to_2tuple, to_3tuple, to_4tuple = (to_ntuple(count) for count in (1, 2, 3, 4))

__all__ = [
    "DCNv2Pack",
    "ResidualBlockNoBN",
    "Upsample",
    "default_init_weights",
    "flow_warp",
    "make_layer",
    "pixel_unshuffle",
    "resize_flow",
    "to_1tuple",
    "to_2tuple",
    "to_3tuple",
    "to_4tuple",
    "to_ntuple",
    "trunc_normal_",
]
