"""Operations of a network, counted while it is tested."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from srkit.engine.timing import OperationCounter


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.last = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.heads(x, x, x)[0]) @ x.transpose(1, 2)


NETWORKS = {
    "pixel shuffle": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.PixelShuffle(2), nn.BatchNorm2d(2)), (1, 3, 16, 16)),
    "volume": (nn.Sequential(nn.Conv3d(1, 4, 3), nn.ConvTranspose3d(4, 2, 2, 2)), (2, 1, 9, 9, 9)),
    "attention": (Attention(), (2, 10, 16)),
}


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("name", NETWORKS)
def test_operations_are_those_that_torch_counts(name, mode):
    network, shape = NETWORKS[name]
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with mode(), OperationCounter() as ours:
        counted = network.eval()(x)
    with mode(), FlopCounterMode(display=False) as theirs:
        network(x)
    with mode():
        assert torch.equal(counted, network(x))
    assert ours.flops == theirs.get_total_flops() > 0


def test_counting_does_not_import_the_compiler_of_torch():
    code = (
        "import sys, torch; from srkit.engine.timing import OperationCounter; net = torch.nn.Conv2d(1, 1, 3)\n"
        "with torch.inference_mode(), OperationCounter() as counter: net(torch.zeros(1, 1, 3, 3))\n"
        "assert counter.flops == 18, counter.flops\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
