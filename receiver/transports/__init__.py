"""WebSocket connections, in and out, behind one interface."""
