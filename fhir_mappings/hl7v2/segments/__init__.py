"""HL7 v2 segments as tables: one file per segment, one row per field."""
