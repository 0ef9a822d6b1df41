"""HL7 v2 message structures: which segments make which resources."""
