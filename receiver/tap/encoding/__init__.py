"""What listeners get: samples, payloads or messages."""
