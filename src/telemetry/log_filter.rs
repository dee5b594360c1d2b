//! What is logged, as something that can be changed while the process runs. The library installs
//! no subscriber: whoever does may hand in a handle to it.

/// Changes what is logged.
pub trait LogFilter: Send + Sync + 'static {
    /// The filter at present, as in "info,tunnelhead::shard=debug".
    fn filter(&self) -> String;

    /// Logs by this filter from now on.
    ///
    /// # Errors
    /// It is not a filter, in one sentence; nothing has changed.
    fn set_filter(&self, filter: &str) -> Result<(), String>;
}
