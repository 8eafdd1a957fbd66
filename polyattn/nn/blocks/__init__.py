"""The papers' blocks, one file each."""
