"""What things are called in a report."""

from __future__ import annotations

__all__ = ("GROUPS", "OPERATIONS", "PHASE_NAMES", "PHASE_WORDS")

PHASE_WORDS = {
    "queue": ("waits to begin", "an operation has arrived, and those before it are not done"),
    "turn": ("waits its turn", "the client holds a request back, at the pace that the door allows"),
    "name": ("name lookup", "the addresses of a server's name are looked up"),
    "tcp": ("TCP connect", "a connection is opened"),
    "tls": ("TLS handshake", "it is encrypted"),
    "door": ("door answers", "from a request to the head of the answer of a door or of an S3 service"),
    "mover": ("wait for mover", "from a request to the head of a pool's answer: until a mover runs"),
    "first_byte": ("first byte", "from the head of an answer to the first byte of its body"),
    "transfer": ("transfer", "the bytes themselves"),
    "commit": ("bytes made safe", "from the last byte sent to the server's word that they are safe"),
    "publish": ("publish", "a file that is complete gets its name, by a rename or the like"),
    "rest": ("client itself", "what is in none of these: the client's own time"),
}
"""What each phase of an operation is called, and what happens in it."""
PHASE_NAMES = {name: words for name, (words, _) in PHASE_WORDS.items()}
OPERATIONS = {
    "get": "read a file",
    "put": "write a file",
    "look": "is it there?",
    "exists": "is it there?",
    "exists_many": "are they there?",
    "walk": "list a directory tree",
    "delete": "remove files by one call",
    "remove_many": "remove files by one call",
    "remove": "remove a file",
    "rename": "rename a file",
    "mint": "mint a macaroon",
    "presign": "sign a URL",
    "header": "read a FITS header",
    "hdu": "read one HDU",
    "cutout": "read a cutout",
    "column": "read a Parquet column",
    "column_by_name": "read a Parquet column by fsspec",
    "member": "read a member of a zip file",
    "read_random": "read a piece",
    "read_vector": "read many pieces by one call",
    "read_scattered": "read scattered pieces",
    "read_sequential": "read through a file",
    "write_sequential": "write through a file",
    "mix": "a mix: one operation is all its steps",
}
"""What an operation does, by its name in a piece of work."""

GROUPS = {
    "whole files": "Files are read and written whole, each client with as many at a time as the row says.",
    "parts of files": "Pieces of large files: headers, images within images, columns, members. What matters "
    "is "
    "how few requests and bytes they take.",
    "names": "Operations in the name space, without bytes.",
    "mixes": "What a pipeline does: one operation is a whole mix of reads, writes and looks, such as "
    "one quantum.",
    "arrivals": "Operations arrive at a given rate, whether or not those before are done, as they do from "
    "a farm. Times count from when an operation should have begun, so that waiting is seen.",
    "concurrency": "The same work with more and more operations at a time.",
}
"""What is to be known of each kind of work."""
