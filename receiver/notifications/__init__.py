"""What others are told of recordings and streams: webhooks, and commands of this machine."""
