"""srkit: super-resolution training from option files. Importing it costs nothing; torch comes with the parts that need it."""

__version__ = "0.1.0"
