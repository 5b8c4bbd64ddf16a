"""Store a folder of pictures as an LMDB folder: `python -m srkit.tools lmdb` by another door."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from srkit.tools.__main__ import main

sys.exit(main(["lmdb", *sys.argv[1:]]))
