"""The report: evaluations found below directories, as tables, charts and one HTML page beside published numbers."""
