"""Rows of a hospital's database view, for those who offer no messages: read by polling, taken as rows of studies.

The view's columns are the fields of :mod:`fhir_mappings.hl7v2.row`; each row goes through the intake of all v2 messages.
"""
