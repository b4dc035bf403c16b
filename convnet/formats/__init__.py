"""Files of other programs' weights, read and written without those programs, and read without executing anything."""
