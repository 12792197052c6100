"""The link to Ray: GCS, head, reports, metrics. The only core code that imports Ray (docs/ray.md)."""
