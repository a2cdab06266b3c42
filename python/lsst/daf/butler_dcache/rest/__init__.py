"""The REST interface of dCache's frontend."""
