"""The publisher's studio."""
