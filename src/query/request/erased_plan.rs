//! A value behind a trait object, to speed up compilation.
//!
//! The compiler must prove that every future that holds a plan or a session state across an await is `Send`. It repeats
//! this proof for each future, through the thousands of types of a SQL syntax tree. Behind a trait object the proof
//! takes one step, which makes checking the crate several times faster. **Invariant:** an `ErasedPlan<T>` only holds a
//! `T`.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// A shared `T` that is visibly `Send` and `Sync`. Cheap to clone.
pub struct ErasedPlan<T> {
    value: Arc<dyn Any + Send + Sync>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Any + Send + Sync> ErasedPlan<T> {
    /// Erases the type of `value`.
    pub(crate) fn new(value: T) -> Self {
        Self { value: Arc::new(value), kind: PhantomData }
    }
}

impl<T: Any + Send + Sync> Deref for ErasedPlan<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.downcast_ref().expect("an ErasedPlan<T> only holds a T")
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
