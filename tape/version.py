"""The one place that states ProteinLM's version; setup.py and the result files read it here."""

__version__ = "0.1.0"
