//! From the model to resources: a pure function, one resource at a time.
