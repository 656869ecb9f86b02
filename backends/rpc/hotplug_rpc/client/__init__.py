"""The client: devices of other machines as devices of this process."""
