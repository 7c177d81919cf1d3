"""Entry point for tools that call setup.py; the package's metadata and contents are in pyproject.toml."""

from setuptools import setup

setup()
