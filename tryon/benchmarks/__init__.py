"""What a picture costs: the running server beside a bare asyncio client that does the same I/O.

``python -m tryon.benchmarks`` starts everything it needs on loopback and removes it again. Milliseconds depend on the
machine and on what else it does. The ratios are taken in turn in one run, and still move from run to run, since the
bare client takes so little: take several.
"""
