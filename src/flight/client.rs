//! The Flight SQL client of our own command line.
