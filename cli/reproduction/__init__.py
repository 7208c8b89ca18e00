"""`mobj reproduce`: a paper's table, trained and measured again, cell by cell."""
