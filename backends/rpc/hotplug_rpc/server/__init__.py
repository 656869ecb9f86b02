"""The server: devices of this machine for clients elsewhere."""
