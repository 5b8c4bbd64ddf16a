"""Option files: read, checked without importing torch, and handed on as frozen values."""

from srkit.options.components import ComponentOptions, DatasetOptions, LossOptions, MetricOptions, NetworkOptions
from srkit.options.load import load_options
from srkit.options.schema import DistSection, LoggerSection, Options, PathSection, ValSection
from srkit.options.training import TrainSection

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
