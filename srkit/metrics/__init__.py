"""Metrics on prepared arrays, the protocols that prepare them, and summaries of their values."""

from __future__ import annotations

from srkit.metrics.edges import EdgeF1, EdgePrecision, EdgeRecall
from srkit.metrics.errors import MAE, MSE, PSNR
from srkit.metrics.msssim import MSSSIM
from srkit.metrics.protocol import PROTOCOLS, Prepared, Protocol, custom_protocol, protocol_named
from srkit.metrics.ssim import SSIM
from srkit.metrics.summary import summarize

__all__ = [
    "MAE",
    "MSE",
    "MSSSIM",
    "PROTOCOLS",
    "PSNR",
    "SSIM",
    "EdgeF1",
    "EdgePrecision",
    "EdgeRecall",
    "Prepared",
    "Protocol",
    "custom_protocol",
    "protocol_named",
    "summarize",
]
