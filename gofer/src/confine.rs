//! What a `runsc gofer` process does to itself before it serves.
