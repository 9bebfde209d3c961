//! The nouns of the mesh, and how they refer to each other.
