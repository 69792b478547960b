"""A local page that shows what a model makes of a record.

``folder`` lists and reads what a folder holds and what was uploaded, ``describe`` says what there
is to say of a record, ``markup`` writes it down, and ``page`` wires the three to gradio.
"""
