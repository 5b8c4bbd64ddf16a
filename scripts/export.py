"""A trained network for other programs (ONNX, TorchScript, safetensors, BasicSR): `srkit export` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["export", *sys.argv[1:]]))
