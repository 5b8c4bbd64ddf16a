"""Put tiles together again to pictures: `python -m srkit.tools join` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["join", *sys.argv[1:]]))
