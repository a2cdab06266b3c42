"""What a datastore needs, whatever the protocol: stat, list, read, write, publish, remove, in bulk."""
