"""The ``hub`` command: one file for each subject."""
