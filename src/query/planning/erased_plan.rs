//! Stores a plan or a session state behind a trait object, to speed up compilation.
//!
//! If a future holds a plan or a session state across an await, the compiler must prove that the future is `Send`. The
//! compiler repeats this proof for each such future, and each time it visits the thousands of types in a SQL syntax
//! tree. With a trait object, it need not visit these types, so `cargo check` is several times faster.
//!
//! **Invariant:** an `ErasedPlan<T>` always holds a `T`.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// A shared `T` whose type is hidden from the compiler. An `ErasedPlan` is cheap to clone.
pub struct ErasedPlan<T> {
    value: Arc<dyn Any + Send + Sync>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Any + Send + Sync> ErasedPlan<T> {
    /// Stores `value` and erases its type.
    pub(crate) fn new(value: T) -> Self {
        Self { value: Arc::new(value), kind: PhantomData }
    }
}

impl<T: Any + Send + Sync> Deref for ErasedPlan<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.downcast_ref().expect("an ErasedPlan<T> always holds a T")
    }
}

impl<T> Clone for ErasedPlan<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), kind: PhantomData }
    }
}

impl<T: Any + Send + Sync + fmt::Debug> fmt::Debug for ErasedPlan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
