"""Doors, one per protocol; none knows another."""
