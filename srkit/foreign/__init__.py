"""Other projects: arch files in BasicSR's manner, the architectures of the package spandrel, and files of weights."""
