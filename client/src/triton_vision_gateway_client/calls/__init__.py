"""Requests and the parsing of their answers, one function per call. The only I/O is reading the files to send."""
