"""Everything that runs a model, behind the small protocols of ``protocols.py``."""
