"""Items → codes: backbone, quantiser, reconstruction, alignment, training, assignment, report.

Nothing is imported here, so that the command line starts without torch. `utgrec.ItemTokenizer` is
the public way in.
"""
