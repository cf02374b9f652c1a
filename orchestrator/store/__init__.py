"""Results as Parquet tables and queries over them."""
