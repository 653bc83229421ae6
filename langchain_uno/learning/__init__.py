"""The steps of the method as pure functions over records, one file each."""
