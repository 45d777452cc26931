"""Live listeners: the hub, their feeds and queues, and the past of a call."""
