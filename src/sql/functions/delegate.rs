//! The macro [`delegate!`], for functions that wrap another function and change only some of its methods.

/// Implements methods of a trait by calling the methods of the same names on the field `inner`. The remaining methods
/// of the trait are either written by hand, or keep their default implementation.
macro_rules! delegate {
    ($(fn $method:ident(&self $(, $argument:ident: $kind:ty)*) -> $result:ty;)*) => {$(
        fn $method(&self $(, $argument: $kind)*) -> $result {
            self.inner.$method($($argument),*)
        }
    )*};
}

pub(super) use delegate;
