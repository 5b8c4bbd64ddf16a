"""Batch normalisation over the batches of all processes, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from srkit.losses.ranks import is_one_of_many, sum_over_ranks


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation whose means and variances are those of all ranks' samples together. Equal to torch's in
    evaluation and in a single process; the same keys in a state dict. Statistics are computed in fp32.

    Shape: (B, C, *S) to the same. B and S may differ between ranks. In training all ranks must call it.
    Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1, with the union of the ranks' batches as the batch.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch normalisation takes (B, C, *S), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and is_one_of_many()):
            return super().forward(input)
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.float()
            axes = [0, *range(2, x.ndim)]
            shape = [1, -1, *[1] * (x.ndim - 2)]
            number = x.new_full((1,), x.numel() / x.shape[1])
            total = sum_over_ranks(torch.cat([x.sum(axes), number]))
            count = total[-1].detach()
            mean = total[:-1] / count
            centred = x - mean.view(shape)
            variance = sum_over_ranks(centred.square().sum(axes)) / count
            self._remember(mean.detach(), variance.detach() * count / (count - 1))
            out = centred * (variance + self.eps).rsqrt().view(shape)
            if self.affine:
                out = out * self.weight.float().view(shape) + self.bias.float().view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        """Moves the running statistics, as torch does: with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean += share * (mean - self.running_mean)
        self.running_var += share * (unbiased_variance - self.running_var)


def share_batchnorm(network: nn.Module) -> int:
    """Puts `SharedBatchNorm` in the place of each batch normalisation inside a network, with its very parameters and
    buffers. Returns how many there were."""
    count = 0
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, SharedBatchNorm):
                setattr(module, name, _shared(child))
                count += 1
    return count


def _shared(plain: _BatchNorm) -> SharedBatchNorm:
    shared = SharedBatchNorm(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
    shared._parameters, shared._buffers = plain._parameters, plain._buffers
    return shared.train(plain.training)
