"""Pages and figures made from stored results: one HTML file to look at, crops for papers."""
