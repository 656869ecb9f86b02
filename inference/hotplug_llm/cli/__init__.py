"""Commands that this distribution adds to `hotplug`: generate, chat, tokenize."""
