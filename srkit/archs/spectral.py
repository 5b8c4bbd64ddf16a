"""Convolutions whose kernel has spectral norm 1, for discriminators and the edge network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import without_autocast

_FIRST_STEPS = 15  # of power iteration, so that the norm is known before the first picture


class SpectralKernel(nn.Module):
    """What the layers below share: a kernel divided by its largest singular value, the kernel taken as out_ch rows.

    Its two singular vectors follow the kernel by one step of power iteration for each training forward; in eval mode they
    stay. The state dict has the names of `torch.nn.utils.spectral_norm`, whose files load: `weight_orig` (trained),
    `weight_u` and `weight_v`. Unlike there, the norm is computed in the type of the weights under autocast too (in bf16
    it would be wrong by up to 0.4 %), the vectors start near their ends, and the layer can be copied after a forward.

    Source: Miyato et al. 2018, arXiv:1802.05957, section 2 and algorithm 1.
    """

    output_axis = 0
    """Axis of the kernel that counts output channels."""

    if TYPE_CHECKING:
        weight_orig: nn.Parameter
        weight_u: Tensor
        weight_v: Tensor

    def _make_spectral(self) -> None:
        self.weight_orig = self._parameters.pop("weight")  # type: ignore[assignment]
        rows = self._rows()
        self.register_buffer("weight_u", F.normalize(torch.randn(rows.shape[0]), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(rows.shape[1]), dim=0))
        self.settle()

    def settle(self) -> None:
        """Brings the vectors near their ends for a kernel that was just filled."""
        self._approach(_FIRST_STEPS)

    def _rows(self) -> Tensor:
        return self.weight_orig.movedim(self.output_axis, 0).flatten(1)

    @torch.no_grad()
    def _approach(self, steps: int) -> None:
        """Brings the vectors nearer to the singular vectors of the kernel."""
        rows = self._rows()
        for _ in range(steps):
            self.weight_v.copy_(F.normalize(rows.T @ self.weight_u, dim=0))
            self.weight_u.copy_(F.normalize(rows @ self.weight_v, dim=0))

    def _kernel(self) -> Tensor:
        with without_autocast(self.weight_orig):
            if self.training:
                self._approach(1)
            # Copies, for the next forward changes the vectors while this one's backward still needs them.
            left, right = self.weight_u.clone(), self.weight_v.clone()
            return self.weight_orig / (left @ (self._rows() @ right))


class SpectralConv2d(SpectralKernel, nn.Conv2d):
    """A 2D convolution with such a kernel."""

    def __init__(
        self,
        in_ch: int,
        out_ch: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_ch, out_ch, kernel_size, stride, padding, dilation, bias=bias)
        self._make_spectral()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self._kernel(), self.bias, self.stride, self.padding, self.dilation)


class SpectralConvTranspose2d(SpectralKernel, nn.ConvTranspose2d):
    """A transposed 2D convolution with such a kernel, which is (in_ch, out_ch, height, width) there."""

    output_axis = 1

    def __init__(self, in_ch: int, out_ch: int, kernel_size: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(in_ch, out_ch, kernel_size, stride, padding)
        self._make_spectral()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.conv_transpose2d(x, self._kernel(), self.bias, self.stride, self.padding)  # type: ignore[arg-type]
