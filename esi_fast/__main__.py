"""``python -m esi_fast`` prints what is installed and what will run."""
