"""Webhooks: alerts as JSON, POSTed to addresses that the operator has set and signed with a secret (RFC 9110, RFC 2104)."""
