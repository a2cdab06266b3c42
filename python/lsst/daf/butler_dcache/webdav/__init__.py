"""The WebDAV protocol as doors and pools of dCache, XRootD and others speak it."""
