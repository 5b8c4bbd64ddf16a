"""Networks written for other projects: arch files in BasicSR's manner, and the architectures of the package spandrel."""
