"""The workflows the hub runs: one declarative table per file, all checked when this package is imported."""
