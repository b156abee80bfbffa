"""A dataset's rows, read as training reads them and looked at before a GPU hour is spent."""
