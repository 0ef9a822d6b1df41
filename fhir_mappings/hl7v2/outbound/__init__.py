"""FHIR to HL7 v2: messages for partners that speak nothing else."""
