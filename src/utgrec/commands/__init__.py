"""The commands of `utgrec`, by group; `utgrec.cli` puts them together.

A command reads its options, calls the library and returns an Answer. `frame` does what all of them
share: progress, messages, errors, exit codes, and printing the answer for a person or as JSON.
"""
