//! The scheduling priority of threads. Queries and merges run on threads with a lower priority than ingest and the
//! endpoints.

/// Lowers the priority of the calling thread, so that its nice value is `base` plus `steps`. The threads that it starts
/// inherit the priority. If the operating system refuses the change, the thread keeps its priority.
pub fn set_nice(base: i32, steps: i32) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: `setpriority` takes three integers and returns an error for invalid values.
        #[expect(
            unsafe_code,
            reason = "a C function without pointers; a crate with a safe wrapper would be one more dependency"
        )]
        let outcome = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, base + steps) };
        if outcome != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "cannot lower the priority of a thread");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (base, steps);
}

/// Returns the nice value of the calling thread. On Linux, each thread has its own nice value.
pub fn nice() -> i32 {
    // SAFETY: `getpriority` takes two integers, has no side effects, and cannot fail for the calling thread.
    #[cfg(target_os = "linux")]
    #[expect(
        unsafe_code,
        reason = "a C function without pointers; a crate with a safe wrapper would be one more dependency"
    )]
    return unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    #[cfg(not(target_os = "linux"))]
    0
}
