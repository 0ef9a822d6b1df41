"""Queries by HL7 v2 and their answers (HL7 v2.5 chapter 5; IHE ITI TF-2 ITI-9 PIX Query, ITI-21 Patient Demographics Query)."""
