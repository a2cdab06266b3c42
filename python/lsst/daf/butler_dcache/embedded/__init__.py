"""A dCache in one process: WebDAV door, pools and REST frontend on loopback."""
