"""The provider's messages, parsed into types."""
