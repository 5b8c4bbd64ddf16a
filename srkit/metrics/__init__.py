"""Metrics on prepared arrays, the protocols that prepare them, and summaries of their values."""

from __future__ import annotations

from srkit.metrics.edges import EdgeF1, EdgePrecision, EdgeRecall
from srkit.metrics.errors import MAE, MSE, NRMSE, PSNR, LRConsistency
from srkit.metrics.msssim import MSSSIM
from srkit.metrics.protocol import PROTOCOLS, Prepared, Protocol, custom_protocol, protocol_named
from srkit.metrics.ssim import SSIM, SliceSSIM
from srkit.metrics.summary import summarize

__all__ = [
    "MAE",
    "MSE",
    "MSSSIM",
    "NRMSE",
    "PROTOCOLS",
    "PSNR",
    "SSIM",
    "EdgeF1",
    "EdgePrecision",
    "EdgeRecall",
    "LRConsistency",
    "Prepared",
    "Protocol",
    "SliceSSIM",
    "custom_protocol",
    "protocol_named",
    "summarize",
]
