//! A value whose type the compiler does not look into.
//!
//! Every future that holds a plan or a session state across an await must be proven `Send`, and the compiler proves it anew
//! for each of them, through the thousands of types that a SQL syntax tree is made of. Behind a trait object the proof is one
//! step: the whole crate checks several times faster. **Invariant:** an `ErasedPlan<T>` is only ever made from a `T`.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// A shared `T` that is `Send` and `Sync` at first sight. Cheap to clone.
pub struct ErasedPlan<T> {
    value: Arc<dyn Any + Send + Sync>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Any + Send + Sync> ErasedPlan<T> {
    /// Hides `value`.
    pub(crate) fn new(value: T) -> Self {
        Self { value: Arc::new(value), kind: PhantomData }
    }
}

impl<T: Any + Send + Sync> Deref for ErasedPlan<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.downcast_ref().expect("an Opaque<T> is only ever made from a T")
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
