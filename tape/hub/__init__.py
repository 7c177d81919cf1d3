"""Models by name, URL or ``s3://`` address: downloads and the cache. No torch."""
