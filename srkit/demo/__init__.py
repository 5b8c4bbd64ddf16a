"""The page of `srkit demo`: what it does with a file (`work`, `views`), how it looks (`page`), how it is served (`server`)."""
