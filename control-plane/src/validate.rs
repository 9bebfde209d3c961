//! What users wrote, as objects of the mesh, and every complaint about the rest.
