"""Other datasets' formats → the rows that training and evaluation read. Nothing else of the package imports this."""
