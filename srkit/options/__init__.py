"""Option files: read, checked without importing torch, and handed on as frozen values."""

from srkit.options.load import load_options
from srkit.options.schema import (
    ComponentOptions,
    DatasetOptions,
    DistSection,
    LoggerSection,
    LossOptions,
    MetricOptions,
    NetworkOptions,
    Options,
    PathSection,
    TrainSection,
    ValSection,
)

__all__ = [
    "ComponentOptions",
    "DatasetOptions",
    "DistSection",
    "LoggerSection",
    "LossOptions",
    "MetricOptions",
    "NetworkOptions",
    "Options",
    "PathSection",
    "TrainSection",
    "ValSection",
    "load_options",
]
