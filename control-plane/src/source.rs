//! A source of configuration tells what users wrote, one consistent state after the other.
