"""Find what stands in two parts of a split: `python -m srkit.tools check-split` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["check-split", *sys.argv[1:]]))
