//! Build, run and stop, as ordered lists.
