"""The one place that states ProteinLM's version; pyproject.toml and the result files read it here."""

__version__ = "0.1.0"
