//! One complaint about one place in a file, told as a compiler tells it.
