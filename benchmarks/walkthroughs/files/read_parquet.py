"""The embeddings of a Parquet file."""

import pandas as pd

table = pd.read_parquet("embeddings.parquet")
print(table.head())
