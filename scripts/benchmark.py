"""What training, loading, evaluation and inference cost on this machine: `python -m srkit.tools benchmark` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["benchmark", *sys.argv[1:]]))
